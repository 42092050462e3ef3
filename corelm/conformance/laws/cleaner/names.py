"""Properties of cleaners that take a name of the field: what becomes of texts that such a cleaner is for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.cleaner.texts import SENTENCES, options
from corelm.kinds.records import Text

PROSE: Final = " ".join(SENTENCES[2:])
OTHER: Final = (
    "In the end the clerk gave up his post, bought a boat and three nets, and fished for the rest of his days."
)
GERMAN: Final = "Der Turm am Hafen ist älter als die Stadt, und niemand weiß, wozu er gebaut wurde."
PAGE: Final = "<html><head><title>T</title></head><body><nav><a href='/'>Home</a></nav>{}</body></html>"
PARTS_OF_IT: Final = "The ferry that leaves the old harbour at seven brings the people of"  # the first 13 words
NINE: Final = "We saw the ferry that leaves the old harbour at seven, too."
MANY: Final = tuple(f"Document {n} is about the number {n} and {n}{n}." for n in range(1200))
MANY_LINES: Final = "\n".join(MANY[:20])


@dataclass(frozen=True)
class Case:
    """What a cleaner makes of some texts under some options.

    Attributes:
        before: the texts.
        after: what becomes of each; None: it is dropped.
        reasons: what the report counts.
        options: of the cleaner.
    """

    before: tuple[str, ...]
    after: tuple[str | None, ...]
    reasons: dict[str, int] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def _kept(*texts: str, **given: Any) -> Case:
    return Case(texts, texts, {}, given)


def _dropped(text: str, reason: str, **given: Any) -> Case:
    return Case((text,), (None,), {reason: 1}, given)


def _becomes(before: str, after: str, reason: str, **given: Any) -> Case:
    return Case((before,), (after,), {reason: 1}, given)


C4_LINES: Final = {
    "This line of six words has no end": "line-without-end",
    "Too short.": "short-line",
    "Please enable JavaScript to read this page.": "javascript-line",
    "Read our privacy policy before you go on.": "policy-line",
    "Menu": "short-line",
}
CASES: Final[dict[str, tuple[Case, ...]]] = {
    "exact-dedup": (
        Case((PROSE, "b", PROSE, "B", "b"), (PROSE, "b", None, "B", None), {"duplicate": 2}),
        Case(MANY + MANY, MANY + (None,) * len(MANY), {"duplicate": len(MANY)}),
    ),
    "near-dedup": (
        Case((PROSE, OTHER, f"{PROSE} Indeed."), (PROSE, OTHER, None), {"near-duplicate": 1}),
        Case((PROSE, PROSE.upper()), (PROSE, None), {"near-duplicate": 1}, {"similarity": 1}),
        _kept(PROSE, f"{PROSE} Indeed.", similarity=1),
        _kept(PROSE, " ".join(reversed(PROSE.split()))),
        # Of five words in all two texts share three.
        Case(
            ("a b c d", "a b c e"),
            ("a b c d", None),
            {"near-duplicate": 1},
            {"similarity": 0.6, "shingle": 1, "bands": 200, "rows": 1},
        ),
        _kept("a b c d", "a b c e", similarity=0.61, shingle=1, bands=200, rows=1),
        _kept("a b c d", "a b c e", similarity=0.6, shingle=1, bands=1, rows=100),  # found with a chance of 0.6¹⁰⁰
        Case(MANY[:150] * 2, MANY[:150] + (None,) * 150, {"near-duplicate": 150}, {"bands": 3, "similarity": 1}),
        Case((PROSE, OTHER, PROSE), (PROSE, OTHER, None), {"near-duplicate": 1}, {"remember": 1}),
        _kept(PROSE, OTHER, GERMAN, PROSE, remember=1),
    ),
    "decontaminate": (
        _kept(PROSE, OTHER),
        _dropped(PARTS_OF_IT, "contaminated"),
        _dropped(f"{PROSE} {SENTENCES[1].upper()}", "contaminated"),
        _dropped(NINE, "contaminated", ngram=9),
        _kept(NINE, ngram=10),
        _dropped(NINE, "contaminated", ngram=8, least=2),
        _kept(NINE, ngram=8, least=3),
        _dropped(f"{OTHER} {SENTENCES[0]}", "contaminated", ngram=30, shortest=18),
        _kept(f"{OTHER} {SENTENCES[0]}", ngram=30, shortest=19),
        _kept(" ".join(reversed(SENTENCES[0].split())), ngram=30, shortest=18),
        _becomes(
            f"{OTHER} {SENTENCES[0]} {PROSE}", f"{OTHER}\n\n{PROSE}", "contaminated-window",
            remove="window", window=1, piece_least=len(OTHER),
        ),
        _becomes(
            f"{OTHER} {SENTENCES[0]} {PROSE}", PROSE, "contaminated-window",
            remove="window", window=1, piece_least=len(OTHER) + 1,
        ),
        _dropped(f"{OTHER} {SENTENCES[0]} {PROSE}", "contaminated", remove="window", pieces_most=1, window=1),
        _dropped(f"{OTHER} {SENTENCES[0]}", "contaminated", remove="window", window=len(OTHER)),
    ),
    "unicode-nfc": (
        _becomes("cafe\u0301, cafe\u0301", "café, café", "rewritten"),
        _becomes("ﬁn", "fin", "rewritten", form="NFKC"),
        _kept("café", "ﬁn"),
    ),
    "unicode-repair": (
        _becomes("Das ist schÃ¶n.", "Das ist schön.", "repaired"),
        _becomes("Salt &amp; pepper", "Salt & pepper", "repaired"),
        _becomes("&amp;\rÃ la carte", "&\nà la carte", "repaired"),  # the second line shows its damage later
        _kept("Salt &amp; pepper", entities=False),
        _kept("ﬁn “so”", PROSE),
        _becomes("“so”", '"so"', "repaired", quotes=True),
        _becomes("ﬁn", "fin", "repaired", ligatures=True),
        _becomes("cafe\u0301", "café", "repaired", form="NFC"),
    ),
    "html-text": (
        _becomes(PAGE.format(f"<article><p>{PROSE}</p></article>"), PROSE, "extracted"),
        _dropped("<html><head><title>T</title></head><body><script>go()</script></body></html>", "no-text"),
        _kept(PROSE, f"{PROSE} <b>not</b> a page"),
    ),
    "language": (
        Case((PROSE, GERMAN), (PROSE, None), {"language-de": 1}, {"languages": ["en"]}),
        Case((PROSE, GERMAN), (None, GERMAN), {"language-en": 1}, {"languages": ["en"], "drop": True}),
        _kept(PROSE, GERMAN, languages=["en", "de"]),
        _dropped("12 34", "uncertain", languages=["en"]),
        _kept("12 34", languages=["en"], uncertain=True),
    ),
    "gopher-quality": (_kept(PROSE), _dropped(SENTENCES[0], "word-count")),
    "gopher-repetition": (_kept(PROSE), _dropped(f"{PROSE}\n" * 2, "duplicate-lines")),
    "c4-quality": (
        Case(
            ("\n".join([PROSE, *C4_LINES, "A mark[1] of a citation is gone,[citation needed] and so on."]),),
            (f"{PROSE}\nA mark of a citation is gone, and so on.",),
            {"line-without-end": 1, "short-line": 2, "javascript-line": 1, "policy-line": 1, "citation-mark": 2},
        ),
        _dropped(f"{PROSE} Lorem Ipsum is what it says.", "lorem-ipsum"),
        _dropped(f"{PROSE} Only lorem[1] ipsum is left of it.", "lorem-ipsum"),
        _dropped(f"{PROSE} A {{ stands here.", "curly-bracket"),
        _dropped(" ".join(SENTENCES[:2]), "sentence-count"),
        _kept("no end\nJavascript: the terms of use.[1] {", **{
            "sentences_least": 0, "words_least": 0, "terminal_punctuation": False, "javascript": False,
            "policies": False, "citations": False, "curly_brackets": False,
        }),
    ),
    "c4-dedup": (
        _kept(PROSE, OTHER, OTHER, f"{SENTENCES[0]} {SENTENCES[2]} {SENTENCES[3]} {SENTENCES[5]}"),
        Case(
            (PROSE, f"{SENTENCES[0]} {PROSE} {OTHER}\n\n{SENTENCES[1]}"),
            (PROSE, f"{SENTENCES[0]} {OTHER}\n\n{SENTENCES[1]}"),
            {"repeated-sentence": 4},
        ),
        Case(
            (f" {OTHER} {PROSE.upper()} A note.\n\n{GERMAN} {PROSE}\n",),
            (f" {OTHER} {PROSE.upper()} A note.\n\n{GERMAN}",),
            {"repeated-sentence": 4},
        ),
        Case((PROSE, f"{PROSE} {OTHER}"), (PROSE, None), {"sentence-count": 1}),
        Case(("No. No. No. No. No. Yes?",), ("No. No. No. Yes?",), {"repeated-sentence": 2}),
        Case((MANY[0], *MANY, *MANY[1:]), (*MANY[:1], None, *MANY[1:], *[None] * (len(MANY) - 1)),
             {"sentence-count": len(MANY)}, {"span": 1}),
        Case((PROSE, MANY_LINES, PROSE), (PROSE, MANY_LINES, None), {"sentence-count": 1}, {"remember": 1}),
        _kept(PROSE, MANY_LINES, " ".join(SENTENCES[:3]), PROSE, remember=1),
    ),
    "scrub-personal-data": (
        _becomes("Write to jane.doe@example.org soon.", "Write to [e-mail] soon.", "e-mail"),
        _becomes("It is DE89 3704 0044 0532 0130 00, isn't it?", "It is [IBAN], isn't it?", "iban"),
        _kept("It is DE88 3704 0044 0532 0130 00, isn't it?", kinds=["iban"]),
        _becomes("Card 4111 1111 1111 1111.", "Card [card].", "card"),
        _kept("Card 4111 1111 1111 1112.", kinds=["card"]),
        _becomes("8.8.8.8 and 127.0.0.1", "[IP] and 127.0.0.1", "ip"),
        _becomes("Call +49 30 1234567 now", "Call [phone] now", "phone"),
        _becomes(f"The key AKIA{'Z' * 16} opens it", "The key [key] opens it", "key"),
        Case(("a@b.org or c@d.org, 8.8.8.8",), ("[e-mail] or [e-mail], [IP]",), {"e-mail": 2, "ip": 1}),
        _kept(PROSE),
    ),
}  # fmt: skip
"""By name; under other options than those given, the defaults hold."""


@property_of(
    "cleaner",
    statement="A part that takes a name of the field does what that name means: what it is for is dropped or rewritten, "
    "under its reason and as often as it was met; the rest goes through as it is.",
    formula="clean(x) = y and reasons = r, for texts of which the name says it",
    catches="a rule that never applies, one that drops everything, a checksum that is wrong, a table that overflows",
    tier="bit",
    examples=2,
)
def does_what_its_name_says(part: PartUnderTest, draw: Draw) -> None:
    """All cases of the name."""
    name = getattr(part.cls, "rule", part.name)
    if name not in CASES:
        raise NotApplicable(f"{name!r} is no name of the field that the kit knows")
    draw.note("name", name)
    hints = options()
    required = {"against": hints["against"][0]} if "against" in part.cls.Config.model_fields else {}
    for case in CASES[name]:
        cleaner = part.cls(part.cls.Config.model_validate({**required, **case.options}))
        documents = [Text(text, str(number)) for number, text in enumerate(case.before)]
        found = {document.name: document.text for document in cleaner.clean(documents)}
        for document, wanted in zip(documents, case.after, strict=True):
            became = found.get(document.name)
            assert became == wanted, (
                f"{name} with {case.options}: {document.text!r} became {became!r}, not {wanted!r}"
            )
        counted = cleaner.report.reasons
        assert counted == case.reasons, f"{name} with {case.options}: counted {counted}, not {case.reasons}"
