"""Properties of adapters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject, close, initialise
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.tiny import spec_of, tiny
from corelm.kinds.adapting import adapt_model, additions, frozen, merge_model, rebuild
from corelm.kinds.parameters import Linear, declared

MINIMUM = 4
"""So many of these properties must say something about every part of the kind, and hold."""


class AdapterBench(Bench):
    """One linear map, wrapped."""

    kind = "adapter"
    observed = True

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """A map's seed and an input."""
        return {"seed": draw.seed(), "x": draw.normal(3, 6)}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Wrap, disturb the addition, apply."""
        return self._wrapped(subject, inputs)(inputs["x"])

    def reference(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """``reference(wrapped, x)`` is what the wrapped map computes."""
        return subject.part.reference(self._wrapped(subject, inputs), inputs["x"])

    def observe(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """In training too."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return [self.call(subject, inputs), self._wrapped(subject, inputs).train()(inputs["x"])]

    def _wrapped(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        wrapped = _wrap(subject.part, _linear(inputs["seed"]), inputs["seed"])
        _disturb(wrapped, inputs["seed"])
        return wrapped


def _linear(seed: int, *, bias: bool = True, dtype: torch.dtype = torch.float64) -> Linear:
    linear = Linear(6, 5, bias=bias)
    initialise(linear.to(dtype), seed, generic=True)
    return linear


def _wrap(adapter: Any, linear: Linear, seed: int) -> Any:
    return adapter.wrap(linear, "layers.0.attention.query", torch.Generator().manual_seed(seed % 2**62)).eval()


def _disturb(wrapped: Any, seed: int) -> None:
    """Give every trainable parameter a value, as training would."""
    generator = torch.Generator().manual_seed(seed % 2**62 + 1)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.3)


def _ready(part: PartUnderTest, draw: Draw) -> tuple[Any, Linear, Any, Tensor, int]:
    subject = part.bench.subject(part, draw)
    seed, bias = draw.seed(), draw.choice("bias", [True, False])
    linear = _linear(seed, bias=bias)
    return subject.part, _linear(seed, bias=bias), _wrap(subject.part, linear, seed), draw.normal(3, 6), seed


@property_of(
    "adapter",
    statement="At the start the wrapped map computes what it did before, to the bit.",
    formula="wrapped(x) = W x + b",
    catches="an addition that doesn't begin at zero",
    tier="bit",
)
def identity_at_the_start(part: PartUnderTest, draw: Draw) -> None:
    """Wrapped against bare."""
    _, bare, wrapped, x, _ = _ready(part, draw)
    assert torch.equal(wrapped(x), bare(x)), "the wrapped map computes something else from the start"


@property_of(
    "adapter",
    statement="merged() is one linear map that computes the same as the wrapped one.",
    formula="merged(x) = wrapped(x)",
    catches="a factor alpha/rank that is forgotten or applied twice, a transposed product",
)
def merged_equals_wrapped(part: PartUnderTest, draw: Draw) -> None:
    """After some training."""
    _, _, wrapped, x, seed = _ready(part, draw)
    _disturb(wrapped, seed)
    merged = wrapped.merged()
    assert isinstance(merged, Linear), f"merged() gives a {type(merged).__name__}"
    close(merged(x), wrapped(x), "merged and wrapped")
    close(wrapped.merged()(x), merged(x), "merged twice and once")


@property_of(
    "adapter",
    statement="Only the addition is trainable: the base has no gradient and never changes.",
    formula="∂/∂base = 0, ∂/∂added ≠ 0",
    catches="base weights in the optimizer",
    tier="bit",
)
def base_is_frozen(part: PartUnderTest, draw: Draw) -> None:
    """A backward pass and a step."""
    _, bare, wrapped, x, seed = _ready(part, draw)
    base = {id(p) for p in wrapped.base.parameters()}
    added = [p for p in wrapped.parameters() if id(p) not in base]
    assert added and all(p.requires_grad for p in added), "nothing is trainable"
    assert not any(p.requires_grad for p in wrapped.base.parameters()), "the base is trainable"
    _disturb(wrapped, seed)
    wrapped(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in added), "part of the addition has no gradient"
    for (name, mine), (_, old) in zip(wrapped.base.named_parameters(), bare.named_parameters(), strict=True):
        assert mine.grad is None and torch.equal(mine, old), f"{name} of the base has a gradient or changed"


@property_of(
    "adapter",
    statement="The addition's parameters have declared roles, the dtype of the map, and come from the generator alone.",
    formula="added(seed) = added(seed) ≠ added(seed + 1), dtype as the map",
    catches="bare parameters, the global generator, float32 beside bfloat16",
    tier="bit",
    examples=10,
)
def additions_are_declared(part: PartUnderTest, draw: Draw) -> None:
    """Two wraps of one seed, one of another; bfloat16."""
    adapter, _, wrapped, _, seed = _ready(part, draw)
    names = [name for name, _, _ in declared(wrapped)]
    assert any(not name.startswith("base.") for name in names), f"parameters {names}"
    again, other = (_wrap(adapter, _linear(seed), s) for s in (seed, seed + 1))
    mine = {n: p for n, p in wrapped.named_parameters() if not n.startswith("base.")}
    for name, parameter in again.named_parameters():
        if name in mine:
            assert torch.equal(parameter, mine[name]), f"{name} differs for the same generator"
    changed = any(n in mine and not torch.equal(p, mine[n]) for n, p in other.named_parameters())
    assert changed, "another generator gives the same addition"
    half = _wrap(adapter, _linear(seed, dtype=torch.bfloat16), seed)
    kinds = {p.dtype for p in half.parameters()}
    assert kinds == {torch.bfloat16}, f"a bfloat16 map was given parameters of {kinds}"


@property_of(
    "adapter",
    statement="Any leading axes will do, tokens don't mix.",
    formula="wrapped(PX) = P wrapped(X)",
    catches="a reshape that needs (batch, time)",
)
def tokenwise(part: PartUnderTest, draw: Draw) -> None:
    """Boxed, flat, permuted."""
    _, _, wrapped, _, seed = _ready(part, draw)
    _disturb(wrapped, seed)
    x, order = draw.normal(2, 4, 6), draw.permutation(4)
    y = wrapped(x)
    close(wrapped(x.flatten(0, 1)), y.flatten(0, 1), "flattened")
    close(wrapped(x[:, order]), y[:, order], "permuted tokens")


@property_of(
    "adapter",
    statement="The map inside may be adapted in turn: merged() is one map that computes the same as all of it.",
    formula="wrapped(x) = merged(x), base ← wrap(base)",
    catches="a second addition that is lost when the first one is merged",
    examples=6,
)
def bases_may_be_adapted_too(part: PartUnderTest, draw: Draw) -> None:
    """Wrap the base of what has been wrapped."""
    adapter, _, wrapped, x, seed = _ready(part, draw)
    wrapped.base = _wrap(adapter, wrapped.base, seed + 1)
    _disturb(wrapped, seed)
    merged = wrapped.merged()
    assert isinstance(merged, Linear), f"merged() gives a {type(merged).__name__}"
    close(merged(x), wrapped(x), "two additions merged, and on their own")


@property_of(
    "adapter",
    statement="A map without numbers, on the meta device, is wrapped without any: the same tensors, nothing drawn.",
    formula="names, shapes, types on meta = names, shapes, types on the CPU",
    catches="gigabytes of noise for a model that is only planned",
    tier="bit",
    examples=5,
)
def wraps_maps_without_numbers(part: PartUnderTest, draw: Draw) -> None:
    """On meta and on the CPU."""
    adapter, bare, wrapped, _, _ = _ready(part, draw)
    generator = draw.generator()
    before = generator.get_state()
    ghost = adapter.wrap(bare.to("meta"), "layers.0.attention.query", generator)
    solid = [name for name, p in ghost.named_parameters() if not p.is_meta]
    assert not solid, f"the map is on the meta device, and has numbers: {', '.join(solid)}"
    sizes = [[(name, tuple(p.shape), p.dtype) for name, p in one.named_parameters()] for one in (ghost, wrapped)]
    assert sizes[0] == sizes[1], f"{sizes[0]} on the meta device, {sizes[1]} on the CPU"
    assert torch.equal(generator.get_state(), before), "numbers were drawn for a map that has none"


@property_of(
    "adapter",
    statement="A part that takes a name of the field begins as that name means: lora's first factor is uniform in "
    "±1/√inputs, its second zero.",
    formula="A ~ U(−1/√n, 1/√n), B = 0",
    catches="noise of another size, with which a learning rate of the literature is another one; noise of one sign",
    tier="stat",
    tolerance="4096 draws or more: their deviation errs by 0.7 %, their mean by 1.6 % of it; six times that come once in 10⁸.",
    examples=3,
)
def begins_as_its_name_says(part: PartUnderTest, draw: Draw) -> None:
    """Hu et al., 2021, arXiv:2106.09685, with the bounds of their code."""
    if getattr(part.cls, "formula", part.name) != "lora":
        raise NotApplicable("its name promises no beginning")
    linear = Linear(4096, 5)
    initialise(linear, draw.seed(), generic=True)
    wrapped = _wrap(part.bench.subject(part, draw).part, linear, draw.seed())
    added = {name: (p.detach(), info) for name, p, info in declared(wrapped) if not name.startswith("base.")}
    for name, (values, info) in added.items():
        if info.constant is not None:
            assert not values.any(), f"{name} doesn't begin at zero"
            continue
        bound = info.fan_in**-0.5
        share = float(values.std()) / (bound / 3**0.5)
        assert float(values.abs().max()) <= bound, f"{name} begins beyond ±1/√{info.fan_in}"
        assert abs(share - 1) < 0.05, f"the deviation of {name} is {share:.2f} times that of U(±1/√{info.fan_in})"
        assert abs(float(values.mean())) < 0.1 * bound, f"{name} begins with a mean of {float(values.mean()):.3g}"


@property_of(
    "adapter",
    statement="A whole model gives the same with its maps wrapped, rebuilt, and merged; what is added and what is frozen "
    "is known by name, and every map has draws of its own.",
    formula="model(W ⊕ addition) = model(rebuilt) = model(merged); parameters of wrapped maps = additions ⊎ frozen",
    catches="a map whose role or bias is lost in merging, a map that is merged twice, one draw for maps of one shape",
    tolerance="A few layers of float64 products in another order.",
    examples=4,
)
def merges_in_a_model(part: PartUnderTest, draw: Draw) -> None:
    """Every map of a tiny model's layers."""
    subject, seed = part.bench.subject(part, draw), draw.seed()
    spec, model, bare = spec_of(part, subject.config), tiny(seed, vocab=20), tiny(seed, vocab=20)
    ids = draw.ids(2, 5, 20)
    before, plain = model.logits(ids), dict(model.named_parameters())
    record = adapt_model(model, spec, seed=seed)
    names = [n for n, child in bare.named_modules() if n.startswith("layers") and isinstance(child, Linear)]
    assert record["modules"] == names, f"wrapped are {record['modules']}, not {names}"
    assert torch.equal(model.logits(ids), before), "wrapped, the model answers otherwise from the start"
    _added_and_frozen(model, record, plain)
    _drawn_apart(additions(model, record), names)
    for name in names:
        _disturb(model.get_submodule(name), seed)
    wrapped = model.logits(ids)
    assert float((wrapped - before).abs().max()) > 1e-6, "the additions change no answer of the model"
    if part.record is not None:
        rebuild(bare, record)
        bare.load_state_dict(model.state_dict())
        assert torch.equal(bare.logits(ids), wrapped), "rebuilt from its record, the model answers otherwise"
    merge_model(model, record)
    left = [name for name in names if type(model.get_submodule(name)) is not Linear]
    assert not left, f"{left[:3]} are no linear maps once they are merged"
    close(model.logits(ids), wrapped, "merged and wrapped")


def _added_and_frozen(model: Any, record: Any, plain: Mapping[str, Tensor]) -> None:
    """What is in wrapped maps was there before, and is frozen, or was added."""
    known, added, base = {id(p) for p in plain.values()}, additions(model, record), frozen(model)
    wrapped = {n: p for n, p in model.named_parameters() if any(n.startswith(f"{m}.") for m in record["modules"])}
    assert added.keys() | base == wrapped.keys() and not added.keys() & base, "additions and frozen ones aren't all"
    wrong = [name for name, parameter in wrapped.items() if (id(parameter) in known) != (name in base)]
    assert not wrong, f"{wrong[:3]} are taken for the other"


def _drawn_apart(added: Mapping[str, Tensor], names: list[str]) -> None:
    """No two maps have the same draw."""
    drawn = [p for p in added.values() if p.numel() > 1 and float(p.std()) > 0]
    same = any(a.shape == b.shape and torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])
    assert not same, f"of {len(names)} maps two have the same draw"
