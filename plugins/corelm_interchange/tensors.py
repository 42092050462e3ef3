"""Names and layouts of a model's tensors, ours and theirs, by the rules of its family."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Protocol

from torch import Tensor

from corelm.errors import UserError
from corelm_interchange.expressions import evaluate, holds
from corelm_interchange.family import Family
from corelm_interchange.family_file import Layout, Rule
from corelm_interchange.fields import Plain, Values
from corelm_interchange.operations import Operation, backward, forward, made

LAYER: Final = "<layer>"
EXPERT: Final = "<expert>"


class Store(Protocol):
    """Tensors in files."""

    def __contains__(self, name: str) -> bool:
        """Whether there is such a tensor."""
        ...

    def __iter__(self) -> Iterator[str]:
        """All names."""
        ...

    def meta(self, name: str) -> Tensor:
        """Shape and type, on the ``meta`` device."""
        ...

    def tensor(self, name: str) -> Tensor:
        """A copy of the tensor."""
        ...


@dataclass(frozen=True)
class Place:
    """Tensors of ours and one layout of theirs.

    Attributes:
        ours: names.
        theirs: names.
        steps: from ours to theirs.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    steps: tuple[Operation, ...]


def places(family: Family, values: Values, names: Sequence[str]) -> list[list[Place]]:
    """For every rule, layer and expert the layouts that files may have; the first is the one that is written.

    Args:
        family: whose rules.
        values: of its fields.
        names: of each layer, its block.
    """
    scope = Plain(values)
    found: list[list[Place]] = []
    for rule in family.file.tensors:
        if not holds(rule.when, scope):
            continue
        layouts = [_Layout(rule, layout, scope) for layout in rule.layouts]
        for holes in _holes(rule, layouts[0], scope, names):
            for leaf in _leaves(rule, scope):
                found.append([layout.place(holes, leaf) for layout in layouts])
    return found


def _holes(rule: Rule, written: _Layout, scope: Plain, names: Sequence[str]) -> Iterator[dict[str, int]]:
    """Values of <layer>, and of <expert> where every expert is a place of its own in what is written."""
    layers: Sequence[int | None] = [None]
    if any(LAYER in name for name in rule.ours):
        kinds = None if rule.blocks is None else set(rule.blocks)
        layers = [i for i, name in enumerate(names) if kinds is None or kinds & set(name.split("+"))]
    experts: Sequence[int | None] = range(_count(rule, scope)) if written.apart else [None]
    for layer in layers:
        for expert in experts:
            yield {key: value for key, value in ((LAYER, layer), (EXPERT, expert)) if value is not None}


def _count(rule: Rule, scope: Plain) -> int:
    return int(evaluate(rule.experts, scope))


def _leaves(rule: Rule, scope: Plain) -> list[str]:
    if not any("*" in name for name in rule.ours):
        return [""]
    biased = rule.bias if isinstance(rule.bias, bool) else holds(rule.bias, scope)
    return ["weight", "bias"] if biased else ["weight"]


class _Layout:
    """A layout, its steps made.

    Attributes:
        apart: whether every expert has tensors of its own, ours and theirs.
    """

    def __init__(self, rule: Rule, layout: Layout, scope: Plain) -> None:
        self.rule, self.theirs, self._scope = rule, layout.theirs, scope
        self.steps = made(evaluate(layout.steps, scope))
        self.apart = all(EXPERT in name for name in [*rule.ours, *layout.theirs])
        self._together: dict[tuple[int | None, str], Place] = {}

    def place(self, holes: Mapping[str, int], leaf: str) -> Place:
        """With the holes filled; of all experts together one and the same place."""
        if self.apart or EXPERT not in holes:
            return self._filled(holes, leaf)
        layer = holes.get(LAYER)
        if (layer, leaf) not in self._together:
            self._together[layer, leaf] = self._filled({key: holes[key] for key in holes if key != EXPERT}, leaf)
        return self._together[layer, leaf]

    def _filled(self, holes: Mapping[str, int], leaf: str) -> Place:
        def named(names: Sequence[str]) -> tuple[str, ...]:
            """Names with their holes filled; with <expert> left in them all of expert 0, then of 1 …"""
            for hole, value in holes.items():
                names = [name.replace(hole, str(value)) for name in names]
            many = range(_count(self.rule, self._scope)) if any(EXPERT in name for name in names) else range(1)
            return tuple(name.replace(EXPERT, str(expert)).replace("*", leaf) for expert in many for name in names)

        return Place(named(self.rule.ours), named(self.theirs), self.steps)


class Reading(Mapping[str, Tensor]):
    """Our tensors, each made out of theirs when it is asked for.

    Raises:
        UserError: tensors are missing, or have no place.
    """

    def __init__(self, family: Family, values: Values, names: Sequence[str], store: Store, where: str) -> None:
        self.store, self._where = store, where
        self._places: dict[str, Place] = {}
        self._spelt: dict[str, str] = {}
        self._last: tuple[Place, list[Tensor]] | None = None
        also = family.file.also
        lacking: list[str] = []
        used: set[str] = set()
        for layouts in places(family, values, names):
            place = next((one for one in layouts if self._has(one, also)), layouts[0])
            if self._places.get(place.ours[0]) is place:  # of all experts, and this is the next of them
                continue
            lacking += [name for name in place.theirs if self._spelling(name, also) is None]
            used.update(self._spelt.get(name, name) for name in place.theirs)
            self._places.update(dict.fromkeys(place.ours, place))
        if lacking:
            raise UserError(
                f"{where} lacks {len(lacking)} tensors, the first is {min(lacking)}",
                remedy="Is the folder complete, and its config.json its own?",
                code="tensor-missing",
            )
        unused = [*family.file.unused, *_beyond(family, names)]
        strange = sorted(
            name for name in store if name not in used and not any(fnmatchcase(name, one) for one in unused)
        )
        if strange:
            raise UserError(
                f"{where}: {len(strange)} tensors have no place in a model of the family {family.name}, "
                f"the first is {strange[0]}",
                remedy="The folder holds another architecture than its config.json says.",
                code="tensor-unknown",
            )

    def _has(self, place: Place, also: Mapping[str, list[str]]) -> bool:
        return all(self._spelling(name, also) is not None for name in place.theirs)

    def _spelling(self, name: str, also: Mapping[str, list[str]]) -> str | None:
        """The name under which files have a tensor."""
        if name in self._spelt or name in self.store:
            return self._spelt.get(name, name)
        for beginning, others in also.items():
            for other in others if name.startswith(beginning) else []:
                if (spelt := other + name.removeprefix(beginning)) in self.store:
                    self._spelt[name] = spelt
                    return spelt
        return None

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __getitem__(self, name: str) -> Tensor:
        place = self._places[name]
        if self._last is None or self._last[0] is not place:
            self._last = None  # before the next are read
            self._last = place, self._ours(place, self.store.tensor)
        tensor = self._last[1][place.ours.index(name)]
        if name == place.ours[-1]:
            self._last = None
        return tensor.contiguous()

    def meta(self, name: str) -> Tensor:
        """Shape and type of a tensor, without reading it."""
        place = self._places[name]
        return self._ours(place, self.store.meta)[place.ours.index(name)]

    def _ours(self, place: Place, read: Callable[[str], Tensor]) -> list[Tensor]:
        try:
            return backward(place.steps, [read(self._spelt.get(name, name)) for name in place.theirs])
        except UserError as error:
            raise UserError(f"{self._where}: {place.theirs[0]}: {error.message}", code=error.code) from error


def _beyond(family: Family, names: Sequence[str]) -> list[str]:
    """Patterns of the layers after the last, which predict further tokens and are not part of the model."""
    return [one.replace("<beyond>", str(len(names) + more)) for one in family.file.unused for more in range(4)]


class Writing:
    """Their tensors, each made out of ours when it is asked for.

    Raises:
        UserError: a tensor of ours has no place.
    """

    def __init__(self, family: Family, values: Values, names: Sequence[str], ours: Mapping[str, Tensor]) -> None:
        self.ours = ours
        self.described: dict[str, Tensor] = {}
        self._places: dict[str, Place] = {}
        self._last: tuple[Place, list[Tensor]] | None = None
        used: set[str] = set()
        for layouts in places(family, values, names):
            place = layouts[0]
            lacking = [name for name in place.ours if name not in ours]
            if lacking:
                raise UserError(f"the model lacks the tensor {lacking[0]}", code="tensor-missing")
            written = forward(place.steps, [ours[name].to("meta") for name in place.ours])
            self.described |= dict(zip(place.theirs, written, strict=True))
            self._places |= dict.fromkeys(place.theirs, place)
            used |= set(place.ours)
        strange = sorted(set(ours) - used)
        if strange:
            raise UserError(
                f"the tensor {strange[0]} has no place in the family {family.name}", code="tensor-unknown"
            )

    def tensor(self, name: str) -> Tensor:
        """One of their tensors."""
        place = self._places[name]
        if self._last is None or self._last[0] is not place:
            self._last = None
            self._last = place, forward(place.steps, [self.ours[one] for one in place.ours])
        return self._last[1][place.theirs.index(name)]
