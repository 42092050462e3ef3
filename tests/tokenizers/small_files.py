"""Small files of single formats, from what the library trained; and texts that tokenizers trip over."""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path

from corelm_tokenizers import formats
from corelm_tokenizers.formats import gguf_metadata
from corelm_tokenizers.library import spelling
from published import LLAMA3, TEXT, byte_pairs, split_bytes, word_pieces
from tokenizers import pre_tokenizers

TEXTS = [
    *TEXT[:4],
    "",
    " ",
    "a \n ",
    "x\n\n \n",
    "I'M don't 1234567 ſ'ſ",
    "<|endoftext|> [MASK] </s>",
    "\x00\x7f\u3000\u200b",
    "e\u0301 🙂",
]
END = "<|endoftext|>"


@cache
def pairs(pattern: str | None = None) -> dict:
    """A byte-level tokenizer that was trained by the library, as its JSON."""
    cut = split_bytes(pattern) if pattern else pre_tokenizers.ByteLevel(add_prefix_space=False)
    return json.loads(byte_pairs(cut).to_str())


def gpt2_folder(folder: Path, names=("vocab.json", "merges.txt"), **changes) -> Path:
    """GPT-2's files, as small ones, altered."""
    model = pairs()["model"]
    vocabulary = changes.get("vocab", model["vocab"] | {END: len(model["vocab"])})
    merges = changes.get("merges", [" ".join(pair) for pair in model["merges"]])
    folder.mkdir(exist_ok=True)
    (folder / names[0]).write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / names[1]).write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    return folder


def bert_file(folder: Path, lower: bool = True) -> Path:
    """A ``vocab.txt``, as a small one."""
    library = word_pieces(lower)
    ids = library.get_vocab()
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in sorted(ids, key=ids.get)), encoding="utf-8")
    return folder / "vocab.txt"


@cache
def ranks(pattern: str = LLAMA3) -> dict[bytes, int]:
    """Tokens with their ranks, as tiktoken counts them."""
    values = {character: value for value, character in enumerate(spelling())}
    vocabulary = pairs(pattern)["model"]["vocab"]
    return {bytes(values[sign] for sign in piece): number for piece, number in vocabulary.items()}


def rank_lines(table: dict[bytes, int]) -> bytes:
    """A file of ranks, as tiktoken writes it."""
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in table.items())


def gguf(path: Path, **values: object) -> Path:
    """GPT-2's vocabulary in a GGUF, altered; a value of None is left out."""
    said = formats.read(gpt2_folder(path.parent))
    model = said.description["model"]
    base = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": list(model["vocab"]),
        "merges": [" ".join(pair) for pair in model["merges"]],
    }
    kept = {f"tokenizer.ggml.{key}": value for key, value in (base | values).items() if value is not None}
    gguf_metadata.write(path, kept)
    return path
