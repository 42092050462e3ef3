"""Properties of cleaners that take a name of the field: rules that were published, with thresholds that are exact."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.kinds.records import Text

STOP_WORDS: Final = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
SCRAPS: Final = (
    "the", "To", "of,", "word", "#", "...", "so…", "a1", "12", "•", "-", "banana", "Have", "end.", "x", "stop!”",
)  # fmt: skip
"""Words of which texts are made that are near every threshold."""


@dataclass(frozen=True)
class Rule:
    """A rule of the form "this figure of a text is at least, or at most, what the config says".

    Attributes:
        reason: under which documents that break it are counted.
        option: name of the threshold; with a number, where it is one of a list.
        figure: of a text, written out from the paper.
        most: whether the threshold is an upper bound.
    """

    reason: str
    option: tuple[str, int | None]
    figure: Callable[[str], float]
    most: bool = True


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def _paragraphs(text: str) -> list[str]:
    return [piece.strip() for piece in re.split(r"\n\s*\n", text) if piece.strip()]


def _share_of_words(holds: Callable[[str], bool]) -> Callable[[str], float]:
    return lambda text: sum(map(holds, text.split())) / max(1, len(text.split()))


def _share_of_lines(holds: Callable[[str], bool]) -> Callable[[str], float]:
    return lambda text: sum(map(holds, _lines(text))) / max(1, len(_lines(text)))


def _per_word(*signs: str) -> Callable[[str], float]:
    return lambda text: sum(text.count(sign) for sign in signs) / max(1, len(text.split()))


def _mean_length(text: str) -> float:
    return sum(map(len, text.split())) / max(1, len(text.split()))


def _stop_words(text: str) -> float:
    return len(STOP_WORDS & {re.sub(r"^\W+|\W+$", "", word.lower()) for word in text.split()})


def _repeated(pieces: Callable[[str], list[str]], *, characters: bool) -> Callable[[str], float]:
    """Share of pieces that have come before, or of characters in them."""

    def figure(text: str) -> float:
        found = pieces(text)
        weights = [len(piece) if characters else 1 for piece in found]
        again = sum(w for n, w in enumerate(weights) if found[n] in found[:n])
        return again / max(1, sum(weights))

    return figure


def _covered(words: Sequence[str], starts: Iterable[int], n: int) -> float:
    inside = {start + step for start in starts for step in range(n)}
    return sum(len(words[place]) for place in inside) / max(1, sum(map(len, words)))


def _top(n: int) -> Callable[[str], float]:
    """Share of characters in the most frequent n-gram, wherever it stands; of several the one that covers most."""

    def figure(text: str) -> float:
        words = text.split()
        grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
        often = Counter(grams)
        most = max(often.values(), default=0)
        best = [gram for gram, times in often.items() if times == most > 1]
        return max((_covered(words, (s for s, g in enumerate(grams) if g == gram), n) for gram in best), default=0.0)

    return figure


def _duplicate(n: int) -> Callable[[str], float]:
    """Share of characters in n-grams that have come before."""

    def figure(text: str) -> float:
        words = text.split()
        grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
        return _covered(words, (start for start, gram in enumerate(grams) if gram in grams[:start]), n)

    return figure


def _sentences(text: str) -> float:
    """Ends of sentences, at least one for each line."""
    ends = [sum(word.rstrip("\"'”’)]")[-1:] in (".", "!", "?") for word in line.split()) for line in _lines(text)]
    return sum(max(1, count) for count in ends)


RULES: Final[dict[str, tuple[Rule, ...]]] = {
    "gopher-quality": (
        Rule("word-count", ("words_least", None), lambda text: len(text.split()), most=False),
        Rule("word-count", ("words_most", None), lambda text: len(text.split())),
        Rule("word-length", ("word_length_least", None), _mean_length, most=False),
        Rule("word-length", ("word_length_most", None), _mean_length),
        Rule("hashes", ("hashes", None), _per_word("#")),
        Rule("ellipses", ("ellipses", None), _per_word("...", "…")),
        Rule("bullet-lines", ("bullet_lines", None), _share_of_lines(lambda line: line[0] in "•●◦▪‣∙*-–")),
        Rule("ellipsis-lines", ("ellipsis_lines", None), _share_of_lines(lambda line: line.endswith(("...", "…")))),
        Rule(
            "alphabetic-words",
            ("alphabetic_words", None),
            _share_of_words(lambda word: any(map(str.isalpha, word))),
            most=False,
        ),
        Rule("stop-words", ("stop_words", None), _stop_words, most=False),
    ),
    "gopher-repetition": (
        Rule("duplicate-lines", ("lines", None), _repeated(_lines, characters=False)),
        Rule("duplicate-line-characters", ("line_characters", None), _repeated(_lines, characters=True)),
        Rule("duplicate-paragraphs", ("paragraphs", None), _repeated(_paragraphs, characters=False)),
        Rule(
            "duplicate-paragraph-characters",
            ("paragraph_characters", None),
            _repeated(_paragraphs, characters=True),
        ),
        *(Rule(f"top-{n}-gram", ("top", n - 2), _top(n)) for n in (2, 3, 4)),
        *(Rule(f"duplicate-{n}-grams", ("duplicate", n - 5), _duplicate(n)) for n in range(5, 11)),
    ),
    "c4-quality": (Rule("sentence-count", ("sentences_least", None), _sentences, most=False),),
}
"""Appendix A.1.1 of Rae et al., 2021, arXiv:2112.11446; section 2.2 of Raffel et al., 2020, arXiv:1910.10683."""

OFF: Final[dict[str, dict[str, Any]]] = {
    "gopher-quality": {
        "words_least": 0, "words_most": 10**9, "word_length_least": 0, "word_length_most": 1e9, "hashes": 1e9,
        "ellipses": 1e9, "bullet_lines": 1, "ellipsis_lines": 1, "alphabetic_words": 0, "stop_words": 0,
    },
    "gopher-repetition": {
        "lines": 1, "paragraphs": 1, "line_characters": 1, "paragraph_characters": 1, "top": [1] * 3,
        "duplicate": [1] * 6,
    },
    "c4-quality": {
        "sentences_least": 0, "words_least": 0, "terminal_punctuation": False, "javascript": False, "policies": False,
        "citations": False, "lorem_ipsum": False, "curly_brackets": False,
    },
}  # fmt: skip
"""Options under which no rule says anything."""


def _scraps(draw: Draw) -> str:
    """Lines and paragraphs, some of which come again."""
    lines = [" ".join(draw.pick(SCRAPS) for _ in range(draw.whole(1, 7))) for _ in range(draw.whole(1, 3))]
    written = [draw.pick(lines) for _ in range(draw.whole(1, 5))]
    return "".join(f"{line}{draw.pick(chr(10) + ' ')}{draw.pick(['', chr(10)])}" for line in written)


def _beyond(rule: Rule, figure: float) -> float | None:
    """The next threshold that the figure breaks; None: there is none."""
    shares = isinstance(figure, float)
    if rule.most:
        nearest = math.nextafter(figure, 0) if shares else figure - 1
        return nearest if figure > (0 if shares else 1) else None
    nearest = math.nextafter(figure, math.inf) if shares else figure + 1
    return None if rule.reason == "alphabetic-words" and nearest > 1 else nearest


@property_of(
    "cleaner",
    statement="Thresholds are exact: a figure that equals one passes, and under the next stricter one the document is "
    "dropped, for that reason, with that figure.",
    formula="dropped(x; θ) ⇔ figure(x) < θ (at most: > θ), figure as the paper says, all other rules switched off",
    catches="< for ≤, words of the wrong text, a count that is one off, a rule that never applies",
    tier="bit",
    examples=20,
)
def thresholds_are_exact(part: PartUnderTest, draw: Draw) -> None:
    """Every rule of a published set, its figure written out."""
    name = getattr(part.cls, "rule", part.name)
    if name not in RULES:
        raise NotApplicable(f"{name!r} is no published set of thresholds that the kit knows")
    fields, text = part.cls.Config.model_fields, _scraps(draw)
    off = {option: value for option, value in OFF[name].items() if option in fields}
    for rule in RULES[name]:
        if rule.option[0] in fields:
            _held_to(part, rule, off, text)


def _held_to(part: PartUnderTest, rule: Rule, off: dict[str, Any], text: str) -> None:
    figure, (option, place) = rule.figure(text), rule.option

    def dropped(threshold: float) -> Any:
        value = threshold if place is None else [threshold if n == place else v for n, v in enumerate(off[option])]
        cleaner = part.cls(part.cls.Config.model_validate({**off, option: value}))
        through = [d.text for d in cleaner.clean([Text(text, "it")])]
        assert through in ([text], []), f"{text!r} became {through}"
        return None if through else cleaner.report

    assert dropped(figure) is None, f"{rule.reason} of {text!r} is {figure}, just what {option} allows: dropped"
    beyond = _beyond(rule, figure)
    report = None if beyond is None else dropped(beyond)
    if beyond is not None:
        assert report, f"{rule.reason} of {text!r} is {figure}, beyond {option} = {beyond}: let through"
        assert set(report.reasons) == {rule.reason}, f"dropped for {report.reasons}, and not for {rule.reason}"
        told = re.match(r"[\d.]+(?:e-?\d+)?", report.samples[rule.reason][0].detail)
        assert told and math.isclose(float(told[0]), figure, rel_tol=0.006), (
            f"{rule.reason} of {text!r} is {figure}, the report says {report.samples[rule.reason][0].detail!r}"
        )
