"""Next-token prediction over whole documents."""

from __future__ import annotations

import torch
from torch import Tensor

from corelm.kinds import IGNORE, Batch, LanguageModel, Objective, Terms, token_logprobs


class NextToken(Objective):
    """Predict every token that follows another in its document, prompts included.

    The loss is ``−Σ log p(next)``; one term per predicted token. Where the batch leaves a target out although the
    next column holds the same document's next token (a prompt), it is put back; ``completion-only`` keeps it out.
    """

    elementary = True

    def targets(self, batch: Batch) -> Tensor:
        """Targets of the batch, with those that it leaves out inside documents, ``(batch, time)``."""
        follows = torch.ones_like(batch.ids[:, 1:], dtype=torch.bool)
        if batch.documents is not None:
            follows &= batch.documents[:, 1:] == batch.documents[:, :-1]
        if batch.valid is not None:
            follows &= batch.valid[:, 1:] & batch.valid[:, :-1]
        filled = batch.targets.clone()
        left_out = follows & (filled[:, :-1] == IGNORE)
        filled[:, :-1] = torch.where(left_out, batch.ids[:, 1:], filled[:, :-1])
        return filled

    def count(self, batch: Batch) -> int:
        """Number of predicted tokens."""
        return int((self.targets(batch) != IGNORE).sum())

    def answer(self, model: LanguageModel, hidden: Tensor, batch: Batch) -> Tensor:
        """Log-probability of each next token."""
        return token_logprobs(hidden, model.head, self.targets(batch))

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        """Negative sum of the log-probabilities of the targets."""
        return Terms(-answer.where(self.targets(batch) != IGNORE, 0.0).sum())
