"""BERT's ``vocab.txt``: what its letters and the config beside it say, and lists that are damaged."""

from __future__ import annotations

import pytest
from corelm_tokenizers import formats
from described import encoder
from published import word_pieces
from small_files import TEXTS, bert_file

from corelm.errors import UserError


@pytest.mark.parametrize("lower", [True, False])
def test_a_vocab_txt_says_by_its_letters_whether_case_matters(lower, tmp_path):
    path = bert_file(tmp_path, lower)
    found, library = formats.read(path), word_pieces(lower)
    assert found.description["normalizer"]["lowercase"] is lower
    assert found.end_of_text == "[SEP]"
    library.encode_special_tokens = True
    for text in TEXTS:
        assert encoder(found)(text) == library.encode(text, add_special_tokens=False).ids


def test_a_config_beside_it_is_believed(tmp_path):
    path = bert_file(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "tokenize_chinese_chars": false}')
    normalizer = formats.read(path).description["normalizer"]
    assert (normalizer["lowercase"], normalizer["handle_chinese_chars"]) == (False, False)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertJapaneseTokenizer"}')
    with pytest.raises(UserError, match="BertJapaneseTokenizer, whose rules"):
        formats.read(tmp_path)


@pytest.mark.parametrize("name", ["vocab.txt", "x.gguf"])
@pytest.mark.parametrize("lower", [True, False])
def test_word_pieces_come_back(name, lower, tmp_path):
    (tmp_path / "new").mkdir()
    found = formats.read(bert_file(tmp_path, lower))
    formats.write(found, tmp_path / "new" / name)
    assert formats.read(tmp_path / "new" / name) == found


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["[UNK]", "a", "", "b"], "line 3: it is empty"),
        (["[UNK]", "a", "b", "a"], "line 4: 'a' stands in line 2 already"),
        (["a", "b"], "none is .UNK."),
    ],
)
def test_damaged_lists_of_words(lines, message, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=message):
        formats.read(tmp_path / "vocab.txt")


@pytest.mark.data
def test_bert_itself(data):
    found = formats.read(data / "bert-wordpiece" / "vocab.txt")
    assert found.description["normalizer"]["lowercase"] is True
    assert len(found.description["model"]["vocab"]) == 30522
