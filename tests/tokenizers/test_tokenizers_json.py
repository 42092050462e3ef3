"""``tokenizers-json``: whatever the library reads, it encodes as the library does, and comes back from disk."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
import tokenizers
from corelm_tokenizers import formats
from corelm_tokenizers.assembled import Assembled
from corelm_tokenizers.described import Described
from corelm_tokenizers.tokenizers_json import TokenizersJson
from grammar import DECODERS
from hypothesis import example, given, settings
from hypothesis import strategies as st
from published import LLAMA3, byte_pairs, split_bytes
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from trap_texts import TRAINING

import corelm
from corelm.errors import UserError
from corelm.kinds import Spec
from corelm.model.loading import load_tokenizer, save_tokenizer
from corelm.recipe.reader import Recipe, RecipeError

DATA = Path(os.environ.get("CORELM_DATA", Path(__file__).parents[2] / "../shared/data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="CORELM_DATA is not there")


def made_of(library: tokenizers.Tokenizer, **options: object) -> TokenizersJson:
    made = TokenizersJson(TokenizersJson.Config(**options))
    made._set(library.to_str())
    return made


def metaspace() -> tokenizers.Tokenizer:
    """As the older sentence models: ▁ for spaces, one before the first word, unknown characters as bytes."""
    pieces = [*(f"<0x{value:02X}>" for value in range(256)), "▁", "a", "b", "▁a", "▁ab", "ab"]
    library = tokenizers.Tokenizer(
        models.BPE(
            {piece: at for at, piece in enumerate(pieces)}, [("▁", "a"), ("a", "b"), ("▁", "ab")], byte_fallback=True
        )
    )
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    library.add_special_tokens(["<s>", "</s>"])
    return library


def word_pieces() -> tokenizers.Tokenizer:
    pieces = ["[UNK]", "run", "##ning", "##s", "far", "[SEP]"]
    library = tokenizers.Tokenizer(
        models.WordPiece({piece: at for at, piece in enumerate(pieces)}, unk_token="[UNK]")
    )
    library.normalizer = normalizers.Lowercase()
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece(cleanup=False)
    library.add_special_tokens(["[SEP]"])
    return library


def words() -> tokenizers.Tokenizer:
    library = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    return library


def byte_level() -> tokenizers.Tokenizer:
    teacher = Spec.read("tokenizer", {"use": "hf-bpe", "vocab_size": 300}).build()
    teacher.train(TRAINING, ("<|endoftext|>",))
    library = tokenizers.Tokenizer.from_str(teacher.as_tokenizers_json())
    library.normalizer = normalizers.NFC()  # which none of our parts has
    return library


FORMS = {"metaspace": metaspace, "word pieces": word_pieces, "words": words, "byte level": byte_level}
TEXTS = [
    "a ab",
    "ab é a\U0001f600b",
    "Running far",
    "runs far far",
    "b a b",
    "",
    "  a  ",
    "é and e\u0301",
    "ab\n\nab",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", TEXTS)
def test_it_encodes_and_decodes_as_the_library_does(form, text):
    library = FORMS[form]()
    ours, ids = made_of(library), library.encode(text, add_special_tokens=False).ids
    assert ours.encode(text) == ids
    assert ours.encode_batch([text, text]) == [ids, ids]
    assert ours.decode(ids) == library.decode(ids, skip_special_tokens=False) == "".join(ours.stream(ids))


PIECES = ["▁a", "b▁", " .", "</w>", "##a", "a</w>", "?", "<0x41>", "<0xE2>", "<0x96>", "<0x81>"]
UNITS = [*([number] for number in range(8)), [8, 9, 10]]  # no half of a character


@pytest.mark.parametrize("engine", [TokenizersJson, Assembled])
@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**64), units=st.lists(st.sampled_from(UNITS), max_size=6))
@example(seed=0, units=[[0], [1], [8, 9, 10], [0]])
def test_whatever_the_order_of_a_decoders_steps_ids_are_spelt_as_by_the_library(engine, seed, units):
    draw = random.Random(seed)
    steps = [{"type": (name := draw.choice(list(DECODERS)))} | DECODERS[name](draw) for _ in range(4)]
    if not seed:
        space = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
        steps = [{"type": "ByteFallback"}, {"type": "Fuse"}, space]
    told = json.loads(words().to_str()) | {"decoder": {"type": "Sequence", "decoders": steps}}
    told["model"]["vocab"] = {piece: number for number, piece in enumerate(PIECES)}
    ours, ids = engine.from_tokenizers_json(json.dumps(told)), [number for unit in units for number in unit]
    if ours is None:
        assert engine is Assembled
        return
    library = tokenizers.Tokenizer.from_str(json.dumps(told))
    assert ours.decode(ids) == library.decode(ids) == "".join(ours.stream(iter(ids))), (ids, steps)
    assert ours.decode_bytes(ids) == b"".join(ours.decode_bytes([number]) for number in ids)


def test_ids_that_do_not_exist_are_refused_where_the_library_decodes():
    told = json.loads(words().to_str()) | {"decoder": {"type": "CTC", "pad_token": "a", "word_delimiter_token": "b"}}
    told["decoder"]["cleanup"] = True
    ours = TokenizersJson.from_tokenizers_json(json.dumps(told))
    assert ours.decode([0, 2, 2, 1]) == "? "
    with pytest.raises(UserError, match="token id 9 is outside"):
        ours.decode([0, 9])


@pytest.mark.parametrize("form", FORMS)
def test_the_same_file_is_read_shown_and_written(form, tmp_path):
    text = FORMS[form]().to_str(pretty=True)
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    read = load_tokenizer(tmp_path / "tokenizer.json")
    assert isinstance(read, Assembled)  # what can run without the library does
    assert read.as_tokenizers_json() == text
    (tmp_path / "saved").mkdir()
    save_tokenizer(read, tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert again.as_tokenizers_json() == text
    assert [again.encode(s) for s in TEXTS] == [read.encode(s) for s in TEXTS]
    assert json.loads((tmp_path / "saved" / "part.json").read_text())["use"] == "assembled"


@pytest.mark.parametrize(
    ("number", "message"),
    [(256, r"'<x>' claims the id 256, which is '▁''s"), (999, r"'<x>' claims the id 999, but 264 is its place")],
)
def test_an_added_token_that_the_library_would_give_another_id_is_refused(number, message):
    library = metaspace()
    library.add_special_tokens(["<x>"])
    described = json.loads(library.to_str())
    assert described["added_tokens"][-1]["id"] == 264
    described["added_tokens"][-1]["id"] = number
    with pytest.raises(UserError, match=message):
        TokenizersJson(TokenizersJson.Config())._set(json.dumps(described))


def test_our_own_tokenizers_stay_our_own(tmp_path):
    teacher = Spec.read("tokenizer", {"use": "hf-bpe", "vocab_size": 300}).build()
    teacher.train(TRAINING)
    (tmp_path / "tokenizer.json").write_text(teacher.as_tokenizers_json(), encoding="utf-8")
    assert not isinstance(corelm.load_tokenizer(tmp_path / "tokenizer.json"), Described)


def test_what_a_text_spells_is_no_special_token_unless_allowed():
    ours = made_of(metaspace())
    assert ours.specials["</s>"] not in ours.encode("a</s>b")
    assert ours.encode("a</s>b", allow_special=True).count(ours.specials["</s>"]) == 1
    assert ours.decode_bytes([ours.specials["</s>"]]) == b"</s>"


def test_the_end_of_a_text_is_the_usual_token_or_the_one_that_is_named():
    assert made_of(metaspace()).end_of_text == metaspace().token_to_id("</s>")
    assert made_of(metaspace(), end_of_text="<s>").end_of_text == metaspace().token_to_id("<s>")
    with pytest.raises(UserError, match="no special token"):
        _ = made_of(words()).end_of_text
    with pytest.raises(UserError, match="no special token <end> to end a text") as error:
        _ = made_of(metaspace(), end_of_text="<end>").end_of_text
    assert "<s>, </s>" in error.value.remedy


def test_tokens_that_were_added_but_are_not_special_are_text():
    library = metaspace()
    library.add_tokens([AddedToken("abba", special=False)])
    ours = made_of(library)
    assert "abba" not in ours.specials
    assert library.token_to_id("abba") in ours.encode("a abba")


def test_a_recipe_that_would_train_it_is_told_how_to_take_it(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("corelm: 1\nname: small\ncorpus: {source: python-stdlib}\ntokenizer: tokenizers-json\n")
    with pytest.raises(RecipeError, match="can't be trained") as error:
        Recipe.read(path)
    (problem,) = error.value.problems
    assert problem.dotted == "tokenizer" and "load: PATH" in problem.remedy


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"model": {}}'])
def test_what_the_library_cannot_read_is_refused(content, tmp_path):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match="not a tokenizer"):
        TokenizersJson.load(TokenizersJson.Config(), tmp_path)
    assert TokenizersJson.from_tokenizers_json(content) is None


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("name", ["tiny_bpe_tokenizer.json", "hf_tokenizer.json"])
def test_files_from_elsewhere_encode_as_in_the_library(name):
    path = DATA / "tiny-tokenizers" / name
    library, ours = tokenizers.Tokenizer.from_file(str(path)), corelm.load_tokenizer(path)
    for text in [*TEXTS, *TRAINING]:
        ids = library.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, allow_special=True) == ids
        assert ours.decode(ids) == library.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("pattern", ["gpt2", LLAMA3])
def test_a_published_file_is_read_once_and_not_by_every_part(pattern, tmp_path, monkeypatch):
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False) if pattern == "gpt2" else split_bytes(pattern)
    byte_pairs(cut, ignore_merges=True).save(str(tmp_path / "tokenizer.json"))
    text, read, loads = (tmp_path / "tokenizer.json").read_text(encoding="utf-8"), [], json.loads
    monkeypatch.setattr(json, "loads", lambda said, **more: (read.append(said), loads(said, **more))[1])
    made = formats.load(tmp_path / "tokenizer.json")
    assert read.count(text) == 1 == len(read)
    assert made.as_tokenizers_json() == text
