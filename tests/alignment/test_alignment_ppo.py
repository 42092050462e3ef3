"""Proximal policy optimisation with whole models."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from alignment_models import (
    GAP,
    STOP,
    LetterTemplate,
    LetterTokenizer,
    MeanModel,
    a_config,
    a_job,
    alone,
    conversations,
)
from corelm_alignment.experience import KlCoefficient, row_seed, up_to_stop
from corelm_alignment.ppo import ProximalPolicy, after_stop
from hypothesis import given, settings
from hypothesis import strategies as st

from corelm.conformance.laws.aligner import Threads
from corelm.errors import UserError
from corelm.kinds import IGNORE, Batch, Message, Processes, declared

PROMPTS = conversations("a", "bcd", "ef", "g", "hhhh")


def prepared(batch: int = 4, seed: int = 3, dropout: float = 0.0, reference: int = 2, **options: Any):
    models = {
        "policy": MeanModel(1, dropout=dropout),
        "reference": MeanModel(reference),
        "reward": MeanModel(5, "scalar"),
    }
    options = {"rollout": 6, "epochs": 2, "answer_tokens": 5, **options}
    job = a_job(models, PROMPTS, batch, seed)
    return alone(ProximalPolicy(a_config(ProximalPolicy, **options)).prepare(job)), job


def same(one: Batch, other: Batch) -> bool:
    tensors = ["ids", "targets", "valid"]
    return (
        one.extra.keys() == other.extra.keys()
        and all(torch.equal(getattr(one, t), getattr(other, t)) for t in tensors)
        and all(torch.equal(one.extra[name], other.extra[name]) for name in one.extra)
    )


def rows_of(experience: Any) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Prompt and answer of each row, read off the tensors."""
    rows = []
    for ids, targets in zip(experience.ids.tolist(), experience.targets.tolist(), strict=True):
        answer = tuple(t for t in targets if t != IGNORE)
        start = next(i for i, t in enumerate(targets) if t != IGNORE) + 1
        rows.append((tuple(ids[:start]), answer))
    return rows


def test_experience_is_what_the_models_say_of_each_answer_alone():
    alignment, job = prepared(whiten=False, kl=0.3, lam=1.0, gamma=1.0, missing_stop_penalty=0.7)
    next(alignment.stream)
    experience = alignment.stream.experience
    policy, reference, reward = (job.models[role] for role in ("policy", "reference", "reward"))
    ends = set()
    for row, (prompt, answer) in enumerate(rows_of(experience)):
        ids = torch.tensor([prompt + answer[:-1]])
        p = len(prompt)
        taken = [
            model.head(model.hidden(ids))[0, p - 1 :].log_softmax(-1)[range(len(answer)), list(answer)]
            for model in (policy, reference)
        ]
        stopped = answer[-1] == STOP
        ends.add(stopped)
        tail = (GAP,) if stopped else ()
        score = reward.scores(torch.tensor([prompt + answer + tail]))[0, 0].item() - (0 if stopped else 0.7)
        kl = (taken[0] - taken[1]).tolist()
        values = alignment.trained.value_head(alignment.trained.hidden(ids))[0, p - 1 :, 0].tolist()
        columns = slice(p - 1, p - 1 + len(answer))
        torch.testing.assert_close(experience.old_logprobs[row, columns], taken[0])
        torch.testing.assert_close(experience.kl[row, columns].tolist(), kl)
        torch.testing.assert_close(experience.old_values[row, columns].tolist(), values)
        to_go = [score - 0.3 * sum(kl[t:]) for t in range(len(answer))]
        torch.testing.assert_close(experience.returns[row, columns].tolist(), to_go)
        advantages = [g - v for g, v in zip(to_go, values, strict=True)]
        torch.testing.assert_close(experience.advantages[row, columns].tolist(), advantages)
        outside = experience.targets[row] == IGNORE
        for name in ("old_logprobs", "old_values", "advantages", "returns", "score"):
            assert not getattr(experience, name)[row][outside].any()
    assert ends == {True, False}, "the seed should give answers with and without an end"


def test_sampling_is_seeded_by_seed_rollout_and_row():
    alignment, job = prepared(batch=3, epochs=1)
    for _ in range(4):
        next(alignment.stream)
    seeds = [seed for call in job.models["policy"].generated for seed in call]
    assert seeds == [row_seed(3, rollout, row) for rollout in range(2) for row in range(6)]
    assert len(set(seeds)) == 12


def test_the_micro_batch_size_does_not_change_the_experience():
    one, _ = prepared(batch=1)
    other, _ = prepared(batch=6)
    next(one.stream), next(other.stream)
    for name in ("ids", "targets", "old_logprobs", "advantages", "returns"):
        torch.testing.assert_close(getattr(one.stream.experience, name), getattr(other.stream.experience, name))


def test_each_epoch_goes_through_the_whole_rollout_in_another_order():
    alignment, _ = prepared(batch=2, epochs=3)
    names = [name for _ in range(9) for name in next(alignment.stream).names]
    epochs = [tuple(names[i : i + 6]) for i in (0, 6, 12)]
    assert all(len(set(epoch)) == 6 for epoch in epochs)
    assert len(set(epochs)) > 1
    assert alignment.stream.rollouts == 1
    next(alignment.stream)
    assert alignment.stream.rollouts == 2


def test_rollouts_take_the_prompts_in_another_permutation_each_time_round():
    alignment, _ = prepared()
    stream, count = alignment.stream, len(PROMPTS)
    rounds = [tuple(stream.prompt(start + i) for i in range(count)) for start in range(0, 4 * count, count)]
    assert all(sorted(taken) == sorted(stream.plan.prompts) for taken in rounds)
    assert len(set(rounds)) > 1


def test_a_last_smaller_micro_batch_keeps_every_row():
    alignment, _ = prepared(batch=4, epochs=1)
    assert [len(next(alignment.stream).ids) for _ in range(4)] == [4, 2, 4, 2]


def train(alignment: Any, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    batch = next(alignment.stream)
    terms = alignment.objective.evaluate(alignment.trained, batch)
    (terms.total / alignment.objective.count(batch)).backward()
    optimizer.step()


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 7))
def test_a_run_that_is_killed_between_micro_batches_goes_on_to_the_same_bits(killed_after: int):
    def fresh():
        alignment, _ = prepared(batch=4, kl_target=0.5)
        return alignment, torch.optim.SGD(alignment.trained.module.parameters(), lr=0.05)

    whole, optimizer = fresh()
    for step in range(8):
        if step == killed_after:
            state = copy.deepcopy(
                {
                    "model": whole.trained.module.state_dict(),
                    "stream": whole.stream.state_dict(),
                    **{name: member.state_dict() for name, member in whole.members.items()},
                }
            )
        train(whole, optimizer)

    resumed, optimizer = fresh()
    resumed.trained.module.load_state_dict(state["model"])
    resumed.stream.load_state_dict(state["stream"])
    for name, member in resumed.members.items():
        member.load_state_dict(state[name])
    for _ in range(killed_after, 8):
        train(resumed, optimizer)
    wanted = whole.trained.module.state_dict()
    assert all(torch.equal(wanted[name], tensor) for name, tensor in resumed.trained.module.state_dict().items())
    assert whole.members["kl_coefficient"].value == resumed.members["kl_coefficient"].value
    assert whole.members["kl_coefficient"].value != 0.05
    assert same(next(whole.stream), next(resumed.stream))


@pytest.mark.parametrize(
    ("world", "options"),
    [
        (2, {"batch": 4}),  # rollouts of 2 × 2 micro-batches: every round is within one
        (2, {"batch": 2, "epochs": 1}),  # of 3: every other round is of two rollouts
        (3, {"batch": 6, "epochs": 1}),  # of 1: every round is of three
        (4, {"batch": 1, "rollout": 2}),  # fewer rows than processes
    ],
)
def test_processes_share_the_rollouts_of_one(world: int, options: dict[str, Any]):
    alone_, _ = prepared(kl_target=0.5, **options)
    wanted = [next(alone_.stream) for _ in range(3 * world)]
    counted: list[int] = []

    def work(processes: Processes) -> tuple[list[Batch], float]:
        alignment, job = prepared(kl_target=0.5, **options)
        stream = alignment.streams(processes)
        batches = [next(stream)]
        resumed = alignment.streams(processes)
        resumed.load_state_dict(copy.deepcopy(stream.state_dict()))
        batches += [next(resumed), next(resumed)]
        counted.extend(len(seeds) for seeds in job.models["policy"].generated)
        return batches, alignment.members["kl_coefficient"].value

    found = Threads(world).run(work)
    for number, batch in enumerate(wanted):
        assert same(found[number % world][0][number // world], batch), f"micro-batch {number}"
    # One process may not have come to a rollout that a round of several has taken, and the coefficient is of the last.
    assert len({value for _, value in found}) == 1
    gathered = -(-3 * world // (-(-options.get("rollout", 6) // options["batch"]) * options.get("epochs", 2)))
    assert sum(counted) == gathered * options.get("rollout", 6), "each prompt is answered by one process"


def test_the_state_is_tensors_and_plain_data():
    alignment, _ = prepared()
    assert alignment.stream.state_dict() == {"drawn": 0}
    next(alignment.stream)

    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(isinstance(k, str) and plain(v) for k, v in value.items())
        return isinstance(value, torch.Tensor | int | float | str)

    assert plain(alignment.stream.state_dict())
    assert plain(alignment.members["kl_coefficient"].state_dict())


def test_the_first_pass_has_ratio_one_so_its_gradient_is_minus_the_advantage():
    alignment, _ = prepared(batch=6, value_weight=0.0)
    batch = next(alignment.stream)
    mask = batch.targets != IGNORE
    answer = alignment.objective.answer(
        alignment.trained, alignment.trained.hidden(batch.ids, valid=batch.valid), batch
    )
    answer = answer.detach().requires_grad_()
    terms = alignment.objective.loss(answer, batch)
    terms.total.backward()
    torch.testing.assert_close(answer.grad[..., 0], torch.where(mask, -batch.extra["advantages"], 0.0))
    assert abs(batch.extra["advantages"][mask].mean().item()) < 1e-9
    assert alignment.objective.count(batch) == int(mask.sum())
    assert terms.sums["clipped"].item() == 0


def test_losses_of_micro_batches_add_up():
    small, _ = prepared(batch=2, epochs=1)
    large, _ = prepared(batch=6, epochs=1)
    for alignment in (small, large):
        next(alignment.stream)
        with torch.no_grad():
            for parameter in alignment.trained.module.parameters():
                parameter.mul_(1.05)
    parts = [small.stream.experience.rows(rows) for rows in ([0, 1], [2, 3], [4, 5])]
    total = sum(small.objective.evaluate(small.trained, part).total.item() for part in parts)
    whole = large.objective.evaluate(large.trained, large.stream.experience.rows(range(6))).total.item()
    assert total == pytest.approx(whole, rel=1e-10)


def test_positions_outside_the_answers_have_no_gradient():
    alignment, _ = prepared(batch=6)
    batch = next(alignment.stream)
    hidden = alignment.trained.hidden(batch.ids, valid=batch.valid).detach().requires_grad_()
    alignment.objective.loss(alignment.objective.answer(alignment.trained, hidden, batch), batch).total.backward()
    touched = hidden.grad.abs().sum(-1) > 0
    assert not touched[batch.targets == IGNORE].any()
    assert touched.any()


def test_policy_with_value_trains_both_heads_and_keeps_the_policys_names():
    alignment, job = prepared()
    policy = job.models["policy"]
    names = {name for name, _, _ in declared(alignment.trained.module)}
    assert names == {name for name, _, _ in declared(policy)} | {"value_head.map.weight"}
    alignment.objective.evaluate(alignment.trained, next(alignment.stream)).total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for _, p, _ in declared(alignment.trained.module))
    assert set(alignment.trained.module.state_dict()) == {*policy.state_dict(), "value_head.map.weight"}
    assert alignment.policy is policy
    assert not any("value" in name for name in policy.state_dict())
    assert alignment.trained.tokenizer is policy.tokenizer
    assert alignment.trained.head is policy.head
    with pytest.raises(AttributeError):
        _ = alignment.trained.no_such_thing


def test_rollouts_are_made_in_evaluation_mode_and_the_mode_comes_back():
    alignment, job = prepared(dropout=0.5)
    alignment.trained.train()
    batch = next(alignment.stream)
    assert alignment.trained.training
    assert job.models["policy"].training
    assert job.models["policy"].dropout.training
    assert not batch.extra["old_logprobs"].requires_grad
    again, _ = prepared(dropout=0.5)
    assert same(next(again.stream), batch)


def test_frozen_models_are_bit_unchanged_and_have_no_gradient():
    alignment, job = prepared()
    frozen = {role: copy.deepcopy(job.models[role].state_dict()) for role in ("reference", "reward")}
    optimizer = torch.optim.SGD(alignment.trained.module.parameters(), lr=0.1)
    for _ in range(6):
        train(alignment, optimizer)
    for role, before in frozen.items():
        model = job.models[role]
        assert not model.training
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())


def test_training_raises_the_reward():
    alignment, job = prepared(batch=32, rollout=32, epochs=2, kl=0.0, answer_tokens=4, value_weight=0.5)
    letter = LetterTokenizer().encode("c")[0]

    def scores(ids: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return ((ids == letter) & valid).sum(dim=1, keepdim=True).double()

    job.models["reward"].scores = scores
    optimizer = torch.optim.Adam(alignment.trained.module.parameters(), lr=0.03)
    rewards = []
    for _ in range(30):
        train(alignment, optimizer)
        experience = alignment.stream.experience
        rewards.append(experience.score.sum().item() / (experience.targets != IGNORE).sum().item())
    assert rewards[-1] > rewards[0] + 1


def test_the_coefficient_follows_the_target_within_bounds():
    coefficient = KlCoefficient(1.0, target=2.0)
    coefficient.update(2.0)
    assert coefficient.value == 1.0
    coefficient.update(200.0)
    assert coefficient.value == pytest.approx(1.02)
    coefficient.update(-5.0)
    assert coefficient.value == pytest.approx(1.02 * 0.98)
    fixed = KlCoefficient(0.3)
    fixed.update(9.0)
    assert fixed.value == 0.3


def test_the_kl_is_zero_where_the_policy_is_still_the_reference():
    alignment, _ = prepared(reference=1, kl_target=1.0)
    next(alignment.stream)
    assert not alignment.stream.experience.kl.any()
    assert alignment.members["kl_coefficient"].value == pytest.approx(0.05 * 0.98)


@pytest.mark.parametrize(
    ("row", "kept"), [([5, STOP, STOP], (5, STOP)), ([5, 6, 7], (5, 6, 7)), ([STOP, 5], (STOP,)), ([5], (5,))]
)
def test_an_answer_ends_with_its_first_stop_token(row: list[int], kept: tuple[int, ...]):
    assert up_to_stop(row, (STOP,)) == kept


def test_what_the_template_writes_after_the_stop_token_is_shown_to_the_reward_model():
    assert after_stop(LetterTemplate(), LetterTokenizer()) == (GAP,)


def test_long_prompts_lose_their_beginning_and_a_note_says_so():
    models = {"policy": MeanModel(1), "reference": MeanModel(2), "reward": MeanModel(5, "scalar")}
    job = a_job(models, conversations("a", "b" * 30))
    config = a_config(ProximalPolicy, rollout=2, epochs=1, answer_tokens=5)
    alignment = alone(ProximalPolicy(config).prepare(job))
    room = MeanModel.context - 1 - 5
    short, long = alignment.stream.plan.prompts
    whole = LetterTemplate().prompt((Message("user", "b" * 30),), LetterTokenizer())
    assert (len(short), long) == (5, whole[-room:])
    assert job.watch.notes == [f"1 of 2 prompts lost their beginning; only {room} tokens fit"]
    assert next(alignment.stream).ids.shape[1] <= MeanModel.context


@pytest.mark.parametrize(
    ("options", "records", "code"),
    [
        ({"answer_tokens": 23}, PROMPTS, "answer-fills-context"),
        ({"answer_tokens": 5}, [], "no-prompts"),
    ],
)
def test_what_can_not_work_is_said_before_anything_runs(options: dict[str, Any], records: Any, code: str):
    models = {"policy": MeanModel(1), "reference": MeanModel(2), "reward": MeanModel(5, "scalar")}
    with pytest.raises(UserError) as caught:
        ProximalPolicy(a_config(ProximalPolicy, **options)).prepare(a_job(models, records))
    assert caught.value.code == code
    assert caught.value.remedy


def test_a_language_model_can_not_be_the_judge():
    models = {"policy": MeanModel(1), "reference": MeanModel(2), "reward": MeanModel(5)}
    with pytest.raises(UserError, match="reads vocabulary, not a score"):
        ProximalPolicy(a_config(ProximalPolicy)).prepare(a_job(models, PROMPTS))
