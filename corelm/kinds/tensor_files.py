"""Safetensors files, written and read one tensor at a time, so that no more than that need be in memory.

The format (https://github.com/huggingface/safetensors): the length of the header as eight bytes, little endian; the
header, JSON padded with spaces; the tensors' bytes, one after another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import safetensors
import torch
from safetensors import safe_open
from torch import Tensor

from corelm.errors import UserError

DTYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}
RENEWED: Final = 1 << 28
"""Bytes after which a file is opened anew: pages that were read count as memory as long as it is mapped."""


class TensorFile(Mapping[str, Tensor]):
    """Tensors of one safetensors file by name, each copied when it is asked for.

    Raises:
        UserError: the file is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mapped: Any = None
        self._read = 0
        self._names = list(self._file.keys())

    @property
    def _file(self) -> Any:
        if self._mapped is None:
            self._mapped, self._read = self._open(), 0
        return self._mapped

    def release(self) -> None:
        """Give the memory back that what was read counts as; the file is opened again when it is needed."""
        self._mapped = None

    def _open(self) -> Any:
        try:
            return safe_open(self.path, framework="pt")
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(
                f"{self.path} can't be read: {error}",
                remedy="Copy or download the file again.",
                code="tensors-unreadable",
            ) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def meta(self, name: str) -> Tensor:
        """A tensor's shape and type, on the ``meta`` device."""
        piece = self._file.get_slice(name)
        if piece.get_dtype() not in DTYPES:
            raise UserError(
                f"{self.path}: {name} is of the type {piece.get_dtype()}, which is no plain number",
                remedy="Convert the file to bfloat16 first.",
                code="tensor-type",
            )
        return torch.empty(piece.get_shape(), dtype=DTYPES[piece.get_dtype()], device="meta")

    def __getitem__(self, name: str) -> Tensor:
        if self._read > RENEWED:
            self.release()
        mapped: Tensor = self._file.get_tensor(name)
        self._read += mapped.nbytes
        return mapped.clone()


def write_tensors(
    path: Path, described: Mapping[str, Tensor], read: Callable[[str], Tensor], order: Iterable[str] | None = None
) -> None:
    """Write a file of tensors that are asked for one after the other.

    Args:
        path: of the file.
        described: name → shape and type, e.g. on the ``meta`` device.
        read: gives a tensor.
        order: in which they are asked for and written; default: as described.

    Raises:
        ValueError: a tensor is not what was described.
    """
    # Wider types first, so that every tensor begins at a multiple of its item's size.
    names = sorted(order or described, key=lambda name: -described[name].itemsize)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        start, end = end, end + described[name].nbytes
        shape = list(described[name].shape)
        header[name] = {"dtype": NAMES[described[name].dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in names:
            tensor = read(name).detach().cpu().contiguous()
            if tensor.shape != described[name].shape or tensor.dtype != described[name].dtype:
                raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, not what was announced")
            if tensor.numel():
                file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
