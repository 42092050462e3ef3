"""Batches: what packers and aligners make, trainers move and objectives read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Int
from torch import Tensor

IGNORE = -100
"""Target of a position that teaches nothing."""


@dataclass
class Batch:
    """A rectangle of tokens.

    Attributes:
        ids: ``(batch, time)``.
        targets: the token that should follow each, ``(batch, time)``; ``IGNORE`` where nothing is learnt.
        documents: document of each token, ``(batch, time)``; None: one per row.
        valid: False at padding, ``(batch, time)``; None: no padding.
        extra: further tensors with the batch as first axis: labels, pair members, advantages.
        names: where the rows are from, for messages.
    """

    ids: Int[Tensor, "batch time"]
    targets: Int[Tensor, "batch time"]
    documents: Int[Tensor, "batch time"] | None = None
    valid: Bool[Tensor, "batch time"] | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        moved: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                value = value.to(device, non_blocking=True)
            elif item.name == "extra":
                value = {name: tensor.to(device, non_blocking=True) for name, tensor in value.items()}
            moved[item.name] = value
        return Batch(**moved)

    @property
    def tokens(self) -> int:
        """Number of real tokens."""
        return self.ids.numel() if self.valid is None else int(self.valid.sum())


def pad_rows(
    rows: Sequence[Sequence[int]], fill: int = 0, *, left: bool = False
) -> tuple[Int[Tensor, "batch time"], Bool[Tensor, "batch time"]]:
    """Rows of any length as one rectangle, and which entries are real; ``left`` pads before instead of after."""
    time = max((len(row) for row in rows), default=0)
    padded = torch.full((len(rows), time), fill, dtype=torch.long)
    valid = torch.zeros((len(rows), time), dtype=torch.bool)
    for number, row in enumerate(rows):
        columns = slice(time - len(row), time) if left else slice(0, len(row))
        padded[number, columns] = torch.as_tensor(row, dtype=torch.long)
        valid[number, columns] = True
    return padded, valid


class Stateful(Protocol):
    """Something that a checkpoint holds: nested dicts and lists of tensors and plain data."""

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on from here."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Go on from there."""
        ...


class BatchStream(Stateful, Protocol):
    """An endless or finite stream of batches whose position can be saved and restored.

    Contract: for every k, ``state_dict`` after k batches, loaded into a fresh stream of the same making, makes it
    yield exactly the batches from k on. The order depends on seed and data only.

    A stream whose state, between rounds of one batch for each process, is the same in all of them, and that can go on
    from the state of another number of processes, says so: it has the attribute ``elastic``, True.
    """

    def __iter__(self) -> Iterator[Batch]:
        """Go on from the current position."""
        ...

    def __next__(self) -> Batch:
        """The next batch."""
        ...
