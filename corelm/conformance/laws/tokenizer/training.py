"""Properties of tokenizers: what they learn, keep and say of themselves."""

from __future__ import annotations

import json
import random
from collections import Counter
from functools import cache
from itertools import pairwise, product
from typing import Any

from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.tokenizer.bench import SPECIALS, folder, join_in_place, ready, train_one, untrainable
from corelm.conformance.texts import CORPUS, TRAPS, text
from corelm.errors import UserError
from corelm.kinds.tokenizer import Tokenizer
from corelm.registration import active


@property_of(
    "tokenizer",
    statement="Saved as JSON and loaded, it encodes as before; saving twice gives the same bytes.",
    formula="encode_{load(save)} = encode, save = save in bytes",
    catches="merges sorted anew, special tokens that are lost, a pickle",
    tier="io",
    examples=15,
)
def saves_as_json(part: PartUnderTest, draw: Draw) -> None:
    """Through a folder."""
    subject = part.bench.subject(part, draw)
    with folder() as first, folder() as second:
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
    formula="train(π(x)) = train(x) in bytes",
    catches="ties that are broken by what came first",
    tier="bit",
    examples=6,
    excuse=untrainable,
)
def training_ignores_order(part: PartUnderTest, draw: Draw) -> None:
    """Permute documents, repeated ones among them."""
    config = part.bench.subject(part, draw).config
    documents = (*CORPUS, "zq zq qz qz xk kx xk kx", "jv jv vj vj")
    order = draw.permutation(len(documents)).tolist()
    a, b = train_one(part.cls, config, documents), train_one(part.cls, config, tuple(documents[i] for i in order))
    with folder() as first, folder() as second:
        a.save(first)
        b.save(second)
        for path in sorted(first.iterdir()):
            assert path.read_bytes() == (second / path.name).read_bytes(), (
                f"{path.name} depends on the documents' order"
            )


@property_of(
    "tokenizer",
    statement="Each merge that is learnt joins the pair of neighbours that is the commonest once the ones before are made.",
    formula="∀ i: mᵢ ∈ argmax_p #p in fold(m₁ … mᵢ₋₁, words), counted from scratch, overlapping ones too",
    catches="counts that go stale when neighbours are joined, words counted once, a heap that forgets what comes up",
    tier="bit",
    examples=40,
    excuse=untrainable,
)
def learns_the_commonest(part: PartUnderTest, draw: Draw) -> None:
    """Words of few letters, a document each, recounted after each merge."""
    chance = random.Random(draw.seed())
    documents = [
        "".join(chance.choices("ab" if chance.random() < 0.5 else "abcde", k=chance.randint(1, 14)))
        for _ in range(chance.randint(4, 14))
    ]
    documents += chance.choices(documents, k=6)
    config = part.bench.subject(part, draw).config
    if not hasattr(config, "vocab_size"):
        raise NotApplicable("it learns no merges")
    size = 256 + len(SPECIALS) + draw.integer("merges", 4, 24)
    try:
        tokenizer: Any = train_one(part.cls, config.model_copy(update={"vocab_size": size}), tuple(documents))
    except UserError as error:
        raise NotApplicable("the text is too small") from error
    merges = getattr(tokenizer, "merges", None)
    if merges is None or tokenizer.vocab_size != 256 + len(SPECIALS) + len(merges):
        raise NotApplicable("its pieces are not bytes and what merges of them yield")
    words = [[bytes([value]) for value in document.encode()] for document in documents]
    for number, merge in enumerate(merges):
        counts = Counter(pair for word in words for pair in pairwise(word))
        left, right = (tokenizer.decode_bytes([side]) for side in merge)
        commonest = max(counts.values(), default=0)
        assert counts[left, right] == commonest > 0, (
            f"merge {number} joins {left!r} and {right!r}, which stand together {counts[left, right]} times, others "
            f"{commonest} times, in {documents}"
        )
        for word in words:
            join_in_place(word, left, right)
    assert tokenizer.vocab_size == size or not any(len(word) > 1 for word in words), (
        f"{tokenizer.vocab_size} ids were learnt and not {size}, though there are pairs left in {documents}"
    )


@property_of(
    "tokenizer",
    statement="trained_size tells the size that training gives.",
    formula="trained_size(config, specials) = |train(…)|",
    catches="an embedding with too few rows",
    tier="io",
    examples=6,
    excuse=untrainable,
)
def size_is_known_before(part: PartUnderTest, draw: Draw) -> None:
    """Compare."""
    subject = part.bench.subject(part, draw)
    told = part.cls.trained_size(subject.config, SPECIALS)
    assert told == subject.part.vocab_size, f"trained_size says {told}, training gave {subject.part.vocab_size}"


@property_of(
    "tokenizer",
    statement="A text with pieces enough fills the vocabulary that is asked for, and is shorter in ids than in characters.",
    formula="text rich ⇒ |train(config)| = vocab_size, |encode(text)| < |text| without spaces",
    catches="room that is halved, pieces that are joined of rare characters alone, an error where there is enough",
    tier="bit",
    examples=8,
    excuse=untrainable,
)
def rich_texts_fill_the_vocabulary(part: PartUnderTest, draw: Draw) -> None:
    """Words of few letters, often repeated, one with rare ones; all options but the size as they are by themselves."""
    chance, size = random.Random(draw.seed()), draw.integer("vocab_size", 290, 330)
    if "vocab_size" not in part.cls.Config.model_fields or not _joins(ready(part, draw)):
        raise NotApplicable("it learns no pieces of several characters")
    told = ["".join(chance.choices("abcdef", k=chance.randint(3, 9))) for _ in range(300)]
    documents = ["zq", *(" ".join(chance.choices(told, k=12)) for _ in range(100))]
    options = {"longest_piece": 4} if "longest_piece" in part.cls.Config.model_fields else {}
    tokenizer = part.cls(part.cls.Config.model_validate({"vocab_size": size, **options}))
    tokenizer.train(documents, SPECIALS)
    pieces = [tokenizer.decode_bytes([i]).decode(errors="replace") for i in range(tokenizer.vocab_size)]
    longest = max(len(piece) for piece in pieces if set(piece) <= set("abcdefzq "))
    assert not options or longest <= 4, f"the longest piece is {longest} characters long, it may be 4"
    assert tokenizer.vocab_size == size, f"{tokenizer.vocab_size} ids were learnt, {size} asked for"
    commonest = Counter(word for document in documents for word in document.split()).most_common(20)
    unknown = [word for word, _ in commonest if tokenizer.unknown in tokenizer.encode(word)]
    assert tokenizer.unknown is None or not unknown, f"{unknown[:5]} are unknown, though learnt of"
    ids, characters = sum(map(len, tokenizer.encode_batch(documents))), sum(map(len, "".join(documents).split()))
    assert ids < characters, f"{characters} characters, spaces not counted, become {ids} ids"


def _joins(tokenizer: Tokenizer) -> bool:
    """Whether a part has learnt a piece of several characters."""
    outside = {*tokenizer.specials.values(), tokenizer.unknown}
    return any(len(tokenizer.decode([i]).strip()) > 1 for i in range(tokenizer.vocab_size) if i not in outside)


@property_of(
    "tokenizer",
    statement="What many words have in common becomes pieces wherever in them it stands.",
    formula="train(a·x, b·x, …) ⇒ |encode(a·x)| ≤ |a| + 1",
    catches="words that are learnt without the mark of their inside, pieces that are only looked for where a word begins",
    tier="bit",
    examples=6,
    excuse=untrainable,
)
def joins_inside_of_words(part: PartUnderTest, draw: Draw) -> None:
    """One end to more words than there is room for."""
    chance = random.Random(draw.seed())
    if "vocab_size" not in part.cls.Config.model_fields or not _joins(ready(part, draw)):
        raise NotApplicable("it learns no pieces of several characters")
    end = "".join(chance.sample("stuvwxy", k=draw.integer("letters", 3, 6)))
    beginnings = ["".join(letters) for letters in product("abcdefghijklm", repeat=3)]
    words = [beginning + end for beginning in chance.sample(beginnings, k=400)]
    documents = tuple(" ".join(["z", *words[first : first + 40]]) for first in range(0, len(words), 40))
    config = part.cls.Config.model_validate({"vocab_size": 256 + len(SPECIALS) + 40})
    tokenizer = train_one(part.cls, config, documents)
    if '"Unigram"' in (tokenizer.as_tokenizers_json() or ""):
        raise NotApplicable("the likeliest pieces may be whole words, and none of the others")
    longest = max(words, key=lambda word: len(tokenizer.encode(word)))
    ids = tokenizer.encode(longest)
    beside = len(tokenizer.encode("z")) - 1  # a piece that says where a word begins
    assert len(ids) - beside <= 4, f"{len(words)} words end with {end!r}, and {longest!r} takes {len(ids)} ids"


@property_of(
    "tokenizer",
    statement="A text too small for the vocabulary is an error; the size that it names can be reached.",
    formula="train(config, too little) raises, reachable = n ⇒ |train(config[vocab_size = n])| = n",
    catches="a size that is off by the special tokens, an error after which the next one comes",
    tier="io",
    examples=6,
    excuse=untrainable,
)
def small_texts_name_their_size(part: PartUnderTest, draw: Draw) -> None:
    """A few words, and hundreds of ids more than they give."""
    if "vocab_size" not in part.cls.Config.model_fields:
        raise NotApplicable("nothing is said of its size")
    documents = ("abab abc", "bcab", "the end"[: draw.whole(3, 7)])
    tokenizer = part.cls(part.cls.Config.model_validate({"vocab_size": 900}))
    try:
        tokenizer.train(documents, SPECIALS)
    except UserError as error:
        reachable = error.details.get("reachable")
    else:
        raise AssertionError(f"{documents} gave {tokenizer.vocab_size} ids without an error")
    if reachable is None:
        raise NotApplicable("the error names no size")
    tokenizer = part.cls(part.cls.Config.model_validate({"vocab_size": reachable}))
    tokenizer.train(documents, SPECIALS)
    assert tokenizer.vocab_size == reachable < 900, f"{reachable} is named, training gives {tokenizer.vocab_size}"


@property_of(
    "tokenizer",
    statement="Where a pattern cuts texts into words, training on texts is training on their words, a document each.",
    formula="train(x) = train(words(x)) in bytes",
    catches="pieces across the ends of words, a pattern for encoding that training doesn't have",
    tier="bit",
    examples=6,
    excuse=untrainable,
)
def trains_on_words(part: PartUnderTest, draw: Draw) -> None:
    """Cut by the library tokenizers, as the part's own description says."""
    import tokenizers

    subject = part.bench.subject(part, draw)
    told = subject.part.as_tokenizers_json()
    if getattr(subject.config, "pattern", "none") == "none" or told is None:
        raise NotApplicable("it has no pattern that cuts texts")
    cut = tokenizers.Tokenizer.from_str(told).pre_tokenizer.pre_tokenize_str
    words = tuple(document[start:end] for document in CORPUS for _, (start, end) in cut(document))
    with folder() as first, folder() as second:
        subject.part.save(first)
        train_one(part.cls, subject.config, words).save(second)
        for path in sorted(first.iterdir()):
            assert path.read_bytes() == (second / path.name).read_bytes(), (
                f"{path.name} is another when the texts' words are documents of their own"
            )


@property_of(
    "tokenizer",
    statement="One that can't be trained says so when it is asked to.",
    formula="trainable = False ⇒ train(…) raises UserError",
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
    statement="Special tokens come in the order given, each is encoded to its one id and decoded to its spelling.",
    formula="encode(t, allow_special) = [id(t)], decode_bytes([id(t)]) = bytes(t), id(t₁) < id(t₂) < …",
    catches="special tokens that vanish in decoding, a table of them that is sorted",
    tier="bit",
    examples=8,
)
def specials_spell_themselves(part: PartUnderTest, draw: Draw) -> None:
    """Each of them."""
    tokenizer = ready(part, draw)
    ids = [tokenizer.specials[name] for name in SPECIALS]
    assert ids == sorted(ids), f"given as {SPECIALS}, their ids are {ids}"
    for name, number in zip(SPECIALS, ids, strict=True):
        assert tokenizer.encode(name, allow_special=True) == [number], f"{name} is not encoded to {number} alone"
        assert tokenizer.decode_bytes([number]) == name.encode(), f"{number} is not decoded to {name}"


@cache
def _readers(part: PartUnderTest, told: str) -> list[Tokenizer]:
    """What the part itself and every installed one make of a description."""
    readers = {part.cls, *(record.load() for record in active().parts("tokenizer"))}
    read = [reader.from_tokenizers_json(told) for reader in sorted(readers, key=lambda reader: reader.__name__)]
    return [tokenizer for tokenizer in read if tokenizer is not None]


@property_of(
    "tokenizer",
    statement="What it says of itself as a tokenizer.json is itself: whoever can read that encodes as it does.",
    formula="∀ reader r of tokenizer.json: encode_r(s) = encode(s)",
    catches="an export that forgets the pattern, a merge or the special tokens; siblings that break ties otherwise",
    tier="bit",
    examples=40,
)
def described_equals_itself(part: PartUnderTest, draw: Draw) -> None:
    """Every installed part that reads the description, its library sibling among them."""
    tokenizer = ready(part, draw)
    told = tokenizer.as_tokenizers_json()
    if told is None:
        raise NotApplicable("it has no tokenizer.json")
    json.loads(told)
    found = _readers(part, told)
    assert found, "no installed tokenizer can read its description"
    s = text(draw) + draw.choice("trap", TRAPS)
    for reader in found:
        name = type(reader).__name__
        assert reader.vocab_size == tokenizer.vocab_size, f"{name} reads {reader.vocab_size} ids"
        assert reader.specials == tokenizer.specials, f"{name} reads the special tokens {reader.specials}"
        for allow in (False, True):
            theirs = reader.encode(s, allow_special=allow)
            assert theirs == tokenizer.encode(s, allow_special=allow), f"{name} reads itself as another: {s!r}"
