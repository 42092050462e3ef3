"""How tokenizers are exercised: trained once per config on a small corpus, or made of a trained one's description."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, PartUnderTest
from corelm.conformance.texts import CORPUS, text
from corelm.kinds.component import Spec
from corelm.kinds.tokenizer import END_OF_TEXT, Tokenizer

SPECIALS = (END_OF_TEXT, "<|im_start|>", "<|im_end|>")


class TokenizerBench(Bench):
    """Trained once per config on a small corpus."""

    kind = "tokenizer"
    hints = {"vocab_size": (300, 280, 320)}

    def subject(self, part: PartUnderTest, draw: Draw, **pins: Any) -> Subject:
        """Draw a config, train."""
        subject = super().subject(part, draw, **pins)
        made = trained(part, subject.config.model_dump_json())
        return Subject(made, subject.config, subject.context, (), lambda: train_one(part.cls, subject.config))

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """A text."""
        return {"text": f"{text(draw)} {draw.seed() % 10_000}"}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """There and back."""
        ids = subject.part.encode(inputs["text"])
        return [len(ids), float(sum(ids)), *ids, subject.part.decode(ids)]


def train_one(cls: type[Tokenizer], config: Any, documents: tuple[str, ...] = CORPUS) -> Tokenizer:
    """Trained on documents, or made of what another was trained to be."""
    if not cls.trainable:
        return described(cls, documents)
    tokenizer = cls(config)
    tokenizer.train(documents, SPECIALS)
    return tokenizer


def described(cls: type[Tokenizer], documents: tuple[str, ...]) -> Tokenizer:
    """What a part that can't be trained makes of a trained tokenizer's description."""
    teacher = Spec.read("tokenizer", {"use": "hf-bpe", "vocab_size": 300}).build()
    teacher.train(documents, SPECIALS)
    made = cls.from_tokenizers_json(teacher.as_tokenizers_json() or "")
    assert made is not None, "it can neither be trained nor read a tokenizer.json of byte pairs"
    return made


def untrainable(part: PartUnderTest) -> str | None:
    """Says nothing about parts that can't be trained."""
    return None if part.cls.trainable else "it can't be trained"


@cache
def trained(part: PartUnderTest, config: str) -> Tokenizer:
    """The same one for the same config."""
    return train_one(part.cls, part.cls.Config.model_validate_json(config))


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder for a while."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def ready(part: PartUnderTest, draw: Draw) -> Any:
    """A trained tokenizer under a drawn config."""
    return part.bench.subject(part, draw).part
