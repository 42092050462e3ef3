"""Properties of tokenizers: what encoding and decoding owe to each other."""

from __future__ import annotations

from typing import Any

from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.tokenizer import descriptions, files, models, raw_bytes, training
from corelm.conformance.laws.tokenizer.bench import SPECIALS, join_in_place, ready
from corelm.conformance.texts import TRAPS, text, words
from corelm.errors import UserError

MINIMUM = 8
"""So many of these properties must say something about every part of the kind, and hold."""

__all__ = ["descriptions", "files", "models", "raw_bytes", "training"]


@property_of(
    "tokenizer",
    statement="decode(encode(s)) is normalise(s), which is the identity unless declared lossy, and idempotent where "
    "the vocabulary can write all of s.",
    formula="decode(encode(s)) = N(s); unknown ∉ encode(s) ⇒ N(N(s)) = N(s); N = 1 unless lossy",
    catches="stripping, NFC, CRLF, lower-casing, '?' for other scripts, cleaned-up spaces, bytes decoded one by one",
    seen="tokenizers#1543",
    tier="bit",
    examples=425,
)
def round_trip(part: PartUnderTest, draw: Draw) -> None:
    """For every string of Unicode scalar values."""
    tokenizer, s = ready(part, draw), text(draw)
    wanted = tokenizer.normalise(s)
    assert part.cls.lossy or wanted == s, f"normalise changes {s!r} to {wanted!r}, but the part isn't declared lossy"
    ids = tokenizer.encode(s)
    if tokenizer.unknown not in ids:
        assert tokenizer.normalise(wanted) == wanted, "normalise is not idempotent"
    back = tokenizer.decode(ids)
    assert back == wanted, f"{s!r} came back as {back!r}"


@property_of(
    "tokenizer",
    statement="Ids are whole numbers below vocab_size, which counts the special tokens and is what was asked for.",
    formula="encode(s) ⊂ {0, …, n − 1}, every id of which stands for some bytes; decode(n), decode(−1) raise",
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
    empty = [i for i in range(size) if not tokenizer.decode_bytes([i])]
    assert not empty, f"ids that stand for nothing: {empty[:5]}"
    for outside in (size, -1):
        try:
            tokenizer.decode_bytes([outside])
        except UserError:
            continue
        raise AssertionError(f"id {outside} was decoded, though there are {size} ids")


@property_of(
    "tokenizer",
    statement="What a text encodes to doesn't depend on what was encoded before.",
    formula="encode after encode(s′) … = encode afresh",
    catches="a cache keyed on normalised text",
    tier="bit",
    examples=175,
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
    formula="encode_batch(x)ᵢ = encode(xᵢ)",
    catches="padding inside of ids, an order that is lost",
    tier="bit",
    examples=30,
)
def batches_agree(part: PartUnderTest, draw: Draw) -> None:
    """Three texts, an empty one among them."""
    tokenizer = ready(part, draw)
    texts = [text(draw), "", text(draw)]
    for allow in (False, True):
        batch = tokenizer.encode_batch(texts, allow_special=allow)
        assert batch == [tokenizer.encode(s, allow_special=allow) for s in texts], f"allow_special={allow}"


@property_of(
    "tokenizer",
    statement="The bytes of two id lists one after the other are the bytes of each, one after the other; text is their "
    "reading, of which lossy ones may take spaces off the ends.",
    formula="bytes(a ⧺ b) = bytes(a) ⧺ bytes(b), decode = UTF-8 ∘ bytes",
    catches="a decoder that strips or inserts a leading space",
    tier="bit",
    examples=120,
)
def bytes_concatenate(part: PartUnderTest, draw: Draw) -> None:
    """Homomorphism."""
    tokenizer = ready(part, draw)
    a, b = tokenizer.encode(text(draw)), tokenizer.encode(text(draw))
    together = tokenizer.decode_bytes(a + b)
    assert together == tokenizer.decode_bytes(a) + tokenizer.decode_bytes(b), "bytes change at the seam"
    expected = together.decode("utf-8", errors="replace")
    read = tokenizer.decode(a + b)
    if part.cls.lossy:
        expected, read = expected.strip(" "), read.strip(" ")
    assert read == expected, "decode is not the UTF-8 reading of decode_bytes"


@property_of(
    "tokenizer",
    statement="Encoding what encoding gave is the same again, and text of arbitrary ids survives encoding.",
    formula="encode(decode(encode(s))) = encode(s); t = decode(ids) ⇒ decode(encode(t)) = N(t)",
    catches="a normaliser that isn't idempotent, unknown bytes that are lost",
    tier="bit",
    examples=160,
)
def canonical(part: PartUnderTest, draw: Draw) -> None:
    """Fixed points."""
    tokenizer = ready(part, draw)
    ids = tokenizer.encode(text(draw) + draw.choice("trap", TRAPS))
    if tokenizer.unknown not in ids:
        again = tokenizer.encode(tokenizer.decode(ids))
        assert again == ids, f"{ids} became {again}"
    special = {*tokenizer.specials.values(), tokenizer.unknown}
    drawn = [i for i in draw.ids(1, 6, tokenizer.vocab_size)[0].tolist() if i not in special]
    spelled = tokenizer.decode(drawn)
    assert tokenizer.decode(tokenizer.encode(spelled)) == tokenizer.normalise(spelled), f"{spelled!r} is lost"


@property_of(
    "tokenizer",
    statement="Text never becomes a special token, whatever it spells; with allow_special it does, each time.",
    formula="encode(u ⧺ t ⧺ v) ∩ specials = ∅ for every spelling t of a special token",
    catches="a user's text that ends the document or opens a role",
    tier="bit",
    examples=40,
)
def no_injection(part: PartUnderTest, draw: Draw) -> None:
    """Spell a special token inside of a text."""
    tokenizer = ready(part, draw)
    spelled = draw.choice("special", SPECIALS)
    s = text(draw, "before") + spelled + text(draw, "after")
    ids = tokenizer.encode(s)
    found = set(ids) & set(tokenizer.specials.values()) - {tokenizer.unknown}
    assert not found, f"the text {s!r} became the special ids {sorted(found)}"
    assert tokenizer.decode(ids) == tokenizer.normalise(s), "a text that spells a special token is damaged"
    allowed = tokenizer.encode(s, allow_special=True).count(tokenizer.specials[spelled])
    assert allowed == s.count(spelled), f"allow_special: {allowed} special ids for {s.count(spelled)} spellings"


@property_of(
    "tokenizer",
    statement="Streamed pieces join to decode; no piece breaks a character, none is empty.",
    formula="Σ stream(ids) = decode(ids), ε ∉ stream(ids), ∀ ids",
    catches="half a character on the screen, an event for nothing",
    tier="bit",
    examples=160,
)
def streams_whole_characters(part: PartUnderTest, draw: Draw) -> None:
    """Piece by piece; of a text, or of any ids, which may spell broken characters."""
    tokenizer, s = ready(part, draw), text(draw)
    ids = tokenizer.encode(s)
    if draw.choice("ids", ["of a text", "any"]) == "any":
        ids = draw.ids(1, 6, tokenizer.vocab_size)[0].tolist()
    pieces, whole = list(tokenizer.stream(iter(ids))), tokenizer.decode(ids)
    assert "".join(pieces) == whole, f"the stream joins to {''.join(pieces)!r}, decode says {whole!r}"
    assert all(pieces), f"an empty piece in {pieces}"
    assert "\ufffd" in whole or not any("\ufffd" in piece for piece in pieces), f"a broken character in {pieces}"


@property_of(
    "tokenizer",
    statement="No character is lost: the two-byte ones all, and every 509th of Unicode, wherever one begins.",
    formula="∀ c ∈ U+0000…U+07FF ∪ {o, o + 509, …}: decode(encode(c)) = normalise(c)",
    catches="an alphabet of what training has seen, a byte without an id, the characters beyond U+FFFF",
    tier="bit",
    examples=4,
)
def no_character_is_lost(part: PartUnderTest, draw: Draw) -> None:
    """All in one text, then the first that is lost by itself."""
    tokenizer = ready(part, draw)
    codes = [*range(0x800), *range(draw.integer("first", 0x800, 0x800 + 508), 0x110000, 509)]
    characters = [chr(code) for code in codes if not 0xD800 <= code < 0xE000]
    whole = " ".join(characters)
    if tokenizer.decode(tokenizer.encode(whole)) == tokenizer.normalise(whole):
        return
    lost = [c for c in characters if tokenizer.decode(tokenizer.encode(c)) != tokenizer.normalise(c)]
    named = [f"U+{ord(c):04X}" for c in lost[:5]]
    raise AssertionError(
        f"lost: {', '.join(named)} … ({len(lost)} of {len(characters)})" if lost else "lost together"
    )


@property_of(
    "tokenizer",
    statement="Merges are applied in the order in which they were learnt, leftmost first: as done by brute force.",
    formula="encode(w) = fold(merges, bytes(w)), each merge everywhere, left to right",
    catches="ties in a heap, overlaps in aaa, the longest match in place of the ranks",
    tier="bit",
    examples=360,
)
def merges_in_order(part: PartUnderTest, draw: Draw) -> None:
    """Rank by rank on a word."""
    tokenizer = ready(part, draw)
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
        join_in_place(pieces, a, b)
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
    statement="A lone surrogate raises an error that names its place.",
    formula="encode(… U+D800 …) raises",
    catches="a crash deep inside, a question mark",
    tier="io",
    examples=4,
)
def surrogates_are_refused(part: PartUnderTest, draw: Draw) -> None:
    """At offset 3."""
    try:
        ready(part, draw).encode("abc\ud800def")
    except UserError as error:
        assert "3" in str(error), f"the offset 3 is not named: {error}"
        return
    raise AssertionError("a lone surrogate was encoded")
