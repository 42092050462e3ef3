"""Supervised finetuning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from corelm.kinds import (
    Adapter,
    ArtifactType,
    DataConfig,
    Objective,
    Packer,
    Problem,
    RunContext,
    SectionUse,
    Spec,
    Stage,
    use,
)
from corelm.kinds.adapting import adapt_model, additions, merge_model
from corelm_stages.training import (
    EpochsConfig,
    needs_template,
    of_type,
    packed,
    packed_steps,
    reads,
    require,
    tokenized,
    train,
)


class Finetune(Stage):
    """Trains a model on conversations or texts of one's own.

    Of conversations, rendered by the recipe's template, only the assistant's turns are learnt. With an ``adapter``,
    small additions to the model's linear maps are trained and nothing else.
    """

    class Config(EpochsConfig):
        """Options."""

        data: DataConfig = Field(description="Conversations or texts.")
        packer: Spec[Packer] = Field(use("padded"), description="Records to batches.")
        objective: Spec[Objective] = Field(use("completion-only"), description="What is minimised.")
        adapter: Spec[Adapter] | None = Field(None, description="What is added and trained; null: the whole model.")
        targets: list[str] = Field(
            [], description="Patterns of the maps that are adapted (`*.attention.*`); none: all in layers."
        )
        merge: bool = Field(True, description="Merge the additions into the maps; false: save them beside.")

    @classmethod
    def reads_template(cls, config: Any) -> SectionUse:
        """Where the data are conversations."""
        return "never" if config.data.source.part.yields(config.data.source.config) == "text" else "always"

    @classmethod
    def inputs(cls, config: Any) -> Mapping[str, ArtifactType]:
        """The model to tune."""
        return {"model": "model"}

    @classmethod
    def chooses(cls, config: Any) -> Mapping[str, Sequence[str]] | None:
        """The maps that are adapted."""
        return None if config.adapter is None else {"targets": config.targets}

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """The data are conversations or texts; targets are an adapter's."""
        yield from of_type(config.data, "conversation", "text")
        yield from reads(config.objective, "logprobs", "next-token or completion-only")
        for option in ("targets", "merge"):
            if config.adapter is None and getattr(config, option) != cls.Config.model_fields[option].default:
                message = f"`{option}` says how a model is adapted, but there is no adapter"
                yield Problem((option,), message, f"Add `adapter: lora`, or leave out `{option}`.", "adapter-missing")

    def run(self, context: RunContext, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Train."""
        config = self.config
        model = context.open_model(inputs["model"], trainable=True)
        template = needs_template(context, config.data)
        records = context.records(config.data)
        store = context.store(tokenized(records, model.tokenizer, template, model.context, context), "records")
        require(store, "record")
        streams = packed(context, config.packer, store, config.batch, model.context, model.tokenizer.end_of_text)
        steps = packed_steps(context, config, config.packer, store, model)
        objective = config.objective.build()
        figures = {"records": float(len(store))}
        if config.adapter is None:
            figures |= train(context, config, model, objective, streams, steps)
        else:
            record = adapt_model(model.module, config.adapter, targets=config.targets, seed=context.seed)
            added = additions(model.module, record)
            figures["parameters_trained"] = float(sum(parameter.numel() for parameter in added.values()))
            figures |= train(context, config, model, objective, streams, steps, trainable=added)
            if config.merge:
                merge_model(model.module, record)
            else:
                model.record_transform(record)
        context.save_model(model, template=template)
        return figures
