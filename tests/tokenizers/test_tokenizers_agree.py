"""``bpe`` and ``hf-bpe``: the same merges from the same text, the same ids from the same merges."""

import json
import os
import re
from functools import cache
from pathlib import Path

import pytest
import tokenizers
from corelm_tokenizers.bpe import BytePairTokenizer
from corelm_tokenizers.bytes import ByteTokenizer
from corelm_tokenizers.hf_bpe import LibraryBytePairTokenizer
from corelm_tokenizers.patterns import spelt_out, splitter
from hypothesis import given, settings
from hypothesis import strategies as st
from trap_texts import SPECIALS, TRAINING, texts

DATA = Path(os.environ.get("CORELM_DATA", Path(__file__).parents[2] / "../shared/data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="CORELM_DATA is not there")
patterns = pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "none"])


def both(pattern, size, documents):
    made = [
        part(part.Config(vocab_size=size, pattern=pattern)) for part in (BytePairTokenizer, LibraryBytePairTokenizer)
    ]
    for tokenizer in made:
        tokenizer.train(documents)
    return made


@cache
def pair(pattern):
    return both(pattern, 256 + 220 + 1, TRAINING)


@patterns
def test_the_same_text_gives_the_same_merges(pattern):
    ours, library = pair(pattern)
    assert ours.merges == library.merges


@settings(max_examples=80, deadline=None)
@given(
    documents=st.lists(st.one_of(texts, st.text("ab ", max_size=30)), min_size=1, max_size=5),
    count=st.integers(1, 12),
)
@patterns
def test_the_same_texts_give_the_same_merges_whatever_they_are(pattern, documents, count):
    ours, library = BytePairTokenizer, LibraryBytePairTokenizer
    results = []
    for part in (ours, library):
        made = part(part.Config(vocab_size=257 + count, pattern=pattern))
        try:
            made.train(documents)
            results.append(made.merges)
        except Exception as error:
            results.append(str(error))
    assert results[0] == results[1]


@patterns
@settings(max_examples=300, deadline=None)
@given(text=texts)
def test_the_same_merges_give_the_same_ids(pattern, text):
    ours, library = pair(pattern)
    assert ours.encode(text) == library.encode(text)


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k"])
def test_both_cut_words_alike_at_every_character(pattern):
    engine = tokenizers.pre_tokenizers.Split(tokenizers.Regex(spelt_out(pattern)), "isolated")
    # Beyond the first plane the classes change at a few hundred places; those and their neighbours.
    bounds = {int(bound, 16) for bound in re.findall(r"x\{(\w+)\}", spelt_out(pattern))}
    points = {*range(0x10000), *(bound + step for bound in bounds for step in (-1, 0, 1))} - {0x110000, -1}
    characters = [chr(point) for point in sorted(points) if not 0xD800 <= point < 0xE000]
    for start in range(0, len(characters), 4096):
        text = "".join(f"a{c}1{c} {c}{c}.{c}" for c in characters[start : start + 4096])
        assert [word for word, _ in engine.pre_tokenize_str(text)] == splitter(pattern).findall(text)


@patterns
def test_each_reads_what_the_other_saved(pattern, tmp_path):
    ours, library = pair(pattern)
    ours.save(tmp_path)
    read = LibraryBytePairTokenizer.load(library.config, tmp_path)
    assert read.encode("".join(TRAINING)) == ours.encode("".join(TRAINING))


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("pattern", ["gpt2", "cl100k"])
def test_real_text_gives_the_same_merges_and_ids(pattern):
    valid = (DATA / "wikitext-2/valid.txt").read_text(encoding="utf-8")
    languages = [path.read_text(encoding="utf-8") for path in sorted((DATA / "udhr").glob("*.txt"))]
    ours, library = both(pattern, 1024, [*valid.splitlines(keepends=True), *languages])
    assert ours.merges == library.merges
    stress = [*json.loads((DATA / "unicode-stress/blns.json").read_text(encoding="utf-8"))]
    names = ("UTF-8-demo.txt", "emoji-test.txt", "GraphemeBreakTest.txt", "blns.txt")
    stress += [(DATA / "unicode-stress" / name).read_text(encoding="utf-8") for name in names]
    stress += [_decoded(line) for line in stress[-2].splitlines()]
    test = (DATA / "wikitext-2/test.txt").read_text(encoding="utf-8")[:400_000]
    for text in [*languages, *stress, test]:
        ids = ours.encode(text)
        assert ids == library.encode(text)
        assert ours.decode(ids) == text


def _decoded(line):
    """The characters that a line of GraphemeBreakTest is about."""
    codes = [word for word in line.partition("#")[0].split() if word not in "÷×"]
    return "".join(chr(int(code, 16)) for code in codes if not 0xD800 <= int(code, 16) < 0xE000)


@pytest.mark.data
@needs_data
def test_gpt2s_published_merges_give_gpt2s_pieces():
    lines = (DATA / "gpt2-bpe/vocab.bpe").read_text(encoding="utf-8").splitlines()[1:]
    published = json.loads((DATA / "gpt2-bpe/encoder.json").read_text(encoding="utf-8"))
    from corelm_tokenizers.library import merges_of, spelling

    merges = merges_of({"model": {"merges": [line.split(" ") for line in lines]}})
    ours = BytePairTokenizer(BytePairTokenizer.Config(vocab_size=50_257))
    ours._set(merges, ("<|endoftext|>",))
    reference = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab=published, merges=[tuple(line.split(" ")) for line in lines])
    )
    reference.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    names = {token: piece for piece, token in published.items()}
    spell = spelling()
    for path in ("wikitext-2/valid.txt", "tinyshakespeare/input.txt", "unicode-stress/UTF-8-demo.txt"):
        text = (DATA / path).read_text(encoding="utf-8")
        pieces = ["".join(spell[value] for value in ours.decode_bytes([token])) for token in ours.encode(text)]
        assert pieces == [names[token] for token in reference.encode(text).ids]


@patterns
@settings(max_examples=60, deadline=None)
@given(text=texts)
def test_the_librarys_own_file_gives_the_same_ids(pattern, text):
    ours, _ = pair(pattern)
    assert _as_library(pattern).encode(text).ids == ours.encode(text, allow_special=True)
    assert _as_library(pattern).decode(ours.encode(text), skip_special_tokens=False) == text


@cache
def _as_library(pattern):
    return tokenizers.Tokenizer.from_str(pair(pattern)[0].as_tokenizers_json())


@pytest.mark.parametrize("part", [BytePairTokenizer, LibraryBytePairTokenizer, ByteTokenizer])
@patterns
def test_the_librarys_file_is_read_back_and_no_other_is(part, pattern):
    if part is ByteTokenizer:
        made = part(part.Config())
        made.train([], SPECIALS)
        assert part.from_tokenizers_json(pair(pattern)[0].as_tokenizers_json()) is None
    else:
        made = part(part.Config(vocab_size=400, pattern=pattern))
        made.train(TRAINING, SPECIALS)
    text = made.as_tokenizers_json()
    again = part.from_tokenizers_json(text)
    assert (again.config, again.merges, again.specials) == (made.config, made.merges, made.specials)
    altered = json.loads(text)
    altered["normalizer"] = {"type": "NFC"}
    for other in (json.dumps(altered), "{}", "[]", "no json"):
        assert part.from_tokenizers_json(other) is None
