import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parts_helpers import EXACT, HEADS, Hot, Setting, build, layer, normal

from corelm.kinds import LayerContext, ModelContext, Spec, declared

OPTIONS = [
    {},
    {"qk_norm": "rmsnorm"},
    {"softcap": 2.0},
    {"scale": 0.7, "qkv_bias": True},
    {"output_bias": True, "qk_norm": {"use": "layernorm"}},
    {"sinks": True},
    {"sinks": True, "softcap": 2.0, "inverse_layer_scale": True},
    {"output_gate": True, "qkv_bias": True},
    {"qk_norm": "rmsnorm", "qk_norm_of": "vector"},
    {"qk_norm": {"use": "rmsnorm", "weight": False}, "qk_norm_of": "rotated", "sinks": True, "output_gate": True},
]


@st.composite
def situations(draw, shortest=1):
    """An attention in some surroundings, and its input."""
    heads, kv_heads = draw(HEADS)
    options = {"heads": heads, "kv_heads": kv_heads, "head_dim": 4}
    options |= draw(st.sampled_from(OPTIONS))
    seed, length = draw(st.integers(0, 999)), draw(st.integers(shortest, 8))
    place = LayerContext(12, 3, 64, 0, index=draw(st.sampled_from([0, 2])))
    part = build("attention", {"use": "gqa", **options}, place, seed=seed, scale=draw(st.sampled_from([1, 5])))
    position = draw(
        st.sampled_from(
            [[], ["rope"], ["alibi"], [{"use": "rope", "fraction": 0.5, "pairing": "interleaved"}, "alibi"]]
        )
    )
    mask = draw(
        st.sampled_from(
            [["causal", "documents"], ["causal"], [{"use": "window", "size": 3}, "documents"], ["documents"]]
        )
    )
    generator = torch.Generator().manual_seed(seed)
    valid = documents = None
    if draw(st.booleans()):
        valid = torch.rand(2, length, generator=generator) > 0.3
    if draw(st.booleans()):
        documents = (torch.rand(2, length, generator=generator) > 0.6).cumsum(1)
    return Setting(part, position, mask, valid, documents), normal(2, length, 12, seed=seed)


def loop_oracle(setting, x):
    """The definition, one score at a time."""
    part, (batch, time, _) = setting.part, x.shape
    config, group = part.config, part.heads // part.kv_heads
    step = setting.step(batch, 0, time)
    q, k = part.query(x), part.key(x)
    if config.qk_norm is not None and config.qk_norm_of == "vector":
        q, k = part.query_norm(q), part.key_norm(k)
    q, k = q.unflatten(-1, (part.heads, -1)), k.unflatten(-1, (part.kv_heads, -1))
    v = part.value(x).unflatten(-1, (part.kv_heads, -1))
    if config.qk_norm is not None and config.qk_norm_of == "head":
        q, k = part.query_norm(q), part.key_norm(k)
    q, k = step.position.rotate(q.transpose(1, 2), k.transpose(1, 2))
    if config.qk_norm is not None and config.qk_norm_of == "rotated":
        q, k = part.query_norm(q), part.key_norm(k)
    scale = (config.scale or part.head_dim**-0.5) / (part.layer.index + 1 if config.inverse_layer_scale else 1)
    bias = step.position.scores(step.step.index, step.step.index)
    allowed = step.mask.dense(step.step.index, step.step.index)
    heads = torch.zeros(batch, time, part.heads, part.head_dim, dtype=x.dtype)
    for b in range(batch):
        for h in range(part.heads):
            for t in range(time):
                weights = {}
                for s in range(time):
                    if not allowed[b % len(allowed), 0, t, s]:
                        continue
                    score = float(q[b, h, t] @ k[b, h // group, s]) * scale
                    if config.softcap is not None:
                        score = config.softcap * math.tanh(score / config.softcap)
                    if bias is not None:
                        score += float(bias[b % len(bias), h, t, s])
                    weights[s] = score
                if weights:
                    top = max(weights.values())
                    total = sum(math.exp(w - top) for w in weights.values())
                    if config.sinks:
                        total += math.exp(float(part.sinks[h]) - top)
                    for s, w in weights.items():
                        heads[b, t, h] += math.exp(w - top) / total * v[b, s, h // group]
    gate = torch.sigmoid(part.gate(x)) if config.output_gate else 1.0
    return part.output(heads.flatten(2) * gate)


@settings(max_examples=50, deadline=None)
@given(situations())
def test_the_result_is_the_definition_whatever_the_kernel(situation):
    setting, x = situation
    with torch.no_grad():
        expected = loop_oracle(setting, x)
        torch.testing.assert_close(setting.run(x), expected, **EXACT)
    torch.testing.assert_close(setting.run(x).detach(), expected, **EXACT)


@settings(max_examples=50, deadline=None)
@given(situations(shortest=2), st.data())
def test_any_split_into_cached_calls_gives_the_whole(situation, data):
    setting, x = situation
    if not any(rule.causal for rule in setting.rules):
        setting.rules.append(Spec.read("mask", "causal").build())
    splits, left = [], x.shape[1]
    while left:
        splits.append(data.draw(st.integers(1, min(3, left)), label="length"))
        left -= splits[-1]
    with torch.no_grad():
        torch.testing.assert_close(setting.cached(x, splits), setting.run(x), **EXACT)


@settings(max_examples=30, deadline=None)
@given(situations(shortest=2), st.sampled_from([1.0, 1e2, 1e4]))
def test_no_later_token_changes_a_bit(situation, magnitude):
    setting, x = situation
    setting.rules.append(Spec.read("mask", "causal").build())
    cut = x.shape[1] // 2
    changed = torch.cat((x[:, :cut], normal(2, x.shape[1] - cut, 12, seed=7) * magnitude), 1)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            assert torch.equal(setting.run(x)[:, :cut], setting.run(changed)[:, :cut])


def test_the_jacobian_has_exactly_the_support_of_the_window():
    part = build("attention", {"use": "gqa", "heads": 4, "kv_heads": 2}, layer(16))
    setting = Setting(part, ["rope"], [{"use": "window", "size": 3}])
    jacobian = torch.autograd.functional.jacobian(setting.run, normal(1, 7, 16))
    for t in range(7):
        for s in range(7):
            assert bool(jacobian[0, t, :, 0, s].abs().max() > 1e-12) == (t - 3 < s <= t), (t, s)


@pytest.mark.parametrize("name", ["gqa", "gated-linear"])
def test_schemes_that_change_queries_alone_are_asked(name):
    part = build("attention", {"use": name, "heads": 2, "head_dim": 4}, layer(8))
    seen = []
    plain, hot = Setting(part, ["rope"]), Setting(part, ["rope"])
    hot.schemes.append(Hot(None, part.geometry))
    scheme = hot.schemes[-1]
    original = scheme.scale_query
    scheme.scale_query = lambda q, prepared: seen.append(q.shape) or original(q, prepared)
    x = normal(1, 5, 8)
    assert "query" in part.offers(part.config)
    assert not torch.allclose(plain.run(x), hot.run(x), atol=1e-9)
    assert seen == [(1, 2, 5, 4)]
    torch.testing.assert_close(hot.cached(x, [2, 1, 2]), hot.run(x), **EXACT)


def test_padding_and_other_documents_never_matter():
    part = build("attention", {"use": "gqa", "heads": 4, "kv_heads": 2, "qk_norm": "rmsnorm"}, layer(16))
    a, b, pad = normal(1, 3, 16), normal(1, 4, 16, seed=1), 100 * normal(1, 2, 16, seed=2)
    alone = [Setting(part, ["rope", "alibi"]).run(x) for x in (a, b)]
    row = torch.cat((pad, a, pad, b, pad), 1)
    valid = torch.tensor([[0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0]], dtype=torch.bool)
    documents = torch.tensor([[0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]])
    y = Setting(part, ["rope", "alibi"], valid=valid, documents=documents).run(row)
    torch.testing.assert_close(y[:, 2:5], alone[0], **EXACT)
    torch.testing.assert_close(y[:, 7:11], alone[1], **EXACT)
    assert y.isfinite().all()


def test_layers_share_what_masks_and_biases_add_to_scores():
    part = build("attention", {"use": "gqa", "heads": 4}, layer(16))
    documents = torch.tensor([[0, 0, 1, 1, 1]])
    step = Setting(part, ["alibi"], documents=documents).step(1, 0, 5)
    x = normal(1, 5, 16)
    first = part(x, step)
    assert len(step.mask.addends) == 1
    kept = step.mask.addends[0][3]
    assert torch.equal(part(x, step), first)
    assert len(step.mask.addends) == 1
    assert step.mask.addends[0][3] is kept


def test_a_norm_that_commutes_with_the_rotation_gives_the_same_before_and_after_it():
    x, outputs = normal(2, 5, 16), []
    for place in ("head", "rotated"):
        options = {"qk_norm": {"use": "rmsnorm", "weight": False}, "qk_norm_of": place}
        part = build("attention", {"use": "gqa", "heads": 4, "kv_heads": 2, **options}, layer(16))
        outputs.append(Setting(part, ["rope"]).run(x))
    torch.testing.assert_close(*outputs, **EXACT)


def test_grouped_heads_are_multi_head_attention_with_repeated_keys_and_values():
    grouped = build("attention", {"use": "gqa", "heads": 6, "kv_heads": 2, "head_dim": 4}, layer(12))
    full = build("attention", {"use": "gqa", "heads": 6, "head_dim": 4}, layer(12))
    with torch.no_grad():
        for name in ("key", "value"):
            weight = getattr(grouped, name).weight.unflatten(0, (2, 4))
            getattr(full, name).weight.copy_(weight.repeat_interleave(3, 0).flatten(0, 1))
        for name in ("query", "output"):
            getattr(full, name).weight.copy_(getattr(grouped, name).weight)
    x = normal(2, 5, 12)
    torch.testing.assert_close(Setting(grouped, ["rope"]).run(x), Setting(full, ["rope"]).run(x), **EXACT)


@pytest.mark.parametrize(
    "options", [{}, {"qk_norm": "rmsnorm", "softcap": 3.0}, {"sinks": True, "output_gate": True}]
)
def test_gradients_are_right(options):
    part = build("attention", {"use": "gqa", "heads": 2, "head_dim": 2, **options}, layer(4))
    setting = Setting(part, ["rope", "alibi"], valid=torch.tensor([[False, True, True]]))
    assert torch.autograd.gradcheck(setting.run, (normal(1, 3, 4).requires_grad_(),))


def test_huge_scores_stay_finite():
    part = build("attention", {"use": "gqa", "heads": 2}, layer(8), scale=300.0)
    x = normal(1, 5, 8).requires_grad_()
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            y = Setting(part).run(x)
            assert y.isfinite().all()
    Setting(part).run(x).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("mask", [["causal"], ["causal", "documents"]])
def test_bfloat16_autocast_is_near_float64(mask):
    part = build("attention", {"use": "gqa", "heads": 4, "kv_heads": 2, "qk_norm": "rmsnorm"}, layer(32))
    x = normal(2, 16, 32)
    setting = Setting(part, ["rope", "alibi"], mask, documents=torch.arange(16).expand(2, -1) // 8)
    exact = setting.run(x).detach()
    part.float()
    for gradients in (True, False):
        with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(gradients):
            y = setting.run(x.float())
        assert float((y.detach().double() - exact).abs().max()) < 0.04 * float(exact.abs().max())


def test_dropout_acts_in_training_only():
    part = build("attention", {"use": "gqa", "heads": 4, "dropout": 0.5, "output_dropout": 0.25}, layer(16))
    setting, x = Setting(part), normal(2, 6, 16)
    assert torch.equal(setting.run(x), setting.run(x))
    part.train()
    torch.manual_seed(0)
    first = setting.run(x)
    assert not torch.equal(first, setting.run(x))
    assert 0.1 < float((first == 0).double().mean()) < 0.4


@pytest.mark.parametrize(
    ("options", "path", "code"),
    [
        ({"heads": 5}, ("heads",), "heads-do-not-divide-dim"),
        ({"heads": 4, "kv_heads": 3}, ("kv_heads",), "kv-heads-do-not-divide-heads"),
        ({"heads": 4, "qk_norm_of": "vector"}, ("qk_norm_of",), "qk-norm-of-without-qk-norm"),
    ],
)
def test_impossible_heads_are_refused(options, path, code):
    spec = Spec.read("attention", {"use": "gqa", **options})
    (problem,) = spec.part.check(spec.config, ModelContext(16, 1, 8, 0))
    assert (problem.path, problem.code) == (path, code)


@pytest.mark.parametrize("name", ["gqa", "gated-linear"])
def test_parts_can_be_made_without_memory_and_declare_every_parameter(name):
    spec = Spec.read("attention", {"use": name, "heads": 4})
    with torch.device("meta"):
        part = spec.build(layer(16))
    infos = {full: info for full, _, info in declared(part)}
    assert {p.device.type for p in part.parameters()} == {"meta"}
    assert infos["output.weight"].residual
    assert not infos["query.weight"].residual
