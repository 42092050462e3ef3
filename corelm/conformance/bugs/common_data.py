"""Mistakes that are made again and again in sources, cleaners, templates, tokenizers and packers."""

from __future__ import annotations

import itertools
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from corelm.conformance.bugs.data import Lines, Squeezer, Turns
from corelm.conformance.bugs.packer import Rows
from corelm.conformance.bugs.tokenizer import Pairs
from corelm.conformance.planted import plant
from corelm.kinds.batch import BatchStream
from corelm.kinds.packer import Tokens
from corelm.kinds.records import Message, Record, Text
from corelm.kinds.template import Rendered
from corelm.kinds.tokenizer import Tokenizer


@plant("resumes_by_position", "the position is ignored: each resumption begins over (datasets#7538)")
class BeginsOver(Lines):
    """start is a parameter that nobody reads."""

    def records(self, start: int = 0) -> Iterator[Record]:
        return super().records()


@plant("resumes_by_position", "files are read in the order that the directory gives them")
class ShuffledByAccident(Lines):
    """Another order each time."""

    opened = 0

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        ShuffledByAccident.opened += 1
        self.lines = self.lines if ShuffledByAccident.opened % 2 else self.lines[::-1]


@plant("fingerprint_is_stable", "the time of reading is in the digest, so that every stage is run again")
class TimeInDigest(Lines):
    """mtime and its kin."""

    def fingerprint(self) -> str:
        return f"{super().fingerprint()} {time.perf_counter_ns()}"


@plant("deterministic", "what has come before is kept between runs, so that a second pass drops everything")
class RemembersRuns(Squeezer):
    """A default argument that is shared."""

    def unwanted(self, text: str, seen: set[str], before: set[str] = set()) -> str:  # noqa: B006
        reason = super().unwanted(text, before)
        before.add(text)
        return reason


@plant("report_adds_up", "empty documents are skipped before they are counted")
class SkipsTheEmpty(Squeezer):
    """Not even seen."""

    def clean(self, documents: Iterable[Text]) -> Iterator[Text]:
        return super().clean(document for document in documents if document.text)


@plant("it_streams", "documents are read in chunks, and a chunk is the corpus where that is small")
class ReadsChunks(Squeezer):
    """Ten thousand at a time."""

    def clean(self, documents: Iterable[Text]) -> Iterator[Text]:
        rest = iter(documents)
        while chunk := list(itertools.islice(rest, 10_000)):
            yield from super().clean(chunk)


@plant("learns_the_answer", "the stop token is not learnt, so that answers never end")
class NeverStops(Turns):
    """The text alone."""

    def mask(self, role: str, head: int, text: int) -> list[bool]:
        return [*super().mask(role, head, text)[:-1], False]


@plant("content_stays_content", "content is stripped, and with it the indentation of code")
class StripsContent(Turns):
    """strip() on the way in."""

    def content(self, text: str, tokenizer: Tokenizer) -> list[int]:
        return super().content(text.strip(), tokenizer)


@plant("prompt_leads_to_the_answer", "the template begins with the token that generation puts first as well")
class BeginsTwice(Turns):
    """Two beginnings in generation, one in training."""

    def prompt(self, messages: Sequence[Message], tokenizer: Tokenizer) -> tuple[int, ...]:
        return (tokenizer.end_of_text, *super().prompt(messages, tokenizer))


@plant("prefix_preserving", "the system message is moved into the last user's turn")
class MovesTheSystem(Turns):
    """Nothing can be cached."""

    def render(self, messages: Sequence[Message], tokenizer: Tokenizer) -> Rendered:
        users = [n for n, message in enumerate(messages) if message.role == "user"]
        if not users or messages[0].role != "system":
            return super().render(messages, tokenizer)
        moved = Message("user", f"{messages[0].content}\n{messages[users[-1]].content}")
        return super().render([*messages[1 : users[-1]], moved, *messages[users[-1] + 1 :]], tokenizer)


@plant("round_trip", "text is brought into a Unicode normal form without saying so (tokenizers#1543 and its kin)")
class Normalises(Pairs):
    """NFKC."""

    def to_bytes(self, text: str) -> bytes:
        return super().to_bytes(unicodedata.normalize("NFKC", text))


@plant("round_trip", "a space is put before every text and not taken off again")
class DummyPrefix(Pairs):
    """As in some SentencePiece models."""

    def to_bytes(self, text: str) -> bytes:
        return super().to_bytes(f" {text}")


@plant("round_trip", "long texts are cut off in silence")
class CutsLongTexts(Pairs):
    """model_max_length."""

    def plain(self, text: str) -> list[int]:
        return super().plain(text)[:16]


@plant("no_memory", "a cache that is full throws away the wrong half")
class SmallCache(Pairs):
    """Keyed on the beginning."""

    def plain(self, text: str) -> list[int]:
        cache: dict[str, list[int]] = self.__dict__.setdefault("cache", {})
        return cache.setdefault(f"{text[:4]}{len(text)}", super().plain(text))


@plant(
    "ranks_partition",
    "the order is shuffled by seed and rank, and shares of different orders overlap (datasets#5360)",
)
class RankInTheSeed(Rows):
    """Doubled and lost documents."""

    def stream(self, store: Any, **how: Any) -> BatchStream:
        return super().stream(store, **{**how, "seed": how["seed"] + how.get("rank", 0)})


@plant("targets_are_the_next_tokens", "targets are not shifted: each token is its own")
class NoShift(Rows):
    """labels = ids, for a model that doesn't shift."""

    def targets(self, document: Tokens, start: int, stop: int) -> list[int]:
        last = stop == len(document.ids)
        own = [int(i) for i in document.ids[start:stop]]
        return [*own[:-1], super().targets(document, start, stop)[-1]] if last else own
