"""The rules of the Colossal Clean Crawled Corpus."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Final

from pydantic import Field

from corelm.errors import UserError
from corelm.kinds import ComponentConfig, LocalPath
from corelm_data import sentences
from corelm_data.measures import Measure, first_outside
from corelm_data.one_by_one import OneByOne, Verdict, dropped

TERMINAL: Final = (".", "!", "?", '"', "”")
POLICIES: Final = (
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies",
)  # fmt: skip
_CITATION: Final = re.compile(r"\[(?:\d+|edit|citation needed)\]", re.IGNORECASE)


class C4Quality(OneByOne):
    """Drops documents and lines that are no natural text, by the rules of C4.

    The rules of section 2.2 of Raffel et al., 2020, arXiv:1910.10683, with their thresholds as defaults. Marks of
    citations (``[1]``, ``[citation needed]``, ``[edit]``) are taken out; of the lines those stay that end in a terminal
    punctuation mark, have enough words, and speak neither of JavaScript nor of a site's policies. Dropped are documents
    with "lorem ipsum" (``lorem-ipsum``), with a curly bracket (``curly-bracket``), with a word of the block list
    (``blocked-word``), and those that have too few sentences left (``sentence-count``). Rewritten ones are counted as
    often as ``citation-mark``, ``line-without-end``, ``short-line``, ``javascript-line`` and ``policy-line`` apply.

    Other parts are C4's removal of three-sentence spans that have come before (``c4-dedup``, the step after this one)
    and its language filter (``language``). Its list of words is not ours to give: name a file of one word or phrase per
    line.
    """

    class Config(ComponentConfig):
        """The thresholds and rules."""

        sentences_least: int = Field(
            3, ge=0, description="Fewest sentences of a document, after lines were taken out."
        )
        words_least: int = Field(5, ge=0, description="Fewest words of a line.")
        terminal_punctuation: bool = Field(True, description="Keep only lines that end in . ! ? or a quotation mark.")
        javascript: bool = Field(True, description="Take out lines that speak of JavaScript.")
        policies: bool = Field(True, description="Take out lines about terms of use, privacy policy and cookies.")
        citations: bool = Field(True, description="Take out marks of citations.")
        lorem_ipsum: bool = Field(True, description="Drop documents with placeholder text.")
        curly_brackets: bool = Field(True, description="Drop documents with a {, which is likely code.")
        blocked_words: LocalPath | None = Field(
            None, description="File of words and phrases, one per line; null: none."
        )

    def judge(self, text: str) -> Verdict | None:
        """Drop, or take lines out."""
        refused = self._refused(text)
        if refused is not None:
            return refused
        reasons: dict[str, int] = {}
        now, before = self._shortened(text, reasons), text
        while now != before:
            now, before = self._shortened(now, reasons), now
        refused = self._refused(now) or first_outside(self._counted(now))
        if refused is not None:
            return refused
        return Verdict(now, reasons) if now != text else None

    def _refused(self, text: str) -> Verdict | None:
        """The rules for whole pages."""
        lower = text.lower()
        if self.config.lorem_ipsum and "lorem ipsum" in lower:
            return dropped("lorem-ipsum")
        if self.config.curly_brackets and "{" in text:
            return dropped("curly-bracket")
        found = self._blocked.search(lower) if self._blocked else None
        return dropped("blocked-word", found[0]) if found else None

    def _shortened(self, text: str, reasons: dict[str, int]) -> str:
        if self.config.citations:
            text, marks = _CITATION.subn("", text)
            reasons |= {"citation-mark": reasons.get("citation-mark", 0) + marks} if marks else {}
        kept = []
        for line in text.split("\n"):
            reason = self._unwanted(line)
            if not reason:
                kept.append(line)
            else:
                reasons[reason] = reasons.get(reason, 0) + 1
        return "\n".join(kept)

    def _unwanted(self, line: str) -> str:
        """Why a line is taken out; blank ones are short."""
        lower, config = line.lower(), self.config
        if len(line.split()) < config.words_least:
            return "short-line"
        if config.terminal_punctuation and not line.rstrip().endswith(TERMINAL):
            return "line-without-end"
        if config.javascript and "javascript" in lower:
            return "javascript-line"
        return "policy-line" if config.policies and any(words in lower for words in POLICIES) else ""

    def _counted(self, text: str) -> list[Measure]:
        return [Measure("sentence-count", sentences.count(text), self.config.sentences_least)]

    @cached_property
    def _blocked(self) -> re.Pattern[str] | None:
        """Any of the blocked words, as a word of its own."""
        if self.config.blocked_words is None:
            return None
        path = Path(self.config.blocked_words)
        try:
            lines = path.read_text(encoding="utf-8").lower().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"cleaner c4-quality: {path}: the blocked words can't be read: {error}",
                remedy="Name a file in UTF-8 with one word or phrase per line; a path starts from the recipe's folder.",
                code="blocked-words-unreadable",
            ) from error
        words = sorted({line.strip() for line in lines if line.strip()}, key=len, reverse=True)
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)") if words else None
