"""Export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from corelm.kinds import ArtifactType, Interchange, RunContext, Spec, Stage


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

    def run(self, context: RunContext, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Write."""
        model = context.open_model(inputs["model"])
        self.config.method.build().write(model, context.folder, context.watch)
        files = [path for path in context.folder.rglob("*") if path.is_file()]
        return {"files": float(len(files)), "megabytes": sum(path.stat().st_size for path in files) / 1e6}
