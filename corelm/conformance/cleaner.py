"""Properties of cleaners."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.texts import text
from corelm.kinds.records import Text

MINIMUM = 4
"""So many of these properties must say something about every part of the kind, and hold."""


class CleanerBench(Bench):
    """A stream with repeats and oddities."""

    kind = "cleaner"

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """Documents, some of them twice."""
        texts = [f"{text(draw)}{draw.seed() % 50}" for _ in range(draw.integer("documents", 1, 5))]
        again = [draw.choice("again", texts) for _ in range(draw.integer("repeats", 0, 3))]
        return {"documents": [Text(t, f"document {n}") for n, t in enumerate([*texts, *again, ""])]}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """What a fresh cleaner lets through."""
        return [[d.text, d.name] for d in _fresh(subject).clean(inputs["documents"])]


def _fresh(subject: Subject) -> Any:
    return subject.rebuild()


def _ready(part: PartUnderTest, draw: Draw) -> tuple[Subject, list[Text]]:
    subject = part.bench.subject(part, draw)
    return subject, part.bench.inputs(subject, draw)["documents"]


@property_of(
    "cleaner",
    statement="Cleaning what was cleaned changes nothing.",
    formula="clean(clean(x)) = clean(x)",
    catches="a rule that its own result falls under",
    tier="bit",
    examples=40,
)
def idempotent(part: PartUnderTest, draw: Draw) -> None:
    """A fresh instance over what went through."""
    subject, documents = _ready(part, draw)
    once = list(_fresh(subject).clean(documents))
    again = list(_fresh(subject).clean(once))
    assert again == once, f"{[d.text for d in once]} became {[d.text for d in again]}"


@property_of(
    "cleaner",
    statement="Order is kept and nothing is invented: what goes through is a subsequence, by name.",
    formula="names(clean(x)) is a subsequence of names(x)",
    catches="a set in the middle, documents that are split or doubled",
    tier="bit",
    examples=30,
)
def order_is_kept(part: PartUnderTest, draw: Draw) -> None:
    """Names in order."""
    subject, documents = _ready(part, draw)
    through = iter(d.name for d in documents)
    for document in _fresh(subject).clean(documents):
        assert document.name in through, f"{document.name!r} is out of order, doubled or invented"


@property_of(
    "cleaner",
    statement="The report counts every document seen, kept, dropped and rewritten, under a reason.",
    formula="seen = |x|, kept = |clean(x)|, Σ reasons ≥ |dropped| + |rewritten|",
    catches="documents that vanish in silence",
    tier="bit",
    examples=30,
)
def report_adds_up(part: PartUnderTest, draw: Draw) -> None:
    """Seen, kept, reasons."""
    subject, documents = _ready(part, draw)
    cleaner = _fresh(subject)
    kept = list(cleaner.clean(documents))
    before = {d.name: d.text for d in documents}
    rewritten = sum(before[d.name] != d.text for d in kept)
    report = cleaner.report
    assert (report.seen, report.kept) == (len(documents), len(kept)), f"{report.seen} seen, {report.kept} kept"
    changed = len(documents) - len(kept) + rewritten
    assert sum(report.reasons.values()) >= changed, f"{changed} dropped or rewritten, reasons {report.reasons}"
    assert bool(report.reasons) == bool(changed), f"{changed} dropped or rewritten, reasons {report.reasons}"


@property_of(
    "cleaner",
    statement="It streams: asking for the first result doesn't read the whole corpus.",
    formula="the first result after less than 5 000 of 100 000 documents",
    catches="list() in the middle",
    tier="io",
    examples=5,
)
def it_streams(part: PartUnderTest, draw: Draw) -> None:
    """An endless corpus."""
    subject, _ = _ready(part, draw)
    read = 0

    def endless() -> Iterator[Text]:
        nonlocal read
        while read < 100_000:
            read += 1
            yield Text(f"A document of its own, number {read}, with a sentence of text.", str(read))

    assert next(iter(_fresh(subject).clean(endless())), None) is not None, "nothing goes through"
    assert read < 5_000, f"read {read} documents before the first came out"


@property_of(
    "cleaner",
    statement="A document's fate depends on nothing that comes after it.",
    formula="clean(x[:n]) = clean(x) ∩ x[:n]",
    catches="statistics of the whole corpus",
    tier="bit",
    examples=45,
)
def the_rest_changes_nothing(part: PartUnderTest, draw: Draw) -> None:
    """Cut the stream short."""
    subject, documents = _ready(part, draw)
    n = draw.integer("kept", 1, len(documents))
    whole = [d for d in _fresh(subject).clean(documents) if d.name in {x.name for x in documents[:n]}]
    assert list(_fresh(subject).clean(documents[:n])) == whole, f"the first {n} documents alone fare otherwise"


@property_of(
    "cleaner",
    statement="Texts alone decide: under other names, all of them alike too, the same texts go through.",
    formula="texts(clean(rename(x))) = texts(clean(x))",
    catches="duplicates told by the whole record, name included, of which no two are equal",
    tier="bit",
    examples=24,
)
def names_decide_nothing(part: PartUnderTest, draw: Draw) -> None:
    """Every document under one name, and under names in another order."""
    subject, documents = _ready(part, draw)
    wanted = [d.text for d in _fresh(subject).clean(documents)]
    for names in (["the same"] * len(documents), [d.name for d in reversed(documents)]):
        renamed = [Text(d.text, name) for d, name in zip(documents, names, strict=True)]
        found = [d.text for d in _fresh(subject).clean(renamed)]
        assert found == wanted, f"{wanted} went through, under other names {found}"
