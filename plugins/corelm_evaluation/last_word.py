"""Guessing the last word of a passage."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from pydantic import Field

from corelm.errors import UserError
from corelm.kinds import (
    ComponentConfig,
    Count,
    DataConfig,
    Evaluator,
    LanguageModel,
    Metrics,
    Record,
    RecordName,
    Request,
    Scorer,
    Text,
    Watch,
)
from corelm_evaluation.measuring import chosen, in_batches, mean, standard_error

PASSAGES = 64


class LastWord(Evaluator):
    """Guess the last word of a passage, as in LAMBADA (Paperno et al., 2016, arXiv:1606.06031).

    The text is cut at its last space: what is before it is the context, the space and the last word are the target.
    ``accuracy``: share of passages where every token of the target is the likeliest one; ``perplexity``: of the
    target, exp of minus the mean log-likelihood per passage (not per token).
    """

    headline = "accuracy"

    class Config(ComponentConfig):
        """Options."""

        data: DataConfig | None = Field(None, description="Passages; null: the held-out part of the corpus.")
        limit: Count | None = Field(None, gt=0, description="Most passages; a sample by hash.")

    @classmethod
    def reads(cls, config: Config) -> RecordName:
        """Texts."""
        return "text"

    def evaluate(
        self,
        model: Scorer | LanguageModel,
        records: Iterable[Record],
        watch: Watch,
        *,
        judge: LanguageModel | None = None,
    ) -> Metrics:
        """Measure all passages."""
        config: Any = self.config
        requests = [request(record) for record in chosen(records, Text, config.limit)]
        answers = in_batches(requests, PASSAGES, model.loglikelihood, watch)
        right = [float(answer.greedy) for answer in answers]
        nats = -mean([answer.logprob for answer in answers])
        return {
            "accuracy": mean(right),
            "accuracy_stderr": standard_error(right),
            "perplexity": math.exp(nats) if nats < 700 else math.inf,
            "passages": float(len(requests)),
        }


def request(record: Text) -> Request:
    """Ask for the last word after everything before it.

    Raises:
        UserError: there is nothing before the last space, or nothing after it.
    """
    context, space, word = record.text.rpartition(" ")
    if not (context and word):
        raise UserError(
            f"{record.name or 'a passage'} can't be cut at its last space: {record.text[-40:]!r}",
            remedy="Each passage needs several words and must end with one.",
            code="no-last-word",
        )
    return Request(context, space + word)
