"""Quantization of a whole model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field

from corelm.kinds import (
    ArtifactType,
    Batch,
    ComponentConfig,
    DataConfig,
    LanguageModel,
    Packer,
    Problem,
    Processes,
    Quantizer,
    RunContext,
    SectionUse,
    Spec,
    Stage,
    use,
)
from corelm.kinds.quantizing import quantize_model
from corelm_stages.training import of_type, packed, require, tokenized


class Calibration(ComponentConfig):
    """Text that methods look at to choose codes, and on which the model is compared with what it was."""

    data: DataConfig | None = Field(None, description="Texts; null: the training part of the corpus.")
    batches: int = Field(8, ge=1, description="Number of batches.")
    batch: int = Field(8, ge=1, description="Rows of a batch.")
    packer: Spec[Packer] = Field(use("blocks"), description="Documents to batches.")


class Quantize(Stage):
    """Quantizes a model's linear maps to few bits.

    Without ``targets`` all linear maps of the layers are quantized; embedding, head and norms stay as they are.
    Methods that choose codes by looking at text need a corpus or ``calibration.data``; for the others these are
    optional, and only compared on.
    """

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

    @classmethod
    def reads_corpus(cls, config: Any) -> SectionUse:
        """Where there is no other text; methods that aren't calibrated can do without."""
        if config.calibration.data is not None:
            return "never"
        return "always" if config.method.part.calibrated else "optional"

    @classmethod
    def chooses(cls, config: Any) -> Mapping[str, Sequence[str]]:
        """The maps to quantize, and those to leave alone."""
        return {"targets": config.targets, "skip": config.skip}

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """Calibration data are texts."""
        for problem in of_type(config.calibration.data, "text"):
            yield replace(problem, path=("calibration", *problem.path))

    def run(self, context: RunContext, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Quantize."""
        config = self.config
        model = context.open_model(inputs["model"])
        done = quantize_model(
            model,
            config.method,
            targets=config.targets,
            skip=config.skip,
            calibration=self._calibration(context, model),
            watch=context.watch,
        )
        model.record_transform(done.record)
        context.save_model(model)
        before, after = (_megabytes(folder) for folder in (inputs["model"].folder, context.folder))
        context.watch.note(f"tensors on disk: {before:.3g} MB before, {after:.3g} MB after ({after / before:.0%})")
        return {**done.figures, "megabytes_before": before, "megabytes": after}

    def _calibration(self, context: RunContext, model: LanguageModel) -> Iterator[Batch]:
        options = self.config.calibration
        if options.data is not None:
            tokens = tokenized(context.records(options.data), model.tokenizer, None, model.context, context)
            store = context.store(tokens, "calibration")
        elif context.recipe["corpus"] is not None:
            store = context.corpus_tokens("train")
        else:
            return iter(())
        require(store, "document")
        streams = packed(context, options.packer, store, options.batch, model.context, model.tokenizer.end_of_text)
        return islice(streams(Processes()), options.batches)


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6
