"""Tokenizers and templates in Hugging Face folders."""

import json

import pytest
import torch
from corelm_interchange.hugging_face import HuggingFace

from corelm.errors import UserError
from corelm.kinds import END_OF_TEXT, Message, Spec
from corelm.model.assemble import assemble
from corelm.model.config import ModelConfig
from corelm.model.loading import from_imported, load_tokenizer

transformers = pytest.importorskip("transformers")

PART = HuggingFace(HuggingFace.Config())
TEXT = [
    "the quick brown fox jumps over the lazy dog, and it's not 2024 any more.\n" * 3,
    "Ünïcödé — 北京 北京 北京 🙂🙂🙂",
]
CHATML = ("<|im_start|>", "<|im_end|>")


class Notes:
    stopping = False

    def __init__(self):
        self.notes = []

    def note(self, message):
        self.notes.append(message)


def tokenizer_of(use, **options):
    made = Spec.read("tokenizer", {"use": use, **options}).build()
    made.train(TEXT, (END_OF_TEXT, *CHATML))
    return made


def model_with(tokenizer, template=None):
    section = {
        "dim": 16,
        "layers": 1,
        "context": 64,
        "position": [{"use": "rope"}],
        "attention": {"use": "gqa", "heads": 2},
        "feedforward": {"use": "glu", "width": 24},
    }
    model = assemble(ModelConfig.model_validate(section), tokenizer.vocab_size)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    model.attach(tokenizer, Spec.read("template", template).build() if template else None)
    return model.eval()


@pytest.mark.parametrize(
    "options",
    [
        {"use": "bytes"},
        {"use": "bpe", "vocab_size": 290},
        {"use": "bpe", "vocab_size": 290, "pattern": "cl100k"},
        {"use": "hf-bpe", "vocab_size": 290},
        {"use": "hf-bpe", "vocab_size": 290, "pattern": "none"},
    ],
)
def test_tokenizers_are_equal_there_and_come_back(options, tmp_path):
    tokenizer, watch = tokenizer_of(**options), Notes()
    model = model_with(tokenizer)
    PART.write(model, tmp_path, watch)
    assert watch.notes[-1].endswith("equal logits, greedy ids and token ids")
    imported = PART.read(tmp_path)
    assert imported.notes == []
    again = from_imported(imported)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in (*TEXT, "  two  spaces\r\n", f"a{END_OF_TEXT}b", "e\u0301🙂\t0123456789"):
        ids = tokenizer.encode(text, allow_special=True)
        assert again.tokenizer.encode(text, allow_special=True) == theirs.encode(text) == ids
        assert theirs.decode(ids) == text
    assert theirs.eos_token_id == tokenizer.end_of_text
    assert imported.tokenizer.specials == tokenizer.specials
    assert load_tokenizer(tmp_path).specials == tokenizer.specials
    assert load_tokenizer(tmp_path / "tokenizer.json").encode(TEXT[0]) == tokenizer.encode(TEXT[0])


@pytest.mark.parametrize("template", ["chatml", {"use": "plain", "user": 'Say "it\'s" ä:'}])
def test_the_template_renders_the_same_text_there(template, tmp_path):
    tokenizer = tokenizer_of("bpe", vocab_size=290)
    model = model_with(tokenizer, template)
    PART.write(model, tmp_path, Notes())
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    messages = [
        Message("system", "Be brief."),
        Message("user", "What is\n\nit?  "),
        Message("assistant", "it's a fox"),
        Message("user", "{{ 1 + 1 }}"),
    ]
    plain = [{"role": message.role, "content": message.content} for message in messages]
    rendered = theirs.apply_chat_template(plain, tokenize=False)
    assert rendered == tokenizer.decode(model.template.render(messages, tokenizer).ids)
    prompted = theirs.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
    assert prompted == tokenizer.decode(model.template.prompt(messages, tokenizer))
    stops = json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"]
    assert stops == list(dict.fromkeys([tokenizer.end_of_text, *model.template.stop(tokenizer)]))


def test_generation_there_stops_where_ours_does(tmp_path):
    model = model_with(tokenizer_of("bytes"), "chatml")
    PART.write(model, tmp_path, Notes())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.tensor([[104, 105]])
    expected = model.generate_ids(ids, max_new_tokens=20, stop=[256, 258])[0].tolist()
    made = theirs.generate(ids, max_new_tokens=20)[0, 2:].tolist()
    assert made == expected[: len(made)]


def test_a_tokenizer_without_an_end_of_text_is_written_without(tmp_path):
    tokenizer = Spec.read("tokenizer", "bytes").build()
    tokenizer.train([], ())
    PART.write(model_with(tokenizer), tmp_path, Notes())
    assert transformers.AutoTokenizer.from_pretrained(tmp_path).eos_token is None
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] is None


def test_a_tokenizer_from_elsewhere_comes_along_as_it_is(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    PART.write(model_with(tokenizer_of("bytes")), tmp_path, Notes())
    foreign = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    foreign.pre_tokenizer = pre_tokenizers.Whitespace()
    foreign.save(str(tmp_path / "tokenizer.json"))
    imported = PART.read(tmp_path)
    assert imported.notes == []
    assert imported.tokenizer.encode("b a b") == [1, 0, 1]
    assert imported.tokenizer.decode([1, 0, 1]) == "b a b"


def test_a_tokenizer_that_no_part_can_be_is_left_out_and_said(tmp_path):
    PART.write(model_with(tokenizer_of("bytes")), tmp_path, Notes())
    (tmp_path / "tokenizer.json").write_text('{"model": "none that the library knows"}')
    imported = PART.read(tmp_path)
    assert imported.tokenizer is None
    (note,) = imported.notes
    assert note.startswith("no tokenizer: ") and "tokenizer.json, model: it has none" in note


def test_a_tokenizer_that_encodes_otherwise_there_is_noticed(tmp_path, monkeypatch):
    tokenizer = tokenizer_of("bpe", vocab_size=290)
    other = Spec.read("tokenizer", {"use": "bpe", "vocab_size": 280}).build()
    other.train(TEXT, (END_OF_TEXT, *CHATML))
    text = other.as_tokenizers_json()
    monkeypatch.setattr(type(tokenizer), "as_tokenizers_json", lambda self: text)
    with pytest.raises(UserError, match="transformers encodes"):
        PART.write(model_with(tokenizer), tmp_path, Notes())
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_cannot_be_said_is_reported(tmp_path, monkeypatch):
    tokenizer, watch = tokenizer_of("bytes"), Notes()
    monkeypatch.setattr(type(tokenizer), "as_tokenizers_json", lambda self: None)
    PART.write(model_with(tokenizer), tmp_path, watch)
    assert any("its part can't be said" in note for note in watch.notes)
    assert not (tmp_path / "tokenizer.json").exists()
