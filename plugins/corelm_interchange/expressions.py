"""Templates with holes, both ways: fields into a template, and a value back into fields.

A hole is a string ``$name``. A map with one key that starts with ``$`` is an expression out of a closed set, each of
which can be solved for any one of its arguments. ``null`` in a template says "the default, whatever it is here".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from corelm.kinds import pattern_names
from corelm_interchange.normal import in_normal_form, same


class Scope(Protocol):
    """Where holes get their values from."""

    def theirs(self, name: str) -> Any:
        """The value of a config field as the config says it; ``KeyError`` where it has none."""
        ...

    def ours(self, name: str) -> Any:
        """The same in the words of our parts."""
        ...


class Codecs(Protocol):
    """How values of fields are said on the two sides."""

    def words(self, name: str) -> dict[Any, Any] | None:
        """Values of the config and ours; None where they are the same."""
        ...

    def to_theirs(self, name: str, ours: Any) -> Any:
        """A value in the config's words; ``KeyError`` where it has none."""
        ...


class UnsolvableError(ValueError):
    """The argument can't be found from the value; other places of the template show it."""


@dataclass(frozen=True)
class Operator:
    """One expression: how it is computed, and how it is solved for its argument number ``index``."""

    compute: Callable[..., Any]
    solve: Callable[[int, list[Any], Any], Any]


def _divided(value: float, by: float) -> Any:
    exact = value / by
    return int(exact) if exact == int(exact) and isinstance(value, int) and isinstance(by, int) else exact


def _whole(value: float) -> Any:
    """The number itself, or the whole number that it misses by rounding only."""
    near = round(value)
    return near if abs(value - near) <= 1e-9 * max(1.0, abs(value)) else value


def _unsolvable(index: int, known: list[Any], value: Any) -> Any:
    raise UnsolvableError


def _chosen(pattern: Any, depth: int) -> list[bool]:
    return [name == pattern["use"] for name in pattern_names(pattern, depth)]


def _yarn_scale(scaling: Mapping[str, Any] | None) -> float:
    all_dim, factor = (scaling or {}).get("mscale_all_dim"), (scaling or {}).get("factor", 1.0)
    return (0.1 * all_dim * math.log(factor) + 1) ** 2 if all_dim and factor > 1 else 1.0


OPERATORS: Final[dict[str, Operator]] = {
    "$product": Operator(lambda a, b: a * b, lambda i, known, v: _divided(v, known[1 - i])),
    "$quotient": Operator(_divided, lambda i, known, v: v * known[1] if i == 0 else _divided(known[0], v)),
    "$sum": Operator(lambda a, b: a + b, lambda i, known, v: v - known[1 - i]),
    "$difference": Operator(lambda a, b: a - b, lambda i, known, v: v + known[1] if i == 0 else known[0] - v),
    "$not": Operator(lambda a: not a, lambda i, known, v: not v),
    "$sqrt": Operator(math.sqrt, lambda i, known, v: _whole(v * v)),
    "$inverse_sqrt": Operator(lambda a: a**-0.5, lambda i, known, v: _whole(1 / (v * v))),
    "$layers": Operator(pattern_names, lambda i, known, v: len(v) if i == 1 else [*v]),
    "$indices": Operator(
        lambda pattern, depth: [i for i, chosen in enumerate(_chosen(pattern, depth)) if chosen], _unsolvable
    ),
    "$flags": Operator(lambda pattern, depth: [int(chosen) for chosen in _chosen(pattern, depth)], _unsolvable),
    "$without": Operator(lambda several, others: [one for one in several if one not in others], _unsolvable),
    "$yarn_scale": Operator(_yarn_scale, _unsolvable),
}
"""Expressions by name.

Of a pattern of the recipe grammar and a depth, ``$layers`` is the list of names, ``$indices`` the numbers of the
layers that are ``use``, ``$flags`` a one for each of these and a zero for each other. ``$without`` is a list but for
what is in another. ``$yarn_scale`` of
``$rope.scaling`` is what DeepSeek multiplies the scores by: the square of ``0.1 · mscale_all_dim · ln(factor) + 1``
(DeepSeek-AI, 2024, arXiv:2405.04434).
"""


def operator(node: Any) -> str:
    """Name of the expression that a node is, empty where it is none."""
    if isinstance(node, dict) and len(node) == 1:
        (name,) = node
        if name in OPERATORS or name == "$case":
            return str(name)
    return ""


def hole(node: Any) -> str:
    """Name of the field that a node stands for, empty where it is none."""
    return node[1:] if isinstance(node, str) and node.startswith("$") else ""


def mistaken(node: Any, fields: Collection[str]) -> Iterator[str]:
    """What is wrong in a template, in words."""
    if (name := hole(node)) and name not in fields:
        yield f"${name} is no field"
    elif isinstance(node, list):
        for one in node:
            yield from mistaken(one, fields)
    elif isinstance(node, dict):
        expressions = [key for key in node if isinstance(key, str) and key.startswith("$")]
        if expressions and not operator(node):
            yield f"{expressions[0]} is no expression, or has company; there are {', '.join(OPERATORS)}, $case"
        for case in node["$case"] if operator(node) == "$case" else []:
            for name, wanted in case.get("when", {}).items():
                if name not in fields:
                    yield f"{name} in a condition is no field"
                yield from mistaken(wanted, fields)
        for one in [case.get("then") for case in node["$case"]] if operator(node) == "$case" else node.values():
            yield from mistaken(one, fields)


def _arguments(node: dict[str, Any]) -> list[Any]:
    (arguments,) = node.values()
    return arguments if isinstance(arguments, list) else [arguments]


def evaluate(node: Any, scope: Scope) -> Any:
    """The node with all holes filled.

    Raises:
        KeyError: a hole has no value, or no case holds.
    """
    if name := hole(node):
        return scope.ours(name)
    if isinstance(node, list):
        return [evaluate(one, scope) for one in node]
    if not isinstance(node, dict):
        return node
    name = operator(node)
    if name == "$case":
        for case in node["$case"]:
            if holds(case.get("when", {}), scope):
                return evaluate(case["then"], scope)
        raise KeyError("none of the cases in its family's file")
    if name:
        return OPERATORS[name].compute(*(evaluate(one, scope) for one in _arguments(node)))
    return {key: evaluate(value, scope) for key, value in node.items()}


def holds(condition: Mapping[str, Any], scope: Scope) -> bool:
    """Whether every field has the value, one of the values, or not the value that the condition names."""
    for name, wanted in condition.items():
        value = scope.theirs(name)
        negated = isinstance(wanted, dict)
        named = [evaluate(one, scope) for one in _listed(wanted["not"] if negated else wanted)]
        if any(same(value, one) for one in named) == negated:
            return False
    return True


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True)
class Found:
    """What is known of the fields while a value is taken apart.

    Attributes:
        fields: values of fields, in the config's words.
        open: equations with more than one unknown, for later.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    open: tuple[tuple[Any, Any], ...] = ()

    def bound(self, name: str, theirs: Any) -> Found | None:
        """With one field more; None where it is known to be something else."""
        if name in self.fields:
            return self if same(self.fields[name], theirs) else None
        return replace(self, fields={**self.fields, name: theirs})


class Unifier:
    """Finds fields with which a template becomes a given value.

    It only proposes: the caller fills the template with what was found and compares. So it need not see defaults,
    and a literal ``null`` in the template fits anything.
    """

    def __init__(self, codecs: Codecs, scope_of: Callable[[Mapping[str, Any]], Scope]) -> None:
        self.codecs, self.scope_of = codecs, scope_of

    def unify(self, node: Any, value: Any, found: Found) -> Iterator[Found]:
        """All ways, likely ones first."""
        if not hole(node) and not operator(node):
            node = in_normal_form(node, value)
        if node is None:
            yield found
        elif name := hole(node):
            yield from self._bind(name, value, found)
        elif operator(node) == "$case":
            for case in node["$case"]:
                for assumed in self.assume(case.get("when", {}), found):
                    yield from self.unify(case["then"], value, assumed)
        elif operator(node):
            yield from self.solve(node, value, found)
        elif isinstance(node, dict):
            yield from self._map(list(node.items()), value, found)
        elif isinstance(node, list):
            yield from self._list(node, value, found)
        elif same(node, value):
            yield found

    def nearest(self, node: Any, value: Any, found: Found) -> Found:
        """What can be found although the template doesn't become the value; for messages."""
        fitting = next(self.unify(node, value, found), None)
        if fitting is not None:
            return fitting
        if isinstance(node, dict) and isinstance(value, dict) and not operator(node):
            for key in [key for key in node if key in value]:
                found = self.nearest(node[key], value[key], found)
        elif isinstance(node, list) and isinstance(value, list):
            for one, other in zip(in_normal_form(node, value), value, strict=False):
                found = self.nearest(one, other, found)
        return found

    def _map(self, items: list[tuple[str, Any]], value: Any, found: Found) -> Iterator[Found]:
        if not items:
            yield found
            return
        (key, node), rest = items[0], items[1:]
        if isinstance(value, dict) and key in value:
            for one in self.unify(node, value[key], found):
                yield from self._map(rest, value, one)

    def _list(self, nodes: list[Any], value: Any, found: Found) -> Iterator[Found]:
        if not isinstance(value, list) or len(nodes) != len(value):
            return
        if not nodes:
            yield found
            return
        for one in self.unify(nodes[0], value[0], found):
            yield from self._list(nodes[1:], value[1:], one)

    def _bind(self, name: str, ours: Any, found: Found) -> Iterator[Found]:
        try:
            bound = found.bound(name, self.codecs.to_theirs(name, ours))
        except KeyError:
            return
        if bound is not None:
            yield bound

    def assume(self, condition: Mapping[str, Any], found: Found) -> Iterator[Found]:
        """With the fields that a condition pins down; where it leaves a choice the caller's comparison decides."""
        for name, wanted in condition.items():
            if isinstance(wanted, dict | list) or hole(wanted):
                continue
            bound = found.bound(name, wanted)
            if bound is None:
                return
            found = bound
        yield found

    def solve(self, node: Any, value: Any, found: Found) -> Iterator[Found]:
        """Solve one equation for its only unknown; keep it open where there are more."""
        if not operator(node):
            yield from self.unify(node, value, found)
            return
        name, arguments = operator(node), _arguments(node)
        known: list[Any] = []
        unknown: list[int] = []
        scope = self.scope_of(found.fields)
        for index, argument in enumerate(arguments):
            try:
                known.append(evaluate(argument, scope))
            except KeyError:
                known.append(None)
                unknown.append(index)
        if not unknown:
            if same(OPERATORS[name].compute(*known), value):
                yield found
        elif len(unknown) == 1 and value is not None:
            try:
                needed = OPERATORS[name].solve(unknown[0], known, value)
            except UnsolvableError:
                yield replace(found, open=(*found.open, (node, value)))
                return
            except (ArithmeticError, TypeError, ValueError):
                return
            yield from self.solve(arguments[unknown[0]], needed, found)
        else:
            yield replace(found, open=(*found.open, (node, value)))

    def close(self, found: Found) -> Found | None:
        """Solve what was left open, as far as that goes; None where it contradicts itself."""
        pending = found.open
        found = replace(found, open=())
        while pending:
            later: tuple[tuple[Any, Any], ...] = ()
            for node, value in pending:
                solved = next(self.solve(node, value, found), None)
                if solved is None:
                    return None
                later += solved.open
                found = replace(solved, open=())
            if len(later) == len(pending):
                break
            pending = later
        return found
