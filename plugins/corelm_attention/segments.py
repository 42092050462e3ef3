"""Where documents begin, for mixers that carry a state along the row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from corelm.kinds import LayerStep


@dataclass(frozen=True)
class Segments:
    """Running number of the document that each token belongs to; it grows by one where a new one begins.

    Attributes:
        tokens: of this call's tokens, ``(batch, time)``.
        before: of the token before them, whose document the state belongs to, ``(batch,)``.
        several: False where all are known to be one document without looking.
    """

    tokens: Int[Tensor, "batch time"]
    before: Int[Tensor, " batch"]
    several: bool


def segments(step: LayerStep) -> Segments:
    """Number the documents of this call; all zero where the layer's mask lets documents see each other.

    Padding continues what came before it: a document goes on after padding in its midst.
    """
    whole, past = step.step, step.step.past
    batch, time = whole.ids.shape
    if whole.documents is None or all(rule.trivial(step.mask.facts) for rule in step.mask.rules):
        zero = torch.zeros(batch, time + 1, dtype=torch.long, device=whole.ids.device)
        return Segments(zero[:, 1:], zero[:, 0], several=False)
    place = torch.arange(past + time, device=whole.ids.device).expand(batch, -1)
    if whole.valid is not None:
        place = torch.where(whole.valid, place, -1).cummax(1).values.clamp(min=0)
    document = whole.documents.gather(1, place)
    number = F.pad((document.diff(dim=1) != 0).cumsum(1), (1, 0))
    return Segments(number[:, past:], number[:, max(past - 1, 0)], several=True)


def one_by_one(step: LayerStep, row: int) -> Iterator[tuple[int, bool]]:
    """The real tokens of a row, and whether a document begins with each; for definitions in plain loops."""
    valid, documents, before = step.step.new_valid(), step.step.new_documents(), -1
    if all(rule.trivial(step.mask.facts) for rule in step.mask.rules):
        documents = None
    for t in range(step.step.ids.shape[1]):
        if valid is None or bool(valid[row, t]):
            document = 0 if documents is None else int(documents[row, t])
            yield t, document != before
            before = document
