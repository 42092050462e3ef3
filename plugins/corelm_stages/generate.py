"""Samples to read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from corelm.kinds import ArtifactType, Count, Message, RunContext, Sampler, Spec, Stage, use


class Generate(Stage):
    """Lets a model answer prompts or continue texts.

    Prompts are put to the model through its template; without one, or with ``raw``, they are continued as they are.
    The samples are in ``samples.json`` and in the stage's notes.
    """

    output: ClassVar[ArtifactType] = "folder"

    class Config(Stage.Config):
        """Options."""

        prompts: list[str] = Field(min_length=1, description="What to answer or continue.")
        tokens: Count = Field(64, ge=1, description="Longest answer, in tokens.")
        raw: bool = Field(False, description="Continue the prompts as they are, without the template.")
        sampler: list[Spec[Sampler]] = Field(
            [use("temperature", value=0.7), use("top-p", p=0.95)], description="Filters, in order."
        )

    @classmethod
    def inputs(cls, config: Any) -> Mapping[str, ArtifactType]:
        """The model."""
        return {"model": "model"}

    def run(self, context: RunContext, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Write the samples."""
        config, model = self.config, context.open_model(inputs["model"])
        samplers = [sampler.build() for sampler in config.sampler]
        samples = []
        for number, prompt in enumerate(config.prompts):
            seed = (context.seed + number) % 2**63
            if model.template is None or config.raw:
                text = model.generate(prompt, config.tokens, samplers, seed=seed)
            else:
                text = model.answer([Message("user", prompt)], config.tokens, samplers, seed=seed)
            samples.append({"prompt": prompt, "answer": text})
            context.watch.note(f"{prompt} → {text.strip()}")
            context.watch.step(number + 1, len(config.prompts), {})
        (context.folder / "samples.json").write_text(json.dumps(samples, indent=1, ensure_ascii=False) + "\n")
        return {"samples": float(len(samples))}
