"""Properties of tokenizers: files of formats that others read."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.tokenizer import foreign as tokenizer_foreign
from corelm.conformance.laws.tokenizer import foreign_binary as tokenizer_foreign_binary
from corelm.conformance.laws.tokenizer.bench import TEACHERS, ready, taught
from corelm.conformance.laws.tokenizer.descriptions import CUTS
from corelm.conformance.laws.tokenizer.foreign import Writing
from corelm.conformance.texts import text
from corelm.errors import UserError
from corelm.kinds.tokenizer import Tokenizer

NAMES = ("tokenizer.json", "encoder.json", "vocab.json", "vocab.txt", "x.model", "x.tiktoken", "x.gguf")
"""One name of each format that the field has."""
FORMATS = (*tokenizer_foreign.FORMATS, *tokenizer_foreign_binary.FORMATS)


@property_of(
    "tokenizer",
    statement="What is written in a format of others gives the same ids and special tokens when it is read again. What "
    "the format can't say is an error, and nothing is written.",
    formula="from_files(to_files(t)) = t, or UserError ∧ no file",
    catches="merges in another order, special tokens that are lost, a normaliser that the format has no words for, half "
    "a file beside an error",
    tier="bit",
    examples=60,
)
def files_of_others_come_back(part: PartUnderTest, draw: Draw) -> None:
    """Its own, and those of other parts, in every format of which the part has a name."""
    if part.cls.to_files.__func__ is vars(Tokenizer)["to_files"].__func__:
        raise NotApplicable("it writes no files of others")
    tokenizer, s = ready(part, draw), text(draw)
    another = draw.choice("tokenizer", ["its own", *TEACHERS, "cut otherwise"])
    if another == "cut otherwise":
        tokenizer = part.cls.from_tokenizers_json(_cut_otherwise(draw))
        if tokenizer is None:
            raise NotApplicable("it doesn't read this description")
    elif another != "its own":
        tokenizer = taught(another)
    if not sum([_comes_back(part, tokenizer, name, s) for name in NAMES]):
        raise NotApplicable("it can write this tokenizer in no format")


def _cut_otherwise(draw: Draw) -> str:
    """Byte pairs whose words are cut in any way before bytes become letters."""
    said, chance = json.loads(taught("hf-bpe").as_tokenizers_json() or ""), random.Random(draw.seed())
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    cut = chance.choice([step for step in CUTS if step["type"] == "Split"] if chance.random() < 0.7 else CUTS)
    return json.dumps(said | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [cut, level]}})


def _comes_back(part: PartUnderTest, tokenizer: Any, name: str, s: str) -> bool:
    """Whether the part writes files of this name; one that it writes, and reads otherwise, fails."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        try:
            written = part.cls.to_files(tokenizer, folder / name)
        except UserError as error:
            left = sorted(path.name for path in folder.iterdir())
            assert not left, f"{name} was refused ({error.message}), but {left} written"
            assert error.remedy, f"{name} was refused without a remedy: {error.message}"
            return True
        if written is None:
            return False
        assert sorted(written) == sorted(folder.iterdir()), f"{written} are named, others written"
        again = part.cls.from_files(folder / name)
    assert again is not None, f"{name} isn't known any more once it is written"
    assert again.encode(s) == tokenizer.encode(s), f"{s!r} is encoded otherwise after {name}"
    unknown = {again.unknown, tokenizer.unknown}  # which some formats can't but call special
    specials = [{token: i for token, i in one.specials.items() if i not in unknown} for one in (again, tokenizer)]
    assert specials[0] == specials[1], f"{name} has other special tokens: {again.specials}"
    return True


@property_of(
    "tokenizer",
    statement="A file of another's means what its makers' own library makes of it, in every way in which it may be "
    "written: names, order, line ends, what may be left out. Who writes the format reads all this, and can write it again.",
    formula="∀ writings w, w′ of one vocabulary: encode_{from_files(w)} = encode_library; w′ is read if w is; "
    "from_files(to_files(from_files(w))) encodes alike",
    catches="a file whose optional field is required, ranks taken for ids, a normaliser's map that is read by half, a "
    "token of the folder's other files that gets another's id",
    tier="bit",
    examples=90,
)
def files_mean_what_they_say(part: PartUnderTest, draw: Draw) -> None:
    """Made up, in each format of the field."""
    if part.cls.from_files.__func__ is vars(Tokenizer)["from_files"].__func__:
        raise NotApplicable("it reads no files of others")
    chance, begin = random.Random(draw.seed()), draw.integer("format", 0, len(FORMATS) - 1)
    for make in [*FORMATS[begin:], *FORMATS[:begin]]:
        made = make(chance)
        read = [_read(part, writing) for writing in made.writings]
        if any(isinstance(one, Tokenizer) for one in read) or _writes(part, made.named):
            break
    else:
        raise NotApplicable("it knows none of these formats, or can't represent what they say")
    texts = [text(draw), f"{text(draw, 'another')} the The aaaa ab\u00e9 \u65e5\u672c 12."]
    texts += chance.choices(made.words, k=12)
    for number, tokenizer in enumerate(read):
        assert isinstance(tokenizer, Tokenizer), (
            f"writing {number} isn't read, but another, or is written: {tokenizer}"
        )
        assert made.specials.items() <= tokenizer.specials.items(), f"the special tokens are {tokenizer.specials}"
        for s in texts:
            wanted = made.encode(s)
            assert tokenizer.encode(s) == wanted, f"{s!r}, writing {number}: {tokenizer.encode(s)}, wanted {wanted}"
            if made.decode is not None and tokenizer.unknown not in wanted:
                theirs, ours = made.decode(wanted), tokenizer.decode(wanted)
                assert ours == theirs, f"{wanted}, writing {number}, is decoded to {ours!r}, not {theirs!r}"
        assert tokenizer.frame == made.frame, f"{tokenizer.frame} is put around a text, not {made.frame}"
        for token, i in made.specials.items():
            assert tokenizer.encode(token, allow_special=True) == [i], f"{token} isn't encoded to {i}"
    again = _written_again(part, read[0], made.named)
    for s in texts if again is not None else ():
        assert again.encode(s) == made.encode(s), f"{s!r} is encoded otherwise once it is written as {made.named}"


def _read(part: PartUnderTest, writing: Writing) -> Tokenizer | UserError | None:
    """What the part makes of files."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            read: Tokenizer | None = part.cls.from_files(writing(Path(folder)))
        except UserError as error:
            return error
        return read


def _writes(part: PartUnderTest, name: str) -> bool:
    """Whether the part writes files of such a name."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return part.cls.to_files(taught(TEACHERS[0]), Path(folder) / name) is not None
        except UserError:
            return True


def _written_again(part: PartUnderTest, tokenizer: Any, name: str) -> Any:
    """What was read, after writing and reading it once more; None where the part doesn't write the format."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        try:
            written = part.cls.to_files(tokenizer, path)
        except UserError as error:
            raise AssertionError(f"what {name} has said can't be written in {name}: {error.message}") from error
        return None if written is None else part.cls.from_files(path)
