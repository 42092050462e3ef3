"""Objectives that are wrong about padding, about probabilities, or about what their name says."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from corelm.conformance.bugs.learning import Likelihood, Pairwise
from corelm.conformance.planted import plant, reference
from corelm.kinds.batch import Batch
from corelm.kinds.objective import Objective, Terms


@reference
class LogLikelihood(Likelihood):
    """Under the name that it has."""

    law = "completion-only"


@plant("padding_changes_nothing", "a mean over columns, padding among them")
class MeanOfColumns(LogLikelihood):
    """Short rows in wide batches count less."""

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        return super().loss(answer / answer.shape[1], batch)


@plant("auxiliary_losses_are_added", "once per batch, however many terms that has")
class ReportsOncePerBatch(LogLikelihood):
    """Weighs less in longer batches."""

    def evaluate(self, model: Any, batch: Batch) -> Terms:
        auxiliary: dict[str, list[Tensor]] = {}
        hidden = model.hidden(batch.ids, valid=batch.valid, documents=batch.documents, auxiliary=auxiliary)
        terms = self.loss(self.answer(model, hidden, batch), batch)
        for name, losses in auxiliary.items():
            terms.total = terms.total + torch.stack(losses).sum()
            terms.sums[name] = self.count(batch) * torch.stack(losses).sum().detach()
        return terms


@plant("answers_sum_to_one", "targets are shifted once more")
class ShiftsAgain(LogLikelihood):
    """The model has been given what it is asked."""

    def answer(self, model: Any, hidden: Tensor, batch: Batch) -> Tensor:
        shifted = torch.cat([batch.targets[:, 1:], batch.targets[:, -1:]], 1)
        return super().answer(model, hidden, Batch(batch.ids, shifted))


@plant("formula_of_its_name", "bits for nats")
class CountsInBits(LogLikelihood):
    """A loss that is 1.44 times as large."""

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        return super().loss(answer / math.log(2), batch)


@reference
class Classes(Objective):
    """Cross-entropy of the rows that have a label."""

    reads = "classes"
    law = "classification"

    def count(self, batch: Batch) -> int:
        """Labelled rows."""
        return int((batch.extra["labels"] >= 0).sum())

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        """Sum over rows."""
        labels = batch.extra["labels"]
        total = F.cross_entropy(answer, labels, ignore_index=self.ignored, reduction="sum")
        return Terms(total, {"accuracy": self.right(answer.detach(), labels)})

    ignored = -1

    def right(self, answer: Tensor, labels: Tensor) -> Tensor:
        """Number of right guesses."""
        return (answer.argmax(-1) == labels).sum()


@plant("formula_of_its_name", "classes are counted from one, and no label is taken to be the last class")
class CountsFromOne(Classes):
    """−1 is an index in Python."""

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        chosen = answer.log_softmax(-1).gather(1, (batch.extra["labels"] % answer.shape[1])[:, None])
        return Terms(-chosen.sum())


@plant("accuracy_is_counted", "the least likely class is the guess")
class GuessesTheLeast(Classes):
    """argmin."""

    def right(self, answer: Tensor, labels: Tensor) -> Tensor:
        return (answer.argmin(-1) == labels).sum()


@plant("formula_of_its_name", "every row of a pair is a term")
class CountsRows(Pairwise):
    """Half the loss."""

    def count(self, batch: Batch) -> int:
        return len(batch.ids)


@plant("padded_rows_mean_the_same", "the last column is taken for the last token")
class ReadsTheLastColumn(Pairwise):
    """Padding is scored."""

    def answer(self, model: Any, hidden: Tensor, batch: Batch) -> Tensor:
        scores: Tensor = model.head(hidden[:, -1])
        return scores


@plant("accuracy_is_counted", "a pair is right where its loss is below one")
class RightEnough(Pairwise):
    """Neither above nor below."""

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        right = (self.difference(answer.detach()) > -0.5).sum()
        return Terms(super().loss(answer, batch).total, {"accuracy": right})
