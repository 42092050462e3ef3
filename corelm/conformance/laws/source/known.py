"""Files whose records are known, because somebody wrote both out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Known:
    """Some files and what a source has to make of them.

    Attributes:
        files: contents by path below a folder.
        came: names of the records and what they hold (see ``source_formats.content``), in order.
        options: of the source, besides those that say where its files are.
        left_out: what the report counts in the end, by reason.
        paths: what the source is pointed to, as seen from the folder, where it takes several.
        refused: words that its error holds, where the files are broken; ``came`` is what comes before it.
        weights: of folders that are parts of a mixture.
    """

    files: Mapping[str, bytes]
    came: Sequence[tuple[str, Any]]
    options: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    paths: Sequence[str] = (".",)
    refused: Sequence[str] = ()
    weights: Mapping[str, float] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Put the files into a folder that isn't there yet."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def given(self, names: Collection[str], folder: Path) -> dict[str, Any]:
        """All options, by what a source calls the place of its files."""
        places = [str(folder / path) for path in self.paths]
        if self.weights:
            parts = {
                name: {"source": {"use": "text-files", "paths": [str(folder / name)]}, "weight": weight}
                for name, weight in self.weights.items()
            }
            return {**self.options, "parts": parts}
        return {**self.options, **({"paths": places} if "paths" in names else {"path": places[0]})}
