"""Sources that are wrong about a format of which files are known, about a folder, or about Python's library."""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import re
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from corelm.conformance.planted import plant, reference
from corelm.errors import UserError
from corelm.kinds.component import ComponentConfig
from corelm.kinds.records import Record, RecordName, Text
from corelm.kinds.source import Source


@reference
class Pages(Source):
    """Markdown files, a document each."""

    format: ClassVar[str] = "markdown"
    known: ClassVar[dict[Any, str]] = {}

    class Config(ComponentConfig):
        """Options."""

        paths: list[str] = Field(min_length=1, description="Folders.")
        keep: list[Literal["front-matter", "comments"]] = Field(default_factory=list, description="What is kept.")

    @classmethod
    def yields(cls, config: Any) -> RecordName:
        """Text."""
        return "text"

    @classmethod
    def example(cls, folder: Path, texts: Sequence[str]) -> dict[str, Any]:
        """A file per text."""
        for number, text in enumerate(texts):
            (folder / f"{number:03}.md").write_bytes(text.encode())
        return {"paths": [str(folder)]}

    def files(self) -> list[tuple[str, Path]]:
        """With their names, in order."""
        folders = [Path(path) for path in self.config.paths]
        found = [(file.relative_to(f).as_posix(), file) for f in folders for file in sorted(f.rglob("*"))]
        return [(name, file) for name, file in found if file.suffix.lower() == ".md" and self.shown(name)]

    def shown(self, name: str) -> bool:
        """Whether a file is data."""
        return not any(part.startswith(".") for part in name.split("/"))

    def records(self, start: int = 0) -> Iterator[Record]:
        """From a position on."""
        return itertools.islice(self.all(), start, None)

    def all(self) -> Iterator[Record]:
        """All of them."""
        for name, file in self.files():
            try:
                text = self.seen(file.read_bytes().decode())
                if not text.strip():
                    raise ValueError("it holds no text")
            except ValueError as error:
                raise UserError(f"{file}: {error}") from error
            yield Text(text, f"markdown: {name}")

    def seen(self, text: str) -> str:
        """Without what no reader sees."""
        if "front-matter" not in self.config.keep:
            text = re.sub(r"\A(---|\+\+\+)\r?\n.*?\n\1(\r?\n|\Z)", "", text, count=1, flags=re.S).lstrip("\r\n")
        return text if "comments" in self.config.keep else self.without_comments(text)

    def without_comments(self, text: str) -> str:
        """Outside of code."""
        code = r"^```.*?^```|`[^`\n]+`"
        comment = r"^<!--.*?-->\n(?=\n)|(?<= )<!--.*?--> *|<!--.*?-->"
        return re.sub(f"({code})|{comment}", lambda match: match[1] or "", text, flags=re.S | re.M)

    def fingerprint(self) -> str:
        """Of names and contents."""
        return hashlib.sha256(b"".join(self.digest(name, file) for name, file in self.files())).hexdigest()

    def digest(self, name: str, file: Path) -> bytes:
        """Of a file."""
        return hashlib.sha256(f"{name}\0".encode() + file.read_bytes()).digest()


@plant("format_of_its_name", "comments are taken out of code, too")
class CommentsInCode(Pages):
    """A page about HTML that says nothing."""

    def without_comments(self, text: str) -> str:
        return re.sub("<!--.*?-->", "", text, flags=re.S)


@plant("format_of_its_name", "the first line of three dashes is the front matter's end, wherever that is")
class CutsAtTheRule(Pages):
    """Half a page."""

    def seen(self, text: str) -> str:
        return super().seen(text.rpartition("\n---\n")[2] if text.startswith("---\n") else text)


@plant("hidden_files_are_no_data", "all files of a folder")
class TakesHidden(Pages):
    """An editor's copy, once more."""

    def shown(self, name: str) -> bool:
        return True


@plant("fingerprint_follows_names", "a digest of contents alone")
class ContentsAlone(Pages):
    """Other names, other samples, the same fingerprint."""

    def digest(self, name: str, file: Path) -> bytes:
        return hashlib.sha256(file.read_bytes()).digest()


@plant("large_files_are_followed", "digests of large files are remembered by size and time")
class RemembersByTime(Pages):
    """A copy with its times is taken for the old one."""

    def digest(self, name: str, file: Path) -> bytes:
        status = file.stat()
        if status.st_size < 2**20:
            return super().digest(name, file)
        found = self.known.setdefault((file, status.st_size, status.st_mtime_ns), super().digest(name, file).hex())
        return bytes.fromhex(found)


@reference
class LibraryTexts(Source):
    """Python's library: programs, docstrings, help topics."""

    format: ClassVar[str] = "python-stdlib"

    class Config(ComponentConfig):
        """Options."""

        include: list[Literal["code", "docstrings", "topics"]] = Field(["code"], min_length=1, description="What.")
        part: Literal["train", "holdout", "all"] = Field("all", description="Which files.")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.folder = Path(sysconfig.get_paths()["stdlib"])

    @classmethod
    def yields(cls, config: Any) -> RecordName:
        """Text."""
        return "text"

    def files(self) -> list[str]:
        """Names in order."""
        left_out = ("test/", "site-packages/", "pydoc_data/", "dist-packages/")
        found = sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*.py"))
        return [name for name in found if not name.startswith(left_out) and self.wanted(name)]

    def wanted(self, name: str) -> bool:
        """Whether a file is in the part."""
        return self.config.part == "all" or self.held_out(name) == (self.config.part == "holdout")

    def held_out(self, name: str) -> bool:
        """One in ten."""
        return hashlib.sha256(name.encode()).digest()[0] % 10 == 0

    def all(self) -> Iterator[Record]:
        """All of them."""
        for kind in self.config.include:
            for name, text in self.topics() if kind == "topics" else self.programs(kind):
                if text:
                    yield Text(text, f"python-stdlib: {name}")

    def programs(self, kind: str) -> Iterator[tuple[str, str]]:
        """Files, or their docstrings."""
        for name in self.files():
            content = (self.folder / name).read_bytes()
            text = content.decode("latin-1" if b"latin-1" in content else "utf-8", "replace")
            yield (name, text) if kind == "code" else (f"{name} (docstrings)", self.docstrings(text))

    def docstrings(self, text: str) -> str:
        """In order."""
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            return ""
        found = ((ast.get_docstring(node) or "").strip() for node in self.nodes(tree))
        return "\n\n".join(filter(None, found))

    def nodes(self, tree: ast.Module) -> list[Any]:
        """What may have a docstring, in the order of lines."""
        known = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        return sorted(
            (node for node in ast.walk(tree) if isinstance(node, known)), key=lambda node: getattr(node, "lineno", 0)
        )

    def topics(self) -> Iterator[tuple[str, str]]:
        """By name."""
        text = (self.folder / "pydoc_data" / "topics.py").read_text(encoding="utf-8")
        known = json.loads(json.dumps(ast.literal_eval(text.partition("topics = ")[2])))
        yield from ((f"topic {name}", known[name]) for name in sorted(known))

    def records(self, start: int = 0) -> Iterator[Record]:
        """From a position on."""
        return itertools.islice(self.all(), start, None)

    def fingerprint(self) -> str:
        """Of names."""
        return " ".join(self.files())


@plant("library_as_written", "nested definitions come before their neighbours' docstrings: the walk is by depth")
class ByDepth(LibraryTexts):
    """Methods apart from their classes."""

    def nodes(self, tree: ast.Module) -> list[Any]:
        known = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        return [node for node in ast.walk(tree) if isinstance(node, known)]


@plant("parts_share_nothing", "train is everything")
class TrainsOnAll(LibraryTexts):
    """What is held out was trained on."""

    def wanted(self, name: str) -> bool:
        return self.config.part != "holdout" or self.held_out(name)
