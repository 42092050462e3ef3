"""Files of the field's formats, made up: each vocabulary in several writings that mean the same, and what it means.

Nothing here comes from the parts under test; what a file means is what its makers' own library makes of it.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from corelm.conformance.framework import NotApplicable

Json = dict[str, Any]
Writing = Callable[[Path], Path]
"""Puts the files into an empty folder; the path that is to be read."""

END: Final = "<|endoftext|>"
GPT2: Final = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LETTERS: Final = "abehnst T."


class Foreign(NamedTuple):
    """A vocabulary in files of others.

    Attributes:
        writings: ways to write it that mean the same.
        encode: what the files' own library makes of a text.
        specials: special tokens and their ids.
        named: a name of the format, under which it is written again.
        words: some of the tokens, as text.
        frame: what its makers put around a text.
        decode: what the files' own library makes of ids, where it is asked.
    """

    writings: tuple[Writing, ...]
    encode: Callable[[str], list[int]]
    specials: dict[str, int]
    named: str
    words: tuple[str, ...]
    frame: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    decode: Callable[[list[int]], str] | None = None


def _put(folder: Path, files: dict[str, str | bytes], read: str) -> Path:
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / read if read else folder


def writing(files: dict[str, str | bytes], read: str = "") -> Writing:
    """Files by name; what is to be read: one of them, or their folder."""
    return lambda folder: _put(folder, files, read)


def library(name: str) -> Any:
    """A library that says what a file means."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise NotApplicable(f"the library {name} isn't installed") from error


def as_described(said: Json) -> Callable[[str], list[int]]:
    """What the library tokenizers makes of a description; texts spell no special tokens."""
    made = library("tokenizers").Tokenizer.from_str(json.dumps(said))
    made.encode_special_tokens = True
    return lambda s: list(made.encode(s, add_special_tokens=False).ids)


def _said(model: Json, added: dict[str, int], **steps: Any) -> Json:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": token, **flags} for token, number in added.items()],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": model,
        **steps,
    }


# Byte pairs


def spelling() -> list[str]:
    """A printable letter for each byte (Radford et al., 2019)."""
    printing = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(value) if value in printing else chr(next(others)) for value in range(256)]


def _tokens(chance: random.Random) -> list[tuple[bytes, bytes]]:
    """Pairs of neighbours that are joined, in this order."""
    tokens = [letter.encode() for letter in _LETTERS]
    known, merges = set(tokens), list[tuple[bytes, bytes]]()
    for _ in range(40):
        left, right = chance.choice(tokens), chance.choice(tokens)
        if left + right not in known and not right.startswith(b" ") and len(left + right) < 7:
            known.add(left + right)
            tokens += [left + right] * 2
            merges.append((left, right))
    return merges


class _Pairs(NamedTuple):
    vocabulary: dict[str, int]
    merges: list[tuple[str, str]]

    @property
    def words(self) -> tuple[str, ...]:
        return tuple((left + right).replace("Ġ", " ") for left, right in self.merges)

    def described(self, added: dict[str, int]) -> Json:
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
        model = {"type": "BPE", "vocab": self.vocabulary, "merges": [list(pair) for pair in self.merges]}
        return _said(model, added, pre_tokenizer=level, decoder=level)


def byte_pairs(chance: random.Random) -> _Pairs:
    """Bytes in any order, and what is joined of them."""
    letters = spelling()
    spelt = [
        ("".join(letters[b] for b in left), "".join(letters[b] for b in right)) for left, right in _tokens(chance)
    ]
    first = chance.sample(letters, 256)
    return _Pairs({token: number for number, token in enumerate([*first, *(a + b for a, b in spelt)])}, spelt)


def gpt2(chance: random.Random) -> Foreign:
    """Two files, by either name, with or without the line of the version."""
    pairs = byte_pairs(chance)
    vocabulary = pairs.vocabulary | {END: len(pairs.vocabulary)}
    lines = [f"{left} {right}" for left, right in pairs.merges]
    ids, version = json.dumps(vocabulary), "#version: 0.2"
    shuffled = json.dumps(dict(chance.sample(list(vocabulary.items()), len(vocabulary))), ensure_ascii=False)
    writings = (
        writing({"vocab.json": ids, "merges.txt": "\n".join([version, *lines, ""])}, "vocab.json"),
        writing({"vocab.json": shuffled, "merges.txt": "\n".join(lines)}, "merges.txt"),
        writing({"encoder.json": ids, "vocab.bpe": "\r\n".join([version, *lines, ""])}),
        writing({"x-vocab.json": shuffled, "x-merges.txt": "\n".join([version, *lines, "", ""])}, "x-vocab.json"),
    )
    specials = {END: len(pairs.vocabulary)}
    return Foreign(writings, as_described(pairs.described(specials)), specials, "vocab.json", pairs.words)


def hub(chance: random.Random) -> Foreign:
    """A folder whose special tokens are beside the vocabulary, in any of the files that may say them."""
    pairs = byte_pairs(chance)
    size = len(pairs.vocabulary)
    specials = {END: size, "<|im_start|>": size + 1}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    vocabulary = json.dumps(pairs.described({}))
    named = {"eos_token": END, "additional_special_tokens": ["<|im_start|>"]}
    decoder = {str(number): {"content": token, **flags} for token, number in specials.items()}
    whole = {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": decoder, "eos_token": END}
    writings = (
        writing({"tokenizer.json": json.dumps(pairs.described(specials))}),
        writing({"tokenizer.json": vocabulary, "tokenizer_config.json": json.dumps(whole)}),
        writing({"tokenizer.json": vocabulary, "special_tokens_map.json": json.dumps(named)}),
        writing(
            {
                "tokenizer.json": vocabulary,
                "added_tokens.json": json.dumps(dict(reversed(specials.items()))),
                "tokenizer_config.json": json.dumps({"eos_token": {"content": END, **flags}}),
                "special_tokens_map.json": json.dumps(named),
            }
        ),
    )
    return Foreign(writings, as_described(pairs.described(specials)), specials, "tokenizer.json", pairs.words)


def _ranks(chance: random.Random) -> list[bytes]:
    """All bytes in some order, then tokens of several; some that joining never makes."""
    longer = dict.fromkeys(left + right for left, right in _tokens(chance))
    whole = [bytes(chance.choices(b"abehnst", k=4)) for _ in range(4)]
    return [*(bytes([value]) for value in chance.sample(range(256), 256)), *(longer | dict.fromkeys(whole))]


def _tiktoken(ranks: Sequence[bytes]) -> Callable[[str], list[int]]:
    numbered = {token: rank for rank, token in enumerate(ranks)}
    made = library("tiktoken").Encoding("x", pat_str=GPT2, mergeable_ranks=numbered, special_tokens={})
    return lambda s: list(made.encode(s, disallowed_special=()))


def _texts(ranks: Sequence[bytes]) -> tuple[str, ...]:
    return tuple(token.decode() for token in ranks if len(token) > 1)


def tiktoken(chance: random.Random) -> Foreign:
    """Ranks in any order of lines, and beside them how text is cut."""
    ranks = _ranks(chance)
    lines = [b"%s %d" % (base64.b64encode(token), rank) for rank, token in enumerate(ranks)]
    specials = {END: len(ranks), "<|im_start|>": len(ranks) + 1}
    beside = {"pat_str": GPT2, "special_tokens": specials}
    more = beside | {"name": "x", "explicit_n_vocab": len(ranks) + 2}
    writings = (
        writing({"x.tiktoken": b"\n".join([*lines, b""]), "x.tiktoken.json": json.dumps(beside)}, "x.tiktoken"),
        writing({"x.tiktoken": b"\r\n".join(lines), "x.tiktoken.json": json.dumps(more)}, "x.tiktoken"),
        writing({"x.bin": b"\n\n".join(chance.sample(lines, len(lines))), "x.bin.json": json.dumps(beside)}, "x.bin"),
    )
    return Foreign(writings, _tiktoken(ranks), specials, "x.tiktoken", _texts(ranks))


def tekken(chance: random.Random) -> Foreign:
    """Ranks after the special tokens, which needn't be listed; more ranks than are used."""
    ranks, room = _ranks(chance), chance.choice((3, 14, 20, 23))
    listed = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
        for rank, token in enumerate(ranks)
    ]
    config = {
        "pattern": GPT2,
        "num_vocab_tokens": len(ranks),
        "default_vocab_size": len(ranks) + room,
        "default_num_special_tokens": room,
        "version": "v3",
    }
    beyond = [
        *listed,
        {"rank": len(ranks), "token_bytes": base64.b64encode(b"aaaaaaaaa").decode(), "token_str": None},
    ]
    first = ["<unk>", "<s>", "</s>"]
    tokens = [{"rank": number, "token_str": token, "is_control": True} for number, token in enumerate(first)]
    sparse = {"config": config, "vocab": listed}
    full = {"config": config, "vocab": beyond, "special_tokens": chance.sample(tokens, 3), "version": 7}
    writings = [writing({"tekken.json": json.dumps(one)}, "tekken.json") for one in (sparse, full)]
    cut = _tiktoken(ranks)
    specials = {token: number for number, token in enumerate(first)}
    return Foreign(
        (*writings, writing({"tekken.json": json.dumps(full)})),
        lambda s: [room + i for i in cut(s)],
        specials,
        "tekken.json",
        _texts(ranks),
        ((specials["<s>"],), ()),
    )


# Lists of words


def word_list(chance: random.Random, lower: bool) -> list[str]:
    """BERT's special tokens, then pieces that begin a word, and such that go on inside of one."""
    signs = "abehnst日é1.," + ("" if lower else "ABET")
    pieces = [*signs, *("".join(chance.choices(signs, k=chance.randint(2, 4))) for _ in range(40)), "the"]
    inside = [f"##{piece}" for piece in pieces if piece not in ".,日"]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return [*special, *dict.fromkeys([*pieces, *inside])]


def bert_encoding(pieces: Sequence[str], lower: bool) -> Callable[[str], list[int]]:
    """What the library tokenizers makes of a list of words."""
    model = {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {piece: number for number, piece in enumerate(pieces)},
    }
    cleaning = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": lower}
    steps = {"normalizer": {"type": "BertNormalizer", **cleaning}, "pre_tokenizer": {"type": "BertPreTokenizer"}}
    return as_described(_said(model, dict(zip(pieces[:5], range(5), strict=True)), **steps))


def vocab_txt(chance: random.Random) -> Foreign:
    """Lines that end in any way; that text is put in lower case is said, or seen of the words."""
    lower = chance.random() < 0.5
    pieces = word_list(chance, lower)
    config = json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": lower})
    lines = "".join(f"{piece}\n" for piece in pieces)
    writings = (
        writing({"vocab.txt": lines}, "vocab.txt"),
        writing({"vocab.txt": lines.removesuffix("\n"), "tokenizer_config.json": config}, "vocab.txt"),
        writing({"vocab.txt": lines.replace("\n", "\r\n"), "tokenizer_config.json": config}),
    )
    specials = {piece: number for number, piece in enumerate(pieces[:5])}
    return Foreign(writings, bert_encoding(pieces, lower), specials, "vocab.txt", tuple(pieces[5:]), ((2,), (3,)))


FORMATS: Final[tuple[Callable[[random.Random], Foreign], ...]] = (gpt2, hub, tiktoken, tekken, vocab_txt)
