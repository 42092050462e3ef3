"""Questions and answers out of Stack Exchange's dumps."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from xml.sax.saxutils import quoteattr

from pydantic import Field, model_validator

from corelm.kinds import Conversation, Count, Message, Record, Text
from corelm_data.compressed import UNPACKERS, Damaged, opened
from corelm_data.html_markdown import markdown
from corelm_data.reading import Broken, FilesConfig, FileSource, Row, SourceFile, as_broken
from corelm_data.xml_dumps import elements

_QUESTION, _ANSWER = "1", "2"


class StackExchange(FileSource):
    """Questions with their answers, out of the file Posts.xml of Stack Exchange's dumps.

    A document is a question, with its title, and its answers, best score first, equal ones oldest first; a conversation
    is a question and its best answer. Posts are HTML in the dump and Markdown here, as their authors wrote them, unless
    ``body`` says else. Records come in the order of the questions' numbers, and are named by file and number. Questions
    without an answer that is good enough are left out and counted as ``unanswered``.

    An answer may stand anywhere after its question, so posts are first put in order in a temporary database on disk,
    about as large as the file (in TMPDIR); memory is bounded, and the first record comes when the file has been read.
    The dumps are archives (.7z): unpack Posts.xml.
    """

    class Config(FilesConfig):
        """Which dumps, and what of them."""

        yields: Literal["text", "conversation"] = Field(
            "text", description="Type of the records: text, conversation."
        )
        answers: Count | None = Field(None, gt=0, description="Most answers of a question; by default all.")
        least_score: int | None = Field(None, description="Lowest score of an answer that is taken; by default any.")
        body: Literal["markdown", "html"] = Field("markdown", description="How posts are written.")

        @model_validator(mode="after")
        def _one_answer(self) -> Self:
            if self.yields == "conversation" and self.answers not in (None, 1):
                raise ValueError("answers: a conversation has the best answer alone; leave answers out")
            return self

    called: ClassVar[str] = "stack-exchange"

    def wanted(self, path: Path) -> bool:
        """Posts alone, of all tables of a dump."""
        return (path.stem if path.suffix.lower() in UNPACKERS else path.name) == "Posts.xml"

    def rows(self, file: SourceFile) -> Iterator[Row]:
        """Questions of a site.

        Raises:
            Broken, Damaged: it is no XML from some line on, unless what is broken is skipped; no posts at all.
        """
        # A database without a name lives in a temporary file that vanishes with it.
        with closing(sqlite3.connect("", check_same_thread=False)) as posts:
            posts.execute("CREATE TABLE question (id INTEGER PRIMARY KEY, title TEXT, body TEXT)")
            posts.execute("CREATE TABLE answer (id INTEGER PRIMARY KEY, parent INTEGER, score INTEGER, body TEXT)")
            try:
                self._put_in_order(file, posts)
            except (Broken, Damaged) as error:
                self.broken(as_broken(error), str(file.path), file.name)
            posts.execute("CREATE INDEX best ON answer (parent, score DESC, id)")
            for number, title, body in posts.execute("SELECT id, title, body FROM question ORDER BY id"):
                answers = self._answers(posts, number)
                if answers:
                    yield Row(f" question {number}", partial(self._record, title, body, answers))
                else:
                    self.report.leave_out("unanswered", f"{file.name} question {number}")

    @classmethod
    def example(cls, folder: Path, texts: Sequence[str]) -> dict[str, Any]:
        """Two sites; every question has an answer, and all questions come before them."""
        half = len(texts) // 2
        for site, part in enumerate((texts[:half], texts[half:])):
            kind = 'PostTypeId="{}" Id="{}" Score="1"'
            asked = [
                f"  <row {kind.format(1, n + 1)} Title={quoteattr(f'Question {n}')} Body={quoteattr(f'<p>{text}</p>')} />"
                for n, text in enumerate(part)
            ]
            said = [
                f'  <row {kind.format(2, 1001 + n)} ParentId="{n + 1}" Body="&lt;p&gt;Yes.&lt;/p&gt;" />'
                for n in range(len(part))
            ]
            (folder / str(site)).mkdir()
            content = "\n".join(['<?xml version="1.0" encoding="utf-8"?>', "<posts>", *asked, *said, "</posts>"])
            (folder / str(site) / "Posts.xml").write_bytes(content.encode())
        return {"paths": [str(folder)]}

    def _put_in_order(self, file: SourceFile, posts: sqlite3.Connection) -> None:
        known = False
        with opened(file.path) as stream:
            for number, (_, row) in enumerate(elements(stream, "row"), start=1):
                known = known or "PostTypeId" in row.attrib
                try:
                    _keep(row.attrib, posts)
                except (KeyError, ValueError, sqlite3.IntegrityError) as error:
                    wrong = Broken(_why(error), remedy="Fetch the file again.", code="broken-row")
                    self.broken(wrong, f"{file.path} row {number}", f"{file.name} row {number}")
        if not known:
            raise Broken("it holds no posts", remedy="Is it the file Posts.xml of a dump?", code="other-format")

    def _answers(self, posts: sqlite3.Connection, question: int) -> list[str]:
        least = -(2**63) if self.config.least_score is None else self.config.least_score
        most = 1 if self.config.yields == "conversation" else self.config.answers or -1
        found = posts.execute(
            "SELECT body FROM answer WHERE parent = ? AND score >= ? ORDER BY score DESC, id LIMIT ?",
            (question, least, most),
        )
        return [body for (body,) in found]

    def _record(self, title: str, body: str, answers: list[str], name: str) -> Record:
        question = f"{title}\n\n{self._body(body)}".strip()
        if self.config.yields == "text":
            return Text("\n\n".join([question, *map(self._body, answers)]), name)
        return Conversation((Message("user", question), Message("assistant", self._body(answers[0]))), name)

    def _body(self, html: str) -> str:
        return markdown(html) if self.config.body == "markdown" else html.strip()


def _keep(row: Any, posts: sqlite3.Connection) -> None:
    kind = row.get("PostTypeId")
    if kind == _QUESTION:
        posts.execute("INSERT INTO question VALUES (?, ?, ?)", (int(row["Id"]), row.get("Title", ""), row["Body"]))
    elif kind == _ANSWER:
        values = (int(row["Id"]), int(row["ParentId"]), int(row.get("Score", 0)), row["Body"])
        posts.execute("INSERT INTO answer VALUES (?, ?, ?, ?)", values)


def _why(error: Exception) -> str:
    return f"a post without {error.args[0]}" if isinstance(error, KeyError) else f"a post that is no such: {error}"
