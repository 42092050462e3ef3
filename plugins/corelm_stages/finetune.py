"""Supervised finetuning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic import Field

from corelm.kinds import ArtifactType, DataConfig, Objective, Packer, Problem, RunContext, Spec, Stage, use
from corelm_stages.training import EpochsConfig, needs_template, of_type, packed, require, steps_of, tokenized, train


class Finetune(Stage):
    """Trains a model on conversations or texts of one's own.

    Of conversations, rendered by the recipe's template, only the assistant's turns are learnt.
    """

    uses_template: ClassVar[bool] = True

    class Config(EpochsConfig):
        """Options."""

        data: DataConfig = Field(description="Conversations or texts.")
        packer: Spec[Packer] = Field(use("padded"), description="Records to batches.")
        objective: Spec[Objective] = Field(use("completion-only"), description="What is minimised.")

    @classmethod
    def inputs(cls, config: Any) -> Mapping[str, ArtifactType]:
        """The model to tune."""
        return {"model": "model"}

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """The data are conversations or texts."""
        yield from of_type(config.data, "conversation", "text")

    def run(self, context: RunContext, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Train."""
        config = self.config
        model = context.open_model(inputs["model"], trainable=True)
        template = needs_template(context, config.data)
        records = context.records(config.data)
        store = context.store(tokenized(records, model.tokenizer, template, model.context, context), "records")
        require(store, "record")
        streams = packed(context, config.packer, store, config.batch, model.context, model.tokenizer.end_of_text)
        steps = steps_of(config, len(store))
        figures = train(context, config, model, config.objective.build(), streams, steps)
        context.save_model(model, template=template)
        return {"records": float(len(store)), **figures}
