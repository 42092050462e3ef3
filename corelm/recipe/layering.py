"""What a recipe is laid over: the files that it extends and the overrides of the command line."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from corelm import registration
from corelm.kinds.component import RecipeText
from corelm.layering import overlay
from corelm.recipe.errors import Mark, RecipeError, RecipeProblem
from corelm.recipe.yaml import Document, parse, read_file

Path_ = tuple[str | int, ...]


@dataclass
class Layers:
    """Documents from the lowest to the topmost, and what they amount to.

    Attributes:
        documents: files first, then overrides.
        data: all of them laid over each other.
        problems: what is wrong although reading went on.
        file: the topmost file.
    """

    documents: list[Document] = field(default_factory=list)
    data: Any = None
    problems: list[RecipeProblem] = field(default_factory=list)
    file: str = ""

    def key(self, path: Path_) -> Mark | None:
        """Where the key at ``path`` stands, in the topmost document that has it."""
        return self._find(path, "keys")

    def value(self, path: Path_) -> Mark | None:
        """Where the value at ``path`` stands, in the topmost document that has it."""
        return self._find(path, "values")

    def _find(self, path: Path_, where: str) -> Mark | None:
        for document in reversed(self.documents):
            marks: dict[Path_, Mark] = getattr(document, where)
            if path in marks:
                return marks[path]
            if path and path[-1] == "use" and path[:-1] in document.values:
                return document.values[path[:-1]]
        return None


def locate(reference: str, folder: Path) -> tuple[Path, str]:
    """The file that ``reference`` means, and what to call it: a path, or ``prefix:name`` for a shipped recipe.

    Raises:
        LookupError: nobody ships recipes under the prefix, or none of this name; the text says what there is.
    """
    prefix, colon, name = reference.partition(":")
    if not colon or "/" in prefix or "\\" in prefix or len(prefix) < 2:
        return folder / Path(reference).expanduser(), reference
    roots = recipe_folders()
    if prefix not in roots:
        raise LookupError(f"nobody ships recipes as {prefix!r}; known: {', '.join(sorted(roots))}")
    root = roots[prefix].resolve()
    path = (root / (name if name.endswith(".yaml") else f"{name}.yaml")).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        known = sorted(str(found.relative_to(root))[:-5] for found in root.rglob("*.yaml"))
        close = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {prefix}:{close[0]}?" if close else ""
        raise LookupError(f"no recipe {name!r} in {prefix} (it has {', '.join(known) or 'none'}){hint}")
    return path, reference


def recipe_folders() -> dict[str, Path]:
    """Prefix → folder of the recipes that corelm and installed plugins ship."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "recipes"
    folders = {"corelm": installed if installed.is_dir() else package.parent / "recipes"}
    for prefix, name in sorted(registration.active().recipe_packages.items()):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            folders[prefix] = Path(next(iter(spec.submodule_search_locations)))
    return folders


def read_layers(reference: str | Path, overrides: Sequence[str] = ()) -> Layers:
    """Read a recipe, everything it extends, and the overrides.

    Raises:
        RecipeError: a file can't be read or is not YAML.
    """
    layers = Layers()
    try:
        path, name = locate(str(reference), Path())
    except LookupError as error:
        raise RecipeError([RecipeProblem("recipe-missing", (), str(error), Mark(str(reference)))]) from None
    layers.file = name
    _extend(layers, path, name, ())
    layers.data = reduce(overlay, (document.data for document in layers.documents))
    for text in overrides:
        _override(layers, text)
    return layers


def _extend(layers: Layers, path: Path, name: str, below: tuple[Path, ...]) -> None:
    document = read_file(path, name)
    layers.problems += document.problems
    if not isinstance(document.data, dict):
        mark = document.values.get((), Mark(name))
        message = "a recipe is a map of sections, such as `model:` and `stages:`"
        raise RecipeError([RecipeProblem("recipe-not-a-map", (), message, mark)])
    extends = document.data.pop("extends", None)
    listed = extends if isinstance(extends, list) else [] if extends is None else [extends]
    for index, base in enumerate(listed):
        where: Path_ = ("extends", index) if isinstance(extends, list) else ("extends",)
        mark = document.values[where]
        try:
            if not isinstance(base, str):
                raise LookupError("extends takes the path of a recipe, or a list of them")
            found, called = locate(base, path.parent)
            if not base.partition(":")[1]:
                called = str(Path(name).parent / base) if ":" not in name else str(found)
            if found.resolve() in (*below, path.resolve()):
                raise LookupError(f"{base} extends itself, by way of {name}")
            if not found.is_file():
                raise LookupError(f"there is no file {found}")
        except LookupError as error:
            layers.problems.append(RecipeProblem("extends", where, str(error), mark))
            continue
        _extend(layers, found, called, (*below, path.resolve()))
    layers.documents.append(document)


def _override(layers: Layers, text: str) -> None:
    """Lay one ``path=value`` over the data; problems are kept for later."""
    dotted, equals, written = text.partition("=")
    origin = Mark(f"override {dotted.strip() or repr(text)}")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        message = f"{text!r} is not of the form path=value" if text.strip() else "it is empty"
        remedy = "Write path=value, such as model.attention.heads=4."
        layers.problems.append(RecipeProblem("override", (), message, origin, remedy=remedy))
        return
    try:
        empty = Document(origin.file, RecipeText(""), values={(): origin})
        document = parse(written, origin.file, Path.cwd()) if written.strip() else empty
    except RecipeError as error:
        layers.problems += [
            RecipeProblem("override", tuple(keys), problem.message, origin, remedy=problem.remedy)
            for problem in error.problems
        ]
        return
    try:
        layers.data, path = _laid(layers.data, keys, document.data)
    except LookupError as error:
        layers.problems.append(RecipeProblem("override", tuple(keys), str(error.args[0]), origin))
        return
    marks: dict[Path_, Mark] = {path[: n + 1]: origin for n in range(len(path))}
    below = {(*path, *inner): origin for inner in document.values}
    document.values = below
    document.keys = {**marks, **below}
    layers.documents.append(document)


def _laid(data: Any, keys: list[str], value: Any) -> tuple[Any, Path_]:
    """``data`` with ``value`` laid over what is at ``keys``; also the path with list positions as numbers."""
    if not keys:
        return overlay(data, value), ()
    key, *rest = keys
    if isinstance(data, list):
        if not key.isdecimal() or int(key) >= len(data):
            allowed = f"write one from 0 to {len(data) - 1}" if data else "it is empty"
            raise LookupError(f"{key!r} is not a position in this list of {len(data)}; {allowed}")
        inner, path = _laid(data[int(key)], rest, value)
        return [*data[: int(key)], inner, *data[int(key) + 1 :]], (int(key), *path)
    if isinstance(data, str):
        data = {"use": data}
    if data is not None and not isinstance(data, dict):
        raise LookupError(f"there is no key {key!r} below the value {data!r}")
    below = data or {}
    if key == "use" and not rest:
        return overlay(below, {"use": value}), ("use",)
    inner, path = _laid(below.get(key), rest, value) if key in below else _made(rest, value)
    return {**below, key: inner}, (key, *path)


def _made(keys: list[str], value: Any) -> tuple[Any, Path_]:
    for key in reversed(keys):
        value = {key: value}
    return value, tuple(keys)


class _Dumper(yaml.SafeDumper):
    """Writes the strings of a recipe as the plain strings that they are."""


_Dumper.add_representer(RecipeText, lambda dumper, text: dumper.represent_str(str(text)))


def flow(value: Any) -> str:
    """One value as YAML on one line."""
    text: str = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()
