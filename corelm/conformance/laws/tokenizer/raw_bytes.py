"""Properties of tokenizers: bytes that are no text, where in a text an id stands, and what is put around texts."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final

from hypothesis import strategies as st

from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.tokenizer.bench import SPECIALS, ready
from corelm.conformance.texts import text
from corelm.errors import UserError

_ILL_FORMED: Final = (b"\xff", b"\x80", b"\xf8", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf")
"""Bytes that never occur, go on with nothing, or aren't gone on with; a surrogate, a slash in two bytes."""


@property_of(
    "tokenizer",
    statement="Where every byte can be written, any bytes come back; elsewhere bytes that are no UTF-8 raise an error "
    "that names the first of them. Bytes of a text give what the text gives. A lossless one with an id for each byte can.",
    formula="every_byte ⇒ bytes(encode_bytes(b)) = b for all b; encode_bytes(utf8(s)) = encode(s); "
    "¬lossy, ∀ byte ∃ id: bytes(id) = byte ⇒ every_byte",
    catches="a byte that is dropped in a rare case, replacement characters for what is no UTF-8, no fallback to bytes",
    tier="bit",
    examples=250,
)
def every_byte_comes_back(part: PartUnderTest, draw: Draw) -> None:
    """Broken text, a text cut inside of a character, and all 256 bytes in some order."""
    tokenizer, s = ready(part, draw), text(draw)
    assert tokenizer.encode_bytes(s.encode()) == tokenizer.encode(s), f"the bytes of {s!r} aren't encoded as it is"
    for data in (_broken(s, draw), bytes(draw.permutation(256).tolist())):
        if tokenizer.every_byte:
            back = tokenizer.decode_bytes(tokenizer.encode_bytes(data))
            assert back == data, f"the bytes {data!r} came back as {back!r}"
        else:
            _refuses(tokenizer, data)
    if not tokenizer.every_byte and not tokenizer.lossy:
        pieces = {tokenizer.decode_bytes([token]) for token in range(tokenizer.vocab_size)}
        assert not pieces.issuperset(bytes([value]) for value in range(256)), "it has every byte, and says it hasn't"


def _broken(s: str, draw: Draw) -> bytes:
    """A text's bytes with some others put into them."""
    data = s.encode()
    at = draw.whole(0, len(data))
    put = draw.choice("cut off", _ILL_FORMED) if draw.whole(0, 1) else draw.of("bytes", _binary())
    return data[:at] + put + data[at:]


@cache
def _binary() -> st.SearchStrategy[bytes]:
    return st.binary(min_size=1, max_size=6)


def _refuses(tokenizer: Any, data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError as broken:
        try:
            tokenizer.encode_bytes(data)
        except UserError as error:
            assert str(broken.start) in str(error), f"the offset {broken.start} is not named: {error}"
            return
        raise AssertionError(f"{data!r} was encoded, though not every byte can be written") from None


@property_of(
    "tokenizer",
    statement="Ids come with spans in the text as it was given: in order, and where nothing is lost covering it; each "
    "id's bytes are inside of its span, and no character of the span is without them.",
    formula="∪[aᵢ, bᵢ) = [0, |s|), aᵢ ≤ aᵢ₊₁ ≤ bᵢ, s[aᵢ+1 : bᵢ−1] ⊂ bytes(i) ⊂ s[aᵢ : bᵢ]",
    catches="spans in bytes or in UTF-16, spans in the normalised text, halves of a character without a span",
    tier="bit",
    examples=120,
)
def spans_cover_the_text(part: PartUnderTest, draw: Draw) -> None:
    """With special tokens and without."""
    tokenizer = ready(part, draw)
    s = text(draw) + draw.choice("special", ["", *SPECIALS]) + text(draw, "after")
    allow = draw.choice("allow_special", [False, True])
    pieces = tokenizer.encode_with_spans(s, allow_special=allow)
    ids = [piece.id for piece in pieces]
    assert ids == tokenizer.encode(s, allow_special=allow), "the ids are not those of encode"
    before = 0
    for piece in pieces:
        assert before <= piece.start <= piece.end <= len(s), f"{piece} is out of order, or outside of {s!r}"
        before = piece.start
    if tokenizer.decode_bytes(ids) != s.encode() or tokenizer.decode(ids) != s:
        return  # spaces were added or something was lost: there is no saying what covers what
    reached = 0
    for piece in pieces:
        spelt, covered = tokenizer.decode_bytes([piece.id]), s[piece.start : piece.end]
        assert piece.start <= reached, f"nothing stands for {s[reached : piece.start]!r}"
        assert spelt in covered.encode(), f"{piece} spells {spelt!r}, but covers {covered!r}"
        assert covered[1:-1].encode() in spelt, f"{piece} covers {covered!r}, but spells {spelt!r}"
        reached = max(reached, piece.end)
    assert reached == len(s), f"nothing stands for {s[reached:]!r}"


@property_of(
    "tokenizer",
    statement="What its makers put around texts is of special tokens, and encode puts nothing around them.",
    formula="frame ⊂ specials, encode('') = ∅, encode(s) ∌ frame",
    catches="a beginning of text before every text that is joined to others, an end in the middle of a dialogue",
    tier="bit",
    examples=12,
)
def nothing_is_put_around(part: PartUnderTest, draw: Draw) -> None:
    """Of nothing, and of a text."""
    tokenizer, s = ready(part, draw), text(draw)
    around = {token for side in tokenizer.frame for token in side}
    known = set(tokenizer.specials.values())
    assert around <= known, f"the frame {tokenizer.frame} has ids that are no special tokens"
    for allow in (False, True):
        assert tokenizer.encode("", allow_special=allow) == [], "nothing is encoded to something"
    found = around & set(tokenizer.encode(s)) - {tokenizer.unknown}
    assert not found, f"encode puts {sorted(found)} around {s!r}"


@property_of(
    "tokenizer",
    statement="However a description marks its special tokens, they are text unless they are allowed.",
    formula="∀ flags of an added token: encode(u ⧺ t ⧺ v) ∌ id(t); allowed, ∋ id(t)",
    catches="special tokens that are found after normalising or with the spaces around them, allowed or not",
    tier="bit",
    examples=30,
)
def no_injection_by_flags(part: PartUnderTest, draw: Draw) -> None:
    """Its own description with other flags, and with the special tokens among the model's pieces."""
    told = ready(part, draw).as_tokenizers_json()
    if told is None:
        raise NotApplicable("it has no tokenizer.json")
    data = json.loads(told)
    flags = {flag: draw.choice(flag, [False, True]) for flag in ("normalized", "lstrip", "rstrip", "single_word")}
    for token in data["added_tokens"]:
        token |= flags
    if draw.choice("among the pieces", [False, True]):
        vocabulary = data["model"]["vocab"]
        if isinstance(vocabulary, list):
            vocabulary += [[token["content"], 0.0] for token in data["added_tokens"]]
        else:
            vocabulary |= {token["content"]: token["id"] for token in data["added_tokens"]}
            data["model"]["ignore_merges"] = True
    tokenizer = part.cls.from_tokenizers_json(json.dumps(data))
    if tokenizer is None:
        raise NotApplicable("it reads nothing but its own description")
    spelt = draw.choice("special", SPECIALS)
    s = draw.choice("before", ["", "a ", "the"]) + spelt + draw.choice("after", ["", " a", "the"])
    try:
        ids = tokenizer.encode(s)
    except UserError:
        ids = []  # refused, where the engine can't do otherwise
    assert tokenizer.specials[spelt] not in ids, f"{s!r} became the special token {spelt} with {flags}"
    allowed = tokenizer.encode(f"a {spelt} b", allow_special=True)
    assert tokenizer.specials[spelt] in allowed, f"{spelt} is not found where it is allowed, with {flags}"
