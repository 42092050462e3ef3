"""Formats whose folders are careless: about the end of a text, about memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from corelm.conformance.bugs.whole import Folder
from corelm.conformance.planted import plant
from corelm.kinds.interchange import Imported


@plant("ends_are_said", "the end of a text is left to the tokenizer's files, of which there may be none")
class SaysNoEnd(Folder):
    """A model that goes on for ever."""

    formula = "hugging-face"

    def write(self, model: Any, folder: Path, watch: Any) -> None:
        super().write(model, folder, watch)
        for file in ("config.json", "generation_config.json"):
            (folder / file).write_text(json.dumps({"eos_token_id": None, "pad_token_id": None}))


@plant("one_file_at_a_time", "a file that was opened stays mapped")
class KeepsFilesMapped(Folder):
    """All of the model in memory, beside the model."""

    def write(self, model: Any, folder: Path, watch: Any) -> None:
        super().write(model, folder, watch)
        whole = folder / "tensors.safetensors"
        for number, (name, tensor) in enumerate(load_file(whole).items()):
            save_file({name: tensor}, folder / f"{number}.safetensors")
        whole.unlink()

    def read(self, source: Path) -> Imported:
        section = json.loads((source / "section.json").read_text())
        return Imported(section, Mapped(sorted(source.glob("*.safetensors"))), None, [])


class Mapped(Mapping[str, Tensor]):
    """Tensors of files, none of which is ever let go."""

    def __init__(self, files: list[Path]) -> None:
        self.files: list[Any] = [safe_open(file, framework="pt") for file in files]
        self.where = {name: file for file in self.files for name in file.keys()}  # noqa: SIM118

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self.where[name].get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.where)

    def __len__(self) -> int:
        return len(self.where)
