"""YAML as recipes need it: the core schema of YAML 1.2, no tags, no duplicate keys, and a place for every key.

PyYAML scans and parses; its resolver is not used, because it follows YAML 1.1, in which ``1e-3`` is a string,
``no`` a boolean and ``190:20`` a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from corelm.kinds.component import RecipeText
from corelm.recipe.errors import Mark, RecipeError, RecipeProblem

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 48
MAX_NODES: Final = 50_000

_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]{1,400}|0o[0-7]{1,400}|0x[0-9a-fA-F]{1,400}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

Path_ = tuple[str | int, ...]


def scalar(text: str) -> str | int | float | bool | None:
    """The value of a plain scalar under the core schema of YAML 1.2."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        lower = text.lower()
        return float(lower.replace(".inf", "inf").replace(".nan", "nan"))
    return text


@dataclass
class Document:
    """A YAML file as plain data, with a mark for each key and each value.

    Attributes:
        file: as the user named it.
        data: maps, lists and scalars; strings are ``RecipeText`` that know the folder.
        keys: path → where its key stands.
        values: path → where its value starts.
        problems: what is wrong although the file could be read on (duplicate keys and so on).
    """

    file: str
    data: Any = None
    keys: dict[Path_, Mark] = field(default_factory=dict)
    values: dict[Path_, Mark] = field(default_factory=dict)
    problems: list[RecipeProblem] = field(default_factory=list)


def read_file(path: Path, name: str = "") -> Document:
    """Read one YAML file; ``name`` is what messages call it.

    Raises:
        RecipeError: it is missing, a folder, too large, not UTF-8, empty, or not YAML.
    """
    name = name or str(path)

    def refuse(code: str, message: str, remedy: str, mark: Mark | None = None) -> RecipeError:
        return RecipeError([RecipeProblem(code, (), message, mark or Mark(name), remedy=remedy)])

    if path.is_dir():
        raise refuse("recipe-is-a-folder", "this is a folder, not a recipe", "Name a .yaml file in it.")
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise refuse("recipe-missing", "no such file", _beside(path)) from None
    except OSError as error:
        raise refuse(
            "recipe-unreadable", f"can't be read: {error.strerror}", "Check the path and its permissions."
        ) from error
    if len(raw) > MAX_BYTES:
        raise refuse(
            "recipe-too-large", f"{len(raw):,} bytes are too many", f"A recipe has at most {MAX_BYTES:,} bytes."
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        raise refuse(
            "recipe-not-utf-8",
            f"byte 0x{raw[error.start]:02x} is not UTF-8",
            "Save the recipe as UTF-8.",
            Mark(name, line, column),
        ) from None
    return parse(text, name, path.resolve().parent)


def _beside(path: Path) -> str:
    folder = path.parent
    found = sorted(entry.name for entry in folder.glob("*.yaml"))[:8] if folder.is_dir() else []
    if not folder.is_dir():
        return f"The folder {folder} doesn't exist either."
    return f"recipes in {folder}: {', '.join(found)}" if found else "`corelm init` writes one to start from."


def parse(text: str, file: str, folder: Path) -> Document:
    """Read YAML text; relative paths in it will start from ``folder``.

    Raises:
        RecipeError: it is empty or not YAML.
    """
    reader = _Reader(text, file, folder)
    try:
        return reader.read()
    except yaml.MarkedYAMLError as error:
        mark = reader.mark_of(error.problem_mark or error.context_mark)
        raise RecipeError([_syntax(error, mark, text)]) from None
    except yaml.reader.ReaderError as error:
        before = text[: int(error.position)]
        line = before.count("\n") + 1
        mark = Mark(file, line, len(before) - before.rfind("\n"), 1)
        message = f"the character {error.character!r} is not allowed in YAML"
        raise RecipeError([RecipeProblem("yaml-syntax", (), message, mark, remedy="Remove it.")]) from None


def _syntax(error: yaml.MarkedYAMLError, mark: Mark, text: str) -> RecipeProblem:
    message = f"this is not YAML: {error.problem or error.context}"
    remedy = ""
    if "\t" in mark.excerpt[: mark.column]:
        message = "a tab where YAML wants spaces"
        remedy = "Indent with spaces."
    elif "mapping values are not allowed" in message:
        remedy = "Check the indentation; a value with ': ' in it must be quoted."
    elif error.context and error.context != error.problem:
        where = f" that starts on line {error.context_mark.line + 1}" if error.context_mark else ""
        remedy = f"This came up {error.context}{where}. Check indentation, brackets and quotes."
    return RecipeProblem("yaml-syntax", (), message, mark, remedy=remedy)


@dataclass
class _Node:
    """A value before aliases are expanded: plain scalar, list of nodes, or list of (key, key mark, node)."""

    value: Any
    mark: Mark
    is_map: bool = False
    is_list: bool = False


class _Reader:
    def __init__(self, text: str, file: str, folder: Path) -> None:
        self.text, self.file, self.folder = text, file, folder
        self.lines = text.splitlines()
        self.document = Document(file)
        self.anchors: dict[str, _Node | None] = {}
        self.count = 0

    def read(self) -> Document:
        events: Iterator[Any] = yaml.parse(self.text, Loader=yaml.SafeLoader)
        root: _Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise self.error("yaml-documents", "a second document", event, "One recipe per file.")
                root = self.node(events, next(events), 0)
        if root is None:
            remedy = "`corelm init` writes a recipe to start from."
            raise RecipeError(
                [RecipeProblem("recipe-empty", (), "the file is empty", Mark(self.file), remedy=remedy)]
            )
        self.document.data = self.plain(root, (), 0)
        return self.document

    def mark_of(self, start: Any, end: Any = None) -> Mark:
        if start is None:
            return Mark(self.file)
        excerpt = self.lines[start.line] if start.line < len(self.lines) else ""
        same = end is not None and end.line == start.line
        length = end.column - start.column if same and end else len(excerpt.rstrip()) - start.column
        return Mark(self.file, start.line + 1, start.column + 1, max(1, length), excerpt)

    def error(self, code: str, message: str, event: Any, remedy: str) -> RecipeError:
        return RecipeError(
            [RecipeProblem(code, (), message, self.mark_of(event.start_mark, event.end_mark), remedy=remedy)]
        )

    def node(self, events: Iterator[Any], event: Any, depth: int) -> _Node:
        if depth > MAX_DEPTH:
            raise self.error("yaml-too-deep", f"more than {MAX_DEPTH} levels deep", event, "Recipes are flat.")
        mark = self.mark_of(event.start_mark, event.end_mark)
        if isinstance(event, yaml.AliasEvent):
            target = self.anchors.get(str(event.anchor), ...)
            if target is ...:
                raise self.error("yaml-alias", f"no anchor &{event.anchor} before this", event, "Define it first.")
            if target is None:
                raise self.error("yaml-alias", f"*{event.anchor} contains itself", event, "Write it out.")
            return target
        if getattr(event, "tag", None) is not None:
            problem = RecipeProblem(
                "yaml-tag", (), f"tags such as {event.tag} are not read", mark, remedy="Remove the tag."
            )
            self.document.problems.append(problem)
        anchor: str | None = event.anchor
        if anchor:
            self.anchors[anchor] = None
        node = self.inner(events, event, mark, depth)
        if anchor:
            self.anchors[anchor] = node
        return node

    def text_of(self, event: Any) -> str:
        """A scalar's text, escaped surrogate pairs (as JSON writes them) joined."""
        text = str(event.value)
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise self.error(
                "yaml-surrogate", "half of a surrogate pair is no character", event, "Remove it."
            ) from None

    def inner(self, events: Iterator[Any], event: Any, mark: Mark, depth: int) -> _Node:
        if isinstance(event, yaml.ScalarEvent):
            return _Node(self.text_of(event) if event.style or not event.implicit[0] else scalar(event.value), mark)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(event := next(events), yaml.SequenceEndEvent):
                items.append(self.node(events, event, depth + 1))
            return _Node(items, mark, is_list=True)
        pairs = []
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self.error("yaml-key", "a key must be a plain name", event, "Write `name: value`.")
            key_mark = self.mark_of(event.start_mark, event.end_mark)
            pairs.append((self.text_of(event), key_mark, self.node(events, next(events), depth + 1)))
        return _Node(pairs, mark, is_map=True)

    def plain(self, node: _Node, path: Path_, depth: int) -> Any:
        """Expand aliases into plain data and remember where every path stands."""
        self.count += 1
        if self.count > MAX_NODES or depth > MAX_DEPTH:
            problem = RecipeProblem(
                "yaml-too-large", path, f"more than {MAX_NODES:,} values once aliases are written out", node.mark
            )
            raise RecipeError([problem])
        self.document.values[path] = node.mark
        if node.is_list:
            return [self.plain(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        if node.is_map:
            return self.mapping(node, path, depth)
        return RecipeText(node.value, self.folder) if isinstance(node.value, str) else node.value

    def mapping(self, node: _Node, path: Path_, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, mark, value in node.value:
            here = (*path, key)
            if key == "<<":
                self.problem(
                    "yaml-merge-key", here, "merge keys are not read", mark, "Write the keys out, or use `extends`."
                )
            elif key in data:
                first = self.document.keys[here]
                message = f"the key {key!r} stands here twice; first on line {first.line}"
                self.problem("duplicate-key", here, message, mark, "Keep one of them.")
            else:
                self.document.keys[here] = mark
                data[key] = self.plain(value, here, depth + 1)
        return data

    def problem(self, code: str, path: Path_, message: str, mark: Mark, remedy: str) -> None:
        self.document.problems.append(RecipeProblem(code, path, message, mark, remedy=remedy))
