"""How tokenizers are exercised: trained once per config on a small corpus, or made of a trained one's description."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, PartUnderTest
from corelm.conformance.texts import CORPUS, text
from corelm.errors import UserError
from corelm.kinds.tokenizer import END_OF_TEXT, Tokenizer
from corelm.registration import active

SPECIALS = (END_OF_TEXT, "<|im_start|>", "<|im_end|>")
TEACHERS = ("hf-bpe", "unigram", "wordpiece", "fallback-bpe", "characters", "bytes")
"""Parts whose descriptions are given to those that can't be trained: each cuts text, and writes it, in another way."""


class TokenizerBench(Bench):
    """Trained once per config on a small corpus."""

    kind = "tokenizer"
    hints = {"vocab_size": (300, 280, 320)}

    def subject(self, part: PartUnderTest, draw: Draw, **pins: Any) -> Subject:
        """Draw a config, train."""
        subject = super().subject(part, draw, **pins)
        teacher = TEACHERS[0] if part.cls.trainable else draw.choice("teacher", TEACHERS)
        made = trained(part, subject.config.model_dump_json(), teacher)
        rebuild = functools.partial(train_one, part.cls, made.config, teacher=teacher)
        return Subject(made, made.config, subject.context, (), rebuild)

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """A text."""
        return {"text": f"{text(draw)} {draw.seed() % 10_000}"}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """There and back."""
        ids = subject.part.encode(inputs["text"])
        return [len(ids), float(sum(ids)), *ids, subject.part.decode(ids)]


def train_one(
    cls: type[Tokenizer], config: Any, documents: tuple[str, ...] = CORPUS, teacher: str = TEACHERS[0]
) -> Tokenizer:
    """Trained on documents, or made of what another was trained to be.

    Where the documents can't fill the vocabulary, or it has no room for them, one of the size that the error names.
    """
    if not cls.trainable:
        return described(cls, documents, teacher)
    tokenizer = cls(config)
    try:
        tokenizer.train(documents, SPECIALS)
    except UserError as error:
        reachable = error.details.get("reachable")
        if reachable in (None, getattr(config, "vocab_size", None)):
            raise
        tokenizer = cls(config.model_copy(update={"vocab_size": reachable}))
        tokenizer.train(documents, SPECIALS)
    return tokenizer


def described(cls: type[Tokenizer], documents: tuple[str, ...], teacher: str = TEACHERS[0]) -> Tokenizer:
    """What a part that can't be trained makes of a trained tokenizer's description; byte pairs where it knows no other."""
    for name in dict.fromkeys((teacher, TEACHERS[0])):
        told = taught(name, documents).as_tokenizers_json()
        made = None if told is None else cls.from_tokenizers_json(told)
        if made is not None:
            return made
    raise AssertionError("it can neither be trained nor read a tokenizer.json of byte pairs")


@cache
def taught(name: str, documents: tuple[str, ...] = CORPUS) -> Tokenizer:
    """An installed part once it is trained."""
    part: type[Tokenizer] = active().find("tokenizer", name).load()
    sized = {"vocab_size": 300} if "vocab_size" in part.Config.model_fields else {}
    return train_one(part, part.Config.model_validate(sized), documents)


def untrainable(part: PartUnderTest) -> str | None:
    """Says nothing about parts that can't be trained."""
    return None if part.cls.trainable else "it can't be trained"


@cache
def trained(part: PartUnderTest, config: str, teacher: str = TEACHERS[0]) -> Tokenizer:
    """The same one for the same config."""
    return train_one(part.cls, part.cls.Config.model_validate_json(config), teacher=teacher)


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder for a while."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def ready(part: PartUnderTest, draw: Draw) -> Any:
    """A trained tokenizer under a drawn config."""
    return part.bench.subject(part, draw).part


def join_in_place(pieces: list[bytes], left: bytes, right: bytes) -> None:
    """Join two neighbours wherever they stand in a word, from the left."""
    at = 0
    while at < len(pieces) - 1:
        if pieces[at] == left and pieces[at + 1] == right:
            pieces[at : at + 2] = [left + right]
        at += 1
