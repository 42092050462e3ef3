"""What a property is, what it is held against, and how examples are drawn for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal, NoReturn, TypeVar

import torch
from torch import Tensor

from corelm.conformance import importing
from corelm.errors import UserError
from corelm.registration import Record, active

try:
    import hypothesis
    from hypothesis import strategies as st
except ImportError as missing:
    raise UserError(
        "the conformance kit needs hypothesis, which is not installed",
        remedy='pip install "corelm[test]"',
        code="kit-needs-hypothesis",
    ) from missing

Tier = Literal["bit", "f64", "num", "stat", "io"]
"""How exactly a property holds: to the bit, in float64, in low precision against float64, in the mean, on disk."""

T = TypeVar("T")


class NotApplicable(Exception):  # noqa: N818
    """The property says nothing about this example; raised with the reason."""


@dataclass(frozen=True)
class PartUnderTest:
    """One part that properties are held against.

    Attributes:
        kind, name: of the part.
        record: where it was registered; None for parts that are not (planted bugs, parts under construction).
        given: the class itself where there is no record.
    """

    kind: str
    name: str
    record: Record | None = None
    given: type[Any] | None = None

    @cached_property
    def label(self) -> str:
        """``kind/name``, with the distribution where another one has a part of the same name."""
        if self.record and sum(r.name == self.name for r in active().parts(self.kind)) > 1:
            return f"{self.kind}/{self.record.qualified}"
        return f"{self.kind}/{self.name}"

    @property
    def origin(self) -> str:
        """Distribution and version that it came with; '' for parts that nobody registered."""
        return f"{self.record.distribution} {self.record.version}" if self.record else ""

    @cached_property
    def cls(self) -> type[Any]:
        """The part's class.

        Raises:
            UserError: it can't be imported, or isn't of the kind.
        """
        if self.given is not None:
            return self.given
        assert self.record is not None
        return importing.load(self.record)

    @property
    def bench(self) -> Any:
        """How parts of this kind are built and exercised (``corelm.conformance.bench``)."""
        from corelm.conformance.bench import bench_of

        return bench_of(self.kind)


Check = Callable[[PartUnderTest, "Draw"], None]


@dataclass(frozen=True)
class Property:
    """One law that every part of a kind obeys.

    Attributes:
        kind: the kind; ``*`` where the law is shared by all of them.
        name: says what it states, e.g. ``cached_equals_full``.
        statement: the law in words.
        formula: the law in signs; '' where words say it all.
        catches: what is likely wrong where it fails.
        seen: where such a bug was found in the wild, e.g. ``transformers#25420``; '' where no public case is known.
        tier: how exactly it holds.
        tolerance: why its bound is what it is, where the tier alone doesn't say.
        examples: how many are drawn by default.
        check: the law as a function that raises ``AssertionError``.
        excuse: why it says nothing about a part (a sentence), or None where it does.
        first: whether all others wait for it.
        needs: names of the properties without which this one would only say again what is wrong.
    """

    kind: str
    name: str
    statement: str
    catches: str
    tier: Tier
    examples: int
    check: Check
    excuse: Callable[[PartUnderTest], str | None]
    first: bool = False
    formula: str = ""
    seen: str = ""
    tolerance: str = ""
    needs: tuple[str, ...] = ()


_known: dict[tuple[str, str], Property] = {}


def property_of(
    kind: str,
    *,
    name: str | None = None,
    statement: str,
    catches: str,
    tier: Tier = "f64",
    examples: int = 20,
    excuse: Callable[[PartUnderTest], str | None] = lambda part: None,
    first: bool = False,
    formula: str = "",
    seen: str = "",
    tolerance: str = "",
    needs: tuple[str, ...] = (),
) -> Callable[[Check], Check]:
    """Make the decorated function a property of ``kind`` (``*``: of all kinds)."""

    def register(check: Check) -> Check:
        title = name or str(check.__name__)
        _known[kind, title] = Property(
            kind, title, statement, catches, tier, examples, check, excuse, first, formula, seen, tolerance, needs
        )
        return check

    return register


def known(kind: str) -> list[Property]:
    """The properties registered for a kind so far, those that others wait for first."""
    found = [p for (owner, _), p in _known.items() if owner == kind]
    return sorted(found, key=lambda p: not p.first)


@cache
def _integers(low: int, high: int) -> st.SearchStrategy[int]:
    """The same strategy each time: to make one takes longer than to draw from it."""
    return st.integers(low, high)


class Draw:
    """Draws the choices of one example and remembers them for the report."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self._seeds = 0
        self.notes: list[tuple[str, Any]] = []

    def of(self, label: str, strategy: st.SearchStrategy[T]) -> T:
        """Draw from a hypothesis strategy."""
        value = self.quiet(strategy)
        self.note(label, value)
        return value

    def note(self, label: str, value: Any) -> None:
        """Remember something for the report."""
        self.notes.append((label, value))

    def choice(self, label: str, options: Sequence[T]) -> T:
        """Draw one of the options; simpler ones first."""
        value = self.pick(options)
        self.note(label, value)
        return value

    def integer(self, label: str, low: int, high: int) -> int:
        """Draw a whole number, both ends included."""
        value = self.whole(low, high)
        self.note(label, value)
        return value

    def quiet(self, strategy: st.SearchStrategy[T]) -> T:
        """Draw without a note."""
        # Not data.draw, which looks at Python's random state each time; what examples do to it is watched anyway.
        drawn: T = self._data.conjecture_data.draw(strategy)
        return drawn

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, without a note."""
        if not options:
            raise ValueError("there is nothing to choose from")
        return options[self.whole(0, len(options) - 1)]

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends included, without a note."""
        return self.quiet(_integers(low, high))

    def seed(self) -> int:
        """A seed for tensors, another one each time even in the simplest example; not part of the report's story."""
        self._seeds += 1
        return self.whole(0, 2**31 - 1) * 1009 + self._seeds

    def generator(self) -> torch.Generator:
        """A random generator seeded by the example."""
        return torch.Generator().manual_seed(self.seed())

    def normal(self, *shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
        """A tensor of normal draws."""
        return torch.randn(shape, generator=self.generator(), dtype=torch.float64).mul_(scale).to(dtype)

    def scale(self) -> float:
        """A magnitude; bugs hide at one."""
        return self.choice("magnitude", [1.0, 1e-3, 1e2])

    def device(self) -> torch.device:
        """Where to compute: on the CPU, and on a GPU where there is one."""
        names = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
        return torch.device(self.choice("device", names) if len(names) > 1 else "cpu")

    def ids(self, batch: int, length: int, vocab: int) -> Tensor:
        """Token ids."""
        return torch.randint(vocab, (batch, length), generator=self.generator())

    def permutation(self, n: int) -> Tensor:
        """An order of n things, not the identity where there is another."""
        order = torch.randperm(n, generator=self.generator())
        return order if n < 2 or not torch.equal(order, torch.arange(n)) else order.flip(0)

    def reject(self) -> NoReturn:
        """Give this example up: its choices don't fit together."""
        hypothesis.reject()
