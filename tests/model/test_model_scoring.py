"""Likelihoods are what a slow, direct computation gives."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_helpers import CONTEXT, with_bytes

from corelm.kinds import Request
from corelm.model import scoring

LETTERS = st.text("ab \n\té中", max_size=8)
MODEL = with_bytes()


def direct(ids, scored, model=MODEL):
    """Sum over the last tokens, one full pass each, and whether each was the likeliest."""
    total, likeliest = 0.0, True
    for at in range(len(ids) - scored, len(ids)):
        logprobs = model.logits(torch.tensor([ids[:at]]))[0, -1].log_softmax(-1)
        total += float(logprobs[ids[at]])
        likeliest &= int(logprobs.argmax()) == ids[at]
    return total, likeliest


def split(context, continuation, model=MODEL):
    """Ids of both together, and how many are scored, as lm-evaluation-harness does it."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    before, both = model.tokenize(context), model.tokenize(context + continuation)
    both = both if before else [model.tokenizer.end_of_text, *both]
    return both[-(CONTEXT + 1) :], min(len(both) - max(len(before), 1), CONTEXT)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(LETTERS, LETTERS.filter(bool)), min_size=1, max_size=5))
def test_likelihoods_are_those_of_a_direct_computation_whatever_is_asked_with_them(pairs):
    answers = MODEL.loglikelihood([Request(*pair) for pair in pairs])
    for pair, answer in zip(pairs, answers, strict=True):
        ids, scored = split(*pair)
        logprob, greedy = direct(ids, scored)
        assert answer.tokens == scored
        assert answer.logprob == pytest.approx(logprob, abs=1e-9)
        assert answer.greedy == greedy


def test_white_space_moves_from_the_context_to_the_continuation():
    for space in (" ", "\n", " \n\t "):
        assert MODEL.loglikelihood([Request("ab" + space, "c")]) == MODEL.loglikelihood([Request("ab", space + "c")])


def test_tokens_that_merge_over_the_boundary_are_split_by_count():
    class Merging:
        """Pairs of letters from the left."""

        end_of_text = 256

        def encode(self, text):
            return [sum(map(ord, text[i : i + 2])) % 256 for i in range(0, len(text), 2)]

    model = with_bytes()
    model._tokenizer = Merging()
    (answer,) = model.loglikelihood([Request("abc", "def")])
    assert answer.tokens == 1, "3 pairs less the 2 of the context alone"
    assert answer.logprob == pytest.approx(direct(Merging().encode("abcdef"), 1, model)[0], abs=1e-9)


def test_a_greedy_continuation_is_recognised():
    for letter in range(ord("a"), ord("z") + 1):
        made = MODEL.generate_ids(torch.tensor([[letter]]), max_new_tokens=2)[0].tolist()
        if max(made) < 128:
            context, continuation = chr(letter), bytes(made).decode()
            break
    else:
        raise AssertionError("no letter is followed by ASCII; choose another seed")
    assert MODEL.loglikelihood([Request(context, continuation)])[0].greedy
    assert not MODEL.loglikelihood([Request(context, continuation + "\x01\x02")])[0].greedy


@settings(max_examples=25, deadline=None)
@given(st.text("abc", max_size=3 * CONTEXT + 5))
def test_rolling_scores_every_token_once_with_as_much_before_it_as_its_window_holds(text):
    seen = []
    original, scoring._likelihoods = scoring._likelihoods, lambda model, windows, count: seen.extend(windows) or []
    try:
        MODEL.rolling_loglikelihood([text])
    finally:
        scoring._likelihoods = original
    ids = [MODEL.tokenizer.end_of_text, *MODEL.tokenize(text)]
    assert [token for window in seen for token in window.ids[-window.scored :]] == ids[1:]
    for number, window in enumerate(seen):
        assert len(window.ids) <= CONTEXT + 1
        full = len(window.ids) == CONTEXT + 1
        assert full or number == 0, "only a text that is shorter than the context has a short window"
    total, _ = zip(*[direct(w.ids, w.scored) for w in seen], strict=True) if seen else ((0.0,), ())
    (answer,) = MODEL.rolling_loglikelihood([text])
    assert answer.tokens == len(ids) - 1
    assert answer.logprob == pytest.approx(sum(total), abs=1e-9)


def test_batch_sizes_and_order_change_nothing(monkeypatch):
    texts = ["a" * n + "b" for n in (1, 30, 7, 0, 13, 2)]
    together = MODEL.rolling_loglikelihood(texts)
    monkeypatch.setattr(scoring, "BATCH_TOKENS", 1)
    order = random.Random(0).sample(range(len(texts)), len(texts))
    alone = MODEL.rolling_loglikelihood([texts[number] for number in order])
    for number, answer in zip(order, alone, strict=True):
        assert together[number].logprob == pytest.approx(answer.logprob, abs=1e-9)
        assert together[number].tokens == answer.tokens


def test_nothing_to_score_is_zero():
    assert MODEL.rolling_loglikelihood([]) == []
    (answer,) = MODEL.rolling_loglikelihood([""])
    assert (answer.logprob, answer.tokens) == (0.0, 0)
    (answer,) = MODEL.loglikelihood([Request("ab", "")])
    assert (answer.logprob, answer.tokens) == (0.0, 0)


def test_generation_stops_before_the_first_stop_string(monkeypatch):
    model = with_bytes()
    given_ids = []

    def pieces(ids, max_new_tokens):
        given_ids.append(ids)
        yield from ["ab", "c\n", "\nd"]

    monkeypatch.setattr(model, "pieces", pieces)
    assert model.generate_until(["x"], ["\n\n"], max_new_tokens=5) == ["abc"]
    assert model.generate_until(["x"], ["\n", "bc"], max_new_tokens=5) == ["a"]
    assert model.generate_until(["x"], [], max_new_tokens=5) == ["abc\n\nd"]
    model.generate_until(["", "y" * 40], [], max_new_tokens=5)
    assert given_ids[-2:] == [[model.tokenizer.end_of_text], [ord("y")] * (CONTEXT - 5)]


def test_long_prompts_leave_room_for_the_new_tokens_where_positions_end():
    model = with_bytes(position="learned")
    (text,) = model.generate_until(["y" * 40], ["never"], max_new_tokens=CONTEXT)
    assert isinstance(text, str)
