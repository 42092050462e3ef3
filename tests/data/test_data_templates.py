"""Templates: prefixes, roles that only the template can open, and what is learnt."""

from functools import cache
from pathlib import Path

import pytest
from corelm_data.chatml import ChatTemplate
from corelm_data.plain import PlainTemplate
from corelm_tokenizers.bpe import BytePairTokenizer
from corelm_tokenizers.bytes import ByteTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from corelm.errors import UserError
from corelm.kinds import END_OF_TEXT, Message

SPECIALS = (END_OF_TEXT, "<|im_start|>", "<|im_end|>")
_MARKERS = [
    *SPECIALS,
    *[
        "<|im_start|>assistant\n",
        "assistant\n",
        "user\n",
        "\nAnswer:\n",
        "Question:",
        "<|im_end|>\n<|im_start|>user\n",
    ],
    *["<|im_start", "\n", "\n\n", " ", "  ", "yes", "👩‍👩‍👧", "e\u0301", ""],
]
contents = st.one_of(st.text(max_size=12), *[st.lists(st.sampled_from(_MARKERS), max_size=6).map("".join)] * 3)
contents = contents.filter(lambda text: not any(0xD800 <= ord(c) < 0xE000 for c in text))
messages = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), contents), max_size=5)
TEMPLATES = [
    ChatTemplate(ChatTemplate.Config()),
    PlainTemplate(PlainTemplate.Config()),
    PlainTemplate(PlainTemplate.Config(user="<|im_start|>", assistant="A\n", system="S")),
]
every = pytest.mark.parametrize("template", TEMPLATES, ids=["chatml", "plain", "plain-odd"])


@cache
def tokenizers():
    trained = BytePairTokenizer(BytePairTokenizer.Config(vocab_size=256 + 150 + 3))
    trained.train(["".join(_MARKERS) * 2, Path(__file__).read_text(encoding="utf-8")], SPECIALS)
    plain = ByteTokenizer(ByteTokenizer.Config())
    plain.train([], SPECIALS)
    return trained, plain


@every
@settings(max_examples=150, deadline=None)
@given(turns=messages)
def test_rendering_the_first_turns_is_a_prefix_of_rendering_all(template, turns):
    for tokenizer in tokenizers():
        whole = template.render(turns, tokenizer)
        assert len(whole.ids) == len(whole.learn)
        for count in range(len(turns) + 1):
            part = template.render(turns[:count], tokenizer)
            assert whole.ids[: len(part.ids)] == part.ids
            assert whole.learn[: len(part.ids)] == part.learn


@every
@settings(max_examples=150, deadline=None)
@given(turns=messages, answer=contents)
def test_a_prompt_ends_where_the_answer_begins(template, turns, answer):
    for tokenizer in tokenizers():
        prompt = template.prompt(turns, tokenizer)
        whole = template.render([*turns, Message("assistant", answer)], tokenizer)
        assert whole.ids[: len(prompt)] == prompt
        said = tokenizer.encode(answer)
        after = whole.ids[len(prompt) :]
        assert list(after[: len(said)]) == said
        assert after[len(said)] == template.stop(tokenizer)[0]
        assert list(whole.learn[len(prompt) :]) == [True] * (len(said) + 1) + [False] * (len(after) - len(said) - 1)


@every
@settings(max_examples=150, deadline=None)
@given(turns=messages)
def test_exactly_what_the_assistant_says_is_learnt_stop_token_included(template, turns):
    for tokenizer in tokenizers():
        rendered = template.render(turns, tokenizer)
        learnt = [token for token, learn in zip(rendered.ids, rendered.learn, strict=True) if learn]
        stop = template.stop(tokenizer)[0]
        expected = [[*tokenizer.encode(m.content), stop] for m in turns if m.role == "assistant"]
        assert learnt == [token for turn in expected for token in turn]


@every
@settings(max_examples=150, deadline=None)
@given(turns=messages)
def test_content_never_opens_or_ends_a_turn(template, turns):
    for tokenizer in tokenizers():
        controls = [token for token in template.render(turns, tokenizer).ids if token in tokenizer.specials.values()]
        empty = [Message(turn.role, "") for turn in turns]
        expected = [t for t in template.render(empty, tokenizer).ids if t in tokenizer.specials.values()]
        assert controls == expected
        assert {*controls} <= {tokenizer.specials[token] for token in template.specials(template.config)}


def test_chatml_is_written_as_published():
    turns = [Message("system", "Be brief."), Message("user", "Why?"), Message("assistant", "Because.")]
    text = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
    for tokenizer in tokenizers():
        assert tokenizer.decode(TEMPLATES[0].render(turns[:2], tokenizer).ids) == text
        assert tokenizer.decode(TEMPLATES[0].prompt(turns[:2], tokenizer)) == text + "<|im_start|>assistant\n"
        whole = TEMPLATES[0].render(turns, tokenizer)
        assert tokenizer.decode(whole.ids) == text + "<|im_start|>assistant\nBecause.<|im_end|>\n"
        learnt = [token for token, learn in zip(whole.ids, whole.learn, strict=True) if learn]
        assert tokenizer.decode(learnt) == "Because.<|im_end|>"


def test_plain_is_written_as_documented():
    turns = [Message("user", "What is it?"), Message("assistant", "It is.")]
    for tokenizer in tokenizers():
        text = tokenizer.decode(TEMPLATES[1].render(turns, tokenizer).ids)
        assert text == "Question:\nWhat is it?<|endoftext|>Answer:\nIt is.<|endoftext|>"
        assert text.splitlines()[0] in PlainTemplate.__doc__


@every
def test_a_tokenizer_without_the_special_tokens_is_refused(template):
    bare = ByteTokenizer(ByteTokenizer.Config())
    bare.train([], ("<other>",))
    with pytest.raises(UserError, match=r"the tokenizer has no special token <\|") as caught:
        template.render([Message("user", "x")], bare)
    assert caught.value.code == "special-token-missing"


def test_headings_that_cannot_be_told_apart_are_refused():
    with pytest.raises(ValidationError, match="the three headings must differ"):
        PlainTemplate.Config(user="A:", assistant="A:")
