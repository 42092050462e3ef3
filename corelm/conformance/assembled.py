"""What every model that a recipe describes must do: train a step, survive the disk, decode as it computes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from corelm.kinds.batch import IGNORE, Batch
from corelm.kinds.component import Spec, use
from corelm.kinds.objective import Objective
from corelm.kinds.parameters import declared
from corelm.kinds.tokenizer import END_OF_TEXT
from corelm.model.assemble import assemble, initialise
from corelm.model.config import ModelConfig
from corelm.model.language_model import LanguageModel
from corelm.model.loading import load, save
from corelm.recipe.schema import RecipeConfig

ROWS, TIME, PROMPT, PADDED = 2, 9, 4, 3
"""Sizes of what models are tried on: rows, tokens (or the context, if that is less), tokens of a prompt, padding."""

TOLERANCE: Final = 1e-9
FITTING: Final = {"vocabulary": "next-token", "classes": "classification", "scalar": "pairwise-reward"}
"""What a head of each sort is trained on where the recipe doesn't say."""


def exercise(config: RecipeConfig, rows: int) -> None:
    """Put an accepted recipe's model to work.

    Args:
        config: the recipe.
        rows: of the embedding.

    Raises:
        AssertionError, Exception: what doesn't work.
    """
    assert isinstance(config.model, ModelConfig)
    model = assemble(config.model, rows)
    initialise(model, config.seed)
    if isinstance(config.tokenizer, Spec):
        tokenizer = config.tokenizer.build()
        tokenizer.train((), (END_OF_TEXT,))
        model.attach(tokenizer)
    generator = torch.Generator().manual_seed(config.seed)
    time = min(model.context, TIME)
    ids = torch.randint(model.vocab_size, (ROWS, time), generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        _train(model, config, ids)
    loaded = _reload(model, ids).double()
    # Beyond the length up to which its positions are constant, a model is not the same in several calls as in one.
    constant = time if model.constant_up_to is None else model.constant_up_to
    if constant >= time:
        _decode(loaded, ids)
        if all(any(rule.name == "documents" for rule in layer.mask) for layer in config.model.resolved()):
            _pack(loaded, ids)
    if model.head.reads == "vocabulary":
        _generate(loaded, ids[:, :PROMPT], model.context - PROMPT, constant >= 2 * PROMPT)
        # Generation runs in torch's inference mode: a part that keeps a tensor from there breaks what is trained next.
        loaded.hidden(ids).sum().backward()


def _train(model: LanguageModel, config: RecipeConfig, ids: Tensor) -> None:
    """One step of the recipe's own training, or of what fits the head."""
    options = next((node.spec.config for node in config.stages.values() if node.spec.part.uses_model), None)
    reads = model.head.reads
    objective = _chosen(options, "objective", FITTING[reads]).build()
    parameters = list(declared(model))
    optimizer = _chosen(options, "optimizer", "adamw").build(parameters)
    schedule = _chosen(options, "schedule", "constant").build()
    wanted = {"vocabulary": "logprobs", "classes": "classes", "scalar": "rewards"}[reads]
    assert objective.reads == wanted, f"the objective reads {objective.reads}, the head gives {reads}"
    batch = _batch(ids, objective, model.head.outputs)
    model.train()
    terms = objective.evaluate(model, batch)
    loss = terms.total / objective.count(batch)
    assert bool(loss.isfinite()), f"the loss is {loss.item()}"
    loss.backward()
    gradients = {name: parameter.grad for name, parameter, _ in parameters if parameter.grad is not None}
    assert gradients, "no parameter has a gradient"
    for name, gradient in gradients.items():
        assert bool(gradient.isfinite().all()), f"the gradient of {name} is not finite"
    optimizer.step(schedule.factor(1, 2))
    for name, parameter, _ in parameters:
        assert bool(parameter.isfinite().all()), f"{name} is not finite after a step"
    optimizer.zero_grad()
    model.eval()


def _chosen(options: Any, kind: str, otherwise: str) -> Spec[Any]:
    chosen = getattr(options, kind, None)
    return chosen if isinstance(chosen, Spec) else Spec.read(kind, use(otherwise))


def _batch(ids: Tensor, objective: Objective, outputs: int) -> Batch:
    """Two documents in a row for objectives that read tokens, padded rows with labels for the others."""
    targets = torch.full_like(ids, IGNORE)
    targets[:, :-1] = ids[:, 1:]
    column = torch.arange(ids.shape[1])
    cut = ids.shape[1] // 2
    if objective.reads == "logprobs":
        targets[:, cut - 1] = IGNORE
        return Batch(ids, targets, documents=(column >= cut).long().expand_as(ids))
    valid = torch.stack([column < ids.shape[1], column < cut])
    return Batch(ids, targets, valid=valid, extra={"labels": torch.arange(len(ids)) % outputs})


def _reload(model: LanguageModel, ids: Tensor) -> LanguageModel:
    """The model as it comes back from the disk, which answers the same to the last bit."""
    with tempfile.TemporaryDirectory() as folder:
        save(model, Path(folder) / "model")
        loaded = load(Path(folder) / "model")
    assert torch.equal(model.logits(ids), loaded.logits(ids)), "the saved model answers otherwise"
    return loaded


def _decode(model: LanguageModel, ids: Tensor) -> None:
    """Cached logits equal those of one pass, also with padding on the left, which changes nothing."""
    valid = torch.ones_like(ids, dtype=torch.bool)
    valid[1, :PADDED] = False
    for mask, what in ((None, ""), (valid, " with padding on the left")):
        full = model.logits(ids, mask)
        real = valid if mask is not None else torch.ones_like(valid)
        assert bool(full[real].isfinite().all()), f"logits are not finite{what}"
        for first in (1, PROMPT):
            _close(_continued(model, ids, mask, first)[real], full[real], f"cached logits differ{what}")
    alone = model.logits(ids[1:, PADDED:])
    _close(model.logits(ids, valid)[1:, PADDED:], alone, "a padded row differs from the row alone")


@torch.no_grad()
def _pack(model: LanguageModel, ids: Tensor) -> None:
    """Two documents in a row give what each gives alone."""
    cut = ids.shape[1] // 2
    documents = (torch.arange(ids.shape[1]) >= cut).long().expand_as(ids)
    packed = model.head(model.hidden(ids, documents=documents))
    _close(packed, torch.cat([model.logits(ids[:, :cut]), model.logits(ids[:, cut:])], 1), "packed documents differ")


@torch.no_grad()
def _continued(model: LanguageModel, ids: Tensor, valid: Tensor | None, first: int) -> Tensor:
    """Logits through the state: some tokens at once, then one by one."""
    state = model.new_state(len(ids))
    ends = [first, *range(first + 1, ids.shape[1] + 1)]
    pieces = [
        model.hidden(ids[:, start:end], valid=None if valid is None else valid[:, start:end], state=state)
        for start, end in zip([0, *ends], ends, strict=False)
    ]
    logits: Tensor = model.head(torch.cat(pieces, dim=1))
    return logits


def _close(a: Tensor, b: Tensor, what: str) -> None:
    error, scale = float((a - b).abs().max()), max(1.0, float(b.abs().max()))
    assert error <= TOLERANCE * scale, f"{what} by {error:.3g} of {scale:.3g}"


def _generate(model: LanguageModel, prompts: Tensor, room: int, same_at_once: bool) -> None:
    """Every generated token is the likeliest by one pass over the whole, prompts of different lengths included."""
    valid = torch.ones_like(prompts, dtype=torch.bool)
    valid[1, :2] = False
    new = model.generate_ids(prompts, valid=valid, max_new_tokens=min(room, PROMPT))
    if not same_at_once:
        return
    whole = torch.cat([prompts, new], dim=1)
    logits = model.logits(whole, torch.cat([valid, torch.ones_like(new, dtype=torch.bool)], dim=1))
    logits = logits[:, prompts.shape[1] - 1 : -1]
    _close(logits.gather(-1, new[..., None])[..., 0], logits.amax(-1), "a generated token is not the likeliest")
