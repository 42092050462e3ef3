"""Export."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from corelm.kinds import ArtifactType, Interchange, Problem, RunContext, Spec, Stage


class Export(Stage):
    """Writes a model in another format.

    The format re-reads what it wrote; the note says which reader proved it.
    """

    output: ClassVar[ArtifactType] = "folder"

    class Config(Stage.Config):
        """Options."""

        method: Spec[Interchange] = Field(alias="with", description="The format.")

    @classmethod
    def inputs(cls, config: Any) -> Mapping[str, ArtifactType]:
        """The model."""
        return {"model": "model"}

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """The format has words for the recipe's model."""
        section = _section(context.get("model"))
        reason = config.method.build().refuses(section) if section else None
        if reason:
            message = f"{config.method.name} can't hold this recipe's model: {reason}"
            yield Problem(("with",), message, "Change the model, or leave the stage out.", "model-not-exportable")

    def run(self, context: RunContext, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Write."""
        model = context.open_model(inputs["model"])
        self.config.method.build().write(model, context.folder, context.watch)
        files = [path for path in context.folder.rglob("*") if path.is_file()]
        return {"files": float(len(files)), "megabytes": sum(path.stat().st_size for path in files) / 1e6}


def _section(model: Any) -> dict[str, Any] | None:
    """The resolved model section, that of a folder of ours where the recipe loads one; None where it isn't known."""
    if not isinstance(model, dict) or "load" not in model:
        return model  # type: ignore[no-any-return]
    described = Path(model["load"]) / "model.json"
    if not described.is_file():
        return None
    section = json.loads(described.read_text(encoding="utf-8")).get("model")
    return section if isinstance(section, dict) else None
