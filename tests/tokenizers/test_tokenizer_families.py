"""Tokenizers that learn pieces of characters, and what libraries make of the same pieces."""

import json
import os
import random
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import tokenizers
from corelm_tokenizers.bpe import BytePairTokenizer
from corelm_tokenizers.tiktoken_bpe import TiktokenBytePairTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from trap_texts import SPECIALS, TRAINING, texts

from corelm.errors import UserError
from corelm.kinds.component import Spec
from corelm.kinds.tokenizer import read_tokenizers_json

DATA = Path(os.environ.get("CORELM_DATA", Path(__file__).parents[2] / "../shared/data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="CORELM_DATA is not there")

FAMILIES = {
    "unigram": ["hf-unigram", "sentencepiece-unigram"],
    "fallback-bpe": ["sentencepiece-bpe"],
    "wordpiece": ["hf-wordpiece"],
    "bpe": ["hf-bpe", "tiktoken-bpe"],
    "characters": [],
}
SIZES = {"unigram": 350, "fallback-bpe": 350, "wordpiece": 220, "bpe": 400, "characters": 300}
SIZES |= {other: SIZES[name] for name, others in FAMILIES.items() for other in others}
PAIRS = [(name, other) for name, others in FAMILIES.items() for other in others]
CHARACTERS = ["unigram", "fallback-bpe", "wordpiece", "characters"]
DESCRIBED = ["unigram", "wordpiece", "characters"]


def part(name, **options):
    for library in ("sentencepiece", "tiktoken"):
        if name.startswith(library):
            pytest.importorskip(library)
    return Spec.read("tokenizer", {"use": name, "vocab_size": SIZES[name], **options}).build()


@cache
def trained(name, **options):
    made = part(name, **options)
    made.train(TRAINING, SPECIALS)
    return made


def read_as(other, name, folder, **options):
    made = trained(name, **options)
    made.save(folder)
    sibling = part(other, **options)
    return type(sibling).load(made.config.model_copy(), folder)


@pytest.mark.parametrize(("name", "other"), PAIRS)
def test_siblings_read_the_same_file_and_give_the_same_ids(name, other, tmp_path):
    ours, library = trained(name), read_as(other, name, tmp_path)

    @settings(max_examples=60, deadline=None)
    @given(text=texts, tail=st.binary(max_size=8))
    def alike(text, tail):
        assert ours.encode(text) == library.encode(text)
        assert ours.encode(text, allow_special=True) == library.encode(text, allow_special=True)
        if ours.every_byte:
            assert ours.encode_bytes(tail + text.encode()) == library.encode_bytes(tail + text.encode())

    alike()


@pytest.mark.parametrize(("name", "other"), PAIRS)
def test_siblings_learn_the_same(name, other, tmp_path):
    files = []
    for one in (name, other):
        made = part(one)
        made.train(reversed(TRAINING), SPECIALS)
        made.save(tmp_path)
        files.append((tmp_path / "vocabulary.json").read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("name", DESCRIBED)
def test_the_library_runs_the_description(name):
    ours = trained(name)
    library = tokenizers.Tokenizer.from_str(ours.as_tokenizers_json())
    plain = tokenizers.Tokenizer.from_str(ours.as_tokenizers_json())
    plain.encode_special_tokens = True

    @settings(max_examples=60, deadline=None)
    @given(text=texts)
    def alike(text):
        assert plain.encode(text).ids == ours.encode(text)
        assert library.encode(text).ids == ours.encode(text, allow_special=True)

    alike()


@pytest.mark.parametrize("name", DESCRIBED)
def test_the_description_is_read_back_and_no_other_is(name):
    ours = trained(name)
    told = ours.as_tokenizers_json()
    again = type(ours).from_tokenizers_json(told)
    assert (again.config.vocab_size, again.specials) == (ours.config.vocab_size, ours.specials)
    assert again.encode("".join(TRAINING)) == ours.encode("".join(TRAINING))
    assert type(read_tokenizers_json(told)) is type(ours)
    altered = json.loads(told)
    altered["normalizer"] = {"type": "NFD"}
    for other in (json.dumps(altered), "{}", "[]", "no json"):
        assert type(ours).from_tokenizers_json(other) is None


@pytest.mark.parametrize("name", ["unigram", "fallback-bpe", "characters"])
@settings(max_examples=60, deadline=None)
@given(text=texts)
def test_every_text_comes_back_but_for_the_sign_that_stands_for_spaces(name, text):
    ours = trained(name)
    text += "<unk><0x41> <0x0A"
    assert ours.decode(ours.encode(text)) == (text if name == "characters" else text.replace("▁", " "))


@pytest.mark.parametrize("name", CHARACTERS)
def test_saving_is_plain_json_the_same_every_time(name, tmp_path):
    ours, contents = trained(name), set()
    for attempt in ("a", "b"):
        folder = tmp_path / attempt
        folder.mkdir()
        ours.save(folder)
        contents.add((folder / "vocabulary.json").read_bytes())
        again = type(ours).load(ours.config, folder)
        again.save(folder)
        contents.add((folder / "vocabulary.json").read_bytes())
        assert again.encode("".join(TRAINING)) == ours.encode("".join(TRAINING))
    assert len(contents) == 1
    assert json.loads(contents.pop())["specials"] == list(SPECIALS)


@pytest.mark.parametrize("name", CHARACTERS)
@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"{}",
        b'{"pieces": [["a"]], "specials": []}',
        b'{"pieces": [["a", 0], ["a", 1]], "specials": []}',
        b'{"pieces": [["", 0]], "specials": []}',
    ],
)
def test_a_damaged_file_is_refused_by_name(name, content, tmp_path):
    if content is not None:
        (tmp_path / "vocabulary.json").write_bytes(content)
    with pytest.raises(UserError, match=r"vocabulary\.json: not a readable vocabulary"):
        type(trained(name)).load(trained(name).config, tmp_path)


@pytest.mark.parametrize("name", CHARACTERS)
def test_the_order_of_documents_does_not_matter(name, tmp_path):
    files = set()
    for order in (TRAINING, TRAINING[::-1], [*TRAINING[2:], *TRAINING[:2]]):
        made = part(name)
        made.train(order, SPECIALS)
        made.save(tmp_path)
        files.add((tmp_path / "vocabulary.json").read_bytes())
    assert len(files) == 1


_FRESH = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from trap_texts import *
from corelm.kinds.component import Spec
from corelm.kinds.tokenizer import read_tokenizers_json
for name, size in {0}.items():
    made = Spec.read("tokenizer", {{"use": name, "vocab_size": size}}).build()
    made.train(TRAINING, SPECIALS)
    print(made.learnt, made.encode("".join(TRAINING)))
"""


def test_hash_seeds_do_not_matter():
    outputs = set()
    for seed in ("0", "1"):
        command = [sys.executable, "-c", _FRESH.format({name: SIZES[name] for name in CHARACTERS})]
        done = subprocess.run(
            [*command, os.path.dirname(__file__)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1


@pytest.mark.parametrize("name", CHARACTERS)
def test_a_vocabulary_that_the_text_cannot_fill_is_refused_with_the_size_that_it_can(name):
    with pytest.raises(UserError, match=r"vocab_size 5000 is larger than the text allows") as caught:
        part(name, vocab_size=5000).train(["ab abc abd abc"])
    reachable = caught.value.details["reachable"]
    made = part(name, vocab_size=reachable)
    made.train(["ab abc abd abc"])
    assert made.vocab_size == reachable


def test_a_vocabulary_smaller_than_the_alphabet_is_refused_with_the_size_that_it_needs():
    with pytest.raises(
        UserError, match="vocab_size 7 has no room for 9 pieces beside 1 fixed pieces and 1 special"
    ) as caught:
        part("wordpiece", vocab_size=7).train(["abcde fghi"[:5]])
    made = part("wordpiece", vocab_size=caught.value.details["reachable"])
    made.train(["abcde"])
    assert made.decode(made.encode("abcde")) == "abcde"
    with pytest.raises(UserError, match="vocab_size 260 has no room for 257 fixed pieces and 4 special tokens"):
        part("unigram", vocab_size=260).train(TRAINING, SPECIALS)


@pytest.mark.parametrize("name", CHARACTERS)
@pytest.mark.parametrize("specials", [("e",), ("<a>", "<a>"), ("",)])
def test_special_tokens_must_differ_from_pieces_and_each_other(name, specials):
    with pytest.raises(UserError, match="special token") as caught:
        part(name).train(TRAINING, specials)
    assert caught.value.code == "specials-invalid"


@pytest.mark.parametrize("name", CHARACTERS)
def test_a_lone_surrogate_is_refused_with_its_place(name):
    for call in (trained(name).encode, lambda text: part(name).train([text])):
        with pytest.raises(UserError, match=r"lone surrogate \(U\+D800\) at character 3"):
            call("abc\ud800d")


@pytest.mark.parametrize("name", CHARACTERS)
def test_an_untrained_tokenizer_says_so(name):
    for call in (lambda made: made.encode("a"), lambda made: made.vocab_size, lambda made: made.as_tokenizers_json()):
        with pytest.raises(UserError, match="has no vocabulary yet"):
            call(part(name))


def test_what_word_piece_has_not_seen_is_unknown():
    ours = trained("wordpiece")
    assert ours.encode("ლ") == [ours.unknown] == [0]
    assert ours.encode("THE  quick") == ours.encode("the quick")
    cased = trained("wordpiece", lowercase=False)
    assert cased.encode("THE") != cased.encode("the")
    assert ours.encode("a" * 101) == [0]


def test_samples_spell_their_text_and_depend_on_the_generator_alone():
    ours = trained("unigram")
    text = "The quick brown fox, the 🙂."
    draws = [ours.sample(text, alpha=0.2, generator=random.Random(seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert all(ours.decode(ids) == text for ids in draws)
    best = [token for token in ours.sample(text, alpha=1000.0, generator=random.Random(0))]
    assert best == ours.encode(text)


@pytest.mark.parametrize("name", ["sentencepiece-unigram", "sentencepiece-bpe", "tiktoken-bpe"])
def test_a_library_that_is_not_there_is_named(name, monkeypatch):
    library = name.partition("-")[0]
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=rf"needs the library {library}(.|\n)*corelm\[tokenizers\]"):
        Spec.read("tokenizer", {"use": name, "vocab_size": 300}).build().train(TRAINING)


@pytest.mark.parametrize(
    ("merges", "why"),
    [
        ([(98, 99), (97, 98), (257, 99)], r"the piece b'abc' isn't encoded as itself"),
        ([(97, 98), (98, 99), (97, 257), (256, 99)], "two merges yield the same piece"),
    ],
)
def test_merges_that_tiktoken_cannot_follow_are_refused(merges, why):
    pytest.importorskip("tiktoken")
    with pytest.raises(UserError, match=why):
        TiktokenBytePairTokenizer(TiktokenBytePairTokenizer.Config(vocab_size=260))._set(merges, ())
    ours = BytePairTokenizer(BytePairTokenizer.Config(vocab_size=260))
    ours._set(merges, ())
    assert TiktokenBytePairTokenizer.from_tokenizers_json(ours.as_tokenizers_json()) is None


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("name", FAMILIES)
def test_real_text_gives_the_same_ids_by_every_library(name, whole, tmp_path):
    size = 10**9 if whole else 2000
    languages = [path.read_text(encoding="utf-8") for path in sorted((DATA / "udhr").glob("*.txt"))]
    valid = (DATA / "wikitext-2/valid.txt").read_text(encoding="utf-8")
    sizes = {"wordpiece": 6000 if whole else 2500, "characters": 600}
    ours = part(name, vocab_size=sizes.get(name, 600))
    ours.train([valid[: 10 * size], *(text[:size] for text in languages[:: 1 if whole else 8])])
    ours.save(tmp_path)
    siblings = [type(part(other)).load(ours.config, tmp_path) for other in FAMILIES[name]]
    stress = json.loads((DATA / "unicode-stress/blns.json").read_text(encoding="utf-8"))
    names = ("UTF-8-demo.txt", "emoji-test.txt", "GraphemeBreakTest.txt", "NormalizationTest.txt", "blns.txt")
    stress += [(DATA / "unicode-stress" / file).read_text(encoding="utf-8") for file in names]
    test = (DATA / "wikitext-2/test.txt").read_text(encoding="utf-8")
    broken = (DATA / "unicode-stress/UTF-8-test-restored.txt").read_bytes()
    described = ours.as_tokenizers_json()
    library = tokenizers.Tokenizer.from_str(described) if described else None
    for text in [*(text[:size] for text in [*languages, *stress]), test[: 10 * size]]:
        ids = ours.encode(text)
        for sibling in siblings:
            assert sibling.encode(text) == ids
        assert library is None or library.encode(text).ids == ids
        assert ours.lossy or ours.decode(ids) == text
    if ours.every_byte:
        assert all(sibling.encode_bytes(broken) == ours.encode_bytes(broken) for sibling in siblings)
        assert ours.decode_bytes(ours.encode_bytes(broken)) == broken
