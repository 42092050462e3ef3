"""Questions and answers out of the standard library's docstrings."""

from __future__ import annotations

import ast
import hashlib
import inspect
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from corelm.kinds import (
    Choice,
    ComponentConfig,
    Conversation,
    Message,
    Preference,
    Record,
    Source,
    Text,
)
from corelm_data import library

_ENDINGS: Final = 4


@dataclass(frozen=True)
class Described:
    """A public function or class and the first paragraph of its docstring.

    Attributes:
        name: qualified, e.g. ``json.decoder.JSONDecoder.decode``.
        module: e.g. ``json.decoder``.
        header: its first line of code, e.g. ``def decode(self, s):``.
        call: as one would write its use, e.g. ``json.decoder.JSONDecoder.decode(s)``; classes: their name.
        answer: one line.
        path: of its file, in the library.
    """

    name: str
    module: str
    header: str
    call: str
    answer: str
    path: str = ""

    @property
    def question(self) -> str:
        """What a user would ask."""
        return f"What is `{self.call}`?" if self.header.startswith("class") else f"What does `{self.call}` do?"


class LibraryDocstrings(Source):
    """Questions and answers mined from the docstrings of Python's standard library.

    Public functions, methods and classes that have a docstring, found in the same files as ``python-stdlib`` with
    ``ast``; nothing is executed. The answer is the docstring's first paragraph on one line. Of functions with equal
    answers the first is taken, so no answer occurs twice.

    * ``conversation``: “What does `textwrap.dedent(text)` do?” and the answer.
    * ``preference``: the answer is chosen, another function's of the same module (if it has none, of the same package,
      of the library) rejected.
    * ``choice``: the function's answer among three others of the same module, package or library, shuffled; all are
      right for some function, so guessing gives a quarter. The context is code (``def dedent(text):`` and the quotes)
      or the question.
    * ``text``: question and answer in one document.

    ``part`` separates training from evaluation: one file in ten, chosen by the hash of its path, is in ``holdout``, the
    others in ``train``; wrong answers come from the same part, so neither sees the other's. ``python-stdlib`` has the
    same parts: a corpus of ``train`` has never seen a held-out function. What goes with what is drawn by hash: the same
    on every machine with the same library.
    """

    class Config(ComponentConfig):
        """What is made of the docstrings."""

        yields: Literal["conversation", "preference", "choice", "text"] = Field(
            "conversation", description="Type of the records."
        )
        part: library.Part = Field(
            "all", description="Which files' functions: train and holdout (one in ten) share none."
        )
        max_characters: int = Field(
            480, ge=80, description="Longest question and answer together; longer answers are cut after a sentence."
        )
        context: Literal["code", "question"] = Field("code", description="How the context of a choice is written.")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.folder = library.root()

    def records(self, start: int = 0) -> Iterator[Record]:
        """Yield records from position ``start`` on.

        Raises:
            UserError: this Python comes without source files.
        """
        chosen = self._chosen()
        make: Callable[[Described, _Neighbours], Record] = getattr(self, f"_{self.config.yields}")
        neighbours = _Neighbours(chosen)
        return (make(item, neighbours) for item in itertools.islice(chosen, start, None))

    def fingerprint(self) -> str:
        """Digest of all that was mined."""
        return library.digest([(item.name, f"{item.question}\n{item.answer}".encode()) for item in self._chosen()])

    def notes(self) -> list[str]:
        """What is left out on this machine."""
        return library.notes(self.folder)

    def _chosen(self) -> list[Described]:
        mined = _mine(self.folder, self.config.max_characters)
        return [item for item in mined if library.wanted(item.path, self.config.part)]

    def _name(self, item: Described) -> str:
        return f"stdlib-docstrings: {item.name}"

    def _conversation(self, item: Described, _: _Neighbours) -> Record:
        return Conversation((Message("user", item.question), Message("assistant", item.answer)), self._name(item))

    def _preference(self, item: Described, neighbours: _Neighbours) -> Record:
        (other,) = neighbours.draw(item, 1)
        return Preference((Message("user", item.question),), item.answer, other.answer, self._name(item))

    def _choice(self, item: Described, neighbours: _Neighbours) -> Record:
        gold = _number(item.name, "gold") % _ENDINGS
        endings = [other.answer for other in neighbours.draw(item, _ENDINGS - 1)]
        endings.insert(gold, item.answer)
        context = f'{item.header}\n    """' if self.config.context == "code" else f"{item.question}\n"
        return Choice((context,), tuple(endings), gold, self._name(item))

    def _text(self, item: Described, _: _Neighbours) -> Record:
        return Text(f"{item.question}\n\n{item.answer}\n", self._name(item))


class _Neighbours:
    """Draws other functions, the nearest first: of the same module, the same package, the library."""

    def __init__(self, items: Sequence[Described]) -> None:
        self._rings: list[dict[str, list[Described]]] = [{}, {}, {}]
        for item in items:
            for ring, key in zip(self._rings, self._keys(item), strict=True):
                ring.setdefault(key, []).append(item)

    def draw(self, item: Described, count: int) -> list[Described]:
        """Draw ``count`` different others, by hash of the item's name."""
        found: list[Described] = []
        for ring, key in zip(self._rings, self._keys(item), strict=True):
            pool = [other for other in ring[key] if other is not item and other not in found]
            while pool and len(found) < count:
                found.append(pool.pop(_number(item.name, f"neighbour {len(found)}") % len(pool)))
            if len(found) == count:
                break
        return found

    @staticmethod
    def _keys(item: Described) -> tuple[str, str, str]:
        return item.module, item.module.partition(".")[0], ""


def _number(name: str, purpose: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{purpose}: {name}".encode()).digest()[:8], "big")


@cache
def _mine(folder: Path, max_characters: int) -> tuple[Described, ...]:
    """All described functions and classes of the library, in the order of files and lines.

    Names and answers are all different: of definitions alike in either, the first is taken.
    """
    found: dict[str, Described] = {}
    names: set[str] = set()
    for path in library.files(folder):
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        code = library.read(folder / path)
        if code is None or any(part.startswith("_") for part in module.split(".")):
            continue
        try:
            tree = ast.parse(code)
        except (SyntaxError, ValueError):
            continue
        for described in _described(tree, module, module, max_characters):
            item = replace(described, path=path)
            if item.name not in names and item.answer not in found:
                names.add(item.name)
                found[item.answer] = item
    return tuple(found.values())


def _described(tree: ast.AST, module: str, prefix: str, max_characters: int) -> Iterator[Described]:
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        name = f"{prefix}.{node.name}"
        header, call = _spelt(node, name)
        item = Described(name, module, header, call, "")
        answer = first_paragraph(ast.get_docstring(node, clean=False) or "", max_characters - len(item.question))
        if answer:
            yield Described(name, module, header, call, answer)
        if isinstance(node, ast.ClassDef):
            yield from _described(node, module, name, max_characters)


def _spelt(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> tuple[str, str]:
    """Header and call of a definition, without annotations; long signatures become ``…``."""
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}:", name
    arguments = node.args
    for argument in ast.walk(arguments):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    signature = ast.unparse(arguments)
    signature = signature if len(signature) <= 60 else "…"
    call = re.sub(r"^(self|cls)(, |$)", "", signature)
    return f"def {node.name}({signature}):", f"{name}({call})"


def first_paragraph(docstring: str, longest: int) -> str:
    """The first paragraph that isn't a signature, on one line, cut after its last sentence within ``longest``.

    Nothing, if it is no prose: shorter than three words, or with a console session in it.
    """
    paragraphs = (" ".join(part.split()) for part in inspect.cleandoc(docstring).split("\n\n"))
    paragraph = next((part for part in paragraphs if not re.match(r"[\w.]+\(.*\)\.?( *->|$)", part)), "")
    if len(paragraph) > longest:
        ends = [match.end() for match in re.finditer(r"[.!?](?= )", paragraph[: max(longest, 0) + 1])]
        paragraph = paragraph[: ends[-1]] if ends else ""
    return paragraph if len(paragraph.split()) >= 3 and ">>>" not in paragraph else ""
