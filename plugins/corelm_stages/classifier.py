"""Classification."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from corelm.errors import UserError
from corelm.kinds import (
    ArtifactType,
    DataConfig,
    Head,
    Labelled,
    LanguageModel,
    Objective,
    Packer,
    Problem,
    Record,
    RunContext,
    Spec,
    Stage,
    Tokens,
    use,
)
from corelm_stages.training import EpochsConfig, apart, of_type, packed, packed_steps, reads, require, train


class Classifier(Stage):
    """Trains a model to sort texts into classes.

    The body is the given model's; its head is replaced by a fresh one, read at the last token of the text. Of texts
    longer than the context the end is read.
    """

    output: ClassVar[ArtifactType] = "classifier"

    class Config(EpochsConfig):
        """Options."""

        data: DataConfig = Field(description="Labelled texts.")
        head: Spec[Head] = Field(use("classifier"), description="What reads the hidden state.")
        packer: Spec[Packer] = Field(use("padded"), description="Texts to batches.")
        objective: Spec[Objective] = Field(use("classification"), description="What is minimised.")

    @classmethod
    def inputs(cls, config: Any) -> Mapping[str, ArtifactType]:
        """The model whose body is used."""
        return {"model": "model"}

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """The data are labelled, the head gives classes, and the objective reads them."""
        yield from of_type(config.data, "labelled")
        yield from reads(config.objective, "classes", "classification")
        yield from apart(config.packer, "documents with classes")
        if config.head.part.reads != "classes":
            message = f"the head {config.head.name} gives {config.head.part.reads}, not classes"
            yield Problem(("head",), message, "Use classifier.", "head-not-classes")

    def run(self, context: RunContext, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Train."""
        config = self.config
        model = context.open_model(inputs["model"], trainable=True).with_head(config.head, seed=context.seed)
        store = context.store(_labelled(context.records(config.data), model), "records")
        require(store, "record")
        streams = packed(context, config.packer, store, config.batch, model.context, model.tokenizer.end_of_text)
        steps = packed_steps(context, config, config.packer, store, model)
        figures = train(context, config, model, config.objective.build(), streams, steps)
        context.save_model(model)
        return {"records": float(len(store)), **figures}


def _labelled(records: Iterator[Record], model: LanguageModel) -> Iterator[Tokens]:
    classes: Any = model.module.get_submodule("head")
    for record in records:
        assert isinstance(record, Labelled)
        if not 0 <= record.label < classes.outputs:
            raise UserError(
                f"{record.name}: class {record.label}, but the head has classes 0 … {classes.outputs - 1}",
                remedy="Set head: {use: classifier, classes: …}, or look at the labels.",
                code="label-out-of-range",
            )
        ids = [*model.tokenizer.encode(record.text), model.tokenizer.end_of_text][-model.context :]
        yield Tokens(np.array(ids, dtype=np.int64), name=record.name, label=record.label)
