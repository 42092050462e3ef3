"""The corpus as tokens: in parallel where it is large, and going on after a kill with what was done.

The corpus is cut into spans of lines. A span becomes shards in the stage's scratch folder and then a note that lists them;
a span with a note is done. When all spans are, the shards go under the stage's results. Nothing depends on who made a
span, or when: the same corpus and tokenizer give the same files.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from corelm.files import read_json, sync, write_json, writing
from corelm.kinds.packer import Tokens
from corelm.kinds.records import Text
from corelm.kinds.tokenizer import Tokenizer
from corelm.pipeline import records
from corelm.pipeline.context import StageContext
from corelm.pipeline.shards import ShardFacts, write_shards
from corelm.pipeline.token_workers import Workers
from corelm.pipeline.tokens import list_shards

SPAN_BYTES: Final = 1 << 24
"""Bytes of the corpus that are one span, rounded up to whole lines."""
BYTES_WORTH_A_PROCESS: Final = 1 << 25
"""Starting a process takes seconds; less text than this doesn't pay for it."""
CHUNK, CHUNK_CHARACTERS = 256, 1_000_000
"""Documents encoded at once, and about how much text."""


@dataclass(frozen=True)
class Span:
    """The lines of a corpus file that begin in ``start … stop − 1``, and the folder that their shards go to."""

    corpus: Path
    start: int
    stop: int
    folder: Path

    @property
    def note(self) -> Path:
        """Lists the shards of the span when all are there."""
        return self.folder / f"{self.start:015d}.json"

    def shards(self) -> list[ShardFacts] | None:
        """The span's shards, if it is done."""
        if not self.note.exists():
            return None
        found = [ShardFacts(**entry) for entry in read_json(self.note)]
        return found if all(facts.path(self.folder).is_file() for facts in found) else None


def tokenize_corpus(context: StageContext) -> dict[str, float]:
    """Write both parts of the corpus as tokens."""
    spans = {
        split: spans_of(context.run_folder / "corpus" / f"{split}.jsonl", context.scratch / split)
        for split in ("train", "holdout")
    }
    known = {span: span.shards() for some in spans.values() for span in some}
    done = sum(facts.documents for shards in known.values() for facts in shards or [])

    def told(documents: int) -> None:
        nonlocal done
        done += documents
        context.watch.step(done, 0, {})
        context.stop_if_asked()

    missing = [span for span, shards in known.items() if shards is None]
    make_spans(missing, context.run_folder / "tokenizer", context.tokenizer, told)
    stores = {split: _published(context.folder / split, some) for split, some in spans.items()}
    return {"tokens": stores["train"], "held_out": stores["holdout"]}


def spans_of(corpus: Path, folder: Path) -> list[Span]:
    """Spans of a corpus file, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    size, stops = corpus.stat().st_size, [0]
    with corpus.open("rb") as file:
        while stops[-1] < size:
            file.seek(stops[-1] + SPAN_BYTES - 1)
            while (piece := file.readline(1 << 20)) and not piece.endswith(b"\n"):
                pass
            stops.append(min(file.tell(), size))
    return [Span(corpus, start, stop, folder) for start, stop in pairwise(stops)]


def make_spans(
    spans: list[Span], tokenizer: Path, load: Callable[[], Tokenizer], told: Callable[[int], None]
) -> None:
    """Make these spans, in as many processes as there are processors, or fewer where there is little to do.

    Args:
        spans: what to make.
        tokenizer: folder of the tokenizer, for other processes.
        load: makes the tokenizer for this one.
        told: hears of documents that are done; what it raises ends the work.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(processors, sum(span.stop - span.start for span in spans) // BYTES_WORTH_A_PROCESS)
    if processes > 1:
        jobs = [{"corpus": str(s.corpus), "start": s.start, "stop": s.stop, "folder": str(s.folder)} for s in spans]
        with Workers("corelm.pipeline.token_worker", processes, {"tokenizer": str(tokenizer)}) as workers:
            for documents in workers.work(jobs):
                told(documents)
    elif spans:
        loaded = load()
        for span in spans:
            make_span(span, loaded, told)


def make_span(span: Span, tokenizer: Tokenizer, told: Callable[[int], None]) -> None:
    """Make the shards of one span, and its note."""
    shards = list(write_shards(span.folder, _encoded(span, tokenizer, told), tokenizer.vocab_size))
    sync(span.folder)
    write_json(span.note, [dataclasses.asdict(facts) for facts in shards])


def _encoded(span: Span, tokenizer: Tokenizer, told: Callable[[int], None]) -> Iterator[Tokens]:
    for chunk in _chunks(_texts(span)):
        encoded = tokenizer.encode_batch([document.text for document in chunk])
        for document, ids in zip(chunk, encoded, strict=True):
            yield Tokens(np.array(ids, dtype=np.int64), name=document.name)
        told(len(chunk))


def _texts(span: Span) -> Iterator[Text]:
    with span.corpus.open("rb") as file:
        at = file.seek(span.start)
        while at < span.stop:
            line = file.readline()
            at += len(line)
            document = records.decode_record(line.decode("utf-8"))
            assert isinstance(document, Text)
            yield document


def _chunks(documents: Iterator[Text]) -> Iterator[list[Text]]:
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


def _published(folder: Path, spans: list[Span]) -> int:
    """Bring the shards of all spans into a folder of the results; tokens in all of them."""
    shutil.rmtree(folder, ignore_errors=True)
    found: list[ShardFacts] = []
    with writing(folder):
        folder.mkdir(parents=True)
        for span in spans:
            shards = span.shards()
            assert shards is not None
            for facts in shards:
                _linked(facts.path(span.folder), facts.path(folder))
            found += shards
    return list_shards(folder, found).tokens


def _linked(made: Path, final: Path) -> None:
    """Give a file a second place. It keeps the first: a kill before the results are published loses nothing."""
    if final.exists():
        return
    try:
        os.link(made, final)
    except OSError:  # a file system without links
        shutil.copyfile(made, final)
