"""What a tokenizer makes of texts, in figures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import regex  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from corelm.kinds.tokenizer import Tokenizer

ORDER = 2.5
"""Of Rényi's entropy, the one that fitted translation quality best (Zouhar et al., 2023)."""
AT_A_TIME = 4_000
"""Characters that are encoded at once, about: a document's length, not a corpus'."""

_WORD = regex.compile(r"\p{L}[\p{L}\p{M}]*")
_INVISIBLE = regex.compile(r"[\p{Cc}\p{Cf}\p{Co}\p{Cn}--\t\n\r]", flags=regex.V1)


@dataclass(frozen=True)
class OfText:
    """What became of one text.

    Attributes:
        bytes, characters, words, tokens: how many of each; a word is a run of letters with their marks.
        word_tokens: tokens of all words, each encoded on its own after a space.
        split_words: how many words took more than one token.
        unlike: whether decoding gives something else than the text.
        wrong: whether that is something else than the tokenizer declares, too.
        seconds_encoding, seconds_decoding: fastest of the runs.
    """

    bytes: int
    characters: int
    words: int
    tokens: int
    word_tokens: int
    split_words: int
    unlike: bool
    wrong: bool
    seconds_encoding: float
    seconds_decoding: float

    @property
    def bytes_per_token(self) -> float:
        """How many bytes of UTF-8 a token stands for."""
        return self.bytes / max(self.tokens, 1)

    @property
    def fertility(self) -> float:
        """Tokens per word (Rust et al., 2021, arXiv:2012.15613)."""
        return self.word_tokens / max(self.words, 1)

    @property
    def split(self) -> float:
        """Share of words that take more than one token (the same paper's continued words)."""
        return self.split_words / max(self.words, 1)


@dataclass(frozen=True)
class Figures:
    """What became of all texts, and what the vocabulary is like.

    Attributes:
        name: what the tokenizer is called in the report.
        texts: by name.
        counts: how often each id was used, ``(vocabulary,)``.
        longest: spellings of the longest tokens that are used or not, longest first.
        unreachable: tokens that are no specials and that their own spelling doesn't give.
        partial: tokens that are no whole characters.
        invisible: tokens of several characters with control, private or unassigned ones among them.
    """

    name: str
    texts: Mapping[str, OfText]
    counts: np.ndarray
    longest: Sequence[str]
    unreachable: Sequence[str]
    partial: int
    invisible: Sequence[str]

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return len(self.counts)

    @property
    def used(self) -> float:
        """Share of the vocabulary that the texts use at all."""
        return float((self.counts > 0).mean())

    @cached_property
    def efficiency(self) -> float:
        """Rényi's entropy of the ids' frequencies over that of a vocabulary used evenly (arXiv:2306.16842)."""
        shares = self.counts[self.counts > 0] / max(self.counts.sum(), 1)
        if len(shares) == 0 or self.vocab_size < 2:
            return 0.0
        return float(np.log((shares**ORDER).sum()) / (1 - ORDER) / np.log(self.vocab_size))

    @property
    def bytes_per_token(self) -> float:
        """Over all texts."""
        return sum(text.bytes for text in self.texts.values()) / max(int(self.counts.sum()), 1)

    @property
    def fertility(self) -> float:
        """Over all texts."""
        words = sum(text.words for text in self.texts.values())
        return sum(text.word_tokens for text in self.texts.values()) / max(words, 1)

    @property
    def encoding(self) -> float:
        """Megabytes per second of one thread."""
        return _speed(self.texts, "seconds_encoding")

    @property
    def decoding(self) -> float:
        """Megabytes per second of one thread."""
        return _speed(self.texts, "seconds_decoding")


def _speed(texts: Mapping[str, OfText], of: str) -> float:
    seconds = float(sum(getattr(text, of) for text in texts.values()))
    return sum(text.bytes for text in texts.values()) / 1e6 / max(seconds, 1e-9)


def measure(
    name: str, tokenizer: Tokenizer, texts: Mapping[str, str], *, longest: int = 12, runs: int = 3
) -> Figures:
    """Encode and decode each text, and look through the vocabulary.

    Args:
        name: what to call the tokenizer.
        tokenizer: trained.
        texts: by name.
        longest: how many of the longest tokens are told.
        runs: how often encoding and decoding are timed; the fastest counts.
    """
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    found = {}
    for title, text in texts.items():
        found[title], ids = _of_text(tokenizer, text, runs)
        counts += np.bincount(ids, minlength=len(counts))
    specials = set(tokenizer.specials.values())
    pieces = {token: tokenizer.decode_bytes([token]) for token in range(len(counts)) if token not in specials}
    spelt = {token: whole for token, piece in pieces.items() if (whole := _whole(piece)) is not None}
    order = sorted(spelt, key=lambda token: (-len(pieces[token]), token))
    return Figures(
        name,
        found,
        counts,
        [spelt[token] for token in order[:longest]],
        [text for token, text in spelt.items() if not _gives(tokenizer, text, token)],
        len(pieces) - len(spelt),
        [text for text in spelt.values() if len(text) > 1 and _INVISIBLE.search(text)],
    )


def _whole(piece: bytes) -> str | None:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return None


def _gives(tokenizer: Tokenizer, text: str, token: int) -> bool:
    """Whether the tokenizer ever writes this token for its own spelling: alone, or after a word."""
    return token in tokenizer.encode(text) or token in tokenizer.encode(f"a{text}")


def _of_text(tokenizer: Tokenizer, text: str, runs: int) -> tuple[OfText, list[int]]:
    chunks = _chunks(text)
    encoding = decoding = float("inf")
    encoded: list[list[int]] = []
    for _ in range(runs):
        began = time.perf_counter()
        encoded = [tokenizer.encode(chunk) for chunk in chunks]
        encoding = min(encoding, time.perf_counter() - began)
        began = time.perf_counter()
        decoded = [tokenizer.decode(ids) for ids in encoded]
        decoding = min(decoding, time.perf_counter() - began)
    words = Counter(_WORD.findall(text))
    lengths = dict(zip(words, map(len, (tokenizer.encode(f" {word}") for word in words)), strict=True))
    return (
        OfText(
            bytes=len(text.encode()),
            characters=len(text),
            words=words.total(),
            tokens=sum(map(len, encoded)),
            word_tokens=sum(lengths[word] * count for word, count in words.items()),
            split_words=sum(count for word, count in words.items() if lengths[word] > 1),
            unlike=decoded != chunks,
            wrong=decoded != [tokenizer.normalise(chunk) for chunk in chunks],
            seconds_encoding=encoding,
            seconds_decoding=decoding,
        ),
        [token for ids in encoded for token in ids],
    )


def _chunks(text: str) -> list[str]:
    """The text in pieces that end with a line, of about the length of a document."""
    chunks: list[list[str]] = [[]]
    size = 0
    for line in text.splitlines(keepends=True):
        if size >= AT_A_TIME:
            chunks.append([])
            size = 0
        chunks[-1].append(line)
        size += len(line)
    return ["".join(lines) for lines in chunks]
