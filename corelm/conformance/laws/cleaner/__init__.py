"""Properties of cleaners."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.cleaner import names, rules
from corelm.conformance.laws.cleaner.texts import ODDITIES, SENTENCES, options
from corelm.conformance.texts import text
from corelm.kinds.records import EXCERPT, SAMPLES, Report, Text

MINIMUM = 7
"""So many of these properties must say something about every part of the kind, and hold."""

__all__ = ["names", "rules"]

AHEAD: Final = 1_000
"""Documents that may have been asked for and not yet been decided on."""


class CleanerBench(Bench):
    """Prose and oddities, some of them twice, some with a word changed."""

    kind = "cleaner"
    pins = {"tasks": []}

    def __init__(self) -> None:
        self.hints = options()

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """Documents."""
        texts = [_document(draw) for _ in range(draw.integer("documents", 1, 5))]
        again = [draw.choice("again", texts) for _ in range(draw.integer("repeats", 0, 3))]
        nearly = [f"{draw.choice('nearly', texts)} Indeed." for _ in range(draw.integer("near repeats", 0, 2))]
        everything = [*texts, *again, *nearly, ""]
        return {"documents": [Text(t, f"document {n}") for n, t in enumerate(everything)]}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """What a fresh cleaner lets through, and what it says of it."""
        cleaner = _fresh(subject)
        return [[[d.text, d.name] for d in cleaner.clean(inputs["documents"])], cleaner.report.plain()]


def _document(draw: Draw) -> str:
    """Prose, an oddity, strings that are hard on others, or all of it in one text."""
    pieces = []
    for _ in range(draw.whole(1, 4)):
        sort = draw.whole(0, 3)
        if sort == 0:
            pieces.append(f"{text(draw)}{draw.seed() % 50}")
        elif sort == 1:
            pieces.append(draw.choice("oddity", ODDITIES))
        else:
            start = draw.whole(0, len(SENTENCES) - 1)
            pieces.append(" ".join((SENTENCES[start:] + SENTENCES[:start])[: draw.whole(1, 6)]))
    return draw.pick(("\n", " ", "\n\n")).join(pieces)


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
    statement="It streams: a document is let through or counted before many more are asked for.",
    formula="|asked for| − |let through| − Σ reasons < 1 000, at any time",
    catches="list() in the middle",
    tier="io",
    examples=5,
)
def it_streams(part: PartUnderTest, draw: Draw) -> None:
    """A long corpus, looked at whenever it is asked for more."""
    subject, _ = _ready(part, draw)
    cleaner = _fresh(subject)
    read = given = 0

    def long() -> Iterator[Text]:
        nonlocal read
        while read < AHEAD + 100:
            undecided = read - given - sum(cleaner.report.reasons.values())
            assert undecided < AHEAD, f"{undecided} documents have been read and neither let through nor counted"
            read += 1
            yield Text(f"{' '.join(SENTENCES)} This is document number {read} of a long corpus.", str(read))

    for _ in cleaner.clean(long()):
        given += 1
        if given == 3:
            return


@property_of(
    "cleaner",
    statement="A document's fate depends on nothing that comes after it.",
    formula="clean(x[:n]) = clean(x) ∩ x[:n]",
    catches="statistics of the whole corpus",
    tier="bit",
    examples=61,
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
    for called in (["the same"] * len(documents), [d.name for d in reversed(documents)]):
        renamed = [Text(d.text, name) for d, name in zip(documents, called, strict=True)]
        found = [d.text for d in _fresh(subject).clean(renamed)]
        assert found == wanted, f"{wanted} went through, under other names {found}"


@property_of(
    "cleaner",
    statement="Nothing is invented: a text that is rewritten loses characters, and gets none but what the part declares.",
    formula="clean(x) without the strings in writes is a subsequence of x",
    catches="lower-casing, a separator that is added, text of another document",
    tier="bit",
    examples=30,
)
def nothing_is_invented(part: PartUnderTest, draw: Draw) -> None:
    """Characters in order."""
    writes = part.cls.writes
    if writes is None:
        raise NotApplicable("it declares that it spells text in other characters")
    subject, documents = _ready(part, draw)
    before = {d.name: d.text for d in documents}
    for document in _fresh(subject).clean(documents):
        rest = document.text
        for string in sorted(writes, key=len, reverse=True):
            rest = rest.replace(string, "")
        left = iter(before[document.name])
        strange = next((character for character in rest if character not in left), None)
        assert strange is None, f"{before[document.name]!r} became {document.text!r}: {strange!r} is from nowhere"


@property_of(
    "cleaner",
    statement="Of each reason some documents are kept as samples: few, the same ones each time, as they were and became.",
    formula="0 < |samples(r)| ≤ 5 for every reason r; before ⊑ x, after ⊑ clean(x), after = ∅ iff x was dropped",
    catches="counts without evidence, a sample of another document, all documents kept in memory, samples by chance",
    tier="bit",
    examples=30,
)
def every_deed_is_sampled(part: PartUnderTest, draw: Draw) -> None:
    """Against what went in and came out."""
    subject, documents = _ready(part, draw)
    reports, kept = [], {}
    for _ in range(2):
        cleaner = _fresh(subject)
        kept = {d.name: d.text for d in cleaner.clean(documents)}
        reports.append(cleaner.report)
    _evidence(reports[0], {d.name: d.text for d in documents}, kept)
    assert reports[0].samples == reports[1].samples, "a second run drew other samples"


def _evidence(report: Report, before: dict[str, str], kept: dict[str, str]) -> None:
    assert set(report.samples) == set(report.reasons), f"samples of {set(report.samples)}, counts {report.reasons}"
    for reason, samples in report.samples.items():
        assert 0 < len(samples) <= SAMPLES, f"{len(samples)} samples of {reason!r}"
        for sample in samples:
            was, became = before[sample.name], kept.get(sample.name)
            assert (sample.after is None) == (became is None), (
                f"{sample} says otherwise than what came out: {became!r}"
            )
            assert max(len(sample.before), len(sample.after or "")) <= EXCERPT, "an excerpt is longer than it may be"
            shown = bool(sample.before) or not was
            assert shown and sample.before in was, f"{sample.before!r} is not out of {sample.name}: {was!r}"
            assert became is None or (sample.after or "") in became, f"{sample.after!r} is not out of {became!r}"


@property_of(
    "cleaner",
    statement="Where each paragraph is rewritten by itself, one text of two paragraphs becomes what the two become.",
    formula="local ⇒ clean(a ⏎⏎ b) = clean(a) ⏎⏎ clean(b)",
    catches="a scrubber that eats neighbours, a pattern that runs on into the next paragraph",
    tier="bit",
    examples=40,
    excuse=lambda part: None if part.cls.local else "it doesn't declare that paragraphs are rewritten by themselves",
)
def paragraphs_are_by_themselves(part: PartUnderTest, draw: Draw) -> None:
    """Two texts, apart and together."""
    subject, _ = _ready(part, draw)
    a, b = (_document(draw) for _ in range(2))
    apart = "\n\n".join(d.text for d in _fresh(subject).clean([Text(a, "a"), Text(b, "b")]))
    together = [d.text for d in _fresh(subject).clean([Text(f"{a}\n\n{b}", "both")])]
    assert together == [apart], f"apart they become {apart!r}, together {together!r}"
