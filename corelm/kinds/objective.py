"""Kind ``objective``: what is minimised, as a pure function of what the model says about a batch."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from corelm.kinds.batch import IGNORE, Batch
from corelm.kinds.component import Component
from corelm.kinds.language_model import LanguageModel
from corelm.kinds.logprobs import token_logprobs

Answered = Literal["logprobs", "classes", "rewards"]
"""What of a model's answer an objective reads."""


@dataclass
class Terms:
    """A loss before it is averaged.

    Attributes:
        total: sum over the batch's terms; the trainer divides by the *global* number of terms.
        sums: further figures, each a sum over the same terms (detached), by name.
    """

    total: Float[Tensor, ""]
    sums: dict[str, Tensor] = field(default_factory=dict)


class Objective(Component):
    """Turns a model's answer to a batch into a loss.

    Built as ``Part(config)``.

    Contract:
        * ``count(batch)`` is the number of terms and is known before the forward pass.
        * ``loss`` is a pure function; the total over a batch equals the sum of the totals over its parts.
        * Positions without a target have no gradient.
    ``reads`` says what ``loss`` is given: ``logprobs`` (batch, time) from ``token_logprobs``, or what the head says at
    the last real token: ``classes`` (batch, classes), logits of the batch's ``labels``; ``rewards`` (batch, 1) of pairs
    in neighbouring rows.
    """

    kind: ClassVar[str] = "objective"
    reads: ClassVar[Answered] = "logprobs"

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        """Sum of the losses of the batch's terms."""

    def count(self, batch: Batch) -> int:
        """Number of terms; by default the positions that have a target."""
        return int((batch.targets != IGNORE).sum())

    def evaluate(self, model: LanguageModel, batch: Batch) -> Terms:
        """Run the model over the batch and take the loss; auxiliary losses of parts are added per term."""
        auxiliary: dict[str, list[Tensor]] = {}
        hidden = model.hidden(batch.ids, valid=batch.valid, documents=batch.documents, auxiliary=auxiliary)
        terms = self.loss(self.answer(model, hidden, batch), batch)
        for name, losses in auxiliary.items():
            term = sum(losses[1:], losses[0]) * self.count(batch)
            terms.total = terms.total + term
            terms.sums[name] = term.detach()
        return terms

    def answer(self, model: LanguageModel, hidden: Tensor, batch: Batch) -> Tensor:
        """What ``loss`` is given, from the hidden states."""
        if self.reads == "logprobs":
            return token_logprobs(hidden, model.head, batch.targets)
        from corelm.kinds.logprobs import last_real

        rows = last_real(batch.valid, batch.ids)
        picked: Tensor = model.head(hidden[range(len(rows)), rows])
        return picked
