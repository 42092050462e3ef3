"""The first steps before the named stages: clean the corpus, train the tokenizer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict

from corelm.errors import UserError
from corelm.files import write_atomic, write_json, writing
from corelm.kinds.component import Spec
from corelm.kinds.data import DataConfig
from corelm.kinds.records import Text
from corelm.kinds.template import Template
from corelm.kinds.tokenizer import END_OF_TEXT, Tokenizer
from corelm.model import loading
from corelm.pipeline import corpus_page, records
from corelm.pipeline.cleaning import Cleaned
from corelm.pipeline.context import StageContext


def clean_corpus(context: StageContext, data: DataConfig) -> dict[str, float]:
    """Write ``train.jsonl`` and ``holdout.jsonl``, streaming.

    Raises:
        UserError: no documents at all, or none to train on.
    """
    documents = Cleaned(data)
    for note in documents.source.notes():
        context.watch.note(note)
    counts, bytes_ = {"train": 0, "holdout": 0}, 0
    with (
        writing(context.folder),
        (context.folder / "train.jsonl").open("w", encoding="utf-8") as train,
        (context.folder / "holdout.jsonl").open("w", encoding="utf-8") as holdout,
    ):
        for number, document in enumerate(documents):
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
        raise _all_held_out(counts["holdout"], data.holdout)
    read = documents.read()
    for sentence in read:
        context.watch.note(sentence)
    report = {
        "documents": counts,
        "bytes": bytes_,
        "source": asdict(documents.source.report),
        "read": read,
        "cleaners": documents.reports(),
    }
    write_json(context.folder / "report.json", report)
    write_atomic(context.folder / "report.html", corpus_page.render(str(context.recipe["name"]), report))
    return {"documents": counts["train"], "held_out": counts["holdout"], "megabytes": bytes_ / 1e6}


def _all_held_out(count: int, share: float) -> UserError:
    return UserError(
        f"no document is left to train on: all {count:,} are held out (holdout: {share})",
        remedy="Lower `holdout`, or give more documents: which side one is on is decided by its hash.",
        code="corpus-all-held-out",
    )


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
