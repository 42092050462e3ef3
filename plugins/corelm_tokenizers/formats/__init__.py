"""Files of other people's tokenizers: each format is read to a description, and written from one.

``read`` knows a file by what is in it; its name only decides where the content doesn't (two plain lists of words look
alike). Descriptions are in the schema of ``tokenizer.json``; see ``corelm_tokenizers.description``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from corelm.errors import UserError
from corelm.kinds.tokenizer import Tokenizer, read_tokenizers_json
from corelm_tokenizers.fallback import BYTES
from corelm_tokenizers.formats import (
    folder,
    gguf_metadata,
    gguf_vocabulary,
    gpt2,
    sentencepiece_model,
    tekken,
    tiktoken_ranks,
    vocab_txt,
)
from corelm_tokenizers.formats.found import Found, refused
from corelm_tokenizers.formats.schema import Json
from corelm_tokenizers.library import pattern_of
from corelm_tokenizers.library_numbers import number

__all__ = ["Found", "load", "read", "save", "write"]

_HEAD: Final = 4096
_COMPRESSED: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}
_OWN: Final = (".gguf", ".tiktoken", ".model", "tekken.json")
"""Ends of the names under which a file of one's own format stands in a folder."""


def read(path: Path) -> Found | None:
    """What a file or a folder says about a tokenizer; None: there is nothing that is known.

    Raises:
        UserError: it is damaged, or says what can't be represented exactly.
    """
    if path.is_dir():
        return folder.describe(path) or _only_file(path)
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(gguf_metadata.MAGIC) or path.suffix == ".gguf":
        return gguf_vocabulary.describe(path)
    if folder.is_ranks(path) or path.suffix == ".tiktoken":
        return tiktoken_ranks.describe(path)
    packed = next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), None)
    if packed:
        raise refused(path, f"it is compressed ({packed})", "Unpack it first.")
    if _is_binary(head) or path.suffix == ".model":
        return sentencepiece_model.describe(path)
    pair = gpt2.partner(path)
    if pair is not None:
        return gpt2.describe(*pair, folder.config_of(path.parent))
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return _json(path)
    return _text(path, head)


def load(path: Path) -> Tokenizer | None:
    """The tokenizer that a file or a folder holds, by the first installed part that can be it; None: there is none.

    Raises:
        UserError: it is damaged, or says what no installed part can be exactly.
    """
    found = read(path)
    if found is None:
        return None
    text = found.text or json.dumps(found.description, ensure_ascii=False)
    made = read_tokenizers_json(text) if found.text and _may_be_learnt_here(found.description) else None
    if made is None:
        # The library reads the scores of Unigram in its own way, and from the text as it is saved.
        scored = found.description["model"].get("type") == "Unigram"
        made = _held(path, json.loads(text, parse_float=number) if scored else found.description, text)
    said = {"end_of_text": found.end_of_text, "chat_template": found.chat_template}
    known = {name: value for name, value in said.items() if value and name in type(made.config).model_fields}
    if known:
        made.config = made.config.model_copy(update=known)
    return made


def _may_be_learnt_here(description: Json) -> bool:
    """Whether a ``tokenizer.json`` may be one that a part of ours wrote which learns: quickly seen of large ones.

    Asking each part takes as long as reading the file a dozen times.
    """
    model = description["model"]
    vocabulary = model.get("vocab")
    if model.get("type") == "BPE" and isinstance(vocabulary, dict):
        if vocabulary.get(BYTES[0]) in (0, 1):
            return True
        try:
            return pattern_of(description) is not None
        except (AttributeError, IndexError, KeyError, TypeError):
            return False
    if model.get("type") == "Unigram" and isinstance(vocabulary, list):
        return len(vocabulary) > 1 and vocabulary[1][:1] == [BYTES[0]]
    return True


def _held(path: Path, description: Json, text: str) -> Tokenizer:
    """The part that holds a description: the one written here, else the library's, else any that is installed.

    Raises:
        UserError: none can, and why the one written here can't.
    """
    from corelm_tokenizers.assembled import Assembled
    from corelm_tokenizers.tokenizers_json import TokenizersJson

    try:
        return Assembled.from_description(description, text)
    except UserError as error:
        made = TokenizersJson.from_tokenizers_json(text) or read_tokenizers_json(text)
        if made is None:
            raise UserError(f"{path}: {error.message}", remedy=error.remedy, code=error.code) from error
        return made


def _only_file(path: Path) -> Found | None:
    """The one file of a folder that has its own format's name, if it is one."""
    files = sorted(one for one in path.iterdir() if one.name.endswith(_OWN) and one.is_file())
    if len(files) > 1:
        names = ", ".join(one.name for one in files)
        raise refused(path, f"it has several files with a tokenizer: {names}", "Give the path of one of them.")
    return read(files[0]) if files else None


def _is_binary(head: bytes) -> bool:
    """Whether the bytes are no text."""
    if b"\0" in head:
        return True
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start < len(head) - 4 or len(head) < _HEAD
    return False


def _json(path: Path) -> Found:
    """A JSON: a whole tokenizer, or ids whose merges aren't beside it."""
    from corelm_tokenizers.formats.checks import read_json

    said = read_json(path)
    if said and all(type(value) is int for value in said.values()):
        raise refused(
            path,
            "it has the ids of tokens, but no file of merges stands beside it",
            "Put merges.txt (or vocab.bpe) beside vocab.json (or encoder.json).",
        )
    if isinstance(said.get("config"), dict) and isinstance(said.get("vocab"), list):
        return tekken.describe(path, said)
    return folder.describe_json(path, said)


def _text(path: Path, head: bytes) -> Found | None:
    """Lines of text: a list of WordPiece tokens, or merges whose ids aren't beside them."""
    lines = head.decode("utf-8", "replace").split("\n")[:-1]
    if lines and (lines[0].startswith("#version") or all(line.count(" ") == 1 for line in lines)):
        raise refused(
            path,
            "it has merges, but no file with the ids of tokens stands beside it",
            "Put vocab.json (or encoder.json) beside merges.txt (or vocab.bpe).",
        )
    if path.name == "vocab.txt" or vocab_txt.UNKNOWN.encode() in path.read_bytes():
        return vocab_txt.describe(path, folder.config_of(path.parent))
    return None


def save(tokenizer: Tokenizer, path: Path) -> list[Path] | None:
    """Write a tokenizer in the format that a file's name is of; None: it is of none.

    Raises:
        UserError: the format can't say it exactly.
    """
    if _writer(path) is None:
        return None
    said = _description_of(tokenizer, for_library=path.name.endswith("tokenizer.json"))
    if said is None:
        raise refused(path, "the tokenizer has no description in the words of tokenizer.json", "Save it as a folder.")
    try:
        end = tokenizer.end_of_text
    except (KeyError, UserError):
        end = None
    names = {number: name for name, number in tokenizer.specials.items()}
    template = getattr(tokenizer.config, "chat_template", None)
    return write(Found(said, None if end is None else names[end], template), path)


def _description_of(tokenizer: Tokenizer, *, for_library: bool) -> Json | None:
    """A tokenizer in the schema of ``tokenizer.json``, our own types included; None: it has none.

    Args:
        tokenizer: what to describe.
        for_library: in the library's types alone.
    """
    from corelm_tokenizers.described import Described
    from corelm_tokenizers.learnt_pieces import LearnsPieces

    told = tokenizer.as_tokenizers_json()
    if isinstance(tokenizer, LearnsPieces) and not for_library:
        return tokenizer._told
    if isinstance(tokenizer, Described):
        told = tokenizer._text
    return None if told is None else json.loads(told)


def write(found: Found, path: Path) -> list[Path]:
    """Write a description in the format that the file's name is of.

    Args:
        found: what to write. What is put around a text has a place in ``tokenizer.json`` and GGUF only, chat templates
            in GGUF only.
        path: its name ends in ``tokenizer.json``, ``vocab.json`` or ``encoder.json`` (merges come beside it),
            ``vocab.txt``, ``.model``, ``.tiktoken`` or ``.gguf``.

    Returns:
        the files that were written.

    Raises:
        UserError: the format can't say it exactly, or the name is of none.
    """
    writer = _writer(path)
    if writer is None:
        raise refused(
            path,
            "its name is of no format that can be written",
            "Give one that ends in tokenizer.json, vocab.json, encoder.json, vocab.txt, .model, .tiktoken or .gguf.",
        )
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is no folder", remedy="Make it first.", code="no-such-folder")
    there = {one: one.stat().st_mtime_ns for one in path.parent.iterdir()}
    writer(found, path)
    return sorted(one for one in path.parent.iterdir() if there.get(one) != one.stat().st_mtime_ns)


def _writer(path: Path) -> Callable[[Found, Path], None] | None:
    """What writes files of such a name."""
    writers: dict[str, Callable[[Found, Path], None]] = {
        "vocab.json": gpt2.write,
        "encoder.json": gpt2.write,
        "vocab.txt": vocab_txt.write,
        ".model": sentencepiece_model.write,
        ".tiktoken": tiktoken_ranks.write,
        ".gguf": gguf_vocabulary.write,
        "tokenizer.json": _write_json,
    }
    return next((writer for end, writer in writers.items() if path.name.endswith(end)), None)


def _write_json(found: Found, path: Path) -> None:
    """Write a ``tokenizer.json``; types that the library lacks are written too, and read by this package alone."""
    text = json.dumps(found.description, ensure_ascii=False, indent=2)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")
