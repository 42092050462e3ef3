"""Generation: rows don't know of each other, text comes in whole characters, nothing outside is touched."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_helpers import CONTEXT, VOCABULARY, config_of, configs, model_of, tokens, with_bytes

from corelm.errors import UserError
from corelm.kinds import Message, Spec
from corelm.kinds.batch import pad_rows
from corelm.model.generation import draw

HOT = [Spec.read("sampler", {"use": "temperature", "value": 1.5}).build()]


def greedy(model, ids, count):
    """Every token from a full pass, without state."""
    row = ids.clone()
    for _ in range(count):
        row = torch.cat([row, model.logits(row)[:, -1:].argmax(-1)], dim=1)
    return row[:, ids.shape[1] :]


@settings(max_examples=30, deadline=None)
@given(configs(), st.integers(1, 6), st.integers(0, 6))
def test_greedy_generation_takes_the_likeliest_token_of_a_full_pass(config, time, count):
    model, ids = model_of(config), tokens(1, time)
    assert model.generate_ids(ids, max_new_tokens=count).tolist() == greedy(model, ids, count).tolist()


@settings(max_examples=30, deadline=None)
@given(configs(), st.lists(st.integers(1, 6), min_size=2, max_size=4), st.booleans())
def test_batch_mates_change_no_rows_choices(config, lengths, sampled):
    model, rows = model_of(config), [tokens(1, length, seed)[0].tolist() for seed, length in enumerate(lengths)]
    ids, valid = pad_rows(rows, left=True)
    options = {"max_new_tokens": 5, "samplers": HOT if sampled else (), "stop": (0, 1, 2)}
    seeds = [7 * number for number in range(len(rows))]
    together = model.generate_ids(ids, valid=valid, seeds=seeds, **options)
    for number, row in enumerate(rows):
        alone = model.generate_ids(torch.tensor([row]), seeds=seeds[number : number + 1], **options)[0].tolist()
        made = together[number].tolist()
        assert made[: len(alone)] == alone
        assert set(made[len(alone) :]) <= {alone[-1]}, "after its stop token a row repeats it"


def test_seeds_decide_and_equal_seeds_agree():
    model, ids = model_of(), tokens(1, 4).expand(3, -1)
    made = model.generate_ids(ids, max_new_tokens=8, samplers=HOT, seeds=[1, 1, 2])
    assert made[0].tolist() == made[1].tolist()
    assert made[0].tolist() != made[2].tolist()
    with pytest.raises(ValueError, match="shorter"):
        model.generate_ids(ids, max_new_tokens=1, samplers=HOT, seeds=[1])


def test_draws_follow_the_distribution():
    logits = torch.tensor([0.5, -1.0, 2.0, -torch.inf, 0.0], dtype=torch.float64)
    counts = torch.zeros(5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4000):
        counts[draw(logits[None], [generator])] += 1
    expected = 4000 * torch.softmax(logits, -1)
    assert counts[3] == 0
    kept = expected > 0
    # χ² with 3 degrees of freedom; above 44 by chance once in 10⁸ times
    assert float(((counts - expected)[kept] ** 2 / expected[kept]).sum()) < 44


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2.0**-53])
def test_a_draw_is_never_a_forbidden_token_even_at_the_ends(monkeypatch, uniform):
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor([uniform], dtype=torch.float64))
    for seed in range(300):
        logits = torch.randn(1, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        logits[0, [0, 1, 5, 8]] = -torch.inf
        assert int(draw(logits, [torch.Generator()])) in (2, 3, 4, 6, 7)


def test_it_ends_when_every_row_has_stopped_and_not_before():
    model, ids = model_of(), tokens(2, 4)
    free = model.generate_ids(ids, max_new_tokens=8)
    stop = int(free[0, 2])
    made = model.generate_ids(ids[:1], max_new_tokens=8, stop=(stop,))
    assert made.shape[1] == free[0].tolist().index(stop) + 1
    assert int(made[0, -1]) == stop
    assert model.generate_ids(ids, max_new_tokens=0).shape == (2, 0)


def test_generation_goes_beyond_the_context_where_positions_allow_and_says_so_where_not():
    ids = tokens(1, CONTEXT)
    assert model_of(position="rope").generate_ids(ids, max_new_tokens=5).shape == (1, 5)
    learned = model_of(position="learned")
    assert learned.generate_ids(ids[:, 1:], max_new_tokens=2).shape == (1, 2)
    with pytest.raises(UserError, match="10 tokens and 4 new ones go beyond the 12 positions") as error:
        learned.generate_ids(ids[:, :10], max_new_tokens=4)
    assert error.value.code == "beyond-positions"
    assert "at most 3 new tokens" in error.value.remedy
    assert learned.generate_ids(ids[:, :10], max_new_tokens=3).shape == (1, 3)


def test_padding_does_not_count_against_the_positions():
    learned = model_of(position="learned")
    valid = torch.arange(CONTEXT + 4)[None] >= 8
    assert learned.generate_ids(tokens(1, CONTEXT + 4), valid=valid, max_new_tokens=5).shape == (1, 5)


def test_prompts_padded_on_the_right_and_empty_ones_are_refused():
    model = model_of()
    with pytest.raises(UserError, match="padded on the left"):
        model.generate_ids(tokens(1, 3), valid=torch.tensor([[True, True, False]]), max_new_tokens=1)
    with pytest.raises(UserError, match="nothing to continue"):
        model.generate_ids(torch.zeros(1, 0, dtype=torch.long), max_new_tokens=1)


def test_filters_see_the_tokens_so_far_and_double_precision():
    model, ids, seen = model_of(), tokens(2, 3), []

    class Looks(type(HOT[0])):
        def __call__(self, logits, ids):
            seen.append((logits.dtype, ids.tolist()))
            return logits

    made = model.generate_ids(ids, max_new_tokens=3, samplers=[Looks(HOT[0].config)])
    assert [dtype for dtype, _ in seen] == [torch.float64] * 3
    assert [row for _, row in seen] == [torch.cat([ids, made[:, :n]], dim=1).tolist() for n in range(3)]


def test_generating_leaves_modes_gradients_and_random_states_as_they_were():
    model = with_bytes().train()
    model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    states = torch.random.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    stream = model.generate("abc", 6, HOT, stream=True)
    for _ in range(3):
        next(stream)
        assert torch.is_grad_enabled(), "between two pieces gradients are on"
        assert [module.training for module in model.modules()] == modes
    model.generate("abc", 3)
    model.logits(tokens(1, 3), cached=True)
    model.rolling_loglikelihood(["abc"])
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]


def test_an_error_inside_leaves_modes_as_they_were():
    model = with_bytes(position="learned").train()
    with pytest.raises(UserError, match="beyond"):
        model.logits(tokens(1, CONTEXT + 1))
    assert all(module.training for module in model.modules())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("cached", [False, True])
def test_cached_logits_are_the_logits(cached):
    model, ids = model_of(), tokens(2, 6)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    expected = model.head(model.hidden(ids, valid=mask.bool())).detach()
    made = model.logits(ids, mask, cached=cached)
    torch.testing.assert_close(made[mask.bool()], expected[mask.bool()], atol=1e-10, rtol=1e-10)
    assert torch.equal(model.logits(ids, torch.ones_like(ids)), model.logits(ids))


class Script:
    """A head that writes given tokens, whatever the hidden states."""

    def __init__(self, model, ids):
        self.rest = list(ids)
        self.size = model.vocab_size
        model.head.forward = self.logits

    def logits(self, hidden):
        logits = torch.zeros(*hidden.shape[:-1], self.size)
        logits[..., self.rest.pop(0)] = 9.0
        return logits


def test_streamed_pieces_are_whole_characters_and_make_the_text():
    text = "aé中🙂z"
    model = with_bytes()
    ids = model.tokenizer.encode(text)
    Script(model, [*ids, model.tokenizer.end_of_text])
    assert list(model.generate("x", 64, stream=True)) == list(text)
    Script(model, [*ids, model.tokenizer.end_of_text, *ids])
    assert model.generate("x", 64) == text
    Script(model, ids)
    assert model.generate("x", 4) == "aé\ufffd", "a character that was cut off is marked at the end"


def test_text_ends_where_the_template_ends_the_turn():
    model = with_bytes()
    from corelm.kinds.tokenizer import END_OF_TEXT

    template = Spec.read("template", "chatml").build()
    tokenizer = Spec.read("tokenizer", "bytes").build()
    tokenizer.train([], (END_OF_TEXT, *template.specials(template.config)))
    model = model_of(config_of(context=64), vocabulary=tokenizer.vocab_size)
    model.attach(tokenizer, template)
    (end,) = template.stop(tokenizer)
    Script(model, [*b" yes ", end, *b"no"])
    assert model.generate("x") == " yes "
    Script(model, [*b" yes ", end, *b"no"])
    assert model.answer([Message("user", "well?")]) == "yes"
    Script(model, [*b"yes", tokenizer.end_of_text])
    assert model.answer([Message("user", "well?")]) == "yes"


def test_without_tokenizer_or_template_there_is_a_clear_word():
    with pytest.raises(UserError, match="without a tokenizer"):
        model_of().generate("x")
    with pytest.raises(UserError, match="not tuned on conversations"):
        with_bytes().answer([Message("user", "x")])
    with pytest.raises(UserError, match="the tokenizer has 257 ids, the model 23"):
        model_of().attach(with_bytes().tokenizer)
    with pytest.raises(TypeError, match="must be a string, not list"):
        with_bytes().generate([1])


def test_an_empty_prompt_starts_after_the_end_of_a_text():
    model = with_bytes(head={"use": "language-model", "tied": False})
    start = torch.tensor([[model.tokenizer.end_of_text]])
    assert model.generate("", 3)
    assert model.generate("", 3) == model.tokenizer.decode(model.generate_ids(start, max_new_tokens=3)[0].tolist())


def test_samplers_may_be_parts_specs_or_names():
    model = with_bytes()
    spec = Spec.read("sampler", {"use": "temperature", "value": 1.5})
    texts = {
        model.generate("abc", 6, sampler, seed=3)
        for sampler in (HOT, [spec], spec, {"use": "temperature", "value": 1.5})
    }
    assert len(texts) == 1
    assert model.generate("abc", 6, "greedy", seed=3) == model.generate("abc", 6)
    assert model.vocab_size > VOCABULARY


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"position": "learned"}, {"position": ["alibi", "query-temperature"]}])
def test_a_model_that_has_written_can_be_trained_on_what_it_wrote(options, dtype):
    model = model_of(**options).to(dtype)
    made = model.generate_ids(tokens(1, 3), max_new_tokens=4)
    made.add_(0)  # no tensor of inference mode comes out
    model.train()
    model.logprobs(made[:, :-1], made[:, 1:]).sum().backward()
    assert any(bool(parameter.grad.any()) for parameter in model.parameters() if parameter.grad is not None)
