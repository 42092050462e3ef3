import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parts_helpers import build, normal

from corelm.errors import UserError

SAMPLERS = ["temperature", "top-k", "top-p", "min-p", "greedy", "repetition-penalty"]


@st.composite
def logits_and_ids(draw, dtype=torch.float64):
    """Distinct logits of some scale, one of them −∞ at times, and tokens so far."""
    seed, vocab = draw(st.integers(0, 9999)), draw(st.integers(2, 30))
    logits = (normal(3, vocab, seed=seed) * draw(st.sampled_from([0.1, 1.0, 5.0]))).to(dtype)
    if draw(st.booleans()):
        logits[1, 0] = -math.inf
    ids = torch.randint(vocab, (3, draw(st.integers(1, 5))), generator=torch.Generator().manual_seed(seed))
    return logits, ids


def sampler(name, **options):
    return build("sampler", {"use": name, **options})


def warped(warper, logits, ids):
    return warper(ids, logits.clone())


@settings(max_examples=60, deadline=None)
@given(
    logits_and_ids(torch.float32),
    st.floats(0.05, 5.0),
    st.integers(1, 40),
    st.floats(0.05, 0.999),
    st.floats(0.01, 0.99),
)
def test_filters_equal_those_of_transformers(drawn, temperature, k, p, penalty):
    from transformers.generation import logits_process as hf

    logits, ids = drawn
    pairs = [
        (sampler("temperature", value=temperature), hf.TemperatureLogitsWarper(temperature)),
        (sampler("top-k", k=k), hf.TopKLogitsWarper(k)),
        (sampler("top-p", p=p), hf.TopPLogitsWarper(p)),
        (sampler("min-p", p=p), hf.MinPLogitsWarper(p)),
        (sampler("repetition-penalty", penalty=1 + penalty), hf.RepetitionPenaltyLogitsProcessor(1 + penalty)),
        (sampler("repetition-penalty", penalty=penalty), hf.RepetitionPenaltyLogitsProcessor(penalty)),
    ]
    for ours, theirs in pairs:
        assert torch.equal(ours(logits, ids), warped(theirs, logits, ids)), type(ours).__name__


@settings(max_examples=60, deadline=None)
@given(logits_and_ids(), st.floats(0.01, 0.999))
def test_top_p_keeps_the_smallest_set_that_reaches_p(drawn, p):
    logits, ids = drawn
    kept = sampler("top-p", p=p)(logits, ids).isfinite()
    for probabilities, row in zip(logits.softmax(-1), kept, strict=True):
        mass = float(probabilities[row].sum())
        assert mass >= p - 1e-12
        assert mass - float(probabilities[row].min()) < p + 1e-12
        dropped = probabilities[~row]
        assert not len(dropped) or float(probabilities[row].min()) >= float(dropped.max())


@settings(max_examples=60, deadline=None)
@given(logits_and_ids(), st.integers(1, 40), st.floats(0.0, 1.0))
def test_supports_are_as_declared(drawn, k, p):
    logits, ids = drawn
    rows = logits.isfinite().sum(-1)
    assert torch.equal(sampler("top-k", k=k)(logits, ids).isfinite().sum(-1), rows.clamp(max=k))
    greedy = sampler("greedy")(logits, ids)
    assert torch.equal(greedy.isfinite().nonzero()[:, 1], logits.argmax(-1))
    probabilities = logits.softmax(-1)
    expected = (probabilities >= p * probabilities.amax(-1, keepdim=True)) & logits.isfinite()
    assert torch.equal(sampler("min-p", p=p)(logits, ids).isfinite(), expected)


@pytest.mark.parametrize("name", SAMPLERS)
@settings(max_examples=25, deadline=None)
@given(logits_and_ids())
def test_every_sampler_is_a_pure_function_of_each_row(name, drawn):
    logits, ids = drawn
    copy, part = logits.clone(), sampler(name)
    result = part(logits, ids)
    assert torch.equal(logits, copy)
    assert result.dtype == logits.dtype
    assert bool(result.isfinite().any(-1).all())
    assert bool(result[~logits.isfinite()].eq(-math.inf).all())
    for row in range(3):
        assert torch.equal(part(logits[row : row + 1], ids[row : row + 1])[0], result[row])
    if name not in ("temperature", "repetition-penalty"):
        kept = result.isfinite()
        assert torch.equal(result[kept], logits[kept])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("temperature", {"value": 1.0}),
        ("top-k", {"k": 1000}),
        ("top-p", {"p": 1.0}),
        ("min-p", {"p": 0.0}),
        ("repetition-penalty", {"penalty": 1.0}),
    ],
)
def test_neutral_settings_change_no_bit(name, options):
    logits = normal(3, 50) * 40
    assert torch.equal(sampler(name, **options)(logits, torch.zeros(3, 1, dtype=torch.long)), logits)


@pytest.mark.parametrize("name", SAMPLERS)
def test_nan_raises_and_says_where(name):
    logits = normal(2, 5)
    logits[1, 3] = math.nan
    for options in [{}] + ([{"p": 1.0}] if name == "top-p" else []):
        with pytest.raises(UserError, match="token 3 in row 1 is NaN") as error:
            sampler(name, **options)(logits, torch.zeros(2, 1, dtype=torch.long))
        assert error.value.code == "logits-nan"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tiny_temperatures_give_the_most_likely_token(dtype):
    logits = torch.tensor([[1.0, 3.0, -math.inf, 2.9], [0.1, 0.2, 0.3, 0.4]], dtype=dtype)
    for value in (1e-4, 1e-30, 1e-300):
        result = sampler("temperature", value=value)(logits, torch.zeros(2, 1, dtype=torch.long))
        torch.testing.assert_close(result.softmax(-1).amax(-1), torch.ones(2, dtype=dtype))
        assert result.argmax(-1).tolist() == [1, 3]
    cooler = [sampler("temperature", value=t)(logits, None).softmax(-1)[0, 1] for t in (0.5, 1.0, 2.0)]
    assert cooler[0] > cooler[1] > cooler[2]


def test_a_tiny_nucleus_is_the_most_likely_token():
    logits = normal(300, 40).float()
    kept = sampler("top-p", p=1e-12)(logits, torch.zeros(300, 1, dtype=torch.long)).isfinite()
    assert torch.equal(kept.nonzero()[:, 1], logits.argmax(-1))


def test_repetition_counts_once_and_never_raises_a_seen_token():
    logits = torch.tensor([[2.0, -2.0, 0.0, 1.0]])
    penalty = sampler("repetition-penalty", penalty=2.0)
    assert penalty(logits, torch.tensor([[0, 1, 1, 0]])).tolist() == [[1.0, -4.0, 0.0, 1.0]]


def test_ties_are_kept_by_top_k_and_broken_by_greedy():
    logits, ids = torch.tensor([[1.0, 5.0, 5.0, 5.0]]), torch.zeros(1, 1, dtype=torch.long)
    assert sampler("top-k", k=1)(logits, ids).isfinite().tolist() == [[False, True, True, True]]
    assert sampler("greedy")(logits, ids).isfinite().tolist() == [[False, True, False, False]]


@pytest.mark.parametrize(
    ("name", "options"), [("temperature", {"value": 0.0}), ("top-k", {"k": 0}), ("top-p", {"p": 0.0})]
)
def test_settings_that_mean_nothing_are_refused(name, options):
    with pytest.raises(Exception, match="greater than 0"):
        sampler(name, **options)
