"""Classification of whole sequences."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from corelm.errors import UserError
from corelm.kinds import Answered, Batch, Objective, Terms


class Classification(Objective):
    """Cross-entropy of each row's class; reads ``extra["labels"]``, ``(batch,)``, where −1 is no label.

    One term per labelled row. Figure ``accuracy``: rows whose largest logit is the label's.
    """

    elementary = True

    reads: ClassVar[Answered] = "classes"

    def count(self, batch: Batch) -> int:
        """Number of labelled rows."""
        return int((self._labels(batch) >= 0).sum())

    def loss(self, answer: Float[Tensor, "batch classes"], batch: Batch) -> Terms:
        """Sum over rows of −log p(label), in float32 or wider."""
        labels = self._labels(batch)
        labelled = labels >= 0
        logits = answer.double() if answer.dtype.itemsize == 8 else answer.float()
        total = F.cross_entropy(logits[labelled], labels[labelled], reduction="sum")
        right = logits.detach().argmax(-1) == labels  # no row's class is −1
        return Terms(total, {"accuracy": right.sum()})

    def _labels(self, batch: Batch) -> Tensor:
        if "labels" not in batch.extra:
            raise UserError(
                f"objective classification: no labels in the batch from {', '.join(batch.names) or 'unnamed rows'}",
                remedy="Give the stage a source that yields labelled records.",
                code="labels-missing",
            )
        return batch.extra["labels"]
