"""Direct preference optimisation with a whole model."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from alignment_models import LetterTemplate, LetterTokenizer, MeanModel, Watcher, a_config, a_job, alone, preferences
from corelm_alignment.dpo import DirectPreference
from corelm_alignment.pairs import render_answer, render_pairs
from hypothesis import given, settings
from hypothesis import strategies as st

from corelm.errors import UserError
from corelm.kinds import IGNORE, Batch, Message, Processes

RECORDS = preferences(("ab", "cd", "ef"), ("a", "abcdefg", ""), ("gh", "b", "cc"), ("ff", "a", "b"), ("c", "d", "e"))


def prepared(records: Any = RECORDS, batch: int = 2, policy: int = 1, reference: int = 2, **options: Any):
    models = {"policy": MeanModel(policy), "reference": MeanModel(reference)}
    job = a_job(models, records, batch)
    return alone(DirectPreference(a_config(DirectPreference, **options)).prepare(job)), job


def sequence_logprob(model: MeanModel, prompt: tuple[int, ...], answer: tuple[int, ...]) -> float:
    """Token by token, from the definition."""
    total = 0.0
    for place in range(len(answer)):
        ids = torch.tensor([prompt + answer[:place]])
        total += model.head(model.hidden(ids))[0, -1].log_softmax(-1)[answer[place]].item()
    return total


def same(one: Batch, other: Batch) -> bool:
    tensors = ["ids", "targets", "valid"]
    return all(torch.equal(getattr(one, t), getattr(other, t)) for t in tensors) and all(
        torch.equal(one.extra[name], other.extra[name]) for name in one.extra
    )


def test_rows_are_chosen_and_rejected_and_only_the_answer_with_its_stop_token_is_learnt():
    alignment, _ = prepared(RECORDS[:1], batch=1)
    batch = next(alignment.stream)
    template, tokenizer = LetterTemplate(), LetterTokenizer()
    prompt = template.prompt(RECORDS[0].prompt, tokenizer)
    for row, text in enumerate(["cd", "ef"]):
        answer = [*tokenizer.encode(text), 0]
        assert batch.ids[row].tolist() == [*prompt, *answer]
        expected = [IGNORE] * (len(prompt) - 1) + answer + [IGNORE]
        assert batch.targets[row].tolist() == expected


def test_earlier_answers_of_the_conversation_are_not_learnt():
    prompt = (Message("user", "a"), Message("assistant", "bcd"), Message("user", "e"))
    answer = render_answer(prompt, "fg", LetterTemplate(), LetterTokenizer())
    assert [token for token in answer.targets if token != IGNORE] == [*LetterTokenizer().encode("fg"), 0]


def test_the_loss_is_that_of_sequence_log_probabilities_from_the_definition():
    alignment, job = prepared(batch=5, beta=0.3)
    batch = next(alignment.stream)
    terms = alignment.objective.evaluate(job.models["policy"], batch)
    expected, accuracy = 0.0, 0
    for record in RECORDS:
        prompt = LetterTemplate().prompt(record.prompt, LetterTokenizer())
        both = [(*LetterTokenizer().encode(text), 0) for text in (record.chosen, record.rejected)]
        policy, reference = (
            [sequence_logprob(job.models[role], prompt, answer) for answer in both]
            for role in ("policy", "reference")
        )
        z = 0.3 * ((policy[0] - policy[1]) - (reference[0] - reference[1]))
        expected += math.log1p(math.exp(-z))
        accuracy += z > 0
    assert terms.total.item() == pytest.approx(expected, abs=1e-10)
    assert terms.sums["accuracy"].item() == accuracy
    assert alignment.objective.count(batch) == 5


def test_ipo_averages_over_the_answers_tokens():
    alignment, job = prepared(batch=5, beta=0.3, loss="ipo")
    batch = next(alignment.stream)
    found = alignment.objective.evaluate(job.models["policy"], batch).total.item()
    expected = 0.0
    for record in RECORDS:
        prompt = LetterTemplate().prompt(record.prompt, LetterTokenizer())
        both = [(*LetterTokenizer().encode(text), 0) for text in (record.chosen, record.rejected)]
        policy, reference = (
            [sequence_logprob(job.models[role], prompt, a) / len(a) for a in both] for role in ("policy", "reference")
        )
        expected += ((policy[0] - policy[1]) - (reference[0] - reference[1]) - 1 / 0.6) ** 2
    assert found == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("loss", "at_start"), [("sigmoid", math.log(2)), ("ipo", 1 / (4 * 0.1**2)), ("hinge", 1.0)])
def test_the_loss_starts_at_its_constant_where_policy_and_reference_are_alike(loss: str, at_start: float):
    alignment, job = prepared(policy=7, reference=7, beta=0.1, loss=loss)
    batch = next(alignment.stream)
    terms = alignment.objective.evaluate(job.models["policy"], batch)
    assert terms.total.item() / 2 == pytest.approx(at_start)


def test_only_positions_before_the_answers_tokens_have_a_gradient():
    alignment, job = prepared(batch=5)
    batch = next(alignment.stream)
    policy = job.models["policy"]
    hidden = policy.hidden(batch.ids, valid=batch.valid).detach().requires_grad_()
    alignment.objective.loss(alignment.objective.answer(policy, hidden, batch), batch).total.backward()
    touched = hidden.grad.abs().sum(-1) > 0
    assert torch.equal(touched, batch.targets != IGNORE)
    # Predicting the c tokens of an answer after a prompt of p: positions p − 1 … p + c − 2.
    for row, name in enumerate(batch.names):
        record = RECORDS[int(name.split()[1])]
        p = len(LetterTemplate().prompt(record.prompt, LetterTokenizer()))
        c = len(record.rejected if row % 2 else record.chosen) + 1
        assert touched[row].nonzero()[:, 0].tolist() == list(range(p - 1, p + c - 1))


def test_log_probabilities_of_answers_add_up_and_sum_to_one():
    model = MeanModel(4)
    prompt, first, second = (2, 5, 0, 1, 3), (4, 9), (6, 0)
    whole = sequence_logprob(model, prompt, first + second)
    assert whole == pytest.approx(
        sequence_logprob(model, prompt, first) + sequence_logprob(model, prompt + first, second)
    )
    ids = torch.tensor([prompt])
    every = [model.logprobs(ids, torch.tensor([[IGNORE] * 4 + [v]]))[0, -1].exp().item() for v in range(12)]
    assert sum(every) == pytest.approx(1.0)


def test_the_reference_is_bit_unchanged_in_evaluation_mode_and_without_gradient_after_training():
    models = {"policy": MeanModel(1, dropout=0.3), "reference": MeanModel(2, dropout=0.3)}
    models["reference"].train()
    before = copy.deepcopy(models["reference"].state_dict())
    alignment = alone(DirectPreference(a_config(DirectPreference)).prepare(a_job(models, RECORDS)))
    optimizer = torch.optim.SGD(alignment.trained.module.parameters(), lr=0.1)
    for _ in range(5):
        alignment.objective.evaluate(alignment.trained, next(alignment.stream)).total.backward()
        optimizer.step()
    assert not models["reference"].training
    assert all(torch.equal(before[name], tensor) for name, tensor in models["reference"].state_dict().items())
    assert all(parameter.grad is None for parameter in models["reference"].parameters())
    alike = next(iter(models["policy"].parameters()))
    assert alike.grad is not None


def test_the_reference_is_asked_once_per_pair():
    alignment, job = prepared(batch=5)
    calls = []
    original = job.models["reference"].logprobs
    job.models["reference"].logprobs = lambda *a, **k: calls.append(1) or original(*a, **k)
    for _ in range(4):
        next(alignment.stream)
    assert len(calls) == 1


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9), st.integers(1, 7))
def test_a_resumed_stream_yields_the_same_bits(drawn: int, batch: int):
    alignment, job = prepared(batch=batch)
    for _ in range(drawn):
        next(alignment.stream)
    state = copy.deepcopy(alignment.stream.state_dict())
    expected = [next(alignment.stream) for _ in range(6)]
    other, _ = prepared(batch=batch)
    other.stream.load_state_dict(state)
    assert all(same(one, next(other.stream)) for one in expected)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_batches_of_one(world: int):
    alone_, _ = prepared(batch=2)
    wanted = [next(alone_.stream) for _ in range(4 * world)]
    for rank in range(world):
        processes = Processes()
        processes.rank, processes.world = rank, world
        stream = prepared(batch=2)[0].streams(processes)
        for number in range(rank, 4 * world, world):
            batch = next(stream)
            assert batch.names == wanted[number].names
            torch.testing.assert_close(batch.extra["reference_sum"], wanted[number].extra["reference_sum"])


def test_every_epoch_is_another_permutation_of_all_pairs():
    alignment, _ = prepared(batch=1)
    names = [next(alignment.stream).names[0] for _ in range(15)]
    epochs = [tuple(names[i : i + 5]) for i in (0, 5, 10)]
    assert all(sorted(epoch) == sorted(record.name for record in RECORDS) for epoch in epochs)
    assert len(set(epochs)) > 1


def test_long_prompts_lose_the_same_beginning_in_both_rows_and_long_answers_leave_the_pair_out():
    watch = Watcher()
    records = preferences(("abcdefgh" * 2, "cd", "efgh"), ("a", "b" * 40, "c"), ("a", "b", "c"))
    pairs = render_pairs(records, LetterTemplate(), LetterTokenizer(), 12, watch)
    assert [pair.name for pair in pairs] == ["pair 0", "pair 2"]
    assert len(pairs[0].rejected.ids) == 12
    learnt = [next(i for i, t in enumerate(a.targets) if t != IGNORE) for a in (pairs[0].chosen, pairs[0].rejected)]
    assert learnt[0] == learnt[1]
    assert pairs[0].chosen.ids[: learnt[0] + 1] == pairs[0].rejected.ids[: learnt[0] + 1]
    assert [t for t in pairs[0].rejected.targets if t != IGNORE] == [*LetterTokenizer().encode("efgh"), 0]
    assert watch.notes == [
        "of 3 preference pairs 1 lost the beginning of their prompt and 1 were left out, because the model's context "
        "is 12 tokens"
    ]


def test_no_pair_that_fits_is_an_error():
    with pytest.raises(
        UserError, match="none of the 1 preference pairs fits into the model's context of 4"
    ) as caught:
        render_pairs(preferences(("a", "b" * 9, "c")), LetterTemplate(), LetterTokenizer(), 4, Watcher())
    assert caught.value.code == "no-preference-pairs"


def test_the_policy_can_not_be_its_own_reference():
    model = MeanModel(1)
    with pytest.raises(ValueError, match="open it a second time"):
        DirectPreference(a_config(DirectPreference)).prepare(a_job({"policy": model, "reference": model}, RECORDS))


def test_a_reference_with_another_vocabulary_is_refused():
    models = {"policy": MeanModel(1), "reference": MeanModel(2)}
    models["reference"].vocab_size = 13
    with pytest.raises(UserError, match=r"another vocabulary \(13 tokens\)"):
        DirectPreference(a_config(DirectPreference)).prepare(a_job(models, RECORDS))


def test_label_smoothing_belongs_to_the_sigmoid_loss():
    config = DirectPreference.Config(loss="hinge", label_smoothing=0.1)
    problems = list(DirectPreference.check(config, None))
    assert [(p.path, p.code) for p in problems] == [(("label_smoothing",), "label-smoothing-needs-sigmoid")]
    assert not list(DirectPreference.check(DirectPreference.Config(label_smoothing=0.1), None))


def test_training_makes_the_chosen_answers_likelier():
    alignment, job = prepared(policy=7, reference=7, batch=5, beta=0.5)
    optimizer = torch.optim.Adam(alignment.trained.module.parameters(), lr=0.02)
    first = last = None
    for _ in range(40):
        optimizer.zero_grad()
        terms = alignment.objective.evaluate(alignment.trained, next(alignment.stream))
        terms.total.backward()
        optimizer.step()
        first = terms.total.item() if first is None else first
        last = terms
    assert last.total.item() < 0.5 * first
    assert last.sums["accuracy"].item() == 5
    assert last.sums["reward_margin"].item() > 0
