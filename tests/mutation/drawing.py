"""Which modules hold a kind's maths, and a fair sample of their mutants."""

from __future__ import annotations

import ast
import importlib.util
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

from mutating import Mutant

from corelm.conformance.framework import PartUnderTest
from corelm.conformance.selection import parts
from corelm.registration import active

ROOT: Final = Path(__file__).parents[2]
CORE: Final = {
    "adapter": ("corelm.kinds.adapting",),
    "objective": ("corelm.kinds.logprobs",),
    "quantizer": ("corelm.kinds.quantizing", "corelm.kinds.quantized_linear"),
}
"""Modules of the core that compute what parts of a kind leave to it, besides the kind's own."""

PRESENTATION: Final = {"corelm_tracking.figures", "corelm_tracking.page", "corelm_tracking.progress"}
"""Modules that print and lay out what people read: all that they make is messages."""

T = TypeVar("T")


def first_party() -> list[str]:
    """Kinds of which there are first-party parts."""
    return sorted({record.kind for record in active().parts() if record.distribution == "corelm"})


def parts_of(kind: str) -> list[PartUnderTest]:
    """The first-party parts of a kind."""
    return [part for part in parts([kind]) if part.record and part.record.distribution == "corelm"]


def modules_of(part: PartUnderTest) -> list[str]:
    """The part's module, those of its package that it uses, the kind's own, and what the core computes for the kind.

    Modules that hold parts of other kinds are left to these.
    """
    assert part.record is not None
    others = {record.target.partition(":")[0] for record in active().parts() if record.kind != part.kind}
    waiting = [part.record.target.partition(":")[0]]
    package = waiting[0].partition(".")[0]
    found: list[str] = []
    while waiting:
        module = waiting.pop(0)
        if module not in found and module not in others and module not in PRESENTATION:
            found.append(module)
            waiting += [name for name in _imports(module) if name.startswith(f"{package}.") and _is_module(name)]
    return [*found, active().kinds[part.kind].target.partition(":")[0], *CORE.get(part.kind, ())]


def path_of(module: str) -> Path:
    """The module's file."""
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin, module
    return Path(spec.origin)


def _imports(module: str) -> Iterator[str]:
    """What a module imports anywhere: modules, and names in them."""
    for node in ast.walk(ast.parse(path_of(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a name in a module
        return False


def in_order(found: Sequence[Mutant], seed: int) -> list[Mutant]:
    """All mutants so that every beginning is a stratified sample.

    One of each module in turn, in it one of each function, in that one of each operator; chance decides among equals.
    """
    shuffled = list(found)
    random.Random(seed).shuffle(shuffled)
    by_module = {
        module: _in_turn(
            {
                function: _in_turn(_grouped(inner, [m.operator for m in inner]))
                for function, inner in _grouped(group, [m.function for m in group]).items()
            }
        )
        for module, group in _grouped(shuffled, [m.file for m in shuffled]).items()
    }
    return _in_turn(by_module)


def _grouped(items: Sequence[T], names: Sequence[str]) -> dict[str, list[T]]:
    groups: dict[str, list[T]] = defaultdict(list)
    for item, name in zip(items, names, strict=True):
        groups[name].append(item)
    return groups


def _in_turn(groups: dict[str, list[T]]) -> list[T]:
    """The first of each group, the second of each group, and so on."""
    longest = max(map(len, groups.values()), default=0)
    return [group[index] for index in range(longest) for group in groups.values() if index < len(group)]
