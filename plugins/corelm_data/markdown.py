"""Markdown files as documents."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from corelm.kinds import Count, Text
from corelm_data.reading import FilesConfig, FileSource, Row, SourceFile
from corelm_data.text_files import decoded, empty

_FRONT: Final = re.compile(r"\A(---|\+\+\+)[ \t]*\r?\n(?:.*?\r?\n)??\1[ \t]*(?:\r?\n|\Z)", re.DOTALL)
"""YAML between lines of three dashes, or TOML between lines of three plus signs, at the very beginning."""

_CODE_OR_COMMENT: Final = re.compile(
    r"^(?P<fence> {0,3}(?P<mark>`{3,}|~{3,})[^\n]*\n.*?(?:^ {0,3}(?P=mark)[`~]*[ \t]*(?:\r?\n|\Z)|\Z))"
    r"|(?P<span>(?<!`)(?P<ticks>`+)(?!`)(?:(?!\n[ \t]*\r?\n).)+?(?<!`)(?P=ticks)(?!`))"
    r"|(?P<comment>^<!--.*?-->[ \t]*(?:\r?\n(?=[ \t]*(?:\r?\n|\Z)))?|(?<=[ \t])<!--.*?-->[ \t]*|<!--.*?-->)",
    re.DOTALL | re.MULTILINE,
)
"""What may hold ``<!--`` and is code, before comments themselves: the first that matches wins.

With a comment go the blanks behind it, unless they part two words, and its line break where it has the line for itself.
"""


class Markdown(FileSource):
    """Markdown files as documents, as they are written but for what no reader sees.

    Markup is kept: it is what a model shall learn. Front matter (YAML or TOML at the beginning) is data about the page,
    and HTML comments are notes between authors; both are taken off unless ``keep`` names them. A comment inside of code
    (between backticks, or in a fenced block) is code, and stays. Each file is a document, in UTF-8, held in memory
    whole; a byte order mark is taken off.
    """

    class Config(FilesConfig):
        """Which files, and what is kept of them."""

        keep: list[Literal["front-matter", "comments"]] = Field(
            default_factory=list, description="What is kept although no reader sees it: front-matter, comments."
        )
        longest: Count = Field(64_000_000, gt=0, description="Most characters of a file; a longer one is broken.")

    called: ClassVar[str] = "markdown"
    endings: ClassVar[frozenset[str]] = frozenset({".md", ".markdown", ".mdown", ".mkd", ".mdx", ".qmd", ".rmd"})

    def rows(self, file: SourceFile) -> Iterator[Row]:
        """The file."""
        yield Row("", partial(self._document, file.path))

    @classmethod
    def example(cls, folder: Path, texts: Sequence[str]) -> dict[str, Any]:
        """A file per text, with front matter."""
        for number, text in enumerate(texts):
            (folder / f"{number:03}.md").write_bytes(f"---\ntitle: Page {number}\n---\n{text}".encode())
        return {"paths": [str(folder)]}

    def _document(self, path: Path, name: str) -> Text:
        text = decoded(path, self.config.longest)
        if "front-matter" not in self.config.keep:
            text = _FRONT.sub("", text, count=1).lstrip("\r\n")
        if "<!--" in text and "comments" not in self.config.keep:
            text = _CODE_OR_COMMENT.sub(lambda match: "" if match["comment"] else match[0], text)
        if not text.strip():
            raise empty()
        return Text(text, name)
