"""Properties of tokenizers: what the ways have in common in which they choose between pieces.

They say something about parts that have an attribute more than the interface asks for:

* ``scores``: for each id the logarithm of its piece's probability, None for those that stand outside (bytes that are
  fallen back to, special tokens); such parts claim that of all ways to cut a word they take the most probable.
* ``sample(text, *, alpha, generator)``: ids of a way drawn with its probability to the power of ``alpha``, made to sum
  to one; ``generator`` is a ``random.Random``.
* ``longest_piece_first = True``: such parts claim that from the left they take the longest piece that fits.
* ``family``: name of those that read each other's files and encode alike, such as one written here and one that a
  library does.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from hypothesis import strategies as st

from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.tokenizer.bench import folder, ready, trained
from corelm.conformance.texts import CORPUS, TRAPS, text, words
from corelm.kinds.tokenizer import Tokenizer
from corelm.registration import active

_DRAWS: Final = 400
_LONGEST: Final = 12
"""Bytes of a word all of whose ways are written out."""


def _word(tokenizer: Any, draw: Draw) -> tuple[list[int], bytes]:
    """Ids and bytes of a short word, at the beginning of which encoding may have put a space."""
    told = [word for text in CORPUS for word in text.split() if word.isalpha() and word.isascii()]
    word = (
        draw.choice("from", told) if draw.choice("word", ["made up", "of the corpus"]) != "made up" else words(draw)
    )
    ids = tokenizer.encode(word[: _LONGEST - 1])
    return ids, tokenizer.decode_bytes(ids)


def _scores(tokenizer: Any) -> list[float | None]:
    scores = getattr(tokenizer, "scores", None)
    if not scores:
        raise NotApplicable("its pieces have no probabilities")
    return list(scores)


def ways(tokenizer: Any, scores: list[float | None], target: bytes) -> Iterator[tuple[int, ...]]:
    """Every sequence of pieces with a probability that spells these bytes."""
    spelt = {i: tokenizer.decode_bytes([i]) for i, score in enumerate(scores) if score is not None}
    fitting = {i: piece for i, piece in spelt.items() if piece in target}

    def onward(at: int) -> Iterator[tuple[int, ...]]:
        if at == len(target):
            yield ()
        for i, piece in fitting.items():
            if target.startswith(piece, at):
                yield from ((i, *rest) for rest in onward(at + len(piece)))

    return onward(0)


@property_of(
    "tokenizer",
    statement="Of all ways to cut a word into pieces the most probable is taken; to cut it once more never gains.",
    formula="Σ score(encode(w)) = max over all ways; score(uv) ≥ score(u) + score(v)",
    catches="a greedy cut, a place that Viterbi's algorithm forgets, a score of another piece",
    tolerance="Sums of the same logarithms in another order.",
    examples=438,
)
def most_probable_of_all_ways(part: PartUnderTest, draw: Draw) -> None:
    """Written out for short words."""
    tokenizer = ready(part, draw)
    scores = _scores(tokenizer)
    ids, target = _word(tokenizer, draw)
    if any(scores[i] is None for i in ids):
        raise NotApplicable("the word can't be written in pieces alone")
    found = _total(scores, ids)
    best = max(ways(tokenizer, scores, target), key=lambda way: _total(scores, way))
    assert found >= _total(scores, best) - 1e-9, (
        f"{target!r} is cut into {ids} (score {found}), {best} has {_total(scores, best)}"
    )


@property_of(
    "tokenizer",
    statement="The probabilities of all pieces are together no more than one.",
    formula="Σ exp(scoreᵢ) ≤ 1",
    catches="scores that are counts, rare pieces as probable as common ones, a sum over the wrong pieces",
    tolerance="Scores rounded to whole multiples of 1/64.",
    examples=6,
)
def probabilities_sum_to_one(part: PartUnderTest, draw: Draw) -> None:
    """Of what was learnt."""
    total = math.fsum(math.exp(score) for score in _scores(ready(part, draw)) if score is not None)
    assert total <= math.exp(1 / 64), f"the probabilities sum to {total}"


@property_of(
    "tokenizer",
    statement="Sampling draws each way to cut a word with its probability to the power of α, and nothing but such ways.",
    formula="P(way) ∝ exp(α Σ score), over all ways",
    catches="pieces drawn one by one without what comes after, α that is ignored, only the best ways",
    tolerance="Frequencies of 400 draws: six standard deviations and four draws.",
    examples=28,
)
def samples_follow_the_probabilities(part: PartUnderTest, draw: Draw) -> None:
    """Written out for short words, and counted."""
    tokenizer = ready(part, draw)
    scores, alpha = _scores(tokenizer), draw.choice("alpha", [1.0, 0.3, 0.0])
    if not hasattr(tokenizer, "sample"):
        raise NotApplicable("it draws nothing")
    ids, target = _word(tokenizer, draw)
    if any(scores[i] is None for i in ids):
        raise NotApplicable("the word can't be written in pieces alone")
    weights = {way: math.exp(alpha * _total(scores, way)) for way in ways(tokenizer, scores, target)}
    total, generator = sum(weights.values()), random.Random(draw.seed())
    # The word as it was given: without what encoding puts before it.
    word = tokenizer.decode(ids)
    counts = Counter(tuple(tokenizer.sample(word, alpha=alpha, generator=generator)) for _ in range(_DRAWS))
    strange = [way for way in counts if way not in weights]
    assert not strange, f"{strange[0]} is no way to write {target!r}"
    for way, weight in weights.items():
        probability = weight / total
        room = 6 * math.sqrt(probability * (1 - probability) / _DRAWS) + 4 / _DRAWS
        frequency = counts[way] / _DRAWS
        assert abs(frequency - probability) <= room, (
            f"{way} for {target!r}: drawn {frequency:.3f} of the time, its probability is {probability:.3f}"
        )


@property_of(
    "tokenizer",
    statement="From the left, the longest piece that fits is taken, then the longest that goes on.",
    formula="∀ i: no piece longer than idᵢ begins what is left of the word",
    catches="the shortest piece, the commonest, a search that begins one character too short",
    tier="bit",
    examples=80,
)
def longest_piece_first(part: PartUnderTest, draw: Draw) -> None:
    """Piece by piece; pieces that open a word spell the space before it."""
    tokenizer = ready(part, draw)
    if not getattr(tokenizer, "longest_piece_first", False):
        raise NotApplicable("it doesn't claim to take the longest piece first")
    ids, target = _word(tokenizer, draw)
    if tokenizer.unknown in ids:
        raise NotApplicable("the word is unknown")
    special = set(tokenizer.specials.values())
    spelt = {i: tokenizer.decode_bytes([i]) for i in range(tokenizer.vocab_size) if i not in special}
    at = 0
    for i in ids:
        longest = max((piece for piece in spelt.values() if target.startswith(piece, at)), key=len)
        assert len(spelt[i]) == len(longest), f"{target!r} from {at} on: {spelt[i]!r} was taken, {longest!r} fits"
        at += len(spelt[i])


@property_of(
    "tokenizer",
    statement="Parts of one family read each other's files, and then encode alike.",
    formula="∀ r of the family: encode_{load_r(save)}(s) = encode(s), broken UTF-8 included",
    catches="a sibling by a library that breaks ties otherwise, or matches what a text must not spell",
    tier="bit",
    examples=190,
    excuse=lambda part: None if getattr(part.cls, "family", "") else "it belongs to no family",
)
def family_agrees(part: PartUnderTest, draw: Draw) -> None:
    """Each installed one of them reads what it saved."""
    subject = part.bench.subject(part, draw)
    ours, s = subject.part, text(draw) + draw.choice("trap", TRAPS)
    found = _family(part, subject.config.model_dump_json())
    if not found:
        raise NotApplicable("nobody else of its family is installed")
    broken = draw.of("bytes", st.binary(max_size=12)) + s.encode()
    for name, other in found:
        for allow in (False, True):
            theirs, wanted = (one.encode(s, allow_special=allow) for one in (other, ours))
            assert theirs == wanted, f"{s!r} is {wanted}, but {name} reads the same file to encode it to {theirs}"
        if ours.every_byte:
            theirs, wanted = (one.encode_bytes(broken) for one in (other, ours))
            assert theirs == wanted, f"the bytes {broken!r} are {wanted}, {name} encodes them to {theirs}"


@cache
def _family(part: PartUnderTest, config: str) -> list[tuple[str, Tokenizer]]:
    """The other installed ones of a part's family, having read what it saves."""
    found = []
    for record in active().parts("tokenizer"):
        other: type[Tokenizer] = record.load()
        if other is part.cls or getattr(other, "family", "") != part.cls.family:
            continue
        with folder() as path:
            trained(part, config).save(path)
            found.append((record.name, other.load(other.Config.model_validate_json(config), path)))
    return found


def _total(scores: list[float | None], ids: Any) -> float:
    return math.fsum(scores[i] or 0.0 for i in ids)
