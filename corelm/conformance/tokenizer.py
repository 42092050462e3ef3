"""Properties of tokenizers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.texts import CORPUS, TRAPS, text, words
from corelm.errors import UserError
from corelm.kinds.component import Spec
from corelm.kinds.tokenizer import END_OF_TEXT, Tokenizer

SPECIALS = (END_OF_TEXT, "<|im_start|>", "<|im_end|>")


class TokenizerBench(Bench):
    """Trained once per config on a small corpus."""

    kind = "tokenizer"
    hints = {"vocab_size": (300, 280, 320)}

    def subject(self, part: PartUnderTest, draw: Draw, **pins: Any) -> Subject:
        """Draw a config, train."""
        subject = super().subject(part, draw, **pins)
        trained = _trained(part, subject.config.model_dump_json())
        return Subject(trained, subject.config, subject.context, (), lambda: _train(part.cls, subject.config))

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """A text."""
        return {"text": f"{text(draw)} {draw.seed() % 10_000}"}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """There and back."""
        ids = subject.part.encode(inputs["text"])
        return [len(ids), float(sum(ids)), *ids, subject.part.decode(ids)]


def _train(cls: type[Tokenizer], config: Any, documents: tuple[str, ...] = CORPUS) -> Tokenizer:
    if not cls.trainable:
        return _described(cls, documents)
    tokenizer = cls(config)
    tokenizer.train(documents, SPECIALS)
    return tokenizer


def _described(cls: type[Tokenizer], documents: tuple[str, ...]) -> Tokenizer:
    """What a part that can't be trained makes of a trained tokenizer's description."""
    teacher = Spec.read("tokenizer", {"use": "hf-bpe", "vocab_size": 300}).build()
    teacher.train(documents, SPECIALS)
    made = cls.from_tokenizers_json(teacher.as_tokenizers_json() or "")
    assert made is not None, "it can neither be trained nor read a tokenizer.json of byte pairs"
    return made


def _untrainable(part: PartUnderTest) -> str | None:
    return None if part.cls.trainable else "it can't be trained"


@cache
def _trained(part: PartUnderTest, config: str) -> Tokenizer:
    return _train(part.cls, part.cls.Config.model_validate_json(config))


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _ready(part: PartUnderTest, draw: Draw) -> Any:
    return part.bench.subject(part, draw).part


@property_of(
    "tokenizer",
    statement="decode(encode(s)) is normalise(s), which is the identity unless declared lossy, and idempotent.",
    catches="stripping, NFC, CRLF, lower-casing, '?' for other scripts, cleaned-up spaces, bytes decoded one by one",
    tier="bit",
    examples=250,
)
def round_trip(part: PartUnderTest, draw: Draw) -> None:
    """For every string of Unicode scalar values."""
    tokenizer, s = _ready(part, draw), text(draw)
    wanted = tokenizer.normalise(s)
    assert part.cls.lossy or wanted == s, f"normalise changes {s!r} to {wanted!r}, but the part isn't declared lossy"
    assert tokenizer.normalise(wanted) == wanted, "normalise is not idempotent"
    back = tokenizer.decode(tokenizer.encode(s))
    assert back == wanted, f"{s!r} came back as {back!r}"


@property_of(
    "tokenizer",
    statement="Ids are whole numbers below vocab_size, which counts the special tokens and is what was asked for.",
    catches="a vocabulary off by one, a special token outside of the embedding",
    tier="bit",
    examples=40,
)
def ids_are_in_range(part: PartUnderTest, draw: Draw) -> None:
    """Range, and every id decodes."""
    subject = part.bench.subject(part, draw)
    tokenizer, s = subject.part, text(draw)
    size = tokenizer.vocab_size
    ids = tokenizer.encode(s, allow_special=True)
    assert all(type(i) is int and 0 <= i < size for i in ids), f"ids {ids} with a vocabulary of {size}"
    assert sorted(tokenizer.specials) == sorted(SPECIALS), f"special tokens {sorted(tokenizer.specials)}"
    assert all(0 <= i < size for i in tokenizer.specials.values()), (
        f"{tokenizer.specials} with a vocabulary of {size}"
    )
    assert len(set(tokenizer.specials.values())) == len(SPECIALS), "two special tokens share an id"
    for i in (0, size - 1):
        assert isinstance(tokenizer.decode_bytes([i]), bytes)
    for outside in (size, -1):
        try:
            tokenizer.decode_bytes([outside])
        except UserError:
            continue
        raise AssertionError(f"id {outside} was decoded, though there are {size} ids")


@property_of(
    "tokenizer",
    statement="What a text encodes to doesn't depend on what was encoded before.",
    catches="a cache keyed on normalised text",
    tier="bit",
    examples=40,
)
def no_memory(part: PartUnderTest, draw: Draw) -> None:
    """Encode relatives before."""
    subject, s = part.bench.subject(part, draw), text(draw)
    fresh = subject.rebuild().encode(s)
    for relative in (s.swapcase(), s.upper(), s.strip(), s + " "):
        subject.part.encode("".join(c for c in relative if not 0xD800 <= ord(c) < 0xE000))
    assert subject.part.encode(s) == fresh, f"after others {s!r} encodes to something else than in a fresh tokenizer"


@property_of(
    "tokenizer",
    statement="encode_batch gives each text what encode gives it.",
    catches="padding inside of ids, an order that is lost",
    tier="bit",
    examples=30,
)
def batches_agree(part: PartUnderTest, draw: Draw) -> None:
    """Three texts, an empty one among them."""
    tokenizer = _ready(part, draw)
    texts = [text(draw), "", text(draw)]
    for allow in (False, True):
        batch = tokenizer.encode_batch(texts, allow_special=allow)
        assert batch == [tokenizer.encode(s, allow_special=allow) for s in texts], f"allow_special={allow}"


@property_of(
    "tokenizer",
    statement="The bytes of two id lists one after the other are the bytes of each, one after the other.",
    catches="a decoder that strips or inserts a leading space",
    tier="bit",
    examples=120,
)
def bytes_concatenate(part: PartUnderTest, draw: Draw) -> None:
    """Homomorphism."""
    tokenizer = _ready(part, draw)
    a, b = tokenizer.encode(text(draw)), tokenizer.encode(text(draw))
    together = tokenizer.decode_bytes(a + b)
    assert together == tokenizer.decode_bytes(a) + tokenizer.decode_bytes(b), "bytes change at the seam"
    expected = together.decode("utf-8", errors="replace")
    assert tokenizer.decode(a + b) == expected, "decode is not the UTF-8 reading of decode_bytes"


@property_of(
    "tokenizer",
    statement="Encoding what encoding gave is the same again, and text of arbitrary ids survives encoding.",
    catches="a normaliser that isn't idempotent, unknown bytes that are lost",
    tier="bit",
    examples=160,
)
def canonical(part: PartUnderTest, draw: Draw) -> None:
    """Fixed points."""
    tokenizer = _ready(part, draw)
    ids = tokenizer.encode(text(draw) + draw.choice("trap", TRAPS))
    again = tokenizer.encode(tokenizer.decode(ids))
    assert again == ids, f"{ids} became {again}"
    special = set(tokenizer.specials.values())
    drawn = [i for i in draw.ids(1, 6, tokenizer.vocab_size)[0].tolist() if i not in special]
    spelled = tokenizer.decode(drawn)
    assert tokenizer.decode(tokenizer.encode(spelled)) == tokenizer.normalise(spelled), f"{spelled!r} is lost"


@property_of(
    "tokenizer",
    statement="Text never becomes a special token, whatever it spells; with allow_special it does, each time.",
    catches="a user's text that ends the document or opens a role",
    tier="bit",
    examples=40,
)
def no_injection(part: PartUnderTest, draw: Draw) -> None:
    """Spell a special token inside of a text."""
    tokenizer = _ready(part, draw)
    spelled = draw.choice("special", SPECIALS)
    s = text(draw, "before") + spelled + text(draw, "after")
    ids = tokenizer.encode(s)
    found = set(ids) & set(tokenizer.specials.values())
    assert not found, f"the text {s!r} became the special ids {sorted(found)}"
    assert tokenizer.decode(ids) == tokenizer.normalise(s), "a text that spells a special token is damaged"
    allowed = tokenizer.encode(s, allow_special=True).count(tokenizer.specials[spelled])
    assert allowed == s.count(spelled), f"allow_special: {allowed} special ids for {s.count(spelled)} spellings"


@property_of(
    "tokenizer",
    statement="Streamed pieces join to decode, and no piece breaks a character.",
    catches="half a character on the screen",
    tier="bit",
    examples=60,
)
def streams_whole_characters(part: PartUnderTest, draw: Draw) -> None:
    """Piece by piece."""
    tokenizer, s = _ready(part, draw), text(draw)
    ids = tokenizer.encode(s)
    pieces, whole = list(tokenizer.stream(iter(ids))), tokenizer.decode(ids)
    assert "".join(pieces) == whole, f"the stream joins to {''.join(pieces)!r}, decode says {whole!r}"
    assert "\ufffd" in whole or not any("\ufffd" in piece for piece in pieces), f"a broken character in {pieces}"


@property_of(
    "tokenizer",
    statement="Merges are applied in the order in which they were learnt, leftmost first: as done by brute force.",
    catches="ties in a heap, overlaps in aaa, the longest match in place of the ranks",
    tier="bit",
    examples=200,
)
def merges_in_order(part: PartUnderTest, draw: Draw) -> None:
    """Rank by rank on a word."""
    tokenizer = _ready(part, draw)
    merges = getattr(tokenizer, "merges", None)
    if not merges:
        raise NotApplicable("it has no merges")
    word = _ambiguous(tokenizer, draw)
    pieces = [bytes([b]) for b in word.encode()]
    found = [tokenizer.decode_bytes([i]) for i in tokenizer.encode(word)]
    if getattr(tokenizer.config, "pattern", "none") != "none" and not word.isalpha():
        raise NotApplicable("the pattern may cut this word")
    for left, right in merges:
        a, b = (_spelling(tokenizer, side) for side in (left, right))
        at = 0
        while at < len(pieces) - 1:
            if pieces[at] == a and pieces[at + 1] == b:
                pieces[at : at + 2] = [a + b]
            at += 1
    assert found == pieces, f"{word!r} is cut into {found}, merges one by one give {pieces}"


def _ambiguous(tokenizer: Any, draw: Draw) -> str:
    """A word of a few learnt pieces, its first letter cut off, so that pieces compete for the rest."""
    if draw.choice("word of", ["letters", "pieces"]) == "letters":
        return words(draw)
    learnt = list(range(256, 256 + len(tokenizer.merges)))
    count = draw.integer("pieces", 2, 4)
    chosen = [learnt[draw.seed() % len(learnt)] for _ in range(count)]
    word: str = tokenizer.decode_bytes(chosen).decode("utf-8", errors="ignore")[1:]
    draw.note("word", word)
    return word


def _spelling(tokenizer: Any, side: Any) -> bytes:
    spelled: bytes = tokenizer.decode_bytes([side]) if isinstance(side, int) else side
    return spelled


@property_of(
    "tokenizer",
    statement="Saved as JSON and loaded, it encodes as before; saving twice gives the same bytes.",
    catches="merges sorted anew, special tokens that are lost, a pickle",
    tier="io",
    examples=15,
)
def saves_as_json(part: PartUnderTest, draw: Draw) -> None:
    """Through a folder."""
    subject = part.bench.subject(part, draw)
    with _folder() as first, _folder() as second:
        subject.part.save(first)
        subject.part.save(second)
        names = sorted(path.name for path in first.iterdir())
        assert names == sorted(path.name for path in second.iterdir())
        for name in names:
            content = (first / name).read_bytes()
            assert content == (second / name).read_bytes(), f"{name} differs between two savings"
            if name.endswith(".json"):
                json.loads(content)
        loaded = part.cls.load(subject.config, first)
    assert loaded.specials == subject.part.specials and loaded.vocab_size == subject.part.vocab_size, (
        "specials or size"
    )
    for s in (*TRAPS, *CORPUS, text(draw)):
        assert loaded.encode(s) == subject.part.encode(s), f"loaded, it encodes {s!r} otherwise"
        assert loaded.encode(s, allow_special=True) == subject.part.encode(s, allow_special=True)


@property_of(
    "tokenizer",
    statement="Training depends on the documents, not on their order.",
    catches="ties that are broken by what came first",
    tier="bit",
    examples=6,
    excuse=_untrainable,
)
def training_ignores_order(part: PartUnderTest, draw: Draw) -> None:
    """Permute documents, repeated ones among them."""
    config = part.bench.subject(part, draw).config
    documents = (*CORPUS, "zq zq qz qz xk kx xk kx", "jv jv vj vj")
    order = draw.permutation(len(documents)).tolist()
    a, b = _train(part.cls, config, documents), _train(part.cls, config, tuple(documents[i] for i in order))
    with _folder() as first, _folder() as second:
        a.save(first)
        b.save(second)
        for path in sorted(first.iterdir()):
            assert path.read_bytes() == (second / path.name).read_bytes(), (
                f"{path.name} depends on the documents' order"
            )


@property_of(
    "tokenizer",
    statement="trained_size tells the size that training gives.",
    catches="an embedding with too few rows",
    tier="io",
    examples=6,
    excuse=_untrainable,
)
def size_is_known_before(part: PartUnderTest, draw: Draw) -> None:
    """Compare."""
    subject = part.bench.subject(part, draw)
    told = part.cls.trained_size(subject.config, SPECIALS)
    assert told == subject.part.vocab_size, f"trained_size says {told}, training gave {subject.part.vocab_size}"


@property_of(
    "tokenizer",
    statement="One that can't be trained says so when it is asked to.",
    catches="a vocabulary that stays as it was, in silence",
    tier="io",
    examples=1,
    excuse=lambda part: None if not part.cls.trainable else "it can be trained",
)
def training_is_refused(part: PartUnderTest, draw: Draw) -> None:
    """Ask."""
    tokenizer = part.cls(part.bench.subject(part, draw).config)
    try:
        tokenizer.train(CORPUS, SPECIALS)
    except UserError:
        return
    raise AssertionError("it was trained in silence, though it is declared that it can't be")


@property_of(
    "tokenizer",
    statement="A lone surrogate raises an error that names its place.",
    catches="a crash deep inside, a question mark",
    tier="io",
    examples=4,
)
def surrogates_are_refused(part: PartUnderTest, draw: Draw) -> None:
    """At offset 3."""
    try:
        _ready(part, draw).encode("abc\ud800def")
    except UserError as error:
        assert "3" in str(error), f"the offset 3 is not named: {error}"
        return
    raise AssertionError("a lone surrogate was encoded")
