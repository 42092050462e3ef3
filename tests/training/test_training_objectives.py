"""Objectives: sums over terms, gradients where there are targets, and the papers' formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from training_models import VOCABULARY, TinyModel, padded, rows

from corelm.errors import UserError
from corelm.kinds import IGNORE, Batch, Objective, Spec, Terms


def build(use: str, **options: Any) -> Objective:
    return Spec.read("objective", {"use": use, **options}).build()


def halves(batch: Batch, at: int) -> list[Batch]:
    return [
        Batch(
            batch.ids[part],
            batch.targets[part],
            batch.documents[part] if batch.documents is not None else None,
            batch.valid[part] if batch.valid is not None else None,
            {name: tensor[part] for name, tensor in batch.extra.items()},
            batch.names[part],
        )
        for part in (slice(0, at), slice(at, None))
    ]


def added(terms: list[Terms]) -> dict[str, float]:
    found: dict[str, float] = {}
    for term in terms:
        for name, value in {"total": term.total.detach(), **term.sums}.items():
            found[name] = found.get(name, 0.0) + float(value)
    return found


def labelled(seed: int) -> Batch:
    batch = padded(rows(6, seed))
    batch.extra["labels"] = torch.randint(-1, 3, (6,), generator=torch.Generator().manual_seed(seed))
    return batch


MAKERS = {
    "next-token": (lambda seed: padded(rows(6, seed)), VOCABULARY),
    "completion-only": (lambda seed: padded(rows(6, seed)), VOCABULARY),
    "classification": (labelled, 3),
    "pairwise-reward": (lambda seed: padded(rows(6, seed)), 1),
}


@pytest.mark.parametrize("use", MAKERS)
@given(seed=st.integers(0, 100), at=st.sampled_from([2, 4]))
@settings(max_examples=20, deadline=None)
def test_the_total_of_a_batch_is_the_sum_of_its_parts_totals(use, seed, at):
    make, outputs = MAKERS[use]
    model, objective, batch = TinyModel(seed, outputs=outputs), build(use), make(seed)
    whole = objective.evaluate(model, batch)
    parts = [objective.evaluate(model, part) for part in halves(batch, at)]
    assert added([whole]) == pytest.approx(added(parts), abs=1e-10)
    assert objective.count(batch) == sum(objective.count(part) for part in halves(batch, at))
    assert all(not value.requires_grad for value in whole.sums.values())


@pytest.mark.parametrize("use", ["next-token", "completion-only"])
@given(seed=st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_only_positions_with_a_target_have_a_gradient(use, seed):
    batch = padded(rows(4, seed), extra=2)
    batch.targets[:, ::2] = IGNORE
    objective = build(use)
    answer = torch.full(batch.ids.shape, -1.0, dtype=torch.float64, requires_grad=True)
    targets = objective.targets(batch) if use == "next-token" else batch.targets  # type: ignore[attr-defined]
    (gradient,) = torch.autograd.grad(objective.loss(answer, batch).total, answer)
    assert torch.equal(gradient != 0, targets != IGNORE)
    assert float(objective.loss(answer, batch).total.detach()) == objective.count(batch)
    assert objective.count(batch) == int((targets != IGNORE).sum())


@given(seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_next_token_puts_prompts_back_and_crosses_no_border(seed):
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCABULARY, (3, 8), generator=draw)
    documents = torch.randint(2, (3, 8), generator=draw).cumsum(1)
    valid = torch.arange(8) < torch.tensor([[8], [5], [3]])
    full = torch.full_like(ids, IGNORE)
    for row in range(3):
        for t in range(7):
            if documents[row, t] == documents[row, t + 1] and valid[row, t] and valid[row, t + 1]:
                full[row, t] = ids[row, t + 1]
    masked = torch.where(torch.rand(ids.shape, generator=draw) < 0.5, IGNORE, full)
    found = build("next-token").targets(Batch(ids, masked, documents, valid))  # type: ignore[attr-defined]
    assert torch.equal(found, full)


def test_a_target_beyond_the_last_column_is_kept():
    batch = Batch(torch.tensor([[1, 2, 3]]), torch.tensor([[2, IGNORE, 4]]))
    assert build("next-token").targets(batch).tolist() == [[2, 3, 4]]  # type: ignore[attr-defined]
    assert build("next-token").count(batch) == 3
    assert build("completion-only").count(batch) == 2


@given(seed=st.integers(0, 100))
@settings(max_examples=10, deadline=None)
def test_both_are_the_cross_entropy_of_their_targets(seed):
    model, batch = TinyModel(seed), padded(rows(4, seed))
    logits = model.head(model.hidden(batch.ids, valid=batch.valid)).transpose(1, 2)
    expected = torch.nn.functional.cross_entropy(logits, batch.targets, ignore_index=IGNORE, reduction="sum")
    for use in ("next-token", "completion-only"):
        assert abs(float((build(use).evaluate(model, batch).total - expected).detach())) < 1e-10


def reward(scores: list[float], **options: float) -> tuple[Tensor, Terms]:
    answer = torch.tensor(scores, dtype=torch.float64)[:, None].requires_grad_()
    batch = Batch(torch.zeros(len(scores), 1, dtype=torch.long), torch.full((len(scores), 1), IGNORE))
    return answer, build("pairwise-reward", **options).loss(answer, batch)


@given(
    st.lists(st.tuples(st.floats(-30, 30), st.floats(-30, 30)), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.5]),
    st.sampled_from([0.0, 0.01, 1.0]),
)
def test_the_reward_loss_is_its_formula(pairs, margin, centre):
    flat = [score for pair in pairs for score in pair]
    _, terms = reward(flat, margin=margin, centre=centre)
    expected = sum(math.log1p(math.exp(-(c - r - margin))) + centre * (c + r) ** 2 for c, r in pairs)
    assert float(terms.total.detach()) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert float(terms.sums["accuracy"]) == sum(1.0 if c > r else 0.5 if c == r else 0.0 for c, r in pairs)
    assert float(terms.sums["margin"]) == pytest.approx(sum(c - r for c, r in pairs), abs=1e-9)


@given(st.floats(-9, 9), st.floats(-9, 9), st.floats(-9, 9))
def test_without_centring_only_the_difference_of_rewards_counts(chosen, rejected, shift):
    _, one = reward([chosen, rejected], centre=0.0)
    _, other = reward([chosen + shift, rejected + shift], centre=0.0)
    assert abs(float((one.total - other.total).detach())) < 1e-9


@given(st.floats(-9, 9), st.floats(-9, 9))
def test_the_gradient_raises_the_chosen_and_lowers_the_rejected(chosen, rejected):
    answer, terms = reward([chosen, rejected], centre=0.0)
    (gradient,) = torch.autograd.grad(terms.total, answer)
    assert gradient[0, 0] < 0 < gradient[1, 0]
    assert abs(float(gradient.sum())) < 1e-12


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_rewards_stay_finite_in_low_precision(size):
    answer = torch.tensor([[size], [-size]], dtype=torch.bfloat16, requires_grad=True)
    terms = build("pairwise-reward", centre=0.0).loss(answer, padded(rows(2, 0)))
    terms.total.backward()
    assert terms.total.dtype == torch.float32
    assert bool(terms.total.isfinite()) and bool(answer.grad.isfinite().all())  # type: ignore[union-attr]


def test_half_a_pair_is_refused():
    with pytest.raises(UserError, match="a batch of 3 rows does not consist of pairs") as caught:
        build("pairwise-reward").count(padded(rows(3, 0)))
    assert caught.value.code == "pairs-incomplete"


def test_rows_without_a_label_count_nothing():
    batch = labelled(0)
    batch.extra["labels"] = torch.tensor([0, 1, 2, -1, -1, 0])
    objective, answer = build("classification"), torch.zeros(6, 3, dtype=torch.float64, requires_grad=True)
    terms = objective.loss(answer, batch)
    (gradient,) = torch.autograd.grad(terms.total, answer)
    assert objective.count(batch) == 4
    assert float(terms.total.detach()) == pytest.approx(4 * math.log(3))
    assert float(terms.sums["accuracy"]) == 2  # the first of equal logits is taken
    assert gradient[3:5].abs().sum() == 0 and (gradient[[0, 1, 2, 5]].abs().sum(1) > 0).all()


def test_a_batch_without_labels_is_named():
    with pytest.raises(UserError, match="no labels in the batch from document-0") as caught:
        build("classification").count(padded(rows(2, 0)))
    assert caught.value.code == "labels-missing"


@pytest.mark.parametrize("side", ["left", "right"])
def test_rewards_are_read_at_the_last_real_token(side):
    """Left and right padding agree, whatever the padding holds."""
    documents = [[1, 2, 3], [4, 5, 6, 1, 2], [3, 3], [2, 6, 0, 1]]
    model, width = TinyModel(outputs=1), 7
    ids, valid = torch.full((4, width), 6), torch.zeros(4, width, dtype=torch.bool)
    for row, document in enumerate(documents):
        at = slice(0, len(document)) if side == "right" else slice(width - len(document), width)
        ids[row, at], valid[row, at] = torch.tensor(document), True
    objective = build("pairwise-reward")
    expected = sum(float(objective.evaluate(model, padded(documents[i : i + 2])).total.detach()) for i in (0, 2))
    found = objective.evaluate(model, Batch(ids, torch.full_like(ids, IGNORE), valid=valid))
    assert float(found.total.detach()) == pytest.approx(expected, abs=1e-10)
