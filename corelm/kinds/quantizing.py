"""Quantizing a whole model: which maps, calibrated layer by layer, and the record that rebuilds it."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corelm.errors import Interrupted, UserError
from corelm.kinds.batch import Batch
from corelm.kinds.block import Block
from corelm.kinds.component import Spec
from corelm.kinds.language_model import LanguageModel
from corelm.kinds.parameters import Linear
from corelm.kinds.quantized_linear import QuantizedLinear
from corelm.kinds.quantizer import Codes, Quantizer, Statistics
from corelm.kinds.trainer import Watch

COMPARED_TOKENS = 2048
"""At most this many tokens are compared before and after."""


@dataclass
class Quantized:
    """What was done to a model.

    Attributes:
        record: plain data from which ``rebuild`` makes the same modules again, empty:
            ``{"quantizer": {use …}, "modules": {name: facts}}``; for the model's ``record_transform``.
        figures: for the table of stages: maps, bits per weight, bytes before and after, mean and worst relative
            error of a map's outputs, divergence from the model as it was.
        errors: relative error per module; of its outputs where there is calibration data, else of its weights.
        notes: what the quantizer had to tell, by module.
    """

    record: dict[str, Any]
    figures: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def quantize_model(
    model: LanguageModel,
    quantizer: Spec[Quantizer],
    *,
    targets: Sequence[str] = (),
    skip: Sequence[str] = (),
    calibration: Iterable[Batch] | None = None,
    watch: Watch,
) -> Quantized:
    """Replace linear maps of ``model`` by quantized ones, in place.

    Layers are done in order, each calibrated with what the layers before it yield once they are quantized. A
    layer's maps see the same pass, so a map isn't calibrated with the error of its own layer.

    Args:
        model: in evaluation mode.
        quantizer: the method.
        targets: patterns of module names (``*.feedforward.*``); none: every linear map of the layers.
        skip: patterns of those to leave as they are.
        calibration: batches to learn statistics from; required by methods that need them.
        watch: for progress and notes.

    Raises:
        UserError: a pattern matches nothing, a shape is refused, or calibration is missing.
    """
    part, batches = quantizer.build(), list(calibration or ())
    if part.calibrated and not batches:
        raise UserError(
            f"{quantizer.name} chooses codes by looking at data, but there is none",
            remedy="Give the stage calibration data, or use round-to-nearest.",
            code="calibration-missing",
        )
    linears = dict(chosen(model.module, targets, skip))
    _check_shapes(linears, part, quantizer.name)
    done = Quantized({"quantizer": quantizer.dump(), "modules": {}})
    before, size = _answers(model, batches), sum(_bytes(linear) for linear in linears.values())
    for block, names in _by_block(model.module, list(linears)):
        seen = _observe(model, block, {name: linears[name] for name in names}, batches) if part.calibrated else {}
        for name in names:
            if watch.stopping:
                raise Interrupted("stopped while quantizing", remedy="Run again to start this stage anew.")
            _quantize_one(model.module, name, linears[name], part, seen.get(name), done)
            if name in done.notes:
                watch.note(f"{name}: {done.notes[name]}")
            watch.step(len(done.errors), len(linears), {"relative_error": done.errors[name]})
    done.figures = _figures(model.module, done, size) | _divergence(before, _answers(model, batches))
    return done


def rebuild(module: nn.Module, record: Mapping[str, Any]) -> None:
    """Put empty quantized maps where the record says; their tensors are loaded afterwards."""
    for name, facts in record["modules"].items():
        linear = module.get_submodule(name)
        if not isinstance(linear, Linear):
            raise UserError(f"{name} is no linear map, but the model's record says that it is quantized")
        with torch.device(next(linear.parameters()).device):
            module.set_submodule(name, QuantizedLinear(linear.outputs, linear.inputs, facts))


def chosen(module: nn.Module, targets: Sequence[str] = (), skip: Sequence[str] = ()) -> Iterator[tuple[str, Linear]]:
    """Names and maps that the patterns choose, in module order; without targets all maps inside blocks.

    Raises:
        UserError: a pattern matches no linear map, or nothing is left.
    """
    known = {name: child for name, child in module.named_modules() if isinstance(child, Linear)}
    blocks = tuple(f"{name}." for name, child in module.named_modules() if isinstance(child, Block))
    for pattern in (*targets, *skip):
        if not fnmatch.filter(known, pattern):
            near = difflib.get_close_matches(pattern, list(known), 3, cutoff=0.3)
            raise UserError(
                f"the pattern {pattern!r} matches no linear map",
                remedy=f"Nearest names: {', '.join(near or list(known)[:3]) or 'none'}; '*' stands for any text.",
                code="pattern-matches-nothing",
            )
    left = 0
    for name, linear in known.items():
        inside = name.startswith(blocks) and linear.__dict__["parameter_infos"]["weight"].role == "matrix"
        wanted = any(fnmatch.fnmatchcase(name, pattern) for pattern in targets) if targets else inside
        if wanted and not any(fnmatch.fnmatchcase(name, pattern) for pattern in skip):
            left += 1
            yield name, linear
    if not left:
        raise UserError("no linear map is left to quantize", remedy="Skip less.", code="nothing-to-quantize")


def _check_shapes(linears: Mapping[str, Linear], part: Quantizer, use: str) -> None:
    for name, linear in linears.items():
        reason = part.refuses(linear.outputs, linear.inputs)
        if reason:
            raise UserError(f"{use} can't quantize {name}: {reason}", remedy=f"Skip it: skip: [{name}].")


def _by_block(module: nn.Module, names: list[str]) -> list[tuple[nn.Module | None, list[str]]]:
    """Names grouped by the block they are in, in order; maps outside of blocks come last, all together."""
    groups: list[tuple[nn.Module | None, list[str]]] = []
    rest = list(names)
    for prefix, block in module.named_modules():
        if isinstance(block, Block):
            inside = [name for name in rest if name.startswith(f"{prefix}.")]
            groups.append((block, inside))
            rest = [name for name in rest if name not in inside]
    groups.append((None, rest))
    return [group for group in groups if group[1]]


class _Enough(Exception):  # noqa: N818
    """The layers that matter have run."""


@torch.no_grad()
def _observe(
    model: LanguageModel, block: nn.Module | None, linears: Mapping[str, Linear], batches: Iterable[Batch]
) -> dict[str, Statistics]:
    """Run the batches as far as ``block`` (None: to the end) and gather statistics of the maps' inputs."""
    seen: dict[str, Statistics] = {}
    valid: Tensor | None = None

    def gather(name: str, x: Tensor) -> None:
        seen[name] = update(seen.get(name), real_rows(x, valid))

    def enough(*_: Any) -> None:
        raise _Enough

    hooks = [
        linear.register_forward_pre_hook(lambda _, args, name=name: gather(name, args[0]))
        for name, linear in linears.items()
    ]
    if block is not None:
        hooks.append(block.register_forward_hook(enough))
    try:
        for batch in batches:
            batch = batch.to(model.device)
            valid = batch.valid
            try:
                hidden = model.hidden(batch.ids, valid=batch.valid, documents=batch.documents)
                model.head(hidden[:, -1:])
            except _Enough:
                pass
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def real_rows(x: Tensor, valid: Tensor | None) -> Tensor:
    """Inputs of real tokens, ``(tokens, inputs)``; rows that a router has picked are all taken for real."""
    if valid is not None and x.shape[:-1] == valid.shape:
        return x[valid]
    return x.reshape(-1, x.shape[-1])


def update(statistics: Statistics | None, rows: Tensor) -> Statistics:
    """Take further inputs ``(tokens, inputs)`` into the running mean of ``2 x xᵀ``."""
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    if statistics is None:
        statistics = Statistics(rows.new_zeros(rows.shape[1], rows.shape[1]), 0)
    tokens = statistics.tokens + len(rows)
    if tokens:
        statistics.hessian *= statistics.tokens / tokens
        statistics.hessian.addmm_(rows.T, rows, alpha=2 / tokens)
    return Statistics(statistics.hessian, tokens)


@torch.no_grad()
def _quantize_one(
    module: nn.Module, name: str, linear: Linear, part: Quantizer, statistics: Statistics | None, done: Quantized
) -> None:
    try:
        codes = part.quantize(linear.weight, statistics)
    except UserError as error:
        raise UserError(f"{name}: {error.message}", remedy=error.remedy, code=error.code) from error
    replacement = QuantizedLinear.from_codes(codes, linear.bias)
    replacement.train(linear.training)
    module.set_submodule(name, replacement)
    done.record["modules"][name] = dict(replacement.facts)
    done.errors[name] = relative_error(linear.weight, codes, statistics)
    if codes.note:
        done.notes[name] = codes.note


def relative_error(weight: Tensor, codes: Codes, statistics: Statistics | None) -> float:
    """``‖(W − Ŵ) X‖ / ‖W X‖``, or ``‖W − Ŵ‖ / ‖W‖`` without statistics."""
    exact = weight.detach().to(torch.float64)
    error = codes.dequantize(torch.float64) - exact
    if statistics is None:
        wrong, whole = error.square().sum(), exact.square().sum()
    else:
        hessian = statistics.hessian.to(torch.float64)
        wrong, whole = ((error @ hessian) * error).sum(), ((exact @ hessian) * exact).sum()
    return float((wrong.clamp(min=0) / whole).sqrt()) if whole > 0 else 0.0


def _bytes(linear: Linear) -> int:
    return linear.weight.numel() * linear.weight.element_size()


def _figures(module: nn.Module, done: Quantized, before: int) -> dict[str, float]:
    replaced = [child for child in map(module.get_submodule, done.errors) if isinstance(child, QuantizedLinear)]
    weights = sum(linear.outputs * linear.inputs for linear in replaced)
    after = sum(linear.bits_per_weight * linear.outputs * linear.inputs for linear in replaced) / 8
    errors = list(done.errors.values())
    return {
        "maps": len(replaced),
        "bits_per_weight": 8 * after / weights,
        "bytes_before": before,
        "bytes_after": after,
        "mean_relative_error": sum(errors) / len(errors),
        "worst_relative_error": max(errors),
    }


@torch.no_grad()
def _answers(model: LanguageModel, batches: Sequence[Batch]) -> Tensor | None:
    """Log-probabilities ``(tokens, vocab)`` of the first calibration batch's real tokens, as far as they count."""
    if not batches or model.head.reads != "vocabulary":
        return None
    batch = batches[0].to(model.device)
    rows = max(1, COMPARED_TOKENS // batch.ids.shape[1])
    valid = None if batch.valid is None else batch.valid[:rows]
    documents = None if batch.documents is None else batch.documents[:rows]
    hidden = model.hidden(batch.ids[:rows], valid=valid, documents=documents)
    return F.log_softmax(model.head(real_rows(hidden, valid)[:COMPARED_TOKENS]).float(), dim=-1)


def _divergence(before: Tensor | None, after: Tensor | None) -> dict[str, float]:
    """How far the answers have moved: mean KL divergence, and how often the most likely token is the same."""
    if before is None or after is None:
        return {}
    same = (before.argmax(-1) == after.argmax(-1)).float().mean()
    return {
        "kl": float((before.exp() * (before - after)).sum(-1).mean()),
        "same_top_1": float(same),
    }
