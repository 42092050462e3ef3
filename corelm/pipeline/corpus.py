"""The three steps before the named stages: clean the corpus, train the tokenizer, tokenize."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from corelm.errors import UserError
from corelm.files import write_json, writing
from corelm.kinds.component import Spec
from corelm.kinds.data import DataConfig
from corelm.kinds.packer import Tokens
from corelm.kinds.records import Text
from corelm.kinds.template import Template
from corelm.kinds.tokenizer import END_OF_TEXT, Tokenizer
from corelm.model import loading
from corelm.pipeline import records
from corelm.pipeline.context import StageContext
from corelm.pipeline.tokens import write_tokens

CHUNK, CHUNK_CHARACTERS = 256, 1_000_000
"""Documents encoded at once, and about how much text."""


def clean_corpus(context: StageContext, data: DataConfig) -> dict[str, float]:
    """Write ``train.jsonl`` and ``holdout.jsonl``, streaming.

    Raises:
        UserError: no documents at all.
    """
    source = data.source.build()
    for note in source.notes():
        context.watch.note(note)
    cleaners = [cleaner.build() for cleaner in data.clean]
    documents = records.readable(data.source, source.records())
    for cleaner in cleaners:
        documents = cleaner.clean(documents)
    counts, bytes_ = {"train": 0, "holdout": 0}, 0
    with (
        writing(context.folder),
        (context.folder / "train.jsonl").open("w", encoding="utf-8") as train,
        (context.folder / "holdout.jsonl").open("w", encoding="utf-8") as holdout,
    ):
        for number, document in enumerate(itertools.islice(documents, data.limit)):
            if not isinstance(document, Text):
                raise UserError(f"source {data.source.name} yields {type(document).__name__}, a corpus needs text")
            side = "holdout" if records.held_out(document, data.holdout) else "train"
            (holdout if side == "holdout" else train).write(records.encode_record(document) + "\n")
            counts[side] += 1
            bytes_ += len(document.text.encode())
            if number % 500 == 0:
                context.watch.step(number, 0, {"megabytes": bytes_ / 1e6})
            context.stop_if_asked()
    if counts["train"] == 0:
        raise records.empty(data.source)
    reports = {spec.name: vars(cleaner.report) for spec, cleaner in zip(data.clean, cleaners, strict=True)}
    write_json(context.folder / "report.json", {"documents": counts, "bytes": bytes_, "cleaners": reports})
    return {"documents": counts["train"], "held_out": counts["holdout"], "megabytes": bytes_ / 1e6}


def train_tokenizer(
    context: StageContext, choice: Spec[Tokenizer], template: Spec[Template] | None
) -> dict[str, float]:
    """Train the recipe's tokenizer on the corpus and save it."""
    specials = [END_OF_TEXT]
    if template is not None:
        specials += [token for token in template.part.specials(template.config) if token not in specials]
    tokenizer = choice.build()
    begun = time.monotonic()
    tokenizer.train(_texts(context), specials)
    loading.save_tokenizer(tokenizer, context.folder)
    return {"vocabulary": tokenizer.vocab_size, "seconds_training": time.monotonic() - begun}


def _texts(context: StageContext) -> Iterator[str]:
    for number, document in enumerate(context.corpus_texts("train")):
        if number % 200 == 0:
            context.watch.step(number, 0, {})
        assert isinstance(document, Text)
        yield document.text


def tokenize_corpus(context: StageContext) -> dict[str, float]:
    """Write both parts of the corpus as tokens."""
    tokenizer = context.tokenizer()
    figures: dict[str, float] = {}
    for split in ("train", "holdout"):
        shutil.rmtree(context.folder / split, ignore_errors=True)
        store = write_tokens(context.folder / split, _encoded(context, tokenizer, split), tokenizer.vocab_size)
        figures["tokens" if split == "train" else "held_out"] = store.tokens
    return figures


def _encoded(context: StageContext, tokenizer: Tokenizer, split: Any) -> Iterator[Tokens]:
    done = 0
    for chunk in _chunks(context.corpus_texts(split)):
        encoded = tokenizer.encode_batch([document.text for document in chunk])
        for document, ids in zip(chunk, encoded, strict=True):
            yield Tokens(np.array(ids, dtype=np.int64), name=document.name)
        done += len(chunk)
        context.watch.step(done, 0, {})


def _chunks(documents: Iterator[Any]) -> Iterator[list[Text]]:
    """Documents to encode at once: not too many, and not too much text."""
    chunk: list[Text] = []
    size = 0
    for document in documents:
        chunk.append(document)
        size += len(document.text)
        if len(chunk) == CHUNK or size >= CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
