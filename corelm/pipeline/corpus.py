"""The first steps before the named stages: clean the corpus, train the tokenizer."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from corelm.errors import UserError
from corelm.files import write_atomic, write_json, writing
from corelm.kinds.component import Spec
from corelm.kinds.data import DataConfig
from corelm.kinds.records import Text
from corelm.kinds.template import Template
from corelm.kinds.tokenizer import END_OF_TEXT, Tokenizer
from corelm.model import loading
from corelm.pipeline import corpus_page, records
from corelm.pipeline.context import StageContext


def clean_corpus(context: StageContext, data: DataConfig) -> dict[str, float]:
    """Write ``train.jsonl`` and ``holdout.jsonl``, streaming.

    Raises:
        UserError: no documents at all.
    """
    source = data.source.build()
    for note in source.notes():
        context.watch.note(note)
    cleaners = [cleaner.build() for cleaner in data.clean]
    documents = records.readable(data.source, source.read())
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
    reports = [{"use": spec.name, **part.report.plain()} for spec, part in zip(data.clean, cleaners, strict=True)]
    if counts["train"] == 0:
        raise _nothing_left(data, reports)
    read = source.report.sentences(f"source {data.source.name}")
    for sentence in read:
        context.watch.note(sentence)
    report = {
        "documents": counts,
        "bytes": bytes_,
        "source": asdict(source.report),
        "read": read,
        "cleaners": reports,
    }
    write_json(context.folder / "report.json", report)
    write_atomic(context.folder / "report.html", corpus_page.render(str(context.recipe["name"]), report))
    return {"documents": counts["train"], "held_out": counts["holdout"], "megabytes": bytes_ / 1e6}


def _nothing_left(data: DataConfig, reports: Sequence[dict[str, Any]]) -> UserError:
    """The error for a corpus without a document to train on: nothing came, or the cleaners dropped it all."""
    dropped = [(found["use"], found["seen"] - found["kept"], found["reasons"]) for found in reports]
    if not any(count for _, count, _ in dropped):
        return records.empty(data.source)
    told = "; ".join(
        f"{name} dropped {count:,} ({', '.join(f'{reason} {times:,}' for reason, times in reasons.items())})"
        for name, count, reasons in dropped
        if count
    )
    return UserError(
        f"nothing is left of the {reports[0]['seen']:,} documents of source {data.source.name}: {told}",
        remedy="`corelm data preview RECIPE` shows what each cleaner does; loosen its options, or leave it out.",
        code="corpus-all-dropped",
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
