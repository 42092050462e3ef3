"""The laws that all kinds share."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor, nn

from corelm.conformance import fresh
from corelm.conformance.bench import Bench, close, gap, leaves, same_bits
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.kinds.component import Spec
from corelm.kinds.parameters import declared
from corelm.registration import active

HASHED_KINDS = frozenset({"tokenizer", "cleaner", "packer", "template"})
"""Kinds in which sets and dicts are at work, so that a hash seed could show."""


def _not_module(part: PartUnderTest) -> str | None:
    return None if part.bench.module else f"parts of kind {part.kind} hold no tensors"


def _not_called(part: PartUnderTest) -> str | None:
    own = type(part.bench).call is not Bench.call
    return None if own else f"parts of kind {part.kind} are exercised by their own properties"


def excuse_module_call(part: PartUnderTest) -> str | None:
    """Says nothing about parts that are no modules, or that are never called."""
    return _not_module(part) or _not_called(part)


@property_of(
    "*",
    statement="Every config that the schema and the part's own check take can be built.",
    formula="schema ∧ check take c ⇒ part(c) is built",
    catches="a division by zero, a silent rounding, a combination of options that check() forgets",
    tier="io",
    examples=15,
    first=True,
)
def constructs(part: PartUnderTest, draw: Draw) -> None:
    """Draw and build."""
    part.bench.subject(part, draw)


@property_of(
    "*",
    statement="Different inputs can give different outputs.",
    formula="∃ x, x′: part(x) ≠ part(x′)",
    catches="a stub; everything else passes for a part that returns a constant",
    tolerance="10⁻⁶ is far above rounding in float64 and far below what inputs of size one change.",
    examples=1,
    excuse=_not_called,
    first=True,
)
def not_a_stub(part: PartUnderTest, draw: Draw) -> None:
    """Try several pairs of inputs."""
    if not part.bench.varies:
        raise NotApplicable(f"parts of kind {part.kind} may well ignore their input")
    for _ in range(8):
        subject = part.bench.subject(part, draw)
        first, second = (part.bench.call(subject, part.bench.inputs(subject, draw)) for _ in range(2))
        if gap(first, second) > 1e-6:
            return
    raise AssertionError("eight pairs of different inputs gave the same output")


@property_of(
    "*",
    statement="The summary in the registry is the first line of the class's docstring.",
    catches="a listing that says something else than the code",
    tier="io",
    examples=1,
)
def summary_is_docstring(part: PartUnderTest, draw: Draw) -> None:
    """Compare the two."""
    written = (inspect.getdoc(part.cls) or "").partition("\n")[0].rstrip(".")
    assert part.cls.__doc__ and written, f"{part.cls.__qualname__} has no docstring"
    if part.record is not None:
        registered = part.record.summary.rstrip(".")
        assert registered == written, f"registered as {registered!r}, but the docstring begins {written!r}"


@property_of(
    "*",
    statement="With the defaults written out that follow from its place, a config means the same part.",
    formula="settled(settled(c)) = settled(c), part(settled(c)) = part(c)",
    catches="a width that is settled otherwise than it is built, so that an exported model is another one",
    tier="bit",
    examples=10,
)
def settled_means_the_same(part: PartUnderTest, draw: Draw) -> None:
    """Settle, settle again, build from both."""
    subject = part.bench.subject(part, draw)
    settled = part.cls.settled(subject.config, subject.context)
    assert part.cls.settled(settled, subject.context) == settled, "what is settled is not settled"
    again = part.cls.Config.model_validate(settled.model_dump(mode="json", by_alias=True))
    assert again == settled, f"{settled!r} is no valid config, or another one: {again!r}"
    if settled == subject.config or not part.bench.module:
        return
    built = part.bench.make(part, settled, subject.arguments).to(torch.float64).eval()
    shapes = {name: tensor.shape for name, tensor in subject.part.state_dict().items()}
    assert {name: tensor.shape for name, tensor in built.state_dict().items()} == shapes, "other parameters"
    built.load_state_dict(subject.part.state_dict())
    if _not_called(part) is None:
        inputs = part.bench.inputs(subject, draw)
        other = replace(subject, part=built, config=settled)
        assert same_bits(part.bench.call(subject, inputs), part.bench.call(other, inputs)), "another result"


@property_of(
    "*",
    statement="A config survives the way to JSON and back, and every field is described.",
    formula="read(json(c)) = c",
    catches="a type that JSON can't say, a default that is changed on the way, an undocumented option",
    tier="bit",
    examples=10,
)
def config_round_trips(part: PartUnderTest, draw: Draw) -> None:
    """Dump, read, compare."""
    config = part.bench.subject(part, draw).config
    text = json.dumps(config.model_dump(mode="json", by_alias=True), allow_nan=False)
    again = part.cls.Config.model_validate(json.loads(text))
    assert again == config, f"came back as {again!r}, was {config!r}"
    for name, info in part.cls.Config.model_fields.items():
        assert info.description, f"the option {name!r} has no description"
    if part.record is not None:
        assert (
            Spec.read(part.kind, Spec(part.record, config).dump() | {"use": part.record.qualified}).config == config
        )


@property_of(
    "*",
    statement="Capabilities are declared as sets of words, needs as kind:capability.",
    catches="a capability that nobody can compare",
    tier="io",
    examples=5,
)
def capabilities_are_words(part: PartUnderTest, draw: Draw) -> None:
    """Look at offers and needs."""
    config = part.bench.subject(part, draw).config
    offers, needs = part.cls.offers(config), part.cls.needs(config)
    assert isinstance(offers, frozenset), f"offers() gave a {type(offers).__name__}, not a frozenset"
    assert isinstance(needs, frozenset), f"needs() gave a {type(needs).__name__}, not a frozenset"
    assert all(":" not in word for word in offers), f"offers() gave {sorted(offers)}: plain words, without a kind"
    for need in needs:
        assert need.partition(":")[0] in active().kinds, f"needs() gave {need!r}, which names no kind"


@property_of(
    "*",
    statement="The same config, parameters and inputs give the same bits, in a freshly built part too.",
    formula="part(x) = part(x), also of part built again",
    catches="dropout in evaluation, an unseeded draw, memory of earlier calls",
    tier="bit",
    examples=12,
    excuse=_not_called,
)
def deterministic(part: PartUnderTest, draw: Draw) -> None:
    """Call twice, build again, call again."""
    subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    first = _keep(part.bench.call(subject, inputs))
    second = _keep(part.bench.call(subject, inputs))
    assert same_bits(first, second), "two calls with the same inputs gave different results"
    subject.part = subject.rebuild()
    assert same_bits(first, part.bench.call(subject, inputs)), "a part built again gave different results"


@property_of(
    "*",
    statement="Inputs are as they were after a call, never written to in between; so are the global random states.",
    formula="x after part(x) = x before; so are all random states",
    catches="scaling in place, a seed set inside a part",
    tier="bit",
    examples=10,
    excuse=_not_called,
)
def pure(part: PartUnderTest, draw: Draw) -> None:
    """Compare the inputs before and after; the framework watches the random states."""
    subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    before, marks = _keep(inputs), _marks(inputs)
    part.bench.call(subject, inputs)
    assert same_bits(before, inputs), "an input was changed by the call"
    assert marks == _marks(inputs), "an input was written to by the call, or was given a gradient"


def _marks(value: Any) -> list[tuple[int, bool]]:
    """How often each tensor was written to, and whether it asks for a gradient."""
    return [(leaf._version, leaf.requires_grad) for leaf in leaves(value) if isinstance(leaf, Tensor)]


def _keep(value: Any) -> list[Any]:
    return [leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves(value)]


@property_of(
    "*",
    statement="A fresh process gives the same results, whatever its hash seed.",
    formula="part(x) under PYTHONHASHSEED 1 = part(x) under 2",
    catches="an order taken from a set, a choice by hash()",
    tier="bit",
    examples=1,
    excuse=lambda part: (
        _not_called(part)
        or (None if part.kind in HASHED_KINDS else f"no sets are at work in parts of kind {part.kind}")
    ),
    needs=("deterministic",),
)
def same_in_a_fresh_process(part: PartUnderTest, draw: Draw) -> None:
    """Run the same draws under two hash seeds, side by side."""
    where = part.record.target if part.record else f"{part.cls.__module__}:{part.cls.__qualname__}"
    first, second = fresh.digests(part.kind, where)
    assert first == second, "two processes with different hash seeds gave different results"


@property_of(
    "*",
    statement="Built on the meta device, the part has the same tensors by name and shape, and allocates nothing.",
    formula="names and shapes on meta = names and shapes on the CPU",
    catches="a table computed eagerly, a parameter whose shape depends on data",
    tier="bit",
    examples=8,
    excuse=_not_module,
)
def meta_construction(part: PartUnderTest, draw: Draw) -> None:
    """Build on meta and compare."""
    subject = part.bench.subject(part, draw)
    with torch.device("meta"):
        ghost: nn.Module = part.bench.make(part, subject.config, subject.arguments)
    real = {name: tuple(p.shape) for name, p in subject.part.named_parameters()}
    assert {name: tuple(p.shape) for name, p in ghost.named_parameters()} == real
    solid = [name for name, p in ghost.named_parameters() if p.device.type != "meta"]
    assert not solid, f"allocated under torch.device('meta'): {', '.join(solid)}"


@property_of(
    "*",
    statement="Every parameter has a declared role; biases begin at zero or at values of their own, gains at one (or at zero "
    "where they are distances from it), maps say their inputs.",
    catches="nn.Linear or nn.Parameter instead of Linear and declare, a bias that begins at one like a gain, a gain of −1",
    tier="io",
    examples=15,
    excuse=_not_module,
)
def roles_are_declared(part: PartUnderTest, draw: Draw) -> None:
    """Go through the declarations."""
    subject = part.bench.subject(part, draw)
    for name, parameter, info in declared(subject.part):
        assert info.stacked < max(1, parameter.dim()), f"{name} {tuple(parameter.shape)}: stacked={info.stacked}"
        if info.role in ("matrix", "router", "head") and info.constant is None and parameter.dim() >= 2:
            assert info.fan_in > 0, f"{name} of role {info.role} doesn't say how many inputs it sums"
            assert info.fan_in in parameter.shape, f"{name} {tuple(parameter.shape)} says fan_in={info.fan_in}"
        if info.role == "bias" and isinstance(info.constant, int | float):
            assert info.constant == 0, f"the bias {name} begins at {info.constant:g}"
        if info.role == "norm" and isinstance(info.constant, int | float):
            assert info.constant in (0, 1), f"the gain {name} begins at {info.constant:g}"


@property_of(
    "*",
    statement="Saved as safetensors and loaded into a fresh part, it gives the same bits.",
    formula="load(save(part))(x) = part(x)",
    catches="state outside of state_dict, a buffer that isn't saved, a down-cast",
    tier="bit",
    examples=8,
    excuse=excuse_module_call,
    needs=("deterministic",),
)
def saves_and_loads(part: PartUnderTest, draw: Draw) -> None:
    """Round trip through bytes."""
    subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    before = _keep(part.bench.call(subject, inputs))
    saved = write_tensors({k: v.contiguous().clone() for k, v in subject.part.state_dict().items()})
    fresh: nn.Module = part.bench.make(part, subject.config, subject.arguments)
    fresh.to(next((p.dtype for p in subject.part.parameters()), torch.float64)).eval()
    fresh.load_state_dict(read_tensors(saved))
    subject.part = fresh
    assert same_bits(before, part.bench.call(subject, inputs)), "the loaded part gives other results"


@property_of(
    "*",
    statement="The output has the dtype of the activations that went in.",
    formula="dtype(part(x)) = dtype(x)",
    catches="a float64 leak, a missing cast back",
    tier="bit",
    examples=8,
    excuse=lambda part: excuse_module_call(part) or _no_activations(part),
)
def dtype_is_kept(part: PartUnderTest, draw: Draw) -> None:
    """Run in each dtype."""
    dtype = draw.choice("dtype", [torch.bfloat16, torch.float32, torch.float64])
    subject = part.bench.subject(part, draw, dtype=dtype)
    inputs = part.bench.inputs(subject, draw)
    inputs = {k: v.to(dtype) if floating(v) else v for k, v in inputs.items()}
    for leaf in leaves(part.bench.call(subject, inputs)):
        if floating(leaf):
            assert leaf.dtype == dtype, f"{dtype} went in, {leaf.dtype} came out"


@property_of(
    "*",
    statement="Inputs that are not contiguous in memory give the same bits.",
    formula="part(x) = part(x.contiguous())",
    catches="view() on a transposed tensor",
    tier="bit",
    tolerance="Another layout may take another kernel, whose sums round apart in float64's last places.",
    examples=8,
    excuse=lambda part: excuse_module_call(part) or _no_activations(part),
    needs=("deterministic",),
)
def strides_do_not_matter(part: PartUnderTest, draw: Draw) -> None:
    """Interleave the inputs with garbage."""
    subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    spread = {k: _spread(v) if floating(v) else v for k, v in inputs.items()}
    close(part.bench.call(subject, inputs), part.bench.call(subject, spread), "contiguous and strided input", 1e-12)


def floating(value: Any) -> bool:
    """Whether it is a tensor of floating-point numbers."""
    return isinstance(value, Tensor) and value.is_floating_point()


def _spread(x: Tensor) -> Tensor:
    wide = torch.stack([x, torch.full_like(x, 7.0)], dim=-1)
    turned = wide.transpose(0, 1).contiguous().transpose(0, 1) if x.dim() > 1 else wide
    return turned[..., 0]


def _no_activations(part: PartUnderTest) -> str | None:
    return None if getattr(part.bench, "activations", True) else f"parts of kind {part.kind} take no activations"


@property_of(
    "*",
    statement="One row of one token works and gives what it gives among others.",
    formula="part(x)[:1, :1] = part(x[:1, :1])",
    catches="squeeze() of an axis of size one, statistics over the batch",
    examples=8,
    excuse=lambda part: excuse_module_call(part) or _no_activations(part),
    needs=("deterministic",),
)
def smallest_input(part: PartUnderTest, draw: Draw) -> None:
    """Cut the first row and token out."""
    subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    cut = {k: v[:1, :1] if isinstance(v, Tensor) and v.dim() >= 2 else v for k, v in inputs.items()}
    whole = [leaf[:1, :1] for leaf in leaves(part.bench.call(subject, inputs)) if floating(leaf) and leaf.dim() >= 2]
    alone = [leaf for leaf in leaves(part.bench.call(subject, cut)) if floating(leaf) and leaf.dim() >= 2]
    close(whole, alone, "the first token alone and among others")
