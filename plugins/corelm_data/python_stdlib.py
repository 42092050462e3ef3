"""The standard library as a corpus."""

from __future__ import annotations

import ast
import hashlib
import itertools
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from corelm.errors import UserError
from corelm.kinds import ComponentConfig, Count, Source, Text
from corelm_data import library

Kind = Literal["code", "docstrings", "topics"]


class PythonLibrary(Source):
    """Python's own standard library as text.

    Real text that every machine with Python has: about ten megabytes of program and prose. Documents are

    * ``code``: the source files, named by their path, e.g. ``python-stdlib: json/decoder.py``;
    * ``docstrings``: the docstrings of each file, one after the other, as ``… textwrap.py (docstrings)``;
    * ``topics``: the language's help topics (``pydoc_data.topics``), as ``… topic ASSIGNMENT``.

    sorted within each kind. Nothing is executed. Folders that hold no library text are left out; ``notes`` names them
    and what the distribution at hand lacks (some ship tkinter, venv and others apart). Another version of Python is
    another corpus: the fingerprint says so.
    """

    class Config(ComponentConfig):
        """What is taken, and how much."""

        include: list[Kind] = Field(
            ["code", "topics"], min_length=1, description="What is taken: code, docstrings, topics."
        )
        part: library.Part = Field(
            "all", description="Which files: train and holdout (one in ten) share none; see stdlib-docstrings."
        )
        limit_bytes: Count | None = Field(
            None, gt=0, description="Take a sample of whole documents of at most this many bytes together."
        )

    revision: ClassVar[int] = 1

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.folder = library.root()

    def records(self, start: int = 0) -> Iterator[Text]:
        """Yield documents from position ``start`` on.

        Raises:
            UserError: no source files, or no document within ``limit_bytes``.
        """
        chosen = None if self.config.limit_bytes is None else self._sample(self.config.limit_bytes)
        documents = (text for text in self._documents() if chosen is None or text.name in chosen)
        return itertools.islice(documents, start, None)

    def fingerprint(self) -> str:
        """Digest of names, sizes and contents."""
        return library.digest([(text.name, text.text.encode()) for text in self._documents()])

    def notes(self) -> list[str]:
        """What is left out on this machine."""
        return library.notes(self.folder)

    def _documents(self) -> Iterator[Text]:
        for kind in dict.fromkeys(self.config.include):
            for name, text in self._topics() if kind == "topics" else self._files(kind):
                if text:
                    yield Text(text, f"python-stdlib: {name}")

    def _files(self, kind: Kind) -> Iterator[tuple[str, str]]:
        for name in library.files(self.folder):
            text = library.read(self.folder / name) if library.wanted(name, self.config.part) else None
            if text is None:
                continue
            yield (name, text) if kind == "code" else (f"{name} (docstrings)", docstrings(text))

    def _topics(self) -> Iterator[tuple[str, str]]:
        path = self.folder / "pydoc_data" / "topics.py"
        text = library.read(path) if path.is_file() else None
        if text is None:
            return
        tables = [node.value for node in ast.parse(text).body if isinstance(node, ast.Assign)]
        topics = {name: topic for table in tables for name, topic in ast.literal_eval(table).items()}
        for name in sorted(topics):
            if library.wanted(f"topic {name}", self.config.part):
                yield f"topic {name}", topics[name]

    def _sample(self, limit: int) -> frozenset[str]:
        """Names of documents, drawn by their hash, that fit into ``limit`` bytes."""
        sizes = {text.name: len(text.text.encode()) for text in self._documents()}
        chosen, total = set(), 0
        for name in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
            if total + sizes[name] <= limit:
                chosen.add(name)
                total += sizes[name]
        if not chosen:
            raise UserError(
                f"source python-stdlib: no document has {limit} bytes or less",
                remedy=f"Set limit_bytes to at least {min(sizes.values(), default=0)}.",
                code="corpus-empty",
            )
        return frozenset(chosen)


def docstrings(code: str) -> str:
    """Docstrings of a source file, in order, a blank line between them; nothing if it isn't valid Python."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError):
        return ""
    described = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = sorted(
        (node for node in ast.walk(tree) if isinstance(node, described)), key=lambda node: getattr(node, "lineno", 0)
    )
    found = [ast.get_docstring(node) for node in nodes]
    return "\n\n".join(text.strip() for text in found if text and text.strip())
