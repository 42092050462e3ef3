"""Unigram, WordPiece and scored pairs on vocabularies of all kinds: the ids of the libraries."""

import itertools
import json
import math
import os
import random
from collections import Counter
from pathlib import Path

import pytest
import tokenizers
from corelm_tokenizers.assembled import Assembly
from corelm_tokenizers.fallback import BYTES
from corelm_tokenizers.scored_pairs import ScoredPairs
from corelm_tokenizers.unigram import Unigram
from corelm_tokenizers.wordpiece import WordPiece
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece_files import processor
from trap_texts import texts

from corelm.errors import UserError

DATA = Path(os.environ.get("CORELM_DATA", Path(__file__).parents[2] / "../shared/data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="CORELM_DATA is not there")
many = settings(max_examples=80, deadline=None)

LETTERS = "aab▁é猫🙂<0x>"
spelt = st.text(LETTERS, min_size=1, max_size=5)
words = st.text(LETTERS + "zß", max_size=14)
scores = st.one_of(st.integers(-40, 0).map(lambda n: n / 4), st.floats(-20, -0.125, width=32))


@st.composite
def vocabularies(draw, kinds=("normal",)):
    """Pieces with scores and kinds; the unknown, a control token and perhaps the bytes among them."""
    drawn = draw(st.lists(spelt, min_size=1, max_size=14, unique=True))
    pieces = [("<unk>", 0.0, "unknown"), ("<s>", 0.0, "control")]
    falls_back = draw(st.booleans())
    if falls_back:
        pieces += [(piece, 0.0, "byte") for piece in BYTES]
    taken = {piece for piece, _, _ in pieces}
    pieces += [(p, draw(scores), draw(st.sampled_from(kinds))) for p in drawn if p not in taken]
    return pieces, falls_back


@many
@given(vocabulary=vocabularies(("normal", "normal", "normal", "unused", "user_defined")), word=words)
def test_unigram_is_sentencepieces(vocabulary, word):
    pieces, falls_back = vocabulary
    ours = assembled(pieces, model="Unigram", every_byte=falls_back)
    assert list(ours.ids(word)) == processor(pieces, model="unigram", byte_fallback=falls_back).encode(word)


@many
@given(vocabulary=vocabularies(("normal", "normal", "normal", "unused", "user_defined")), word=words)
def test_scored_pairs_are_sentencepieces(vocabulary, word):
    pieces, falls_back = vocabulary
    ours = assembled(pieces, model="BPE", every_byte=falls_back)
    assert list(ours.ids(word)) == processor(pieces, model="bpe", byte_fallback=falls_back).encode(word)


@many
@given(vocabulary=vocabularies(), word=words)
def test_unigram_is_the_one_of_tokenizers(vocabulary, word):
    pieces, falls_back = vocabulary
    library = tokenizers.models.Unigram([(p, s) for p, s, _ in pieces], unk_id=0, byte_fallback=falls_back)
    ours = Unigram([p for p, _, _ in pieces], [s for _, s, _ in pieces], unknown=0, every_byte=falls_back)
    assert list(ours.ids(word)) == [token.id for token in library.tokenize(word)] if word else not ours.ids(word)


@many
@given(
    pieces=st.lists(st.text("aabé猫", min_size=1, max_size=4), max_size=12, unique=True),
    inside=st.lists(st.text("aabé猫", min_size=1, max_size=4), max_size=12, unique=True),
    word=st.text("aabé猫z", min_size=1, max_size=14),
    longest=st.integers(1, 12),
)
def test_word_piece_is_the_one_of_tokenizers(pieces, inside, word, longest):
    known = ["[UNK]", *pieces, *(f"##{piece}" for piece in inside)]
    library = tokenizers.models.WordPiece(
        {piece: token for token, piece in enumerate(known)}, unk_token="[UNK]", max_input_chars_per_word=longest
    )
    ours = WordPiece(known, unknown=0, longest_word=longest)
    tokens = library.tokenize(word)
    assert list(ours.ids(word)) == [token.id for token in tokens]
    assert [tuple(span) for span in ours.spans(word, ours.ids(word))] == [
        _characters(word, token.offsets) for token in tokens
    ]


def _characters(word, span):
    return tuple(len(word.encode()[:end].decode()) for end in span)


def assembled(pieces, *, model, every_byte):
    """The model of a description with these pieces, scores and kinds."""
    said = {"type": f"SentencePiece{model}", "pieces": pieces, "byte_fallback": every_byte}
    return Assembly({"model": said}).model


def brute(model, word):
    """Every way to write a word in pieces, with its score."""
    for inner in itertools.product((False, True), repeat=max(0, len(word) - 1)):
        cuts = [0, *(place + 1 for place, cut in enumerate(inner) if cut), len(word)]
        parts = [word[a:b] for a, b in itertools.pairwise(cuts)]
        if all(part in model for part in parts):
            yield parts, sum(model[part] for part in parts)


@many
@given(
    model=st.dictionaries(st.text("ab", min_size=2, max_size=4), scores, max_size=8),
    letters=st.tuples(scores, scores),
    word=st.text("ab", min_size=1, max_size=9),
)
def test_no_way_to_cut_is_more_probable(model, letters, word):
    model = {**model, "a": letters[0], "b": letters[1]}
    ours = Unigram(list(model), list(model.values()))
    found = sum(model[ours.pieces[token]] for token in ours.ids(word))
    assert "".join(ours.pieces[token] for token in ours.ids(word)) == word
    assert found == pytest.approx(max(score for _, score in brute(model, word)), abs=1e-9)


def test_of_equals_the_longest_last_piece_is_taken_place_after_place():
    assert Unigram(["a", "aa"], [-1.0, -2.0]).ids("aaa") == (0, 1)
    assert Unigram(["a", "b", "c", "ab", "bc"], [-1.0] * 5).ids("abc") == (0, 4)


@pytest.mark.parametrize("alpha", [1.0, 0.25, 0.0])
def test_ways_are_drawn_by_their_probability(alpha):
    model = {"a": -2.0, "b": -1.5, "ab": -2.5, "ba": -3.0, "aba": -4.0}
    ours, generator = Unigram(list(model), list(model.values())), random.Random(0)
    weights = {tuple(parts): math.exp(alpha * score) for parts, score in brute(model, "ababa")}
    draws = 4000
    counts = Counter(
        tuple(ours.pieces[token] for token in ours.sample("ababa", alpha, generator)) for _ in range(draws)
    )
    assert counts.keys() <= weights.keys()
    for way, weight in weights.items():
        expected = weight / sum(weights.values())
        assert abs(counts[way] / draws - expected) < 5 * math.sqrt(expected / draws)


def test_what_no_piece_spells_is_drawn_as_bytes_or_unknown():
    generator = random.Random(0)
    assert Unigram(["a", "?"], [-1.0, 0.0], unknown=1, hidden=[1]).sample("azza", 1.0, generator) == (0, 1, 0)
    ours = Unigram([*BYTES, "a"], [0.0] * 256 + [-1.0], every_byte=True, hidden=range(256))
    assert ours.sample("aé", 1.0, generator) == (256, 0xC3, 0xA9)


@many
@given(vocabulary=vocabularies(), word=words, pairs=st.booleans())
def test_spans_follow_each_other_and_spell_their_pieces(vocabulary, word, pairs):
    pieces, falls_back = vocabulary
    ours = assembled(pieces, model="BPE" if pairs else "Unigram", every_byte=falls_back)
    ids = ours.ids(word)
    spans = ours.spans(word, ids)
    assert len(spans) == len(ids)
    at = 0
    for token, (start, end) in zip(ids, spans, strict=True):
        assert start <= at <= end
        if pieces[token][2] == "normal":
            assert word[start:end] == pieces[token][0]
        at = end
    assert at == len(word)


def test_nothing_is_written_where_there_is_no_unknown():
    assert Unigram(["a"], [-1.0]).ids("ab") == ()
    assert ScoredPairs(["a"], [-1.0]).ids("ab") == ()
    assert WordPiece(["a"], unknown=None).ids("ab") == ()


def test_bytes_that_are_no_utf8_have_their_own_pieces():
    for ours in (
        Unigram([*BYTES, "a"], [0.0] * 256 + [-1.0], every_byte=True, hidden=range(256)),
        ScoredPairs([*BYTES, "a"], [0.0] * 257, every_byte=True, hidden=range(256)),
    ):
        word = b"a\xff\xc3a".decode("utf-8", "surrogateescape")
        assert ours.ids(word) == (256, 0xFF, 0xC3, 256)
        assert list(ours.spans(word, ours.ids(word))) == [(0, 1), (1, 2), (2, 3), (3, 4)]


@pytest.mark.parametrize("model", [Unigram, ScoredPairs])
def test_a_fallback_to_bytes_needs_all_of_them(model):
    with pytest.raises(UserError, match=r"has no piece <0x0A> \(2 are missing\)") as caught:
        model([piece for piece in BYTES if piece not in ("<0x0A>", "<0xFF>")], [0.0] * 254, every_byte=True)
    assert caught.value.code == "bytes-missing"


def _real(*, whole):
    """What all languages, the traps and an encyclopedia hold; or the beginning of each."""
    size = 10**9 if whole else 2000
    found = [path.read_text(encoding="utf-8") for path in sorted((DATA / "udhr").glob("*.txt"))]
    names = ("UTF-8-demo.txt", "emoji-test.txt", "GraphemeBreakTest.txt", "NormalizationTest.txt", "blns.txt")
    found += [(DATA / "unicode-stress" / name).read_text(encoding="utf-8") for name in names]
    found += json.loads((DATA / "unicode-stress/blns.json").read_text(encoding="utf-8"))
    test = (DATA / "wikitext-2/test.txt").read_text(encoding="utf-8")
    return [*(text[:size] for text in found), test[: 30 * size]]


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.heavy)])
def test_berts_published_pieces_give_tokenizers_ids(whole):
    pieces = (DATA / "bert-wordpiece/vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    library = tokenizers.models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]")
    ours = WordPiece(pieces, unknown=pieces.index("[UNK]"))
    normal, cut = tokenizers.normalizers.BertNormalizer(), tokenizers.pre_tokenizers.BertPreTokenizer()
    found = {word for text in _real(whole=whole) for word, _ in cut.pre_tokenize_str(normal.normalize_str(text))}
    for word in [*found, "x" * 100, "x" * 101]:
        assert list(ours.ids(word)) == [token.id for token in library.tokenize(word)]


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("name", ["test_model", "test_ja_model"])
def test_published_unigrams_give_sentencepieces_ids(name, whole):
    library = pytest.importorskip("sentencepiece")
    theirs = library.SentencePieceProcessor(model_file=str(DATA / f"sentencepiece-models/{name}.model"))
    kind = {theirs.is_unknown: "unknown", theirs.is_control: "control", theirs.is_unused: "unused"}
    ours = assembled(
        [
            (theirs.id_to_piece(i), theirs.get_score(i), next((k for is_it, k in kind.items() if is_it(i)), "normal"))
            for i in range(theirs.get_piece_size())
        ],
        model="Unigram",
        every_byte=False,
    )
    for text in _real(whole=whole):
        assert list(ours.ids(theirs.normalize(text))) == theirs.encode(text)


@settings(max_examples=50, deadline=None)
@given(text=texts)
def test_long_words_are_no_matter(text):
    pieces = [("<unk>", 0.0, "unknown"), *((c, -i / 8, "normal") for i, c in enumerate("abcdefgh\n th"[:9]))]
    pieces += [("ab", -1.0, "normal"), ("the", -2.0, "normal")]
    word = text * 20
    for model, name in (("Unigram", "unigram"), ("BPE", "bpe")):
        theirs = processor(pieces, model=name, byte_fallback=False)
        ours = assembled(pieces, model=model, every_byte=False)
        assert list(ours.ids(theirs.normalize(word))) == theirs.encode(word)
