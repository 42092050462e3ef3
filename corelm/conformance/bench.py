"""How parts of each kind are built and exercised, so that the laws that all kinds share can be stated once."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from types import ModuleType
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

from corelm.conformance.framework import Draw, PartUnderTest
from corelm.conformance.strategies import draw_config
from corelm.errors import UserError
from corelm.kinds.carriers import LayerContext, ModelContext
from corelm.kinds.parameters import declared, fill
from corelm.registration import active

SHARED: Final = ("admission", "general", "gradients", "precision", "relations", "options", "metadata")
"""Modules with the laws that all kinds share."""


@cache
def recipe() -> dict[str, Any]:
    """What parts outside of a model are checked against: a resolved recipe."""
    from corelm.model.config import ModelConfig

    section = {"dim": 16, "layers": 1, "context": 64, "attention": {"use": "gqa", "heads": 2}}
    model = ModelConfig.model_validate({**section, "position": "rope", "feedforward": {"use": "swiglu", "width": 16}})
    return {"corelm": 1, "name": "kit", "seed": 0, "model": model.model_dump(mode="json"), "stages": {}}


@dataclass
class Subject:
    """A built part with what it was built from.

    Attributes:
        part: the built part.
        config, context: it was drawn and checked with.
        rebuild: builds it once more, with the same parameters.
    """

    part: Any
    config: Any
    context: Any
    arguments: tuple[Any, ...]
    rebuild: Callable[[], Any]
    extra: dict[str, Any] = field(default_factory=dict)


class Bench:
    """How the kit treats one kind; one subclass per kind, registered by its ``kind``.

    Attributes:
        kind: name of the kind.
        module: whether parts are ``torch.nn.Module``s.
        hints: values to choose from for config fields of these names.
        pins: values that config fields of these names always have here.
        varies: whether two different inputs must be able to give different outputs.
        observed: whether all that options change shows in ``observe``, for parts that are no modules.
    """

    kind: ClassVar[str] = ""
    module: ClassVar[bool] = False
    hints: Mapping[str, tuple[Any, ...]] = {}
    pins: ClassVar[Mapping[str, Any]] = {}
    varies: ClassVar[bool] = True
    prints: ClassVar[bool] = False
    observed: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        if cls.kind:
            _benches[cls.kind] = cls

    def context(self, draw: Draw) -> Any:
        """Sizes of the model around the part."""
        dim = draw.choice("dim", [16, 8, 32])
        return LayerContext(dim=dim, depth=2, context=32, vocab_size=24, index=draw.choice("layer", [0, 1]))

    def place(self, context: Any) -> Any:
        """What ``check`` is given: sizes of a model, or a resolved recipe for parts outside of models."""
        return context if self.module or self.kind in ("mask", "init", "scaling") else recipe()

    def arguments(self, part: PartUnderTest, config: Any, context: Any, draw: Draw) -> tuple[Any, ...]:
        """What follows the config when a part is built."""
        return ()

    def make(self, part: PartUnderTest, config: Any, arguments: tuple[Any, ...]) -> Any:
        """Build the part."""
        return part.cls(config, *arguments)

    def subject(
        self,
        part: PartUnderTest,
        draw: Draw,
        *,
        dtype: torch.dtype = torch.float64,
        generic: bool = True,
        **pins: Any,
    ) -> Subject:
        """Draw a config and build the part.

        Args:
            part: under test.
            draw: of the example.
            dtype: of the parameters.
            generic: draw constant parameters (gains, biases) as well, so that nothing hides behind a one or a zero.
            pins: config fields with a given value.
        """
        context = self.context(draw)
        config = draw_config(part.cls, draw, self.place(context), pins={**self.pins, **pins}, hints=self.hints)
        arguments = self.arguments(part, config, context, draw)
        seed = draw.seed()

        def rebuild() -> Any:
            built = self.make(part, config, arguments)
            if isinstance(built, nn.Module):
                initialise(built.to(dtype), seed, generic=generic).eval()
            return built

        try:
            built = rebuild()
        except UserError as refusal:  # a clear refusal, with what only the builder knows, is no crash
            draw.note("rejected", refusal.message)
            draw.reject()
        return Subject(built, config, context, arguments, rebuild)

    def idle(self, subject: Subject) -> set[str]:
        """Parameters that rightly receive no gradient under this config."""
        return set()

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """Draw inputs for ``call``."""
        raise NotImplementedError

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Use the part as its kind's contract says; returns tensors and plain data, nested as you like."""
        raise NotImplementedError

    def program(self, subject: Subject, inputs: dict[str, Any]) -> Callable[[], Any]:
        """``call`` with everything done that isn't the part's own work: what a compiler is given."""
        return lambda: self.call(subject, inputs)

    def observe(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """What an option may change: the result, and for modules that in training too."""
        found = [self.call(subject, inputs)]
        if isinstance(subject.part, nn.Module):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                subject.part.train()
                found.append(self.call(subject, inputs))
                subject.part.eval()
        return found

    def reference(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """What the part's own ``reference`` says of these inputs, nested like the result of ``call``."""
        return subject.part.reference(*inputs.values())


_benches: dict[str, type[Bench]] = {}


@cache
def bench_of(kind: str) -> Bench:
    """The bench of a kind, from the module that holds its properties."""
    load_kind(kind)
    return _benches.get(kind, Bench)()


@cache
def load_kind(kind: str) -> bool:
    """Import the module with the properties of a kind; False where there is none.

    A kind that a plugin brings names its module in the attribute ``conformance`` of its base class.
    """
    for shared in SHARED:
        importlib.import_module(f"corelm.conformance.{shared}")
    return module_of(kind) is not None


def module_of(kind: str) -> ModuleType | None:
    """The module with the properties of a kind, imported; None where there is none."""
    known = active().kinds.get(kind)
    if known and known.distribution != "corelm":
        name = getattr(known.load(), "conformance", "")
        return importlib.import_module(name) if name else None
    name = f"corelm.conformance.laws.{kind}"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def initialise(module: nn.Module, seed: int, *, generic: bool) -> nn.Module:
    """Give every declared parameter a value, by name; gains stay near one and biases near zero."""
    with torch.no_grad():
        for name, parameter, info in declared(module):
            generator = torch.Generator().manual_seed(_mix(seed, name))
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if info.constant is not None:
                fill(parameter, info.constant)
                value = parameter + (0.3 * noise if generic else 0 * noise)
            else:
                value = noise * (info.fan_in or parameter.shape[-1] if parameter.dim() else 1) ** -0.5
            parameter.copy_(value.to(parameter.dtype))
    return module


def moved(value: Any, device: torch.device | str) -> Any:
    """The same inputs with all tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    return {key: moved(item, device) for key, item in value.items()} if isinstance(value, Mapping) else value


def _mix(seed: int, name: str) -> int:
    total = seed
    for character in name:
        total = (total * 1_000_003 + ord(character)) % (2**61 - 1)
    return total


def leaves(value: Any) -> list[Any]:
    """Tensors and plain values inside nested lists, tuples, dicts and dataclasses, in order."""
    if isinstance(value, Mapping):
        return [leaf for key in value for leaf in leaves(value[key])]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    if is_dataclass(value) and not isinstance(value, type):
        return [leaf for item in fields(value) for leaf in leaves(getattr(value, item.name))]
    if isinstance(value, torch.Tensor):
        return [value]
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return [torch.as_tensor(value)]
    return [value]


def same_bits(a: Any, b: Any) -> bool:
    """Whether two nested results are equal to the last bit."""
    left, right = leaves(a), leaves(b)
    return len(left) == len(right) and all(_same(x, y) for x, y in zip(left, right, strict=True))


def _same(x: Any, y: Any) -> bool:
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        if x.dtype != y.dtype or x.shape != y.shape:
            return False
        return bool(torch.equal(torch.nan_to_num(x), torch.nan_to_num(y)) and torch.equal(x.isnan(), y.isnan()))
    return bool(type(x) is type(y) and x == y)


def gap(a: Any, b: Any) -> float:
    """Largest difference of two nested results, relative to the larger of one and their size; inf for other shapes."""
    left, right = leaves(a), leaves(b)
    if len(left) != len(right):
        return float("inf")
    worst = 0.0
    for x, y in zip(left, right, strict=True):
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            if x.shape != y.shape:
                return float("inf")
            if x.numel() and x.is_floating_point():
                x, y = x.detach().double(), y.detach().double()
                if not bool(((x == y) | (x.isfinite() & y.isfinite())).all()):
                    return float("inf")
                difference = torch.where(x == y, torch.zeros_like(x), (x - y).abs())
                finite = torch.where(x.isfinite(), x.abs(), torch.zeros_like(x))
                worst = max(worst, float(difference.max()) / max(1.0, float(finite.max())))
            elif x.numel() and not torch.equal(x, y):
                return float("inf")
        elif x != y:
            return float("inf")
    return worst


def close(a: Any, b: Any, what: str, tolerance: float = 1e-10) -> None:
    """Insist that two nested results agree."""
    found = gap(a, b)
    assert found <= tolerance, f"{what}: they differ by {found:.3g}, allowed is {tolerance:.1g}{_sample(a, b)}"


def _sample(a: Any, b: Any) -> str:
    """The first place where two results differ, for a message."""
    for x, y in zip(leaves(a), leaves(b), strict=False):
        if isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape == y.shape and x.numel():
            difference = torch.nan_to_num((x.detach().double() - y.detach().double()).abs(), nan=float("inf"))
            place = int(difference.argmax())
            if float(difference.flatten()[place]) > 0:
                index = tuple(int(i) for i in torch.unravel_index(torch.tensor(place), x.shape))
                return f"; at {index} {x.flatten()[place].item():.6g} against {y.flatten()[place].item():.6g}"
        elif not isinstance(x, Tensor) and x != y:
            return f"; {x!r} against {y!r}"
    return ""


def layer_context(context: ModelContext) -> LayerContext:
    """The same sizes, as a layer sees them."""
    return LayerContext(context.dim, context.depth, context.context, context.vocab_size)
