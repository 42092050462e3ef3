"""Aligners with assembled models, the plain trainer and its checkpoints."""

from __future__ import annotations

import copy
import string
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from alignment_models import Watcher, alone
from corelm_alignment.dpo import DirectPreference
from corelm_alignment.ppo import ProximalPolicy
from corelm_data.chatml import ChatTemplate
from corelm_tokenizers.bytes import ByteTokenizer

from corelm.kinds import (
    IGNORE,
    AlignmentJob,
    Conversation,
    Interrupted,
    Message,
    Preference,
    Spec,
    TrainingJob,
    declared,
)
from corelm.model.assemble import assemble, initialise
from corelm.model.config import ModelConfig

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PREFERENCES = [
    Preference((Message("user", a + b),), b + a, a, f"pair {a}{b}") for a, b in zip("abcdef", "uvwxyz", strict=True)
]
PROMPTS = [Conversation((Message("user", a * 3), Message("assistant", a)), a) for a in string.ascii_lowercase[:7]]


def a_model(seed: int, scalar: bool = False, dtype: torch.dtype = torch.float32) -> Any:
    section = {
        "dim": 16,
        "layers": 2,
        "context": 96,
        "position": "rope",
        "attention": {"use": "gqa", "heads": 2},
        "feedforward": {"use": "swiglu"},
    }
    tokenizer = ByteTokenizer(ByteTokenizer.Config())
    tokenizer.train([], SPECIALS)
    model = assemble(ModelConfig.model_validate(section), tokenizer.vocab_size)
    initialise(model, seed)
    model.attach(tokenizer, ChatTemplate(ChatTemplate.Config()))
    return (model.with_head(Spec.read("head", "scalar"), seed) if scalar else model).to(dtype)


def prepared(method: str, dtype: torch.dtype = torch.float32) -> Any:
    models = {"policy": a_model(1, dtype=dtype), "reference": a_model(1, dtype=dtype)}
    part: Any = DirectPreference(DirectPreference.Config(beta=0.5))
    if method == "ppo":
        models["reward"] = a_model(3, scalar=True, dtype=dtype)
        config = ProximalPolicy.Config(rollout=6, epochs=2, answer_tokens=5, kl_target=1.0, whiten=False)
        part = ProximalPolicy(config)
    records: Any = PROMPTS if method == "ppo" else PREFERENCES
    job = AlignmentJob(models, models["policy"].template, records, batch=2, steps=12, seed=5, watch=Watcher())
    return alone(part.prepare(job))


class Checkpoints:
    """In memory; due after every step."""

    def __init__(self) -> None:
        self.step = 0
        self.state: dict[str, Any] = {}

    def due(self, step: int) -> bool:
        return True

    def save(self, step: int, members: Mapping[str, Any]) -> None:
        self.step = step
        self.state = copy.deepcopy({name: member.state_dict() for name, member in members.items()})

    def restore(self, members: Mapping[str, Any]) -> int:
        for name, member in members.items() if self.state else ():
            member.load_state_dict(copy.deepcopy(self.state[name]))
        return self.step


class StopAt(Watcher):
    def __init__(self, last: int) -> None:
        self.last, self.now = last, 0
        self.notes = []

    def step(self, step: int, total: int, figures: Mapping[str, float]) -> None:
        self.now = step

    @property
    def stopping(self) -> bool:
        return self.now >= self.last


def train(alignment: Any, checkpoints: Checkpoints, watch: Any) -> Any:
    job = TrainingJob(
        model=alignment.trained,
        streams=alignment.streams,
        objective=alignment.objective,
        optimizer=Spec.read("optimizer", {"use": "adamw", "learning_rate": 0.01}),
        schedule=Spec.read("schedule", "constant"),
        steps=6,
        accumulate=2,
        checkpoints=checkpoints,
        watch=watch,
        members=alignment.members,
    )
    return Spec.read("trainer", {"use": "plain", "precision": "fp32"}).build().fit(job)


def weights(alignment: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor, _ in declared(alignment.trained.module)}


@pytest.mark.parametrize("method", ["dpo", "ppo"])
def test_killed_and_resumed_by_the_trainer_it_ends_with_the_same_bits(method: str):
    whole = prepared(method)
    start = weights(whole)
    train(whole, Checkpoints(), Watcher())
    for killed_at in (1,) if method == "dpo" else (4,):
        checkpoints = Checkpoints()
        with pytest.raises(Interrupted):
            train(prepared(method), checkpoints, StopAt(killed_at))
        assert 0 < checkpoints.step < 6
        resumed = prepared(method)
        train(resumed, checkpoints, Watcher())
        assert all(torch.equal(tensor, weights(resumed)[name]) for name, tensor in weights(whole).items())
    assert any(not torch.equal(tensor, start[name]) for name, tensor in weights(whole).items())
    assert not any("value_head" in name for name in whole.policy.state_dict())


@pytest.mark.parametrize("method", ["dpo", "ppo"])
def test_only_the_positions_that_predict_answers_have_a_gradient(method: str):
    alignment = prepared(method, torch.float64)
    batch = next(alignment.stream)
    held: list[torch.Tensor] = []
    model = alignment.trained
    hidden = model.hidden(batch.ids, valid=batch.valid)
    hidden.retain_grad()
    alignment.objective.loss(alignment.objective.answer(model, hidden, batch), batch).total.backward()
    held.append(hidden.grad)
    touched = held[0].abs().sum(-1) > 0
    assert torch.equal(touched, batch.targets != IGNORE)
    for name, parameter, _ in declared(model.module):
        assert parameter.grad is not None, name


def test_the_first_ppo_pass_has_the_ratio_one():
    alignment = prepared("ppo", torch.float64)
    batch = next(alignment.stream)
    answer = alignment.objective.answer(
        alignment.trained, alignment.trained.hidden(batch.ids, valid=batch.valid), batch
    )
    mask = batch.targets != IGNORE
    torch.testing.assert_close(answer[..., 0][mask], batch.extra["old_logprobs"][mask])
    torch.testing.assert_close(answer[..., 1][mask], batch.extra["old_values"][mask])
    assert not batch.extra["kl"][mask].abs().max() > 1e-9


def test_what_is_sampled_is_what_is_scored():
    """The log-probability of a sampled token is the one that the sampler drew it with, through the state."""
    alignment = prepared("ppo", torch.float64)
    next(alignment.stream)
    experience, policy = alignment.stream.experience, alignment.policy
    policy.eval()
    for row in range(6):
        learnt = (experience.targets[row] != IGNORE).nonzero()[:, 0].tolist()
        ids = experience.ids[row, : learnt[-1] + 1][None]
        logits = policy.logits(ids, cached=True)[0]
        for column in learnt:
            wanted = logits[column].log_softmax(-1)[experience.targets[row, column]]
            torch.testing.assert_close(experience.old_logprobs[row, column], wanted)


def test_the_default_config_names_parts_that_are_installed():
    config = ProximalPolicy.Config()
    assert [spec.name for spec in config.sampler] == ["temperature"]
    assert config.value.name == "scalar"
    assert Spec.read("aligner", "ppo").config == config
    assert Spec.read("aligner", {"use": "dpo", "beta": 0.2}).config.beta == 0.2


@pytest.mark.parametrize(
    ("recipe", "problems"), [({"model": {"context": 64}}, 1), ({"model": {"context": 65}}, 0), ({"model": {}}, 0)]
)
def test_answers_that_fill_the_context_are_refused_when_the_recipe_is_read(recipe: dict[str, Any], problems: int):
    for spec in (Spec.read("aligner", "ppo"), Spec.read("evaluator", "mean-reward")):
        found = list(spec.part.check(spec.config, recipe))
        assert [(p.path, p.code) for p in found] == [(("answer_tokens",), "answer-fills-context")] * problems
