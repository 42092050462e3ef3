"""Shards: tokenized documents in files that are named by the digest of what they hold.

A shard is a safetensors file of one-dimensional arrays: ``ids`` of all documents one after the other (the smallest
unsigned type that the vocabulary fits into), ``offsets`` of the documents in them (one more than documents), ``names`` in
UTF-8 and ``name_offsets``; where some document has them, ``learn`` (with ``marked``: which documents have it), ``groups``
and ``labels``. Its name is the SHA-256 of
the file: equal documents, equal file, and whatever happens to it later is found.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.numpy import save_file

from corelm.errors import UserError
from corelm.files import sha256, sync, writing
from corelm.kinds.packer import Tokens

SHARD_TOKENS: Final = 1 << 22
"""A shard with so many tokens gets no further document."""
SHARD_DOCUMENTS: Final = 1 << 16
"""Nor does one with so many documents."""

_DTYPES: Final = {"U8": "uint8", "U16": "uint16", "U32": "uint32", "I64": "int64", "BOOL": "bool"}


@dataclass(frozen=True)
class ShardFacts:
    """What is known of a shard without opening it.

    Attributes:
        digest: SHA-256 of the file, hexadecimal.
        documents, tokens: how many it holds.
        bytes: size of the file.
    """

    digest: str
    documents: int
    tokens: int
    bytes: int

    def path(self, folder: Path) -> Path:
        """The file."""
        return folder / f"{self.digest}.safetensors"

    def require(self, folder: Path) -> None:
        """Refuse a file that is missing or of another size.

        Raises:
            UserError: it is; names it.
        """
        path = self.path(folder)
        if not path.is_file():
            raise _damaged(path, "is missing")
        if path.stat().st_size != self.bytes:
            raise _damaged(path, f"truncated or altered: {path.stat().st_size} bytes instead of {self.bytes}")


class Shard:
    """A shard, mapped into memory: what is not read takes no room.

    Args:
        folder: where it is.
        facts: what is known of it.

    Raises:
        UserError: the file is missing, truncated or altered; names it.
    """

    def __init__(self, folder: Path, facts: ShardFacts) -> None:
        path = facts.path(folder)
        facts.require(folder)
        if sha256(path) != facts.digest:
            raise _damaged(path, "altered: its digest is not its name")
        arrays = _mapped(path, facts.bytes)
        self.ids, self.offsets = arrays["ids"], arrays["offsets"]
        self.learn, self._marked = arrays.get("learn"), arrays.get("marked")
        self.groups, self.labels = arrays.get("groups"), arrays.get("labels")
        self._names, self._name_offsets = arrays["names"], arrays["name_offsets"]

    def marks(self, index: int, span: slice) -> np.ndarray | None:
        """Which tokens of a span of ``ids`` are learnt, if its document says so."""
        if self.learn is None or self._marked is None or not self._marked[index]:
            return None
        marks: np.ndarray = self.learn[span]
        return marks

    def name(self, index: int) -> str:
        """Name of a document."""
        return (
            self._names[self._name_offsets[index] : self._name_offsets[index + 1]]
            .tobytes()
            .decode("utf-8", "surrogatepass")
        )


def _mapped(path: Path, size: int) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file."""
    # NumPy's own maps keep a file open each, and a process may only have some thousand; PyTorch's don't.
    file = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
    file.flags.writeable = False
    start = 8 + int.from_bytes(file[:8].tobytes(), "little")
    header: dict[str, Any] = json.loads(file[8:start].tobytes())
    return {
        name: file[slice(*(start + offset for offset in entry["data_offsets"]))].view(_DTYPES[entry["dtype"]])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _damaged(path: Path, what: str) -> UserError:
    return UserError(
        f"{path}: {what}", remedy="Remove the stage's folder to have it made again.", code="tokens-damaged"
    )


def write_shards(folder: Path, documents: Iterable[Tokens], vocab_size: int) -> Iterator[ShardFacts]:
    """Write documents into an existing folder, one shard in memory at a time; yields each when it is on the disk."""
    held = _Held(vocab_size)
    for document in documents:
        held.add(document)
        if held.tokens >= SHARD_TOKENS or len(held.documents) >= SHARD_DOCUMENTS:
            yield held.write(folder)
            held = _Held(vocab_size)
    if held.documents:
        yield held.write(folder)


class _Held:
    """Documents that will be a shard."""

    def __init__(self, vocab_size: int) -> None:
        self.documents: list[Tokens] = []
        self.tokens = 0
        self._dtype = "uint16" if vocab_size <= 2**16 else "uint32"

    def add(self, document: Tokens) -> None:
        """Take one more."""
        self.documents.append(dataclasses.replace(document, ids=document.ids.astype(self._dtype)))
        self.tokens += len(document.ids)

    def write(self, folder: Path) -> ShardFacts:
        """Write the shard: a file of another name, which gets its own when it is whole."""
        temporary = folder / f".{os.getpid()}.tmp"
        with writing(folder):
            save_file(self._arrays(), temporary)
            sync(temporary)
            facts = ShardFacts(sha256(temporary), len(self.documents), self.tokens, temporary.stat().st_size)
            temporary.replace(facts.path(folder))
        return facts

    def _arrays(self) -> dict[str, np.ndarray]:
        names = [document.name.encode("utf-8", "surrogatepass") for document in self.documents]
        arrays = {
            "ids": np.concatenate([document.ids for document in self.documents]),
            "offsets": _offsets([len(document.ids) for document in self.documents]),
            "names": np.frombuffer(b"".join(names), dtype=np.uint8),
            "name_offsets": _offsets([len(name) for name in names]),
        }
        if any(document.learn is not None for document in self.documents):
            marks = [np.ones(len(d.ids), dtype=bool) if d.learn is None else d.learn for d in self.documents]
            arrays["learn"] = np.concatenate(marks)
            arrays["marked"] = np.array([document.learn is not None for document in self.documents])
        for name, values in (
            ("groups", [document.group for document in self.documents]),
            ("labels", [document.label for document in self.documents]),
        ):
            if max(values) >= 0:
                arrays[name] = np.array(values, dtype=np.int64)
        return arrays


def _offsets(lengths: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
