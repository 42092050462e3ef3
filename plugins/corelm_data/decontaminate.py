"""Evaluation data out of the corpus."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from jaxtyping import UInt64
from pydantic import Field, model_validator

from corelm.kinds import (
    Choice,
    ComponentConfig,
    Conversation,
    DataConfig,
    Evaluator,
    Preference,
    Record,
    Source,
    Spec,
)
from corelm_data.one_by_one import OneByOne, Verdict, dropped
from corelm_data.shingles import hashed, words


class Decontamination(OneByOne):
    """Drops documents that share runs of words with evaluation sets.

    A document that has ``least`` runs of ``ngram`` words in common with the evaluation data is counted as
    ``contaminated``. Runs of 13 words are GPT-3's measure (Brown et al., 2020, arXiv:2005.14165, appendix C), runs of
    8 the one of PaLM (Chowdhery et al., 2022, arXiv:2204.02311). An item of the evaluation data that is shorter than a
    run, but has ``shortest`` words or more, counts as a run of its own; shorter ones are not looked for. Words are
    compared in lower case and without punctuation. GPT-3 cut a window of text around the run out; here the document
    goes.

    Evaluation data are given as sources, or as the tasks of evaluators, whose data are read. Of a question with several
    endings each is looked for, together with its context. Memory: 8 bytes per run of the evaluation data.
    """

    class Config(ComponentConfig):
        """Against what, and what counts."""

        against: list[Spec[Source]] = Field([], description="Sources with evaluation data.")
        tasks: list[Spec[Evaluator]] = Field([], description="Evaluators with `data`, as in a stage that evaluates.")
        ngram: int = Field(13, ge=1, description="Words of a run.")
        shortest: int = Field(8, ge=1, description="Fewest words of an item that is looked for.")
        least: int = Field(1, ge=1, description="So many different runs must be shared.")

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
        """Drop what shares runs."""
        if self._known is None:
            self._known = self._learn()
        pieces, shared, example = words(text), 0, ""
        for length, known in self._known.items():
            if len(pieces) < length:
                continue
            mine, starts = np.unique(hashed(pieces, length), return_index=True)
            places = np.minimum(np.searchsorted(known, mine), len(known) - 1)
            hits = starts[known[places] == mine]
            shared += len(hits)
            if len(hits) and not example:
                example = " ".join(pieces[hits.min() : hits.min() + length])
        return dropped("contaminated", f"{shared} shared: {example}") if shared >= self.config.least else None

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


def _texts(record: Record) -> list[str]:
    """The texts of an item that must not be known beforehand."""
    if isinstance(record, Choice):
        contexts = record.contexts * (len(record.endings) // len(record.contexts))
        return [f"{context} {ending}" for context, ending in zip(contexts, record.endings, strict=True)]
    if isinstance(record, Conversation):
        return [message.content for message in record.messages]
    if isinstance(record, Preference):
        return [*(message.content for message in record.prompt), record.chosen, record.rejected]
    return [record.text]
