"""The vocabulary inside of a GGUF file, read from its metadata; tensors are not looked at.

Keys are those of ggml's ``docs/gguf.md`` under ``tokenizer.``; what they mean is what llama.cpp does with them. Of its
models ``gpt2`` (byte-level merges; how words are cut goes by the name in ``tokenizer.ggml.pre``), ``llama``
(SentencePiece's pairs by score), ``t5`` (SentencePiece's unigram) and ``bert`` (WordPiece) are read. As in llama.cpp
text is not normalised before ``gpt2`` and ``llama``, whatever the tokenizer that was converted did.

Two things llama.cpp does otherwise on purpose of its own, and nothing in a file says so: before ``bert`` it takes away
all marks, where BERT takes away those without width; and what it calls detokenising takes spaces away before signs for
most names of ways to cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from corelm_tokenizers.formats import checks, gguf_metadata, schema, words
from corelm_tokenizers.formats.found import Found, damaged, refused
from corelm_tokenizers.formats.gpt2 import byte_pairs
from corelm_tokenizers.formats.sentencepiece_model import KINDS, SentenceModel, found_in, model_in
from corelm_tokenizers.formats.vocab_txt import INSIDE, pieces_of
from corelm_tokenizers.formats.vocab_txt import found_in as bert_found_in

PREFIX: Final = "tokenizer."

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 1, 2, 3, 4, 5
_START: Final = "▁"
_USUAL: Final[dict[str, dict[str, int]]] = {
    "llama": {"bos": 1, "eos": 2, "unknown": 0},
    "t5": {"eos": 1, "unknown": 2},
}
"""Ids that llama.cpp takes where a file doesn't name them."""


class _Values:
    """Values of a file, each checked when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values = gguf_metadata.read(path, PREFIX)
        # An empty token has a name in llama.cpp, so that its id is told from others'.
        self.tokens = [token or f"[EMPTY_{number}]" for number, token in enumerate(self.several("tokens", str))]
        if not self.tokens:
            raise damaged(path, "tokenizer.ggml.tokens", "it has no vocabulary", "Give the GGUF of a whole model.")
        kinds = self.several("token_type", int) or [_NORMAL] * len(self.tokens)
        self.kinds = [kind if kind in KINDS else _NORMAL for kind in kinds]
        if len(kinds) != len(self.tokens):
            what = f"{len(kinds)} kinds for {len(self.tokens)} tokens"
            raise damaged(path, "tokenizer.ggml.token_type", what)

    def get(self, name: str, kind: type, default: Any = None) -> Any:
        """The value of ``tokenizer.ggml.NAME``."""
        value = self.values.get(f"{PREFIX}ggml.{name}")
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            what = f"{kind.__name__} is expected, not {type(value).__name__}"
            raise damaged(self.path, f"{PREFIX}ggml.{name}", what)
        return value

    def several(self, name: str, kind: type) -> list[Any]:
        """A list of values of one type; empty where there is none."""
        values: list[Any] = self.get(name, list, [])
        if values and not isinstance(values[0], kind):
            what = f"a list of {kind.__name__} is expected, not of {type(values[0]).__name__}"
            raise damaged(self.path, f"{PREFIX}ggml.{name}", what)
        return values

    def token(self, name: str) -> tuple[str, int] | None:
        """The token whose id is in ``NAME_token_id``."""
        number = self.get(f"{name}_token_id", int)
        if number is None:
            number = _USUAL.get(self.get("model", str), {}).get(name, -1)
            return (self.tokens[number], number) if 0 <= number < len(self.tokens) else None
        if not 0 <= number < len(self.tokens):
            what = f"it is {number}, but the vocabulary has {len(self.tokens)} tokens"
            raise damaged(self.path, f"{PREFIX}ggml.{name}_token_id", what)
        return self.tokens[number], number

    def frame(self, begins: bool, ends: bool, separates: bool = False) -> schema.Json | None:
        """What llama.cpp puts around a text, unless the file says otherwise."""
        begin, end, separator = self.token("bos"), self.token("eos"), self.token("seperator")
        before = [begin] if begin and self.get("add_bos_token", bool, begins) else []
        after = [end] if end and self.get("add_eos_token", bool, ends) else []
        if not after and separator and self.get("add_sep_token", bool, separates):
            after = [separator]
        return schema.frame(before, after)


def describe(path: Path) -> Found:
    """Read the vocabulary of a GGUF.

    Raises:
        UserError: it is damaged, or of a kind that can't be represented.
    """
    values = _Values(path)
    name = values.get("model", str)
    readers = {"gpt2": _gpt2, "llama": _llama, "t5": _t5, "bert": _bert}
    if name not in readers:
        raise refused(
            path,
            f"its tokenizer.ggml.model is {name!r}; {', '.join(readers)} can be read",
            "Give the tokenizer.json that the GGUF was made from.",
        )
    found = readers[name](values)
    end = values.token("eos")
    template = values.values.get(f"{PREFIX}chat_template")
    return Found(found.description, end[0] if end else found.end_of_text, template)


def _gpt2(values: _Values) -> Found:
    """Byte-level merges."""
    path, name = values.path, values.get("pre", str)
    if name not in words.CUTS:
        known = ", ".join(sorted(words.CUTS))
        lacking = f"its tokenizer.ggml.pre is {name!r}" if name else "it has no tokenizer.ggml.pre"
        raise refused(
            path,
            f"{lacking}, so that nobody says how text is cut into words (known: {known})",
            "Convert the model with a newer llama.cpp, or give its tokenizer.json.",
        )
    vocabulary = _once(path, values.tokens)
    merges = []
    for number, merge in enumerate(values.several("merges", str), 1):
        # The first part may itself begin with a space, where it is one.
        at = merge.find(" ", 1)
        left, right = merge[:at], merge[at + 1 :]
        if at < 0 or not right:
            raise damaged(path, f"tokenizer.ggml.merges {number}", f"{merge[:60]!r} isn't two tokens")
        merges.append((left, right))
    checks.check_byte_level(path, merges, vocabulary)
    checks.check_merges(path, merges, vocabulary)
    own = {_UNKNOWN: True, _CONTROL: True, _USER_DEFINED: False}
    added = [
        schema.added_token(number, piece, special=own[kind], normalized=False)
        for number, (piece, kind) in enumerate(zip(values.tokens, values.kinds, strict=True))
        if kind in own
    ]
    framed = name in words.FRAMED
    said = byte_pairs(
        vocabulary,
        merges,
        words.byte_words(words.CUTS[name]),
        ignore_merges=name in words.WHOLE_WORDS_FIRST,
        post_processor=values.frame(framed, False, name in words.SEPARATED),
        added=added,
    )
    return Found(said)


def _sentences(values: _Values, model_type: int, frame: schema.Json | None, flags: Mapping[str, bool]) -> Found:
    """Either of SentencePiece's."""
    path, unknown = values.path, values.token("unknown")
    scores = values.several("scores", float)
    if len(scores) != len(values.tokens):
        what = f"{len(scores)} scores for {len(values.tokens)} tokens"
        raise damaged(path, "tokenizer.ggml.scores", what)
    kinds = [KINDS[kind] for kind in values.kinds]
    marked = [number for number, kind in enumerate(kinds) if kind == "unknown"]
    if unknown and (len(marked) != 1 or values.get("unknown_token_id", int) is not None):
        for number in marked:  # Phi-3's file marks the rows that fill its matrix up as well
            kinds[number] = "control"
        kinds[unknown[1]] = "unknown"
    charsmap = values.several("precompiled_charsmap", int)
    model = SentenceModel(
        pieces=list(zip(values.tokens, scores, kinds, strict=True)),
        model_type=model_type,
        byte_fallback="byte" in kinds,
        charsmap=bytes(value & 0xFF for value in charsmap),
        flags={"escape_whitespaces": True, **flags},
    )
    return found_in(path, model, frame)


def _llama(values: _Values) -> Found:
    """Pairs by score."""
    flags = {
        "add_dummy_prefix": values.get("add_space_prefix", bool, True),
        "remove_extra_whitespaces": values.get("remove_extra_whitespaces", bool, False),
    }
    return _sentences(values, 2, values.frame(True, False), flags)


def _t5(values: _Values) -> Found:
    """Unigram."""
    if any(KINDS[kind] == "byte" for kind in values.kinds):
        raise refused(
            values.path,
            "its Unigram has pieces for bytes, which llama.cpp doesn't write: what no piece spells is unknown there",
            "Give the .model or the tokenizer.json that the GGUF was made from.",
        )
    flags = {
        "add_dummy_prefix": values.get("add_space_prefix", bool, True),
        "remove_extra_whitespaces": values.get("remove_extra_whitespaces", bool, False),
    }
    return _sentences(values, 1, values.frame(False, True), flags)


def _bert(values: _Values) -> Found:
    """WordPiece; GGUF marks the pieces that begin a word, where BERT's file marks the others."""
    marked = any(piece.startswith(_START) for piece in values.tokens)
    pieces = [_as_bert_has_it(piece) if marked else piece for piece in values.tokens]
    _once(values.path, pieces)
    lower = values.get("normalizer.lowercase", bool, True)
    strips = values.get("normalizer.strip_accents", bool)
    return bert_found_in(values.path, pieces, lower=lower, strip_accents=strips)


def _as_bert_has_it(piece: str) -> str:
    if piece.startswith("[") and piece.endswith("]"):
        return piece
    return piece.removeprefix(_START) if piece.startswith(_START) else INSIDE + piece


def _as_gguf_has_it(piece: str) -> str:
    if piece.startswith("[") and piece.endswith("]"):
        return piece
    return piece.removeprefix(INSIDE) if piece.startswith(INSIDE) else _START + piece


def _once(path: Path, pieces: Sequence[str]) -> dict[str, int]:
    """Ids by token."""
    ids: dict[str, int] = {}
    for number, piece in enumerate(pieces):
        if ids.setdefault(piece, number) != number:
            raise damaged(path, f"tokenizer.ggml.tokens {number}", f"{piece!r} is token {ids[piece]} already")
    return ids


def write(found: Found, path: Path) -> None:
    """Write a GGUF with the vocabulary and no tensors.

    Raises:
        UserError: GGUF has no words for the description.
    """
    said = found.description
    sentences = model_in(found)
    if sentences is not None:
        values = _sentence_values(path, sentences)
    elif said["model"]["type"] == "WordPiece":
        values = _bert_values(path, found)
    else:
        values = _gpt2_values(path, said)
    tokens: list[str] = values["ggml.tokens"]
    ids = {piece: number for number, piece in enumerate(tokens)}
    if found.end_of_text in ids:
        values["ggml.eos_token_id"] = ids[found.end_of_text]
    values |= _frame_values(path, said, ids)
    if found.chat_template is not None:
        values["chat_template"] = found.chat_template
    # llama.cpp reads no vocabulary of a file that names none of its architectures; each model has one of its name.
    written: dict[str, Any] = {"general.architecture": values["ggml.model"]}
    written |= {f"{PREFIX}{key}": value for key, value in values.items()}
    gguf_metadata.write(path, written, (f"{PREFIX}ggml.precompiled_charsmap",))


def _unsayable(path: Path, what: str) -> Exception:
    return refused(path, f"a GGUF can't say {what}", "Write a tokenizer.json or a .model instead.")


def _frame_values(path: Path, said: schema.Json, ids: Mapping[str, int]) -> dict[str, Any]:
    """What is put around a text."""
    around = said["post_processor"]
    single = around["single"] if around and around["type"] == "TemplateProcessing" else []
    names: list[str] = [part.get("SpecialToken", {}).get("id", "") for part in single]
    at = names.index("") if "" in names else 0
    before, after = names[:at], names[at + 1 :]
    if len(before) > 1 or len(after) > 1 or (around and not single and around["type"] != "ByteLevel"):
        raise _unsayable(path, "more than one token before or after a text")
    values: dict[str, Any] = {"ggml.add_bos_token": bool(before), "ggml.add_eos_token": bool(after)}
    if before:
        values["ggml.bos_token_id"] = ids[before[0]]
    if after:
        values["ggml.eos_token_id"] = ids[after[0]]
    return values


def _sentence_values(path: Path, model: SentenceModel) -> dict[str, Any]:
    name = {1: "t5", 2: "llama"}.get(model.model_type)
    flags = model.flags
    changes = bool(model.charsmap) or flags["remove_extra_whitespaces"]
    if name is None or (name == "llama" and changes):
        raise _unsayable(path, "how this SentencePiece model normalises or cuts text")
    if not flags["escape_whitespaces"] or model.treat_whitespace_as_suffix:
        raise _unsayable(path, "what this SentencePiece model does with spaces")
    kinds = {kind for _, _, kind in model.pieces}
    if name == "t5" and "byte" in kinds:
        raise _unsayable(path, "that Unigram falls back to bytes: llama.cpp writes the unknown instead")
    if "user_defined" in kinds and flags["add_dummy_prefix"]:
        raise _unsayable(path, "where the first space goes beside user-defined pieces: llama.cpp puts it behind them")
    numbers = {name: number for number, name in KINDS.items()}
    values: dict[str, Any] = {
        "ggml.model": name,
        "ggml.pre": "default",
        "ggml.tokens": [piece for piece, _, _ in model.pieces],
        "ggml.scores": [float(score) for _, score, _ in model.pieces],
        "ggml.token_type": [numbers[kind] for _, _, kind in model.pieces],
        "ggml.add_space_prefix": flags["add_dummy_prefix"],
        "ggml.remove_extra_whitespaces": flags["remove_extra_whitespaces"],
    }
    values["ggml.unknown_token_id"] = values["ggml.token_type"].index(_UNKNOWN)
    if model.charsmap:
        values["ggml.precompiled_charsmap"] = list(model.charsmap)
    return values


def _bert_values(path: Path, found: Found) -> dict[str, Any]:
    pieces, normalizer = pieces_of(path, found), found.description["normalizer"]
    added = {token["content"] for token in found.description["added_tokens"]}
    values: dict[str, Any] = {
        "ggml.model": "bert",
        "ggml.pre": "default",
        "ggml.tokens": [_as_gguf_has_it(piece) for piece in pieces],
        "ggml.token_type": [_CONTROL if piece in added else _NORMAL for piece in pieces],
        "ggml.normalizer.lowercase": normalizer["lowercase"],
    }
    if normalizer["strip_accents"] is not None:
        values["ggml.normalizer.strip_accents"] = normalizer["strip_accents"]
    if [_as_bert_has_it(piece) for piece in values["ggml.tokens"]] != pieces or not normalizer[
        "handle_chinese_chars"
    ]:
        raise _unsayable(path, "this WordPiece vocabulary")
    return values


def _gpt2_values(path: Path, said: schema.Json) -> dict[str, Any]:
    model, cut = said["model"], said["pre_tokenizer"]
    names = [name for name, patterns in words.CUTS.items() if patterns == words.patterns_of(cut)]
    whole = bool(model.get("ignore_merges"))
    names = [name for name in names if (name in words.WHOLE_WORDS_FIRST) == whole]
    if model["type"] != "BPE" or said["normalizer"] or not names:
        raise _unsayable(path, f"how this {model['type']} normalises and cuts text")
    kinds = {token["content"]: _CONTROL if token["special"] else _USER_DEFINED for token in said["added_tokens"]}
    ids = model["vocab"] | {token["content"]: token["id"] for token in said["added_tokens"]}
    checks.check_no_holes(path, ids.values())
    tokens = sorted(ids, key=ids.__getitem__)
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    return {
        "ggml.model": "gpt2",
        "ggml.pre": names[0],
        "ggml.tokens": tokens,
        "ggml.token_type": [kinds.get(piece, _NORMAL) for piece in tokens],
        "ggml.merges": [f"{left} {right}" for left, right in pairs],
    }
