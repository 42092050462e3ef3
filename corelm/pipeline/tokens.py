"""Tokenized documents on disk: any of them is read without the others, at constant memory."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from corelm.errors import UserError
from corelm.files import read_json, write_json, writing
from corelm.kinds.packer import Tokens


class DiskTokens:
    """A folder of memory-mapped arrays; see ``write_tokens`` for what is in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        facts = read_json(folder / "tokens.json")
        self._count, self.tokens = int(facts["documents"]), int(facts["tokens"])
        self._ids = self._map("ids.bin", facts["dtype"], self.tokens)
        self._learn = self._map("learn.bin", "bool", self.tokens) if facts["learn"] else None
        self._offsets = self._map("offsets.bin", "int64", self._count + 1)
        self._rows = self._map("rows.bin", "int64", self._count * 3).reshape(-1, 3)
        self._names = (folder / "names.txt").open("rb")

    def _map(self, name: str, dtype: str, length: int) -> np.ndarray:
        path = self.folder / name
        if path.stat().st_size != length * np.dtype(dtype).itemsize:
            raise UserError(f"{path}: truncated or altered", remedy="Remove its folder to have it made again.")
        if length == 0:
            return np.empty(0, dtype=dtype)
        return np.memmap(path, dtype=dtype, mode="r", shape=(length,))

    def __len__(self) -> int:
        """Number of documents."""
        return self._count

    def __getitem__(self, index: int) -> Tokens:
        """One document; its arrays are copies."""
        if not 0 <= index < self._count:
            raise IndexError(index)
        span = slice(int(self._offsets[index]), int(self._offsets[index + 1]))
        group, label, name_at = (int(value) for value in self._rows[index])
        self._names.seek(name_at)
        name = json.loads(self._names.readline())
        learn = None if self._learn is None else np.array(self._learn[span])
        return Tokens(np.array(self._ids[span], dtype=np.int64), learn, name, group, label)


def write_tokens(folder: Path, documents: Iterable[Tokens], vocab_size: int) -> DiskTokens:
    """Write documents into a new folder: ids as the smallest unsigned type, offsets, groups, labels, names."""
    dtype = "uint16" if vocab_size <= 2**16 else "uint32"
    count = tokens = name_at = 0
    learns = False
    with writing(folder):
        folder.mkdir(parents=True)
        with (
            (folder / "ids.bin").open("wb") as ids,
            (folder / "learn.bin").open("wb") as learn,
            (folder / "offsets.bin").open("wb") as offsets,
            (folder / "rows.bin").open("wb") as rows,
            (folder / "names.txt").open("wb") as names,
        ):
            offsets.write(np.int64(0).tobytes())
            for document in documents:
                ids.write(document.ids.astype(dtype).tobytes())
                learns = learns or document.learn is not None
                marks = np.ones(len(document.ids), dtype=bool) if document.learn is None else document.learn
                learn.write(marks.tobytes())
                rows.write(np.array([document.group, document.label, name_at], dtype=np.int64).tobytes())
                name_at += names.write(json.dumps(document.name).encode() + b"\n")
                count, tokens = count + 1, tokens + len(document.ids)
                offsets.write(np.int64(tokens).tobytes())
    write_json(folder / "tokens.json", {"documents": count, "tokens": tokens, "dtype": dtype, "learn": learns})
    return DiskTokens(folder)
