"""Pretraining on the corpus."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic import Field

from corelm.kinds import (
    Artifact,
    ArtifactType,
    Count,
    Objective,
    Packer,
    Problem,
    RunContext,
    SectionUse,
    Spec,
    Stage,
    use,
)
from corelm_stages.training import TrainingConfig, packed, reads, require, train


class Pretrain(Stage):
    """Trains the recipe's model on the corpus.

    With ``from``, goes on with an earlier stage's model instead of a fresh one.
    """

    uses_model: ClassVar[bool] = True

    class Config(TrainingConfig):
        """Options."""

        tokens: Count = Field(gt=0, description="Tokens to train on, rounded up to whole steps.")
        time: Count | None = Field(None, gt=0, description="Tokens of a row; default: the model's context.")
        packer: Spec[Packer] = Field(use("blocks"), description="Documents to batches.")
        objective: Spec[Objective] = Field(use("next-token"), description="What is minimised.")

    @classmethod
    def inputs(cls, config: Any) -> Mapping[str, ArtifactType]:
        """Optionally a model to go on with."""
        return {"model?": "model"}

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """The objective reads tokens: a corpus has no labels and no pairs."""
        yield from reads(config.objective, "logprobs", "next-token or completion-only")
        section = context.get("model") or {}
        if config.time is not None and config.time > section.get("context", config.time):
            message = f"rows of {config.time} tokens are longer than the model's context of {section['context']}"
            yield Problem(("time",), message, "Lower time, or raise model.context.", "time-longer-than-context")

    @classmethod
    def reads_corpus(cls, config: Any) -> SectionUse:
        """Always."""
        return "always"

    def run(self, context: RunContext, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Train."""
        config = self.config
        given: Artifact | None = inputs.get("model")
        model = context.open_model(given, trainable=True) if given else context.new_model()
        store = context.corpus_tokens("train")
        require(store, "document")
        time = config.time or model.context
        steps = math.ceil(config.tokens / (config.batch * config.accumulate * time))
        streams = packed(context, config.packer, store, config.batch, time, context.tokenizer().end_of_text)
        figures = train(context, config, model, config.objective.build(), streams, steps)
        context.save_model(model)
        return {"parameters": float(sum(p.numel() for p in model.module.parameters())), **figures}
