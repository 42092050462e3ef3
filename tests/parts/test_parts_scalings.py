"""Scalings of rotary frequencies, against those of transformers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from parts_helpers import build, normal
from pydantic import ValidationError

from corelm.errors import UserError
from corelm.kinds import Ladder, ModelContext, PositionGeometry, Spec

modeling_rope_utils = pytest.importorskip("transformers.modeling_rope_utils")
LlamaConfig = pytest.importorskip("transformers").LlamaConfig

FACTORS = st.sampled_from([1.0, 1.5, 4.0, 8.0, 40.0])
ORIGINALS = st.sampled_from([2, 16, 100, 4096, 8192])


def divisors(pairs):
    return st.lists(st.floats(0.5, 60, allow_nan=False), min_size=pairs, max_size=pairs)


@st.composite
def scalings(draw, pairs):
    """Ours, theirs (rope_parameters), and the context."""
    name = draw(st.sampled_from(["linear", "dynamic", "yarn", "llama3", "longrope"]))
    factor, original = draw(FACTORS), draw(ORIGINALS)
    context = original * draw(st.sampled_from([1, 2, 10]))
    ours, theirs = {"use": name, "factor": factor}, {"rope_type": name, "factor": factor}
    if name == "dynamic":
        return ours | {"original_context": original}, theirs, original
    if name in ("yarn", "llama3", "longrope"):
        ours["original_context"] = theirs["original_max_position_embeddings"] = original
    if name == "llama3":
        low, high = draw(st.sampled_from([(1.0, 4.0), (1.0, 1.5), (0.5, 32.0), (1.0, 1.0)]))
        return (
            ours | {"low_factor": low, "high_factor": high},
            theirs | {"low_freq_factor": low, "high_freq_factor": high},
            context,
        )
    if name == "linear":
        return ours, theirs, context
    same = {"yarn": ["beta_fast", "beta_slow", "mscale", "mscale_all_dim"], "longrope": []}[name]
    for option in ["attention_factor", *same]:
        value = draw(st.none() | st.sampled_from([0.707, 1.0, 2.0, 24.0]))
        if value is not None:
            ours[option] = theirs[option] = value
    if name == "yarn":
        ours["truncate"] = theirs["truncate"] = draw(st.booleans())
    else:
        for option in ("short_factor", "long_factor"):
            ours[option] = theirs[option] = draw(divisors(pairs))
    if draw(st.booleans()):
        ours["factor"] = theirs["factor"] = None
    return ours, theirs, context


@given(data=st.data(), rotated=st.sampled_from([4, 8, 64]), theta=st.sampled_from([500.0, 1e4, 5e5]))
def test_frequencies_and_factor_are_those_of_transformers(data, rotated, theta):
    ours, theirs, context = data.draw(scalings(rotated // 2))
    length = data.draw(st.sampled_from([1, context, context + 1, 5 * context]))
    spec = Spec.read("scaling", ours)
    scaling = spec.build(Ladder(theta, rotated, context))
    config = LlamaConfig(head_dim=rotated, max_position_embeddings=context)
    config.rope_parameters = theirs | {"rope_theta": theta}
    theirs_too = modeling_rope_utils.ROPE_INIT_FUNCTIONS[ours["use"]]
    expected, factor = theirs_too(config, torch.device("cpu"), seq_len=length)
    found = scaling.frequencies(None, torch.tensor([[length]]))
    torch.testing.assert_close(found.expand(1, 1, -1)[0, 0], expected.double(), rtol=2e-5, atol=0)
    assert scaling.attention_factor == pytest.approx(factor, rel=1e-6)


@given(data=st.data(), fraction=st.sampled_from([1.0, 0.5]))
def test_rope_turns_as_transformers_does(data, fraction):
    ours, theirs, context = data.draw(scalings(8 if fraction == 1 else 4))
    geometry = PositionGeometry(32, 2, 16, context)
    scheme = build("position", {"use": "rope", "theta": 1e4, "fraction": fraction, "scaling": ours}, geometry)
    config = LlamaConfig(head_dim=16, hidden_size=32, num_attention_heads=2, max_position_embeddings=context)
    config.rope_parameters = theirs | {"rope_theta": 1e4, "partial_rotary_factor": fraction}
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    time = min(3 * ours.get("original_context", 4), 40)
    q, k = normal(1, 2, time, 16).float(), normal(1, 1, time, 16, seed=1).float()
    positions = torch.arange(time)[None]
    rotary = llama.LlamaRotaryEmbedding(config)
    rotated = scheme.rotated
    wanted = llama.apply_rotary_pos_emb(q[..., :rotated], k[..., :rotated], *rotary(q, positions))
    lengths = torch.full_like(positions, time)
    found = scheme.rotate(q, k, scheme.prepare(positions, lengths))
    for mine, other, x in zip(found, wanted, (q, k), strict=True):
        torch.testing.assert_close(mine[..., :rotated], other, rtol=1e-4, atol=1e-4)
        assert torch.equal(mine[..., rotated:], x[..., rotated:])


def test_defaults_of_the_factor_follow_the_context_and_are_settled():
    context = ModelContext(8, 1, 400, 0)
    for value in (
        {"use": "yarn", "original_context": 100},
        {"use": "longrope", "original_context": 100, "short_factor": 1.0, "long_factor": 2.0},
    ):
        spec = Spec.read("scaling", value)
        settled = spec.part.settled(spec.config, context)
        assert settled.factor == 4.0
        ladder = Ladder(1e4, 8, 400)
        assert spec.part(settled, ladder).attention_factor == spec.build(ladder).attention_factor > 1
        assert spec.build(Ladder(1e4, 8, 50)).attention_factor == 1.0


def test_one_divisor_stands_for_all_pairs():
    options = {"use": "longrope", "original_context": 8, "factor": 2.0}
    ladder = Ladder(1e4, 8, 16)
    one = Spec.read("scaling", {**options, "short_factor": 1.0, "long_factor": 3.0}).build(ladder)
    four = Spec.read("scaling", {**options, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4}).build(ladder)
    for lengths in (None, torch.tensor([[8, 9]])):
        assert torch.equal(one.frequencies(None, lengths), four.frequencies(None, lengths))


def test_deepseek_scales_scores_by_what_the_docstring_says():
    # scale = g(mscale_all_dim)² / √head_dim, g(m) = 0.1 · m · ln(factor) + 1; here both factors of rotation cancel.
    value = {"use": "yarn", "factor": 40.0, "original_context": 4096, "mscale": 1.0, "mscale_all_dim": 1.0}
    assert Spec.read("scaling", value).build(Ladder(1e4, 64, 163840)).attention_factor == 1.0
    deepseek = pytest.importorskip("transformers.models.deepseek_v3.modeling_deepseek_v3")
    assert deepseek.yarn_get_mscale(40.0, 1.0) == pytest.approx(0.1 * math.log(40.0) + 1)


@pytest.mark.parametrize(
    ("scaling", "ladder", "code"),
    [
        ({"use": "dynamic", "factor": 2.0, "original_context": 8}, Ladder(1e4, 2, 8), "scaling-needs-two-pairs"),
        ({"use": "yarn", "factor": 2.0, "original_context": 8}, Ladder(1.0, 8, 8), "yarn-without-ladder"),
        (
            {"use": "longrope", "original_context": 8, "short_factor": [1.0], "long_factor": 2.0},
            Ladder(1e4, 8, 8),
            "longrope-factors-do-not-fit",
        ),
    ],
)
def test_a_ladder_that_a_scaling_does_not_fit_is_refused(scaling, ladder, code):
    spec = Spec.read("scaling", scaling)
    with pytest.raises(UserError) as error:
        spec.build(ladder)
    assert error.value.code == code
    assert error.value.remedy


def test_llama3_refuses_a_ramp_that_falls():
    spec = Spec.read("scaling", {"use": "llama3", "factor": 8.0, "original_context": 8, "low_factor": 5.0})
    (problem,) = spec.part.check(spec.config, None)
    assert problem.code == "low-factor-above-high"


@pytest.mark.parametrize("options", [{"factor": 0.5}, {}, {"factor": 2.0, "beta": 1}])
def test_linear_refuses_factors_below_one_and_unknown_options(options):
    with pytest.raises(ValidationError):
        Spec.read("scaling", {"use": "linear", **options})
