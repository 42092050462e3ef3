"""The trainers' switches on an assembled model: compile, clip, precision; both trainers alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from training_models import Parts, Recorder, TinyModel, fit, job, padded, rows, trainers, values

from corelm.errors import UserError
from corelm.kinds import IGNORE, Batch
from corelm.model.assemble import assemble, initialise
from corelm.model.config import ModelConfig

SECTION = {
    "dim": 16,
    "layers": 2,
    "context": 12,
    "position": "rope",
    "mask": ["causal", "documents"],
    "attention": {"use": "gqa", "heads": 4, "kv_heads": 2},
    "feedforward": {"use": "swiglu", "width": 24},
    "block": {"use": "residual", "dropout": 0.1},
}


def assembled(dtype: torch.dtype) -> Any:
    model = assemble(ModelConfig.model_validate(SECTION), 17, dtype=dtype)
    initialise(model, 5)
    return model


def batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(17, (3, 12), generator=generator)
    documents = (torch.arange(12) >= torch.randint(2, 11, (3, 1), generator=generator)).long()
    targets = torch.cat([ids[:, 1:], torch.full((3, 1), IGNORE)], 1)
    targets[:, :-1][documents[:, 1:] != documents[:, :-1]] = IGNORE
    return Batch(ids, targets, documents)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_both_trainers_take_an_assembled_model_to_the_same_place(dtype, tolerance, optimizer):
    ends = {}
    for trainer in ("plain", "accelerate"):
        model, watch = assembled(dtype), Recorder()
        chosen = {"use": optimizer, "learning_rate": 1e-2}
        stream = Parts([batch(i) for i in range(4)])
        fit(trainer, job(model, lambda r, w, s=stream: s, accumulate=2, steps=6, optimizer=chosen, watch=watch))
        ends[trainer] = values(model)
        assert watch.trace()[-1] < watch.trace()[0]
    for name, tensor in ends["plain"].items():
        assert float((tensor - ends["accelerate"][name]).abs().max()) <= tolerance, name


@trainers
def test_the_compile_switch_compiles_what_is_evaluated(trainer, monkeypatch):
    calls: list[Any] = []

    def compiler(function: Any) -> Any:
        def compiled(*arguments: Any) -> Any:
            calls.append(function)
            return function(*arguments)

        return compiled

    monkeypatch.setattr(torch, "compile", compiler)
    switched, plainly = TinyModel(), TinyModel()
    for model, switch in ((plainly, False), (switched, True)):
        fit(trainer, job(model, lambda r, w: Parts([padded(rows(3, 0))]), steps=2, accumulate=2), compile=switch)
    assert len(calls) == 4
    assert all(torch.equal(tensor, values(switched)[name]) for name, tensor in values(plainly).items())


@trainers
def test_compiling_without_a_compiler_says_what_to_install(trainer, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="'no-such-compiler' is not installed") as caught:
        fit(trainer, job(TinyModel(), lambda r, w: Parts([padded(rows(3, 0))])), compile=True)
    assert caught.value.code == "compiler-missing" and "compile: false" in caught.value.remedy


def test_micro_batches_and_processes_are_seeded_on_the_device_in_use_alone(monkeypatch):
    """``torch.manual_seed`` would seed every accelerator of the machine."""
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("every device was seeded"))
    fit("plain", job(TinyModel(dropout=0.5), lambda r, w: Parts([padded(rows(3, 0))])))
