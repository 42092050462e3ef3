"""Reads a recipe: layers, schema, checks; everything that is wrong is said at once, with its place."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from corelm.errors import UserError
from corelm.kinds.component import Problem
from corelm.recipe import checks
from corelm.recipe.errors import Mark, RecipeError, RecipeProblem, dotted
from corelm.recipe.fields import leaves, place
from corelm.recipe.layering import Layers, flow, read_layers
from corelm.recipe.schema import RecipeConfig
from corelm.registration import active

Path_ = tuple[str | int, ...]


class Recipe:
    """A recipe that validates; what it names is installed and fits together.

    Attributes:
        config: the validated recipe.
        file: the topmost file, as the user named it.
    """

    def __init__(self, config: RecipeConfig, layers: Layers) -> None:
        self.config = config
        self.file = layers.file
        self._layers = layers

    @classmethod
    def read(cls, reference: str | Path, overrides: Sequence[str] = ()) -> Recipe:
        """Read a recipe from a file, or from a package as ``corelm:quickstart``.

        Args:
            reference: path or ``package:name``.
            overrides: ``path=value``, laid over it in order.

        Raises:
            RecipeError: everything that is wrong with it.
        """
        layers = read_layers(reference, overrides)
        data = _without_nulls(layers.data, layers.data, ())
        try:
            config = RecipeConfig.model_validate(data)
        except ValidationError as error:
            found = [_problem(detail, layers) for detail in _once(error.errors(include_url=False), layers)]
            found += [_placed(layers, path, problem) for path, problem in checks.model_alone(data.get("model"))]
            raise RecipeError([*layers.problems, *found]) from None
        if layers.problems:
            raise RecipeError(layers.problems)
        recipe = cls(config, layers)
        found = [_placed(layers, path, problem) for path, problem in checks.problems(config, recipe.resolved())]
        if found:
            raise RecipeError(found)
        recipe._ask_plugins()
        return recipe

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.config.name

    def resolved(self) -> dict[str, Any]:
        """The recipe as plain data, every default written out."""
        return self.config.model_dump(mode="json")

    def origin(self, path: Path_) -> str:
        """Where the value at ``path`` came from: ``recipe.yaml:6:5``, ``override model.dim``, or a default."""
        written = _in_file(path, self._layers.data)
        mark = self._layers.value(written) or self._layers.key(written)
        if mark is not None:
            return str(mark)
        base = _base_of_block(path)
        if base is not None and (self._layers.value(base) or self._layers.key(base)):
            return self.origin(base)
        holder = path[:-2] if path[-1] == "use" else path[:-1]
        return f"default of {place(self.resolved(), holder).label}"

    def explain(self, path: str | None = None) -> list[str]:
        """One line per value at or below ``path``: the value, and where it came from.

        Raises:
            RecipeError: there is nothing at ``path``.
        """
        keys: Path_ = tuple(int(k) if k.isdecimal() else k for k in path.split(".")) if path else ()
        rows = [(at, value) for at, value in leaves(self.resolved()) if at[: len(keys)] == keys]
        if not rows:
            known = sorted({dotted(at[: n + 1]) for at, _ in leaves(self.resolved()) for n in range(len(at))})
            near = next(iter(difflib.get_close_matches(str(path), known, 1)), None)
            problem = RecipeProblem("unknown-path", keys, "there is no such value", Mark(self.file), near)
            raise RecipeError([problem])
        left = [f"{dotted(at)}: {flow(value)}" for at, value in rows]
        width = min(max(map(len, left)), 60)
        return [f"{text:<{width}}  # {self.origin(at)}" for text, (at, _) in zip(left, rows, strict=True)]

    def _ask_plugins(self) -> None:
        """Let plugins refuse the recipe; each looks at a copy of its own."""
        for hook in active().manager.hook.corelm_recipe_read.get_hookimpls():
            plugin = active().plugin(hook.plugin_name)
            given = {"recipe": self.resolved()} if "recipe" in hook.argnames else {}
            try:
                reasons: Any = hook.function(**given)
            except Exception as error:
                message = f"the plugin {plugin} failed in corelm_recipe_read: {type(error).__name__}: {error}"
                raise UserError(message, remedy="Update the plugin, or disable it by CORELM_DISABLE.") from error
            if reasons:
                who = f"refused by the plugin {plugin}: "
                raise RecipeError(RecipeProblem("refused", (), who + reason, Mark(self.file)) for reason in reasons)


def _placed(layers: Layers, path: Path_, problem: Problem) -> RecipeProblem:
    full = _in_file((*path, *problem.path), layers.data)
    return RecipeProblem(problem.code, full, problem.message, _mark(layers, full), None, problem.remedy)


def _without_nulls(whole: Any, data: Any, path: Path_) -> Any:
    """Drop keys whose value is null where that means "the default": the field takes no null but has a default."""
    if isinstance(data, list):
        return [_without_nulls(whole, item, (*path, index)) for index, item in enumerate(data)]
    if not isinstance(data, dict):
        return data
    kept = {}
    for key, value in data.items():
        if value is None:
            info = place(whole, path).field(key)
            if info is not None and not info.is_required() and type(None) not in get_args(info.annotation):
                continue
        kept[key] = _without_nulls(whole, value, (*path, key))
    return kept


def _once(details: Sequence[Any], layers: Layers) -> list[Any]:
    """The errors without those that a block only inherits: what is wrong with the section itself is said there."""
    said = {(detail["type"], tuple(detail["loc"])): detail["input"] for detail in details}

    def inherited(detail: Any) -> bool:
        base, path = _base_of_block(tuple(detail["loc"])), _in_file(tuple(detail["loc"]), layers.data)
        if base is None or layers.key(path) or layers.value(path):
            return False
        return (detail["type"], base) in said and bool(said[detail["type"], base] == detail["input"])

    return [detail for detail in details if not inherited(detail)]


def _problem(detail: Any, layers: Layers) -> RecipeProblem:
    """One pydantic error as a problem with a place."""
    path = _in_file(tuple(detail["loc"]), layers.data)
    kind, context = str(detail["type"]), detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(path, layers)
    if kind == "missing":
        here = place(layers.data, path[:-1])
        info = here.field(path[-1])
        description = info.description if info is not None else None
        message = f"{here.label} needs the key {path[-1]!r}"
        return RecipeProblem(
            "missing-key", path, message, _mark(layers, path[:-1], key=True), None, description or ""
        )
    if kind.startswith("part_"):
        code = kind.removeprefix("part_").replace("_", "-")
        names = context.get("names")
        remedy = context.get("remedy") or (f"parts: {', '.join(names)}" if names else "")
        mark = layers.value((*path, "use")) or _mark(layers, path)
        return RecipeProblem(code, path, detail["msg"], mark, context.get("suggestion"), remedy)
    if kind.startswith("pattern"):
        path = next((p for p in ((*path, "pattern"), (*path, "patterns")) if layers.value(p)), path)
    suggestion = context.get("suggestion")
    remedy = context.get("remedy") or _bounds(path, layers)
    key = kind == "stage_name"
    mark = _mark(layers, path, key=key)
    return RecipeProblem(kind.replace("_", "-"), path, _message(detail), mark, suggestion, remedy)


def _unknown_key(path: Path_, layers: Layers) -> RecipeProblem:
    here = place(layers.data, path[:-1])
    near = next(iter(difflib.get_close_matches(str(path[-1]), here.keys, 1)), None)
    remedy = f"keys: {', '.join(here.keys)}"
    if here.part:
        remedy += f"\nsee: corelm describe {here.part}"
    message = f"unknown key for {here.label}"
    return RecipeProblem("unknown-key", path, message, _mark(layers, path, key=True), near, remedy)


def _message(detail: Any) -> str:
    text = str(detail["msg"])
    text = text.removeprefix("Input should be ").removeprefix("Value error, ")
    if text != detail["msg"]:
        value = detail.get("input")
        shown = f", not {flow(value)}" if isinstance(value, str | int | float | bool | type(None)) else ""
        return f"must be {text}{shown}" if detail["msg"].startswith("Input should be ") else text
    return text


def _bounds(path: Path_, layers: Layers) -> str:
    info = place(layers.data, path[:-1]).field(path[-1]) if path else None
    return f"{path[-1]}: {info.description}" if info is not None and info.description else ""


def _in_file(loc: Path_, data: Any) -> Path_:
    """A pydantic location as a path of the recipe's data: positions in lists that were written as their only element go."""
    path: list[str | int] = []
    value = data
    for key in loc:
        if isinstance(key, int) and not isinstance(value, list):
            continue
        path.append(key)
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            value = None
    return tuple(path)


def _mark(layers: Layers, path: Path_, *, key: bool = False) -> Mark:
    """Where a value stands, or its key where that is wanted or the value is written below it.

    What stands nowhere has the place of what holds it.
    """
    candidates = [path]
    base = _base_of_block(path)
    if base is not None:
        candidates.append(base)
    for candidate in candidates:
        at, name = layers.value(candidate), layers.key(candidate)
        below = at is not None and name is not None and name.line not in (0, at.line)
        found = name if key or below else at
        if found is not None:
            return found
    while path:
        path = path[:-1]
        found = layers.key(path) or layers.value(path)
        if found is not None:
            return found
    return Mark(layers.file)


def _base_of_block(path: Path_) -> Path_ | None:
    """``model.blocks.NAME.attention.heads`` may come from ``model.attention.heads``."""
    if path[:2] == ("model", "blocks") and len(path) > 3:
        return ("model", *path[3:])
    return None
