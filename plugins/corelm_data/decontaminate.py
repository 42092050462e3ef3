"""Evaluation data out of the corpus."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple, Self

import numpy as np
from jaxtyping import UInt64
from pydantic import Field, model_validator

from corelm.kinds import (
    Choice,
    ComponentConfig,
    DataConfig,
    Evaluator,
    Record,
    Source,
    Spec,
    texts_of,
)
from corelm_data.one_by_one import OneByOne, Verdict, dropped
from corelm_data.shingles import hashed, places, words

_BLANK_LINE: Final = "\n\n"


class _Shared(NamedTuple):
    """What a text has in common with the evaluation data.

    Attributes:
        runs: first word and number of words of each run, wherever it stands.
        different: how many different ones these are.
        example: the words of the first.
    """

    runs: list[tuple[int, int]]
    different: int
    example: str


class Decontamination(OneByOne):
    """Drops documents that share runs of words with evaluation sets, or cuts these runs out.

    A document is contaminated that has ``least`` runs of ``ngram`` words in common with the evaluation data. Runs of 13
    words are GPT-3's measure (Brown et al., 2020, arXiv:2005.14165, appendix C), runs of 8 the one of PaLM (Chowdhery
    et al., 2022, arXiv:2204.02311). An item of the evaluation data that is shorter than a run, but has ``shortest``
    words or more, counts as a run of its own; shorter ones are not looked for. Words are compared in lower case and
    without punctuation.

    With ``remove: document`` the document is dropped and counted as ``contaminated``. With ``remove: window``, GPT-3's
    way, which is milder on books that some item quotes, each shared run goes together with ``window`` characters on
    either side, counted as ``contaminated-window``; of the pieces that are left those of fewer than ``piece_least``
    characters go too. A document that falls into more than ``pieces_most`` pieces, or of which none is left, is dropped
    and counted as ``contaminated``. GPT-3 made documents of the pieces; here they stay one, a blank line between them.
    Nor are runs spared that many documents share, as GPT-3 spared them: that is known only at the corpus's end.

    Evaluation data are given as sources, or as the tasks of evaluators, whose data are read. Of a question with several
    endings each is looked for, together with its context. Memory: 8 bytes per run of the evaluation data.
    """

    writes = (_BLANK_LINE,)

    class Config(ComponentConfig):
        """Against what, what counts, and what goes."""

        against: list[Spec[Source]] = Field([], description="Sources with evaluation data.")
        tasks: list[Spec[Evaluator]] = Field([], description="Evaluators with `data`, as in a stage that evaluates.")
        ngram: int = Field(13, ge=1, description="Words of a run.")
        shortest: int = Field(8, ge=1, description="Fewest words of an item that is looked for.")
        least: int = Field(1, ge=1, description="So many different runs must be shared.")
        remove: Literal["document", "window"] = Field(
            "document", description="What goes: the document, or the shared runs with a window of text around each."
        )
        window: int = Field(200, ge=0, description="Characters before and after a run that go with it.")
        piece_least: int = Field(200, ge=1, description="Fewest characters of a piece between windows.")
        pieces_most: int = Field(10, ge=1, description="Most pieces of a document; one of more is dropped.")

        @model_validator(mode="after")
        def _something(self) -> Self:
            if not self.against and not self.tasks:
                raise ValueError(
                    "give `against` (sources), or `tasks` (evaluators): what shall not be in the corpus?"
                )
            bare = [task.name for task in self.tasks if getattr(task.config, "data", None) is None]
            if bare:
                raise ValueError(
                    f"the task {bare[0]} has no data of its own; give it `data`, or its source in `against`"
                )
            return self

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._known: dict[int, UInt64[np.ndarray, " runs"]] | None = None

    def judge(self, text: str) -> Verdict | None:
        """Drop what shares runs, or cut them out."""
        detail, now, count = "", text, 0
        while (shared := self._shared(now)).different >= self.config.least:
            detail = detail or f"{shared.different} shared: {shared.example}"
            windows = self._windows(now, shared.runs) if self.config.remove == "window" else [(0, len(now))]
            left = _without(now, windows)
            kept = [piece for piece in left if len(piece) >= self.config.piece_least]
            if not kept or len(left) > self.config.pieces_most:
                return dropped("contaminated", detail)
            # Pieces that have come together may make a run again.
            now, count = _BLANK_LINE.join(kept), count + len(windows)
        return Verdict(now, {"contaminated-window": count}, detail) if count else None

    def _shared(self, text: str) -> _Shared:
        """Which runs of words of a text are in the evaluation data."""
        if self._known is None:
            self._known = self._learn()
        pieces = words(text)
        runs: list[tuple[int, int]] = []
        different = 0
        for length, known in self._known.items():
            if len(pieces) < length:
                continue
            mine = hashed(pieces, length)
            hits = known[np.minimum(np.searchsorted(known, mine), len(known) - 1)] == mine
            runs += [(int(start), length) for start in np.flatnonzero(hits)]
            different += len(np.unique(mine[hits]))
        first, length = runs[0] if runs else (0, 0)
        return _Shared(runs, different, " ".join(pieces[first : first + length]))

    def _windows(self, text: str, runs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """The stretches of text around some runs of words, those that touch made one."""
        at, window = places(text), self.config.window
        found: list[tuple[int, int]] = []
        for first, length in sorted(runs):
            start, stop = max(0, at[first][0] - window), at[first + length - 1][1] + window
            if found and start <= found[-1][1]:
                start, stop = found[-1][0], max(stop, found.pop()[1])
            found.append((start, stop))
        return found

    def _learn(self) -> dict[int, UInt64[np.ndarray, " runs"]]:
        """Sorted hashes of the runs in the evaluation data, by length."""
        config, found = self.config, dict[int, list[UInt64[np.ndarray, " runs"]]]()
        for record in itertools.chain.from_iterable(self._records()):
            for item in _texts(record):
                pieces = words(item)
                length = min(config.ngram, len(pieces))
                if length == config.ngram or length >= config.shortest:
                    found.setdefault(length, []).append(hashed(pieces, length))
        return {length: np.unique(np.concatenate(runs)) for length, runs in sorted(found.items())}

    def _records(self) -> Iterator[Iterator[Record]]:
        for source in self.config.against:
            yield source.build().records()
        for task in self.config.tasks:
            data: DataConfig = task.config.data
            yield itertools.islice(data.source.build().records(), data.limit)


def _without(text: str, windows: Sequence[tuple[int, int]]) -> list[str]:
    """The pieces of a text between some stretches of it, white space around them aside; blank ones are none."""
    starts, stops = [0, *(stop for _, stop in windows)], [*(start for start, _ in windows), len(text)]
    pieces = (text[start:stop].strip() for start, stop in zip(starts, stops, strict=True))
    return [piece for piece in pieces if piece]


def _texts(record: Record) -> list[str]:
    """The texts of an item that must not be known beforehand."""
    if isinstance(record, Choice):
        contexts = record.contexts * (len(record.endings) // len(record.contexts))
        return [f"{context} {ending}" for context, ending in zip(contexts, record.endings, strict=True)]
    return texts_of(record)
