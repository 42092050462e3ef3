"""Packers whose streams are wrong in one way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from corelm.conformance.bugs.packer import Rows
from corelm.conformance.planted import plant
from corelm.kinds.batch import Batch, BatchStream
from corelm.kinds.packer import Tokens, TokenStore


@plant("goes_on_in_another_world", "each process counts its own batches")
class CountsItsOwn(Rows):
    """With another number of processes, data are lost or doubled."""

    def done(self, rounds: int, world: int) -> int:
        return rounds


@plant("batches_are_ones_own", "rows of full width are views of the store")
class ViewsOfTheStore(Rows):
    """Who masks a batch, masks the data."""

    def stream(self, store: Sequence[Tokens] | TokenStore, **how: Any) -> BatchStream:
        self.kept = {document.name: document.ids for document in (store[i] for i in range(len(store)))}
        return super().stream(store, **how)

    def rectangle(self, rows: list[list[Any]], end_of_text: int) -> Batch:
        batch = super().rectangle(rows, end_of_text)
        whole = self.kept[rows[0][3]]
        if len(rows) == 1 and len(whole) == len(rows[0][0]):
            batch.ids = torch.from_numpy(whole[None])
        return batch


@plant("batches_are_ones_own", "one buffer for all batches of a shape")
class OneBuffer(Rows):
    """What was taken before changes under one's hands."""

    def rectangle(self, rows: list[list[Any]], end_of_text: int) -> Batch:
        batch = super().rectangle(rows, end_of_text)
        buffers: dict[torch.Size, torch.Tensor] = self.__dict__.setdefault("buffers", {})
        batch.ids = buffers.setdefault(batch.ids.shape, batch.ids).copy_(batch.ids)
        return batch


@plant("nothing_is_not_searched_for_ever", "epochs are gone through until one has a token")
class SearchesForEver(Rows):
    """Stands still."""

    def stream(self, store: Sequence[Tokens] | TokenStore, **how: Any) -> BatchStream:
        while not any(len(store[i].ids) for i in range(len(store))):
            store[0]
        return super().stream(store, **how)


@plant("labels_stay_with_their_rows", "classes are sorted, rows are shuffled")
class SortsLabels(Rows):
    """Another document's class."""

    def labels(self, rows: list[list[Any]]) -> list[int]:
        return sorted(super().labels(rows))
