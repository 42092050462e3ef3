"""Tokenized documents on disk: any part of them is read without the rest, at constant memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Bool, Int

from corelm.errors import UserError
from corelm.files import read_json, write_json, writing
from corelm.kinds.packer import Outline, Tokens
from corelm.pipeline.shards import Shard, ShardFacts, write_shards

LIST: Final = "tokens.json"
"""The list of a store's shards, in order."""


class DiskTokens:
    """A folder of shards, one after the other; implements ``corelm.kinds.packer.TokenStore``.

    A shard is verified when it is first read from. Memory: 8 bytes per shard, and what the system keeps of the files
    as long as it has room.

    Raises:
        UserError: the list or a shard is missing, truncated or altered.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self._facts = [ShardFacts(**entry) for entry in read_json(folder / LIST)["shards"]]
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{folder / LIST}: not a list of shards",
                remedy="Remove the stage's folder to have it made again.",
                code="tokens-damaged",
            ) from error
        for facts in self._facts:
            facts.require(folder)
        self._starts = np.cumsum([0, *(facts.documents for facts in self._facts)])
        self.tokens = sum(facts.tokens for facts in self._facts)
        self._opened: list[Shard | None] = [None] * len(self._facts)

    def __len__(self) -> int:
        """Number of documents."""
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Tokens:
        """One document; its arrays are copies."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        one = np.array([index])
        outline = self.outline(one)
        ((ids, learn),) = self.read(one, np.zeros(1, dtype=np.int64), outline.lengths)
        return Tokens(
            np.array(ids, dtype=np.int64),
            None if learn is None else np.array(learn),
            self.names(one)[0],
            int(outline.groups[0]),
            int(outline.labels[0]),
        )

    def outline(self, indices: Int[np.ndarray, " documents"]) -> Outline:
        """Lengths, last tokens, groups and classes of these documents."""
        found = np.full((4, len(indices)), -1, dtype=np.int64)
        shards = self._shards_of(indices)
        order = np.argsort(shards, kind="stable")
        for here in np.split(order, np.flatnonzero(np.diff(shards[order])) + 1) if len(order) else []:
            number = int(shards[here[0]])
            shard, local = self._shard(number), indices[here] - self._starts[number]
            ends = shard.offsets[local + 1]
            found[0, here] = ends - shard.offsets[local]
            filled = found[0, here] > 0
            found[1, here[filled]] = shard.ids[ends[filled] - 1]
            for row, values in ((2, shard.groups), (3, shard.labels)):
                if values is not None:
                    found[row, here] = values[local]
        return Outline(*found)

    def read(
        self,
        documents: Int[np.ndarray, " runs"],
        starts: Int[np.ndarray, " runs"],
        stops: Int[np.ndarray, " runs"],
    ) -> list[tuple[Int[np.ndarray, " tokens"], Bool[np.ndarray, " tokens"] | None]]:
        """Tokens ``start … stop − 1`` of each of these documents and their ``learn``: views of the shards."""
        shards = self._shards_of(documents)
        local = documents - self._starts[shards]
        runs = zip(shards.tolist(), local.tolist(), starts.tolist(), stops.tolist(), strict=True)
        found: list[tuple[np.ndarray, np.ndarray | None]] = []
        for number, index, start, stop in runs:
            shard = self._opened[number] or self._shard(number)
            begin = shard.offsets.item(index)
            span = slice(begin + start, begin + stop)
            found.append((shard.ids[span], shard.marks(index, span) if shard.learn is not None else None))
        return found

    def names(self, indices: Int[np.ndarray, " documents"]) -> list[str]:
        """Where these documents are from."""
        shards = self._shards_of(indices)
        local = indices - self._starts[shards]
        runs = zip(shards.tolist(), local.tolist(), strict=True)
        return [(self._opened[number] or self._shard(number)).name(index) for number, index in runs]

    def _shards_of(self, indices: Int[np.ndarray, " documents"]) -> Int[np.ndarray, " documents"]:
        return np.searchsorted(self._starts, indices, side="right") - 1

    def _shard(self, number: int) -> Shard:
        shard = self._opened[number]
        if shard is None:
            shard = self._opened[number] = Shard(self.folder, self._facts[number])
        return shard


def write_tokens(folder: Path, documents: Iterable[Tokens], vocab_size: int) -> DiskTokens:
    """Write documents into a new folder."""
    with writing(folder):
        folder.mkdir(parents=True)
        shards = list(write_shards(folder, documents, vocab_size))
    return list_shards(folder, shards)


def list_shards(folder: Path, shards: Sequence[ShardFacts]) -> DiskTokens:
    """Make a folder that holds these shards a store."""
    write_json(
        folder / LIST,
        {
            "documents": sum(facts.documents for facts in shards),
            "tokens": sum(facts.tokens for facts in shards),
            "shards": [dataclasses.asdict(facts) for facts in shards],
        },
    )
    return DiskTokens(folder)
