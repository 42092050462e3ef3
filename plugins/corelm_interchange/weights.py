"""Tensors of a Hugging Face folder: one safetensors file, or several behind an index."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from corelm.errors import UserError
from corelm.kinds import TensorFile, write_tensors

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def read_json(path: Path) -> Any:
    """Contents of a JSON file.

    Raises:
        UserError: it is missing or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_hook=_number)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {error}", remedy="Is the folder complete?") from error


def _number(value: dict[str, Any]) -> Any:
    """Infinity as newer configs write it, and any other map as it is."""
    return float(value["__float__"]) if value.keys() == {"__float__"} else value


class Files:
    """The tensors of a folder, one file or several behind an index, each read when it is asked for.

    Raises:
        UserError: there are none in safetensors, a file is missing or damaged, or it lacks a tensor of the index.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, TensorFile] = {}
        self._where: dict[str, str] = {}
        self._last: TensorFile | None = None
        promised = _index(folder)
        for file in sorted(set(promised.values())) or [SINGLE]:
            if Path(file).name != file:
                raise UserError(
                    f"{folder / INDEX} names {file!r}, which is outside the folder", code="outside-folder"
                )
            self._files[file] = TensorFile(folder / file)
            self._where |= dict.fromkeys(self._files[file], file)
        missing = sorted(set(promised) - set(self._where))
        if missing:
            raise UserError(f"{folder}: {promised[missing[0]]} lacks the tensor {missing[0]}", code="tensor-missing")

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def meta(self, name: str) -> Tensor:
        """Shape and type of a tensor."""
        described: Tensor = self._files[self._where[name]].meta(name)
        return described

    def tensor(self, name: str) -> Tensor:
        """A copy of a tensor."""
        file = self._files[self._where[name]]
        if self._last is not file and self._last is not None:
            self._last.release()
        self._last = file
        tensor: Tensor = file[name]
        return tensor


def _index(folder: Path) -> dict[str, str]:
    """File of each tensor; empty where there is but one file."""
    if (folder / INDEX).is_file():
        return dict(read_json(folder / INDEX).get("weight_map", {}))
    if not (folder / SINGLE).is_file():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        raise UserError(
            f"{folder} has no {SINGLE}" + (f"; {pickled[0]} holds pickles, which can run code" if pickled else ""),
            remedy="Convert it to safetensors where you trust it: model.save_pretrained(folder).",
            code="no-safetensors",
        )
    return {}


def write_shards(folder: Path, described: Mapping[str, Tensor], read: Callable[[str], Tensor], largest: int) -> None:
    """Write tensors that are asked for one after the other into files of at most so many bytes.

    Args:
        folder: where to.
        described: name → shape and type.
        read: gives a tensor.
        largest: bytes of tensors in one file; a tensor that is larger has a file of its own.
    """
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in described.items():
        if shards[-1] and size + tensor.nbytes > largest:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    if len(shards) == 1:
        _write_file(folder / SINGLE, shards[0], read)
        return
    names: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_file(folder / file, shard, read)
        names |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in described.values())
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": names})


def _write_file(path: Path, described: Mapping[str, Tensor], read: Callable[[str], Tensor]) -> None:
    part = path.with_name(f"{path.name}.part")
    write_tensors(part, described, read)
    _settle(part, path)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8", newline="\n")
    _settle(part, path)


def write_json(path: Path, value: Any) -> None:
    """Write plain data."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def _settle(part: Path, path: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
