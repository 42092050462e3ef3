"""Properties of tokenizers: files of formats that others read."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.texts import text
from corelm.conformance.tokenizer_bench import TEACHERS, ready, taught
from corelm.errors import UserError
from corelm.kinds.tokenizer import Tokenizer

NAMES = ("tokenizer.json", "encoder.json", "vocab.json", "vocab.txt", "x.model", "x.tiktoken", "x.gguf")
"""One name of each format that the field has."""


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
    another = draw.choice("tokenizer", ["its own", *TEACHERS])
    if another != "its own":
        tokenizer = taught(another)
    if not sum([_comes_back(part, tokenizer, name, s) for name in NAMES]):
        raise NotApplicable("it can write this tokenizer in no format")


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
