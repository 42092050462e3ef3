"""The quality rules of MassiveText, which Gopher was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydantic import Field

from corelm.kinds import ComponentConfig, Count
from corelm_data.measures import Measure, first_outside
from corelm_data.one_by_one import OneByOne, Verdict

BULLETS: Final = ("•", "●", "◦", "▪", "‣", "∙", "*", "-", "–")
ELLIPSES: Final = ("...", "…")
STOP_WORDS: Final = ("the", "be", "to", "of", "and", "that", "have", "with")


class GopherQuality(OneByOne):
    """Drops documents that look like no prose, by the rules of Gopher.

    The rules of appendix A.1.1 of Rae et al., 2021, arXiv:2112.11446, with their thresholds as defaults. Words are what
    white space separates, lines what line breaks separate (empty ones don't count); a figure that equals its threshold
    passes. Each document dropped is counted under the first rule that it breaks, in this order: ``word-count``,
    ``word-length``, ``hashes``, ``ellipses``, ``bullet-lines``, ``ellipsis-lines``, ``alphabetic-words``,
    ``stop-words``. The stop words are English; for another language give its own.
    """

    class Config(ComponentConfig):
        """The thresholds; one that nothing reaches switches its rule off."""

        words_least: Count = Field(50, ge=0, description="Fewest words of a document.")
        words_most: Count = Field(100_000, ge=1, description="Most words of a document.")
        word_length_least: float = Field(3.0, ge=0, description="Least mean length of its words, in characters.")
        word_length_most: float = Field(10.0, gt=0, description="Greatest mean length of its words.")
        hashes: float = Field(0.1, ge=0, description="Most hash symbols (#) per word.")
        ellipses: float = Field(0.1, ge=0, description="Most ellipses (... or …) per word.")
        bullet_lines: float = Field(0.9, ge=0, le=1, description="Largest share of lines that begin with a bullet.")
        ellipsis_lines: float = Field(0.3, ge=0, le=1, description="Largest share of lines that end in an ellipsis.")
        alphabetic_words: float = Field(0.8, ge=0, le=1, description="Least share of words with a letter in them.")
        stop_words: int = Field(2, ge=0, description="So many different words of `stop_word_list` must occur.")
        stop_word_list: list[str] = Field(
            list(STOP_WORDS), description="Words that coherent text is held together by."
        )

    def judge(self, text: str) -> Verdict | None:
        """Drop what breaks a rule."""
        return first_outside(self._measures(text))

    def _measures(self, text: str) -> Iterator[Measure]:
        config, words = self.config, text.split()
        count = max(1, len(words))
        yield Measure("word-count", len(words), config.words_least, config.words_most)
        mean = sum(map(len, words)) / count
        yield Measure("word-length", mean, config.word_length_least, config.word_length_most)
        yield Measure("hashes", text.count("#") / count, most=config.hashes)
        yield Measure("ellipses", sum(map(text.count, ELLIPSES)) / count, most=config.ellipses)
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        bullets = sum(line.startswith(BULLETS) for line in lines) / max(1, len(lines))
        yield Measure("bullet-lines", bullets, most=config.bullet_lines)
        ended = sum(line.endswith(ELLIPSES) for line in lines) / max(1, len(lines))
        yield Measure("ellipsis-lines", ended, most=config.ellipsis_lines)
        lettered = sum(any(map(str.isalpha, word)) for word in words) / count
        yield Measure("alphabetic-words", lettered, config.alphabetic_words)
        found = set(config.stop_word_list).intersection(_bare(word) for word in words)
        yield Measure("stop-words", len(found), config.stop_words)


def _bare(word: str) -> str:
    """A word in lower case, without punctuation around it."""
    return word.lower().strip(".,;:!?\"'()[]“”‘’«»—–-")
