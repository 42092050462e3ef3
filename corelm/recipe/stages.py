"""The graph of stages: what each ``from`` names, whether the types fit, and the order to run them in."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from corelm.kinds.component import Spec
from corelm.kinds.stage import Stage

IMPLICIT: Final[dict[str, str]] = {"corpus": "corpus", "tokenizer": "tokenizer", "model": "model"}
"""Sections of the recipe that ``from`` may name like stages, and the type of what they make.

``model`` is the recipe's model before any training: loaded, or freshly drawn.
"""
RESERVED: Final = frozenset({*IMPLICIT, "tokens"})
SAFE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

Inputs = dict[str, list[str] | str | None]


@dataclass(frozen=True)
class StageNode:
    """One named stage of a recipe.

    Attributes:
        name: what the recipe calls it; also its folder.
        spec: the part and its config.
        inputs: role → the stage that fills it, a list of them for roles that take several, None for an
            optional role that is left out.
    """

    name: str
    spec: Spec[Stage]
    inputs: Inputs

    def dump(self) -> dict[str, Any]:
        """Plain data that ``read_stages`` takes back."""
        named = {role: names for role, names in self.inputs.items() if names is not None}
        return {**self.spec.dump(), "from": named}

    def upstream(self) -> list[str]:
        """All stages that it reads from."""
        names: list[str] = []
        for given in self.inputs.values():
            names += [given] if isinstance(given, str) else list(given or ())
        return list(dict.fromkeys(names))


@dataclass(frozen=True)
class Role:
    """One input of a stage: its name, the type it takes, whether it may be left out, whether it takes several."""

    name: str
    type: str
    optional: bool
    many: bool

    @classmethod
    def of(cls, inputs: Mapping[str, str]) -> dict[str, Role]:
        """Read what ``Stage.inputs`` returned."""
        roles = {}
        for written, type_ in inputs.items():
            name = written.rstrip("?*")
            ending = written[len(name) :]
            roles[name] = cls(name, type_, "?" in ending, "*" in ending)
        return roles


@dataclass
class _Graph:
    raw: dict[str, Any]
    first: str | None = None
    specs: dict[str, Spec[Stage]] = field(default_factory=dict)
    inputs: dict[str, Inputs] = field(default_factory=dict)
    errors: list[InitErrorDetails] = field(default_factory=list)

    def refuse(self, code: str, path: tuple[str | int, ...], message: str, **context: Any) -> None:
        custom = PydanticCustomError(code, "{message}", {"message": message, **context})
        self.errors.append(InitErrorDetails(type=custom, loc=path, input=None))

    def read_specs(self) -> None:
        for name, value in self.raw.items():
            if SAFE_NAME.fullmatch(name) is None:
                remedy = "Letters, digits, - and _; at most 64, the first a letter or digit."
                self.refuse("stage_name", (name,), f"the name {name!r} can't be a folder's", remedy=remedy)
            if name in RESERVED:
                remedy = f"reserved: {', '.join(sorted(RESERVED))}"
                self.refuse(
                    "stage_name", (name,), f"every run has its own stage {name!r}; use another name", remedy=remedy
                )
            options = (
                {key: item for key, item in value.items() if key != "from"} if isinstance(value, dict) else value
            )
            try:
                self.specs[name] = Spec.read("stage", options)
            except ValidationError as error:
                for detail in error.errors(include_url=False):
                    self.repeat(name, detail)
            except PydanticCustomError as error:
                self.errors.append(InitErrorDetails(type=error, loc=(name,), input=value))

    def repeat(self, name: str, detail: Any) -> None:
        """Take over an error of a stage's own config, with the stage's name before its path."""
        context = {key: item for key, item in detail.get("ctx", {}).items() if key != "error"}
        context = {**context, "message": detail["msg"]}
        custom = PydanticCustomError(detail["type"], "{message}", context)
        self.errors.append(InitErrorDetails(type=custom, loc=(name, *detail["loc"]), input=detail["input"]))

    def read_inputs(self) -> None:
        before = self.first
        for name, node in self.raw.items():
            written = node.get("from") if isinstance(node, dict) else None
            if name in self.specs:
                spec = self.specs[name]
                self.inputs[name] = self.fill(name, Role.of(spec.part.inputs(spec.config)), written, before)
            else:
                self.names_in(written, (name, "from"))
            before = name

    def names_in(self, written: Any, path: tuple[str | int, ...]) -> None:
        """Check the names that a ``from`` holds, where the roles are not known because the stage itself is wrong."""
        if isinstance(written, dict | list):
            for key, inner in written.items() if isinstance(written, dict) else enumerate(written):
                self.names_in(inner, (*path, key))
        elif isinstance(written, str):
            self.known(written, path)

    def fill(self, name: str, roles: dict[str, Role], written: Any, before: str | None) -> Inputs:
        """Match what ``from`` says with the roles; problems go to ``errors``."""
        filled: Inputs = {role.name: None for role in roles.values()}
        required = [role for role in roles.values() if not role.optional]
        path: tuple[str | int, ...] = (name, "from")
        known = _shown(roles.values())
        if written is None:
            if not required:
                return filled
            if len(required) > 1 or before is None:
                message = (
                    f"this stage needs {known}" if before else f"this stage needs {known}, and none comes before it"
                )
                self.refuse("from_missing", (name,), message, remedy=_example(required))
                return filled
            written, path = before, (name,)
        if not isinstance(written, dict):
            only = required if len(required) == 1 else list(roles.values())
            if len(only) != 1:
                message = (
                    f"from must say which stage fills which role: {known}"
                    if roles
                    else "this stage reads from no other"
                )
                self.refuse("from_ambiguous" if roles else "from_unwanted", path, message, remedy=_example(only))
                return filled
            filled[only[0].name] = self.take(only[0], written, path)
            return filled
        for key, value in written.items():
            if key in roles:
                filled[key] = self.take(roles[key], value, (*path, key))
            else:
                near = next(iter(difflib.get_close_matches(key, roles, 1)), None)
                self.refuse(
                    "from_role", (*path, key), f"no role {key!r} here", remedy=f"roles: {known}", suggestion=near
                )
        missing = [role for role in required if written.get(role.name) is None]
        if missing:
            self.refuse("from_missing", path, f"from leaves out {_shown(missing)}", remedy=_example(required))
        return filled

    def take(self, role: Role, value: Any, path: tuple[str | int, ...]) -> list[str] | str | None:
        """Check the name or names given for one role."""
        if value is None:
            return None
        names = value if isinstance(value, list) else [value]
        if isinstance(value, list) and not role.many:
            if len(value) != 1:
                self.refuse("from_one", path, f"{role.name} takes one stage, not {len(value)}")
                return None
            value = value[0]
        good = []
        for index, name in enumerate(names):
            here = (*path, index) if isinstance(value, list) else path
            if self.fits(role, name, here):
                good.append(str(name))
        return good if role.many else next(iter(good), None)

    def fits(self, role: Role, name: Any, path: tuple[str | int, ...]) -> bool:
        if not isinstance(name, str):
            self.refuse("from_name", path, f"expected the name of a stage, not {name!r}")
            return False
        if not self.known(name, path):
            return False
        made = IMPLICIT.get(name) or (self.specs[name].part.output if name in self.specs else None)
        if made is not None and made != role.type:
            use = self.specs[name].name if name in self.specs else name
            fitting = [other for other, spec in self.specs.items() if spec.part.output == role.type]
            remedy = f"stages that make a {role.type}: {', '.join(fitting) or 'none'}"
            message = f"{role.name} takes a {role.type}; {name} ({use}) makes a {made}"
            self.refuse("stage_type", path, message, remedy=remedy)
            return False
        return True

    def known(self, name: str, path: tuple[str | int, ...]) -> bool:
        if name in self.raw or name in IMPLICIT:
            return True
        near = next(iter(difflib.get_close_matches(name, self.raw, 1)), None)
        remedy = f"stages: {', '.join(self.raw)}"
        self.refuse("unknown_stage", path, f"no stage is called {name!r}", remedy=remedy, suggestion=near)
        return False

    def ordered(self) -> list[str]:
        """Names in an order that respects every ``from``, otherwise as written; cycles go to ``errors``."""
        done: list[str] = []
        waiting = {name: set(StageNode(name, self.specs[name], self.inputs[name]).upstream()) for name in self.inputs}
        while waiting:
            ready = next((name for name, needs in waiting.items() if not needs & waiting.keys()), None)
            if ready is None:
                self.cycle(waiting)
                return done
            done.append(ready)
            del waiting[ready]
        return done

    def cycle(self, waiting: dict[str, set[str]]) -> None:
        seen = [next(iter(waiting))]
        while True:
            following = next(name for name in waiting if name in waiting[seen[-1]])
            if following in seen:
                circle = [*seen[seen.index(following) :], following]
                break
            seen.append(following)
        message = f"a circle: {' needs '.join(circle)}"
        self.refuse(
            "stage_cycle", (circle[0], "from"), message, remedy="One of them must read from an earlier stage."
        )


def _shown(roles: Iterable[Role]) -> str:
    return ", ".join(
        f"{r.name} ({'several ' if r.many else ''}{r.type}{', optional' if r.optional else ''})" for r in roles
    )


def _example(roles: list[Role]) -> str:
    written = ", ".join(f"{role.name}: {'[…]' if role.many else '…'}" for role in roles)
    return f"Write from: {{{written}}}" if written else ""


def read_stages(value: Any, first: str | None = None) -> Any:
    """Validate the ``stages`` section: a map from name to stage.

    Args:
        value: the section.
        first: what the first stage reads from where it doesn't say; None: it must say.

    Raises:
        pydantic.ValidationError: everything that is wrong with any of them, each with its path.
    """
    if not isinstance(value, dict):
        raise PydanticCustomError("dict_type", "stages is a map from a name to a stage", {})
    if all(isinstance(node, StageNode) for node in value.values()):
        return value
    graph = _Graph({name: node for name, node in value.items() if node is not None}, first)
    graph.read_specs()
    graph.read_inputs()
    order = graph.ordered()
    if graph.errors:
        raise ValidationError.from_exception_data("stages", graph.errors)
    return {name: StageNode(name, graph.specs[name], graph.inputs[name]) for name in order}
