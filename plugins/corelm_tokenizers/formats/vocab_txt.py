"""BERT's ``vocab.txt``: one WordPiece token per line, its id the line's number from 0.

Devlin et al., 2019, arXiv:1810.04805. The file doesn't say whether text is put in lower case. ``do_lower_case`` in a
``tokenizer_config.json`` beside it does; else it is, unless lower case would change more than one token in a hundred,
those in ``[…]`` and ``<…>`` not counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import regex

from corelm_tokenizers.formats import schema
from corelm_tokenizers.formats.found import Found, damaged, refused

SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
UNKNOWN: Final = "[UNK]"
INSIDE: Final = "##"

_CAPITALS: Final = 100
"""One in so many tokens may have a capital letter where text is put in lower case."""
_MARKED: Final = regex.compile(r"<[^<>]+>|\[[^\[\]]+\]")
_BERT_LIKE: Final = frozenset(
    ("Bert", "DistilBert", "Electra", "MobileBert", "ConvBert", "LayoutLM", "Lxmert", "SqueezeBert", "RetriBert")
)
_ANY: Final = frozenset(("PreTrained", "TokenizersBackend"))
"""Classes that say nothing of the rules."""
_BERT_PREFIXES: Final = ("DPR",)


def describe(path: Path, config: Mapping[str, Any] | None = None) -> Found:
    """Read a ``vocab.txt``.

    Args:
        path: the file.
        config: what ``tokenizer_config.json`` beside it says.

    Raises:
        UserError: the file is damaged, or the class named in the config isn't BERT's.
    """
    config = config or {}
    class_name = str(config.get("tokenizer_class") or "BertTokenizer")
    family = class_name.removesuffix("Fast").removesuffix("Tokenizer")
    if family not in _BERT_LIKE | _ANY and not family.startswith(_BERT_PREFIXES):
        raise refused(
            path,
            f"tokenizer_config.json names {class_name}, whose rules aren't those of BERT's vocab.txt",
            "Give the model's tokenizer.json.",
        )
    pieces = read(path)
    lower = config.get("do_lower_case")
    if lower is None:
        words = [piece for piece in pieces if not _MARKED.fullmatch(piece)]
        lower = sum(piece != piece.lower() for piece in words) * _CAPITALS <= len(words)
    return found_in(
        path,
        pieces,
        lower=bool(lower),
        chinese=bool(config.get("tokenize_chinese_chars", True)),
        strip_accents=config.get("strip_accents"),
    )


def read(path: Path) -> list[str]:
    """The tokens of a file, in the order of ids.

    Raises:
        UserError: it is no UTF-8, a line is empty, or a token is there twice.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise damaged(path, f"byte {error.start}", "it is no UTF-8") from error
    if lines[-1] == "":
        lines.pop()
    pieces = [line.removesuffix("\r") for line in lines]
    first: dict[str, int] = {}
    for number, piece in enumerate(pieces, 1):
        if not piece:
            raise damaged(path, f"line {number}", "it is empty; each line is a token")
        if first.setdefault(piece, number) != number:
            raise damaged(path, f"line {number}", f"{piece!r} stands in line {first[piece]} already")
    return pieces


def found_in(
    path: Path, pieces: Sequence[str], *, lower: bool, chinese: bool = True, strip_accents: bool | None = None
) -> Found:
    """The description of a vocabulary of BERT's kind.

    Raises:
        UserError: it has no ``[UNK]``.
    """
    ids = {piece: number for number, piece in enumerate(pieces)}
    if UNKNOWN not in ids:
        raise damaged(
            path,
            f"{len(pieces)} tokens",
            f"none is {UNKNOWN}, which stands for words that can't be written",
            f"Give a WordPiece vocabulary, which has {UNKNOWN}; other lists of words need a tokenizer.json.",
        )
    around = [(name, ids[name]) for name in ("[CLS]", "[SEP]") if name in ids]
    framed = len(around) == 2
    said = schema.description(
        {
            "type": "WordPiece",
            "unk_token": UNKNOWN,
            "continuing_subword_prefix": INSIDE,
            "max_input_chars_per_word": 100,
            "vocab": ids,
        },
        normalizer={
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": chinese,
            "strip_accents": strip_accents,
            "lowercase": lower,
        },
        pre_tokenizer={"type": "BertPreTokenizer"},
        post_processor=schema.frame(around[:1], around[1:]) if framed else None,
        decoder={"type": "WordPiece", "prefix": INSIDE, "cleanup": True},
        added=[schema.added_token(ids[name], name) for name in SPECIAL if name in ids],
    )
    return Found(said, "[SEP]" if "[SEP]" in ids else None)


def pieces_of(path: Path, found: Found) -> list[str]:
    """The tokens of a description of BERT's kind, in the order of ids.

    Raises:
        UserError: it is of another kind.
    """
    model = found.description["model"]
    normaliser = found.description["normalizer"] or {}
    cut = found.description["pre_tokenizer"] or {}
    same = (
        model["type"] == "WordPiece"
        and model.get("unk_token") == UNKNOWN
        and model.get("continuing_subword_prefix") == INSIDE
        and model.get("max_input_chars_per_word", 100) == 100
        and normaliser.get("type") == "BertNormalizer"
        and cut.get("type") == "BertPreTokenizer"
    )
    added = {token["content"]: token["id"] for token in found.description["added_tokens"]}
    ids = model.get("vocab", {}) | added if same else {}
    if not same or sorted(ids.values()) != list(range(len(ids))) or any("\n" in piece for piece in ids):
        raise refused(
            path,
            f"the description ({model['type']}) isn't BERT's: WordPiece with {UNKNOWN}, {INSIDE} and its own normaliser",
            "Write a tokenizer.json instead.",
        )
    if added.keys() != {name for name in SPECIAL if name in ids}:
        raise refused(
            path,
            f"its readers know special tokens by their spelling ({', '.join(SPECIAL)}); those of the description are "
            f"{', '.join(added) or 'none'}",
            "Write a tokenizer.json instead.",
        )
    return sorted(ids, key=ids.__getitem__)


def write(found: Found, path: Path) -> None:
    """Write a ``vocab.txt``, and beside it what it doesn't say: ``tokenizer_config.json``, unless there is one.

    Raises:
        UserError: the description is of another kind.
    """
    import json

    pieces = pieces_of(path, found)
    path.write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8", newline="\n")
    normaliser, beside = found.description["normalizer"], path.with_name("tokenizer_config.json")
    if not beside.exists():
        config = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": normaliser["lowercase"],
            "tokenize_chinese_chars": normaliser["handle_chinese_chars"],
            "strip_accents": normaliser["strip_accents"],
        }
        beside.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8", newline="\n")
