"""Properties of quantizers: the maps that hold their codes, and models of such maps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor, nn

from corelm.conformance.bench import close, same_bits
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.laws.quantizer.bench import quantized
from corelm.conformance.tiny import Silent, spec_of, tiny
from corelm.kinds.batch import IGNORE, Batch
from corelm.kinds.block import Block
from corelm.kinds.parameters import Linear
from corelm.kinds.quantized_linear import QuantizedLinear
from corelm.kinds.quantizer import Statistics
from corelm.kinds.quantizing import quantize_model
from corelm.registration import active


@property_of(
    "quantizer",
    statement="A linear map that holds the codes computes what one with the dequantized weights does, by the first kernel "
    "that supports them, and is as small as it says, also after the disk.",
    formula="QuantizedLinear(codes)(x) = x Ŵᵀ + b; bytes = Σ ⌈n · bits/8⌉",
    catches="codes packed across rows, zero points that are lost, groups of another size, a slower kernel in silence",
    seen="GPTQModel#1294, nntrainer#4164",
    tier="num",
    tolerance="One product of float32 numbers: 4 · ε · |x| |Ŵ|ᵀ, as for kernels.",
    examples=18,
)
def serves_as_a_linear_map(part: PartUnderTest, draw: Draw) -> None:
    """Pack, multiply, save, load."""
    _, w, codes = quantized(part, draw)
    bias = draw.normal(len(w)).float() if draw.choice("bias", [True, False]) else None
    linear, x = QuantizedLinear.from_codes(codes, bias), draw.normal(3, w.shape[1]).float()
    held = linear.canonical()
    assert all(
        same_bits(getattr(held, name), getattr(codes, name)) for name in ("codes", "zero", "scale", "groups")
    ), "codes that were packed and unpacked are others"
    _first_kernel_serves(
        linear, codes, draw.choice("dtype", [torch.float32, torch.bfloat16]), draw.choice("rows", [1, 40])
    )
    weight = codes.dequantize(torch.float64)
    exact = x.double() @ weight.T + (0.0 if bias is None else bias.double())
    bound = x.double().abs() @ weight.abs().T + exact.abs()
    with torch.no_grad():
        y = linear(x)
    assert bool(((y.double() - exact).abs() <= 4 * torch.finfo(torch.float32).eps * bound + 1e-30).all()), (
        "the map computes something else than its dequantized weights"
    )
    again = QuantizedLinear(linear.outputs, linear.inputs, linear.facts)
    again.load_state_dict(read_tensors(write_tensors({k: v.clone() for k, v in linear.state_dict().items()})))
    with torch.no_grad():
        assert torch.equal(again(x), y), "after the disk it computes something else"
    saved = sum(tensor.nbytes for name, tensor in linear.state_dict().items() if name != "bias")
    assert linear.bits_per_weight == 8 * saved / w.numel(), (
        f"{saved} bytes are not {linear.bits_per_weight} bits a weight"
    )
    packed = -(-w.numel() * codes.bits // 8)
    assert linear.codes.numel() == packed, f"{linear.codes.numel()} bytes of codes, {packed} are declared"


def _first_kernel_serves(linear: QuantizedLinear, codes: Any, dtype: torch.dtype, rows: int) -> None:
    """The one of the highest priority that supports the codes; why those before it don't is kept."""
    cpu, answers = torch.device("cpu"), dict[str, str | None]()
    for record in sorted(active().parts("kernel"), key=lambda r: (-r.load().priority, r.qualified)):
        kernel: Any = record.load()(record.load().Config())
        answers[record.qualified] = kernel.supports(codes, dtype, cpu, rows)
        if answers[record.qualified] is None:
            break
    chosen = linear.kernel(dtype, cpu, rows)
    assert {**chosen.refused, chosen.name: None} == answers, f"{chosen.name} serves; in turn they say {answers}"


@property_of(
    "quantizer",
    statement="Of a model all matrices of its layers are replaced, each by the codes of its weights and of the inputs that it "
    "has once the layers before are quantized; what is told of it is so.",
    formula="map(W) = Q(W, 2/n · XᵀX), X the real tokens' inputs; kl = KL(before ∥ after), bytes = Σ bytes(map)",
    catches="statistics of padding, of one batch alone, or of a layer's own error; a router's map that is quantized, too",
    examples=4,
)
def models_are_quantized_in_order(part: PartUnderTest, draw: Draw) -> None:
    """Two layers, with experts or without; every map again, by its definition."""
    more: dict[str, Any] = draw.choice("model", [{}, {"feedforward": EXPERTS}])
    subject, model = part.bench.subject(part, draw), tiny(draw.seed(), layers=2, **more)
    batches = [_batch(draw, length) for length in (8, 5)]
    maps = {name: child for name, child in model.named_modules() if isinstance(child, Linear)}
    if any(subject.part.refuses(linear.outputs, linear.inputs) for linear in maps.values()):
        draw.reject()
    again, before, watch = copy.deepcopy(model), _answers(model, batches[0]), Silent()
    weights_before = {name: linear.weight.detach().clone() for name, linear in maps.items()}
    done = quantize_model(model, spec_of(part, subject.config), calibration=batches, watch=watch)
    found = {name: child for name, child in model.named_modules() if isinstance(child, QuantizedLinear)}
    wanted, inputs = _by_definition(again, subject.rebuild, batches)
    assert found.keys() == wanted.keys() == done.errors.keys(), f"quantized are {sorted(found)}, not {sorted(wanted)}"
    for name, linear in found.items():
        held, expected = linear.canonical(), wanted[name]
        assert same_bits([held.codes, held.scale, held.zero], [expected.codes, expected.scale, expected.zero]), (
            f"{name} has other codes than its weights and inputs give"
        )
        weight = weights_before[name]
        error = held.dequantize(torch.float64) - weight
        metric = torch.eye(linear.inputs, dtype=torch.float64) if name not in inputs else inputs[name]
        wrong, whole = (float(((m @ metric) * m).sum()) for m in (error, weight))
        close(
            torch.tensor(done.errors[name]),
            torch.tensor((wrong / whole) ** 0.5 if whole else 0.0),
            f"the error of {name}",
            1e-6,
        )
    after, told = _answers(model, batches[0]), done.figures
    assert told["maps"] == len(found) and watch.numbers[-1] == (len(found), len(found)), "maps are miscounted"
    saved = sum(t.nbytes for linear in found.values() for key, t in linear.state_dict().items() if key != "bias")
    weights = sum(linear.inputs * linear.outputs for linear in found.values())
    sizes = {"bytes_after": saved, "bits_per_weight": 8 * saved / weights, "bytes_before": 8 * weights}
    errors = list(done.errors.values())
    sizes |= {"mean_relative_error": sum(errors) / len(errors), "worst_relative_error": max(errors)}
    assert {name: told[name] for name in sizes} == sizes, f"told are {told}, found {sizes}"
    moved = {
        "kl": (before.exp() * (before - after)).sum(-1).mean(),
        "same_top_1": (before.argmax(-1) == after.argmax(-1)),
    }
    for name, value in moved.items():
        close(torch.tensor(told[name]), value.float().mean(), name, 1e-4)


EXPERTS: dict[str, Any] = {
    "use": "moe",
    "experts": 2,
    "expert": {"use": "mlp", "width": 8},
    "router": {"use": "top-k", "chosen": 1},
}
"""Their router has a map that is no matrix of weights to be made small."""


def _batch(draw: Draw, length: int) -> Batch:
    """Two rows, the second one padded."""
    ids = draw.ids(2, length, 258)
    valid = torch.ones(2, length, dtype=torch.bool)
    valid[1, -2:] = False
    return Batch(ids, torch.full_like(ids, IGNORE), valid=valid)


@torch.no_grad()
def _answers(model: Any, batch: Batch) -> Tensor:
    """Log-probabilities at the real tokens."""
    hidden = model.hidden(batch.ids, valid=batch.valid)
    return torch.log_softmax(model.head(hidden[batch.valid]).float(), -1)


@torch.no_grad()
def _by_definition(
    model: Any, build: Callable[[], Any], batches: Sequence[Batch]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Codes of every matrix of the layers, block by block, each by a quantizer of its own; and the Hessians for them."""
    found: dict[str, Any] = {}
    hessians: dict[str, Tensor] = {}
    for prefix, block in [(name, child) for name, child in model.named_modules() if isinstance(child, Block)]:
        maps = {
            f"{prefix}.{name}": child
            for name, child in block.named_modules()
            if isinstance(child, Linear) and child.__dict__["parameter_infos"]["weight"].role == "matrix"
        }
        inputs = _inputs(model, maps, batches) if type(build()).calibrated else {}
        for name, linear in maps.items():
            rows = inputs.get(name)
            statistics = None
            if rows is not None:
                hessians[name] = 2 * rows.T @ rows / max(len(rows), 1)
                statistics = Statistics(hessians[name], len(rows))
            found[name] = build().quantize(linear.weight, statistics)
        for name, linear in maps.items():
            model.set_submodule(name, QuantizedLinear.from_codes(found[name], linear.bias).eval())
    return found, hessians


def _inputs(model: Any, maps: Mapping[str, nn.Module], batches: Sequence[Batch]) -> dict[str, Tensor]:
    """What each map is given of real tokens, ``(tokens, inputs)``; of experts' rows all."""
    seen: dict[str, list[Tensor]] = {}
    for batch in batches:
        hooks = [
            child.register_forward_pre_hook(
                lambda _, given, name=name, valid=batch.valid: seen.setdefault(name, []).append(
                    given[0][valid] if given[0].shape[:-1] == valid.shape else given[0].flatten(0, -2)
                )
            )
            for name, child in maps.items()
        ]
        model.hidden(batch.ids, valid=batch.valid)
        for hook in hooks:
            hook.remove()
    return {name: torch.cat(rows) for name, rows in seen.items()}
