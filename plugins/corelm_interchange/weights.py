"""Tensors of a Hugging Face folder: one safetensors file, or several behind an index."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from corelm.errors import UserError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def read_json(path: Path) -> Any:
    """Contents of a JSON file.

    Raises:
        UserError: it is missing or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {error}", remedy="Is the folder complete?") from error


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, each as it is stored.

    Raises:
        UserError: there are none in safetensors, a file is missing or damaged, or it lacks a tensor of the index.
    """
    if (folder / INDEX).is_file():
        where: dict[str, str] = read_json(folder / INDEX).get("weight_map", {})
        files = sorted(set(where.values()))
    elif (folder / SINGLE).is_file():
        where, files = {}, [SINGLE]
    else:
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        raise UserError(
            f"{folder} has no {SINGLE}" + (f"; {pickled[0]} holds pickles, which can run code" if pickled else ""),
            remedy="Convert it to safetensors where you trust it: model.save_pretrained(folder).",
            code="no-safetensors",
        )
    tensors: dict[str, Tensor] = {}
    for file in files:
        if Path(file).name != file:
            raise UserError(f"{folder / INDEX} names {file!r}, which is outside the folder", code="outside-folder")
        tensors.update(_read_file(folder / file))
    missing = sorted(set(where) - set(tensors))
    if missing:
        raise UserError(f"{folder}: {where[missing[0]]} lacks the tensor {missing[0]}", code="tensor-missing")
    return tensors


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} can't be read: {error}", remedy="Copy or download the file again.") from error


def write_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one safetensors file; other readers expect ``format`` in its metadata."""
    part = folder / f"{SINGLE}.part"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, metadata={"format": "pt"})
    _settle(part, folder / SINGLE)


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
