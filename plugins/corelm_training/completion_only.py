"""Next-token prediction over the assistant's answers alone."""

from __future__ import annotations

from torch import Tensor

from corelm.kinds import IGNORE, Batch, Objective, Terms


class CompletionOnly(Objective):
    """Predict only the tokens that the batch marks as learnt: answers with their stop tokens, no prompts.

    The loss is ``−Σ log p(next)`` over the positions that have a target; one term per such position.
    """

    elementary = True

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        """Negative sum of the log-probabilities of the targets."""
        return Terms(-answer.where(batch.targets != IGNORE, 0.0).sum())
