"""What every tokenizer of this package must hold."""

import json
import os
import pickletools
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
from corelm_tokenizers.bpe import BytePairTokenizer
from corelm_tokenizers.bytes import ByteTokenizer
from corelm_tokenizers.hf_bpe import LibraryBytePairTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from trap_texts import SPECIALS, TRAINING, texts

from corelm.errors import UserError

MERGES = 220
SIZE = 256 + MERGES + len(SPECIALS)


@cache
def trained(name):
    """One tokenizer of each make; the brackets hold the pattern."""
    if name == "bytes":
        made = ByteTokenizer(ByteTokenizer.Config())
    else:
        part = BytePairTokenizer if name.startswith("bpe") else LibraryBytePairTokenizer
        made = part(part.Config(vocab_size=SIZE, pattern=name.partition(" ")[2]))
    made.train(TRAINING, SPECIALS)
    return made


MAKES = ["bytes", "bpe gpt2", "bpe cl100k", "bpe none", "hf-bpe gpt2", "hf-bpe cl100k", "hf-bpe none"]
every = pytest.mark.parametrize("name", MAKES)
many = settings(max_examples=150, deadline=None)


@every
@many
@given(text=texts)
def test_decoding_what_was_encoded_gives_the_text_back(name, text):
    tokenizer = trained(name)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text == tokenizer.normalise(text)
    assert tokenizer.encode(tokenizer.decode(ids)) == ids
    assert all(type(token) is int and 0 <= token < tokenizer.vocab_size for token in ids)


@every
def test_ids_are_without_gaps_and_each_has_its_own_bytes(name):
    tokenizer = trained(name)
    size = tokenizer.vocab_size
    assert size == (256 + len(SPECIALS) if name == "bytes" else SIZE)
    assert type(tokenizer).trained_size(tokenizer.config, SPECIALS) == size
    assert list(tokenizer.specials.items()) == [(s, size - len(SPECIALS) + n) for n, s in enumerate(SPECIALS)]
    pieces = [tokenizer.decode_bytes([token]) for token in range(size)]
    assert len(set(pieces)) == size
    assert [pieces[value] for value in range(256)] == [bytes([value]) for value in range(256)]
    assert tokenizer.end_of_text == tokenizer.specials["<|endoftext|>"]


@every
@many
@given(text=texts, before=st.lists(texts, max_size=3))
def test_what_was_encoded_before_changes_nothing(name, text, before):
    tokenizer = trained(name)
    first = tokenizer.encode(text)
    for other in [*before, text.swapcase(), text.strip(), text.lower()]:
        tokenizer.encode(other)
    assert tokenizer.encode(text) == first


@every
@settings(max_examples=60, deadline=None)
@given(batch=st.lists(texts, max_size=5), allow=st.booleans())
def test_a_batch_is_encoded_as_its_texts_are(name, batch, allow):
    tokenizer = trained(name)
    expected = [tokenizer.encode(text, allow_special=allow) for text in batch]
    assert tokenizer.encode_batch(batch, allow_special=allow) == expected


@every
@many
@given(data=st.data())
def test_bytes_of_joined_ids_are_joined_bytes_and_any_ids_give_text_that_comes_back(name, data):
    tokenizer = trained(name)
    ids = st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=12)
    left, right = data.draw(ids), data.draw(ids)
    assert tokenizer.decode_bytes(left + right) == tokenizer.decode_bytes(left) + tokenizer.decode_bytes(right)
    text = tokenizer.decode(left)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@every
@given(content=st.binary(max_size=40))
def test_any_bytes_can_be_written(name, content):
    assert trained(name).decode_bytes(list(content)) == content


@every
@many
@given(before=texts, after=texts, special=st.sampled_from(SPECIALS))
def test_text_never_becomes_a_special_token_unless_allowed(name, before, after, special):
    tokenizer = trained(name)
    text = before + special + after
    controls = set(tokenizer.specials.values())
    ids = tokenizer.encode(text)
    assert not controls.intersection(ids)
    assert tokenizer.decode(ids) == text
    allowed = tokenizer.encode(text, allow_special=True)
    assert tokenizer.decode(allowed) == text
    # Left to right, the longest first.
    expected, rest = [], text
    while rest:
        found = [literal for literal in sorted(SPECIALS, key=len, reverse=True) if rest.startswith(literal)]
        expected += [tokenizer.specials[found[0]]] if found else []
        rest = rest[len(found[0]) if found else 1 :]
    assert [token for token in allowed if token in controls] == expected


@every
@many
@given(text=texts, data=st.data())
def test_streaming_gives_what_decoding_gives_and_never_half_a_character(name, text, data):
    tokenizer = trained(name)
    ids = tokenizer.encode(text, allow_special=data.draw(st.booleans()))
    pieces = list(tokenizer.stream(iter(ids)))
    assert "".join(pieces) == tokenizer.decode(ids)
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)
    wild = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=12))
    assert "".join(tokenizer.stream(wild)) == tokenizer.decode(wild)


@every
@settings(max_examples=60, deadline=None)
@given(text=texts)
def test_saving_and_loading_changes_nothing(name, text):
    tokenizer = trained(name)
    again = _saved(name)
    assert again.encode(text, allow_special=True) == tokenizer.encode(text, allow_special=True)
    assert (again.merges, again.specials, again.vocab_size) == (
        tokenizer.merges,
        tokenizer.specials,
        tokenizer.vocab_size,
    )


@cache
def _saved(name):
    with tempfile.TemporaryDirectory() as folder:
        trained(name).save(Path(folder))
        return type(trained(name)).load(trained(name).config, Path(folder))


@every
def test_saved_files_are_plain_json_and_the_same_every_time(name, tmp_path):
    contents = []
    for attempt in ("a", "b"):
        folder = tmp_path / attempt
        folder.mkdir()
        trained(name).save(folder)
        assert [path.name for path in folder.iterdir()] == ["vocabulary.json"]
        contents.append((folder / "vocabulary.json").read_bytes())
        type(trained(name)).load(trained(name).config, folder).save(folder)
        contents.append((folder / "vocabulary.json").read_bytes())
    assert len(set(contents)) == 1
    assert json.loads(contents[0])["specials"] == list(SPECIALS)
    with pytest.raises(Exception):  # noqa: B017
        list(pickletools.genops(contents[0]))


@pytest.mark.parametrize("name", ["bpe gpt2", "hf-bpe gpt2", "bpe none"])
@settings(max_examples=10, deadline=None)
@given(order=st.permutations(TRAINING))
def test_the_order_of_documents_does_not_matter(name, order):
    tokenizer = trained(name)
    other = type(tokenizer)(tokenizer.config)
    other.train(iter(order), SPECIALS)
    assert other.merges == tokenizer.merges


_FRESH = """
import sys
sys.path.insert(0, sys.argv[1])
from trap_texts import *
from corelm_tokenizers.{0} import {1} as Part
made = Part(Part.Config(vocab_size={2}))
made.train(TRAINING, SPECIALS)
print(made.merges, made.encode("".join(TRAINING)))
"""


@pytest.mark.parametrize("part", [("bpe", "BytePairTokenizer"), ("hf_bpe", "LibraryBytePairTokenizer")])
def test_hash_seeds_do_not_matter(part):
    outputs = set()
    for seed in ("0", "1"):
        command = [sys.executable, "-c", _FRESH.format(*part, SIZE), os.path.dirname(__file__)]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1


@pytest.mark.parametrize("name", ["bpe gpt2", "bpe none", "hf-bpe cl100k"])
@settings(max_examples=60, deadline=None)
@given(text=texts)
def test_more_merges_never_give_more_tokens(name, text):
    lengths = [len(_with(name, merges).encode(text)) for merges in (0, 40, 120, MERGES)]
    assert lengths == sorted(lengths, reverse=True)


@cache
def _with(name, merges):
    full = trained(name)
    made = type(full)(full.config)
    made._set(full.merges[:merges], ())
    return made


@every
def test_a_lone_surrogate_is_refused_with_its_place(name):
    for call in (trained(name).encode, lambda text: trained(name).encode_batch(["fine", text])):
        with pytest.raises(UserError, match=r"lone surrogate \(U\+D800\) at character 3") as caught:
            call("abc\ud800d")
        assert caught.value.code == "lone-surrogate"


@pytest.mark.parametrize("name", ["bpe gpt2", "hf-bpe gpt2"])
def test_training_refuses_a_lone_surrogate(name):
    made = type(trained(name))(trained(name).config)
    with pytest.raises(UserError, match="lone surrogate"):
        made.train(["fine", "\udfff"])


@every
@pytest.mark.parametrize("wrong", [-1, 10**6])
def test_ids_outside_the_vocabulary_are_refused(name, wrong):
    with pytest.raises(UserError, match=f"token id {wrong} is outside the vocabulary of"):
        trained(name).decode([65, wrong])


@every
def test_an_untrained_tokenizer_says_so(name):
    made = type(trained(name))(trained(name).config)
    for call in (lambda: made.encode("a"), lambda: made.decode([1]), lambda: made.vocab_size):
        with pytest.raises(UserError, match="has no vocabulary yet"):
            call()


@pytest.mark.parametrize("part", [BytePairTokenizer, LibraryBytePairTokenizer])
def test_a_vocabulary_that_the_text_cannot_fill_is_refused_with_the_size_that_it_can(part):
    with pytest.raises(UserError, match="only 259 different pieces") as caught:
        part(part.Config(vocab_size=5000)).train(["abc", "abc"])
    reachable = caught.value.details["reachable"]
    made = part(part.Config(vocab_size=reachable))
    made.train(["abc", "abc"])
    assert made.vocab_size == reachable
    with pytest.raises(UserError, match="no room for 256 bytes and 4 special tokens"):
        part(part.Config(vocab_size=258)).train(["abc"], SPECIALS)


@every
@pytest.mark.parametrize("specials", [("<a>", "<a>"), ("",)])
def test_special_tokens_must_differ_and_say_something(name, specials):
    with pytest.raises(UserError, match="special token is"):
        type(trained(name))(trained(name).config)._set((), specials)


@every
@pytest.mark.parametrize(
    "content", [None, b"", b"{}", b'{"merges": [[1, 999]], "specials": []}', b'{"merges": [[-1, 3]], "specials": []}']
)
def test_a_damaged_file_is_refused_by_name(name, content, tmp_path):
    if content is not None:
        (tmp_path / "vocabulary.json").write_bytes(content)
    with pytest.raises(UserError, match=r"vocabulary\.json: not a readable vocabulary"):
        type(trained(name)).load(trained(name).config, tmp_path)
