"""Quantization of a whole model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, ClassVar

from pydantic import Field

from corelm.kinds import (
    ArtifactType,
    Batch,
    ComponentConfig,
    LanguageModel,
    Packer,
    Quantizer,
    RunContext,
    Spec,
    Stage,
    use,
)
from corelm.kinds.quantizing import quantize_model
from corelm_stages.training import packed


class Calibration(ComponentConfig):
    """Text that methods look at to choose codes."""

    batches: int = Field(8, ge=1, description="Number of batches from the training part of the corpus.")
    batch: int = Field(8, ge=1, description="Rows of a batch.")
    packer: Spec[Packer] = Field(use("blocks"), description="Documents to batches.")


class Quantize(Stage):
    """Quantizes a model's linear maps to few bits.

    Without ``targets`` all linear maps of the layers are quantized; embedding, head and norms stay as they are.
    """

    uses_corpus: ClassVar[bool] = True

    class Config(Stage.Config):
        """Options."""

        method: Spec[Quantizer] = Field(alias="with", description="How to choose the codes.")
        targets: list[str] = Field(default_factory=list, description="Patterns of module names to quantize.")
        skip: list[str] = Field(default_factory=list, description="Patterns of module names to leave alone.")
        calibration: Calibration = Field(default_factory=Calibration, description="Text to look at.")

    @classmethod
    def inputs(cls, config: Any) -> Mapping[str, ArtifactType]:
        """The model to quantize."""
        return {"model": "model"}

    def run(self, context: RunContext, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Quantize."""
        config = self.config
        model = context.open_model(inputs["model"])
        calibration = list(self._calibration(context, model)) if config.method.part.calibrated else None
        done = quantize_model(
            model,
            config.method,
            targets=config.targets,
            skip=config.skip,
            calibration=calibration,
            watch=context.watch,
        )
        model.record_transform(done.record)
        context.save_model(model)
        return done.figures

    def _calibration(self, context: RunContext, model: LanguageModel) -> Iterator[Batch]:
        options = self.config.calibration
        store = context.corpus_tokens("train")
        streams = packed(context, options.packer, store, options.batch, model.context, model.tokenizer.end_of_text)
        return islice(streams(0, 1), options.batches)
