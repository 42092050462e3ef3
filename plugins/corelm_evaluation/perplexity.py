"""Perplexity of whole documents."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from pydantic import Field

from corelm.kinds import (
    ComponentConfig,
    Count,
    DataConfig,
    Evaluator,
    LanguageModel,
    Metrics,
    Record,
    RecordName,
    Scorer,
    Text,
    Watch,
)
from corelm_evaluation.measuring import chosen, in_batches

DOCUMENTS = 16


class Perplexity(Evaluator):
    """How well a model predicts text: bits per byte, and perplexity per token, byte and word.

    Documents are scored whole, each token given as many before it as fit (rolling log-likelihood L). With T tokens,
    B bytes and W words in all: ``bits_per_byte`` = −L/(B ln 2), which models with different tokenizers share;
    ``perplexity`` = exp(−L/T), ``word_perplexity`` = exp(−L/W). Bytes are those of the original text in UTF-8;
    words are what runs of white space separate, empty ends included.
    """

    headline = "bits_per_byte"

    class Config(ComponentConfig):
        """Options."""

        data: DataConfig | None = Field(None, description="Texts; null: the held-out part of the corpus.")
        limit: Count | None = Field(None, gt=0, description="Most documents; a sample by hash.")
        tokens: Count | None = Field(
            None, gt=0, description="Take no further document once so many tokens are reached; order by hash."
        )

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
        """Measure all texts that are not empty."""
        config: Any = self.config
        filled = (record for record in records if record != Text("", record.name))
        texts = [record.text for record in chosen(filled, Text, config.limit)]
        if config.tokens is not None:
            texts = list(up_to(texts, config.tokens, model))
        answers = in_batches(texts, DOCUMENTS, model.rolling_loglikelihood, watch)
        nats = -math.fsum(answer.logprob for answer in answers)
        tokens = sum(answer.tokens for answer in answers)
        size = sum(len(text.encode("utf-8")) for text in texts)
        words = sum(len(re.split(r"\s+", text)) for text in texts)
        return {
            "bits_per_byte": nats / size / math.log(2),
            "perplexity": exponential(nats / max(tokens, 1)),
            "byte_perplexity": exponential(nats / size),
            "word_perplexity": exponential(nats / words),
            "documents": float(len(texts)),
            "tokens": float(tokens),
            "bytes": float(size),
        }


def up_to(texts: Iterable[str], tokens: int, model: Scorer | LanguageModel) -> Iterable[str]:
    """Yield whole texts until they have so many tokens."""
    found = 0
    for text in texts:
        if found >= tokens:
            return
        found += len(model.tokenize(text))
        yield text


def exponential(nats: float) -> float:
    """e to this power; infinity where that is beyond a float."""
    return math.exp(nats) if nats < 700 else math.inf
