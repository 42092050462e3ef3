import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parts_helpers import EXACT, Setting, build, layer, normal
from torch import nn

from corelm.kinds import Heads, declared

SIZES = {"heads": 3, "kv_lora_rank": 6, "qk_nope_head_dim": 4, "qk_rope_head_dim": 2, "v_head_dim": 5}


def latent(seed=0, sharp=1.0, **options):
    return build("attention", {"use": "latent", **SIZES, **options}, layer(12), seed=seed, scale=sharp)


@st.composite
def situations(draw):
    """A latent attention in some surroundings, and its input."""
    options = draw(
        st.sampled_from(
            [
                {},
                {"q_lora_rank": 7, "down_bias": True, "output_bias": True},
                {"q_lora_rank": 2, "scale": 0.3, "norm": {"use": "rmsnorm", "eps": 0.1}},
                {"kv_lora_rank": 2, "norm": "layernorm"},
            ]
        )
    )
    seed, length = draw(st.integers(0, 999)), draw(st.integers(1, 8))
    part = latent(seed=seed, sharp=draw(st.sampled_from([1, 4])), **options)
    position = draw(st.sampled_from([[], ["rope"], [{"use": "rope", "pairing": "interleaved"}, "alibi"]]))
    mask = draw(st.sampled_from([["causal", "documents"], [{"use": "window", "size": 3}, "documents"]]))
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand(2, length, generator=generator) > 0.3 if draw(st.booleans()) else None
    documents = (torch.rand(2, length, generator=generator) > 0.6).cumsum(1) if draw(st.booleans()) else None
    return Setting(part, position, mask, valid, documents), normal(2, length, 12, seed=seed)


def naive(setting, x):
    """The definition, from the matrices, one head and one query at a time."""
    part, (batch, time, _) = setting.part, x.shape
    options, step = part.config, setting.step(batch, 0, time)
    plain, rotated = options.qk_nope_head_dim, options.qk_rope_head_dim
    short = x if options.q_lora_rank is None else part.query_norm(part.query_down(x))
    c = part.latent_norm(part.latent(x))
    allowed = step.mask.dense(step.step.index, step.step.index)
    bias = step.position.scores(step.step.index, step.step.index)
    scale = options.scale or (plain + rotated) ** -0.5
    mixed = []
    for h in range(options.heads):
        q = short @ part.query.weight[h * (plain + rotated) : (h + 1) * (plain + rotated)].T
        k = c @ part.key.weight[h * plain : (h + 1) * plain].T
        v = c @ part.value.weight[h * options.v_head_dim : (h + 1) * options.v_head_dim].T
        turned, key = step.position.rotate(q[:, None, :, plain:], part.rotary_key(x)[:, None])
        scores = scale * (q[..., :plain] @ k.transpose(1, 2) + (turned @ key.transpose(2, 3))[:, 0])
        if bias is not None:
            scores = scores + bias[:, h]
        one = torch.zeros(batch, time, options.v_head_dim, dtype=x.dtype)
        for b in range(batch):
            for t in range(time):
                seen = allowed[b % len(allowed), 0, t]
                if seen.any():
                    one[b, t] = scores[b, t, seen].softmax(0) @ v[b, seen]
        mixed.append(one)
    return part.output(torch.cat(mixed, -1))


@settings(max_examples=50, deadline=None)
@given(situations(), st.data())
def test_read_out_absorbed_and_naive_are_the_same(situation, data):
    setting, x = situation
    part = setting.part
    with torch.no_grad():
        expected = naive(setting, x)
        torch.testing.assert_close(setting.run(x), expected, **EXACT)
        splits, left = [], x.shape[1]
        while left:
            splits.append(data.draw(st.integers(1, min(3, left)), label="length"))
            left -= splits[-1]
        for way in (True, False):
            part.absorbs = lambda time, keys, way=way: way
            torch.testing.assert_close(setting.cached(x, splits), expected, **EXACT)
    torch.testing.assert_close(setting.run(x).detach(), expected, **EXACT)


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_positions_act_on_the_rotated_parts_alone(pairing):
    part = latent()
    with torch.no_grad():
        part.rotary_key.weight.zero_()
    x = normal(2, 5, 12)
    turned = Setting(part, [{"use": "rope", "pairing": pairing}]).run(x)
    torch.testing.assert_close(turned, Setting(part).run(x), **EXACT)


def test_one_short_vector_and_one_key_are_stored_per_token():
    (spec,) = latent().slots(4).values()
    assert spec.fields == {"latent": (1, 6 + 2)}
    assert (spec.grows, spec.window) == (True, 4)


def test_few_queries_of_many_keys_are_carried_into_the_space_of_the_short_vectors():
    part = build(
        "attention",
        {
            "use": "latent",
            "heads": 4,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
        },
        layer(64),
    )
    assert part.absorbs(1, 1000)
    assert part.absorbs(8, 1000)
    assert not part.absorbs(1000, 1000)
    assert not part.absorbs(1, 1)
    part.key = Wrapped(part.key)
    assert part.absorbs(1, 1000)
    assert not part.absorbs(1, 400)  # its matrix costs as much as reading out 512 tokens


class Wrapped(nn.Module):
    """A map that shows no weight."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def test_maps_that_are_wrapped_give_the_same():
    part, x = latent(), normal(2, 6, 12)
    setting = Setting(part, ["rope"])
    part.absorbs = lambda time, keys: True
    with torch.no_grad():
        expected = setting.cached(x, [3, 1, 1, 1])
        part.key, part.value = Wrapped(part.key), Wrapped(part.value)
        torch.testing.assert_close(setting.cached(x, [3, 1, 1, 1]), expected, **EXACT)


@pytest.mark.parametrize("absorbed", [False, True])
def test_gradients_reach_the_past_through_both_forms(absorbed):
    part = latent(q_lora_rank=3)
    setting = Setting(part, ["rope"])
    part.absorbs = lambda time, keys: absorbed
    assert torch.autograd.gradcheck(lambda x: setting.cached(x, [2, 1]), (normal(1, 3, 12).requires_grad_(),))


def test_long_calls_hold_no_scores_of_all_pairs():
    part = latent().float()
    q, k = torch.zeros(1, 3, 2048, 6), torch.zeros(1, 3, 2048, 6)
    assert part.kernel(Heads(q, k, torch.zeros(1, 3, 2048, 5), 1.0), plain=True, biased=False) == "sdpa-causal"


def test_bfloat16_autocast_is_near_float64():
    part, x = latent(q_lora_rank=8), normal(2, 16, 12)
    setting = Setting(part, ["rope"], documents=torch.arange(16).expand(2, -1) // 8)
    exact = setting.run(x).detach()
    part.float()
    for absorbed in (False, True):
        part.absorbs = lambda time, keys, absorbed=absorbed: absorbed
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            found = setting.cached(x.float(), [10, 1, 4, 1])
        assert float((found.double() - exact).abs().max()) < 0.05 * float(exact.abs().max())


def test_maps_down_have_biases_if_asked_and_maps_up_have_none():
    infos = {name: info for name, _, info in declared(latent(q_lora_rank=4, down_bias=True))}
    biases = {name for name, info in infos.items() if info.role == "bias"}
    assert biases == {"query_down.bias", "latent.bias", "rotary_key.bias"}
    assert infos["output.weight"].residual
