import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parts_helpers import EXACT, Setting, build, layer, normal

from corelm.errors import UserError
from corelm.kinds import ModelContext, Spec, declared


def erf_gelu(x):
    return x * (1 + math.erf(x / math.sqrt(2))) / 2


def tanh_gelu(x):
    return x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


FORMULAS = {
    "silu": lambda x: x * sigmoid(x),
    "gelu": erf_gelu,
    "gelu-tanh": tanh_gelu,
    "quick-gelu": lambda x: x * sigmoid(1.702 * x),
    "relu": lambda x: max(x, 0.0),
    "relu-squared": lambda x: max(x, 0.0) ** 2,
    "sigmoid": sigmoid,
    "identity": lambda x: x,
}


def activated(name, x):
    """The activation's formula on every element, in Python floats."""
    return torch.tensor([FORMULAS[name](e) for e in x.flatten().tolist()], dtype=torch.float64).view(x.shape)


@pytest.mark.parametrize("name", FORMULAS)
def test_every_activation_is_its_formula(name):
    x = torch.cat((torch.linspace(-6, 6, 61, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)))
    activation = build("activation", name)
    torch.testing.assert_close(activation(x), activated(name, x), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(activation.combine(x, x + 1), activated(name, x) * (x + 1), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("options", [{}, {"limit": 1.5, "slope": 1.0}])
def test_the_clamped_unit_is_its_formula(options):
    limit, slope = options.get("limit", 7.0), options.get("slope", 1.702)
    gates, values = torch.linspace(-12, 12, 49, dtype=torch.float64), torch.linspace(11, -11, 49, dtype=torch.float64)

    def pair(gate, value):
        gate = min(gate, limit)
        return (max(-limit, min(value, limit)) + 1) * gate * sigmoid(slope * gate)

    expected = [pair(g, v) for g, v in zip(gates.tolist(), values.tolist(), strict=True)]
    activation = build("activation", {"use": "clamped-swiglu", **options})
    torch.testing.assert_close(
        activation.combine(gates, values), torch.tensor(expected, dtype=torch.float64), **EXACT
    )
    torch.testing.assert_close(activation.combine(gates, 0 * values), activation(gates), **EXACT)


def run(part, x, **facts):
    return part(x, Setting(part, **facts, mask=["causal"]).step(len(x), 0, x.shape[1]))


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("bias", [True, False])
def test_dense_feedforwards_are_their_formulas(name, bias):
    x = normal(2, 3, 6)
    mlp = build("feedforward", {"use": "mlp", "activation": name, "bias": bias, "width": 5}, layer(6))
    glu = build("feedforward", {"use": "glu", "activation": name, "bias": bias, "width": 5}, layer(6))

    def affine(linear, x):
        return x @ linear.weight.T + (linear.bias if bias else 0)

    torch.testing.assert_close(run(mlp, x), affine(mlp.down, activated(name, affine(mlp.up, x))), **EXACT)
    gated = activated(name, affine(glu.gate, x)) * affine(glu.up, x)
    torch.testing.assert_close(run(glu, x), affine(glu.down, gated), **EXACT)
    assert glu.down.weight.shape == (6, 5)
    if not bias:
        assert torch.equal(run(glu, 0 * x), 0 * x)


def test_swiglu_is_the_gated_unit_with_silu():
    x = normal(2, 3, 6)
    swiglu, glu = (build("feedforward", {"use": use}, layer(6)) for use in ("swiglu", "glu"))
    assert torch.equal(run(swiglu, x), run(glu, x))
    with pytest.raises(Exception, match="activation"):
        Spec.read("feedforward", {"use": "swiglu", "activation": "relu"})


@pytest.mark.parametrize(("dim", "width"), [(24, 64), (25, 128), (256, 704), (768, 2048), (4096, 10944)])
def test_default_widths(dim, width):
    with torch.device("meta"):
        assert Spec.read("feedforward", "swiglu").build(layer(dim)).up.outputs == width
        assert Spec.read("feedforward", "mlp").build(layer(dim)).up.outputs == 4 * dim


@pytest.mark.parametrize("use", ["mlp", "glu", "swiglu", "moe"])
def test_tokens_do_not_mix_and_gradients_are_right(use):
    part = build("feedforward", use, layer(3))
    jacobian = torch.autograd.functional.jacobian(lambda x: run(part, x), normal(1, 4, 3))
    for t in range(4):
        for s in range(4):
            assert bool(jacobian[0, t, :, 0, s].abs().max() > 0) == (s == t)
    assert torch.autograd.gradcheck(lambda x: run(part, x), (normal(1, 3, 3).requires_grad_(),))


@pytest.mark.parametrize("use", ["mlp", "glu", "moe"])
def test_feedforwards_can_be_made_without_memory_and_declare_every_parameter(use):
    with torch.device("meta"):
        part = Spec.read("feedforward", use).build(layer(8))
    infos = {name: info for name, _, info in declared(part)}
    assert all(info.residual == (name.endswith("down.weight")) for name, info in infos.items())
    assert [name for name, info in infos.items() if info.role == "router"] == (
        ["router.weight"] if use == "moe" else []
    )


ROUTERS = st.fixed_dictionaries(
    {
        "bias": st.booleans(),
        "selection_bias": st.booleans(),
        "weigh": st.sampled_from(["output", "input"]),
        "score": st.sampled_from(["softmax", "sigmoid"]),
        "order": st.sampled_from(["score-then-top-k", "top-k-then-score"]),
        "normalise": st.booleans(),
        "scale": st.sampled_from([1.0, 2.5]),
    }
)


def mixture(experts=4, chosen=2, seed=0, scale=1.0, router=None, **options):
    config = {"use": "moe", "experts": experts, "expert": {"use": "swiglu", "width": 4}, **options}
    config["router"] = {"use": "top-k", "chosen": chosen, **(router or {})}
    return build("feedforward", config, layer(5), seed=seed, scale=scale)


def routed(part, token):
    """Experts and weights of one token, by the definition."""
    config, router = part.config.router.config, part.router
    logits = (router.weight @ token + (router.bias if config.bias else 0)).tolist()
    everyone = range(len(logits))
    exps = [math.exp(logit) for logit in logits]
    scores = [sigmoid(a) for a in logits] if config.score == "sigmoid" else [a / sum(exps) for a in exps]
    if config.selection_bias:
        scores = [a + b for a, b in zip(scores, router.selection_bias.tolist(), strict=True)]
    size = len(logits) // config.groups
    counted = 2 if config.group_score == "best-two" else 1
    quality = [sum(sorted(scores[g * size : (g + 1) * size])[-counted:]) for g in range(config.groups)]
    kept = sorted(range(config.groups), key=lambda g: -quality[g])[: config.groups_kept]
    allowed = [e for e in everyone if e // size in kept]
    best = sorted(allowed, key=lambda e: -scores[e])[: config.chosen]
    if config.score == "sigmoid":
        weights = {e: sigmoid(logits[e]) for e in best}
    else:
        among = best if config.order == "top-k-then-score" else range(len(logits))
        weights = {e: math.exp(logits[e]) / sum(math.exp(logits[i]) for i in among) for e in best}
    total = sum(weights.values()) if config.normalise else 1.0
    return {e: config.scale * w / total for e, w in weights.items()}


@settings(max_examples=60, deadline=None)
@given(
    router=ROUTERS,
    experts=st.integers(1, 5),
    data=st.data(),
    shared=st.sampled_from(["none", "whole", "gated"]),
    seed=st.integers(0, 99),
)
def test_a_mixture_is_the_weighted_sum_of_the_chosen_experts(router, experts, data, shared, seed):
    chosen = data.draw(st.integers(1, experts), label="chosen")
    options = {} if shared == "none" else {"shared": {"use": "mlp", "width": 3}, "shared_gate": shared == "gated"}
    part = mixture(experts, chosen, seed, router=router, **options)
    if router["selection_bias"]:
        part.router.selection_bias.copy_(normal(experts, seed=seed + 1))
    x = normal(2, data.draw(st.integers(1, 6), label="time"), 5, seed=seed)
    y = run(part, x)
    for row in range(2):
        for t in range(x.shape[1]):
            token = x[row : row + 1, t : t + 1]
            weights = routed(part, token[0, 0])
            if router["weigh"] == "input":
                expected = sum(part.experts[e](w * token, None) for e, w in weights.items())
            else:
                expected = sum(w * part.experts[e](token, None) for e, w in weights.items())
            if shared != "none":
                gate = torch.sigmoid(token[0, 0] @ part.shared_gate.weight[0]) if shared == "gated" else 1.0
                expected = expected + gate * part.shared(token, None)
            torch.testing.assert_close(y[row, t], expected[0, 0], **EXACT)


@settings(max_examples=60, deadline=None)
@given(
    groups=st.sampled_from([(2, 1), (2, 2), (3, 2), (4, 1), (4, 3), (12, 3)]),
    group_score=st.sampled_from(["best", "best-two"]),
    score=st.sampled_from(["softmax", "sigmoid"]),
    biased=st.booleans(),
    seed=st.integers(0, 99),
)
def test_grouped_routing_is_its_definition(groups, group_score, score, biased, seed):
    options = {
        "groups": groups[0],
        "groups_kept": groups[1],
        "group_score": group_score,
        "score": score,
        "scale": 2.5,
    }
    part = mixture(12, 3, seed, router={**options, "selection_bias": biased})
    if biased:
        part.router.selection_bias.copy_(normal(12, seed=seed + 1) / 4)
    x = normal(9, 5, seed=seed)
    routing = part.router(x)
    for token, experts, weights in zip(x, routing.experts.tolist(), routing.weights.tolist(), strict=True):
        assert dict(zip(experts, weights, strict=True)) == pytest.approx(routed(part, token), abs=1e-12)


def test_a_selection_bias_is_saved_and_never_trained():
    part = mixture(4, 2, router={"selection_bias": True})
    assert "router.selection_bias" in part.state_dict()
    assert "router.selection_bias" not in dict(part.named_parameters())
    assert torch.equal(part.router.selection_bias, torch.zeros(4, dtype=torch.float64))
    part.requires_grad_(True)
    run(part, normal(1, 6, 5)).sum().backward()
    assert part.router.selection_bias.grad is None


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_routing_survives_scores_that_are_all_rounded_to_nothing_or_to_one(score):
    part = mixture(4, 2, router={"score": score}).float()
    with torch.no_grad():
        part.router.weight.copy_(torch.tensor([[-200.0], [-300.0], [-210.0], [-400.0]]).expand(-1, 5))
        ones = torch.ones(2, 5)
        low, high = part.router(ones), part.router(-ones)
    assert low.weights.isfinite().all()
    assert low.probabilities.isfinite().all()
    assert sorted(low.experts[0].tolist()) == [0, 2]
    assert sorted(high.experts[0].tolist()) == [1, 3]


def test_all_experts_chosen_is_the_dense_mixture():
    part = mixture(3, 3, router={"normalise": False})
    x = normal(2, 4, 5)
    p = (x @ part.router.weight.T).softmax(-1)
    dense = sum(p[..., e, None] * part.experts[e](x, None) for e in range(3))
    torch.testing.assert_close(run(part, x), dense, **EXACT)


def test_equal_experts_are_one_and_unchosen_ones_do_not_matter():
    part = mixture(4, 2)
    x = normal(1, 1, 5)
    chosen = part.router(x[0]).experts[0].tolist()
    before = run(part, x)
    with torch.no_grad():
        for e in set(range(4)) - set(chosen):
            part.experts[e].down.weight.add_(100)
        assert torch.equal(run(part, x), before)
        for e in range(1, 4):
            part.experts[e].load_state_dict(part.experts[0].state_dict())
    torch.testing.assert_close(run(part, x), part.experts[0](x, None), **EXACT)


def reported(part, x, **facts):
    step = Setting(part, mask=["causal"], **facts).step(len(x), 0, x.shape[1])
    part.train()(x, step)
    return step.step.auxiliary


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), chosen=st.integers(1, 3), padded=st.booleans())
def test_auxiliary_losses_are_their_formulas_over_real_tokens(seed, chosen, padded):
    part = mixture(4, chosen, seed, balance=0.5, z_loss=0.25)
    x = normal(2, 6, 5, seed=seed)
    valid = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]], dtype=torch.bool) if padded else None
    real = x[valid] if padded else x.flatten(0, 1)
    logits = real @ part.router.weight.T
    share, mean = torch.zeros(4, dtype=torch.float64), logits.softmax(-1).mean(0)
    for token in real:
        for e in routed(part, token):
            share[e] += 1 / (chosen * len(real))
    losses = reported(part, x, valid=valid)
    torch.testing.assert_close(losses["balance"][0], 0.5 * 4 * (share * mean).sum(), **EXACT)
    torch.testing.assert_close(losses["router-z"][0], 0.25 * logits.logsumexp(-1).square().mean(), **EXACT)
    losses["balance"][0].backward()
    assert part.router.weight.grad.abs().max() > 0


def test_balance_is_one_when_uniform_and_nothing_is_reported_in_evaluation():
    part = mixture(4, 4, balance=1.0)
    with torch.no_grad():
        part.router.weight.zero_()
    torch.testing.assert_close(reported(part, normal(1, 5, 5))["balance"][0].item(), 1.0)
    assert "router-z" not in reported(part, normal(1, 5, 5))
    step = Setting(part, mask=["causal"]).step(1, 0, 5)
    part.eval()(normal(1, 5, 5), step)
    assert step.step.auxiliary == {}
    nothing = torch.zeros(1, 5, dtype=torch.bool)
    assert reported(part, normal(1, 5, 5), valid=nothing) == {}


def test_every_expert_and_the_router_learn():
    part = mixture(4, 2)
    run(part, normal(4, 16, 5)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())


def test_router_scores_are_float32_under_autocast():
    part = mixture(4, 2).float()
    x = normal(8, 5).float()
    with torch.autocast("cpu", torch.bfloat16):
        routing = part.router(x.bfloat16())
        y = part(x[None], Setting(part, mask=["causal"]).step(1, 0, 8))
    assert routing.logits.dtype == routing.weights.dtype == torch.float32
    torch.testing.assert_close(routing.logits, x.bfloat16().float() @ part.router.weight.T)
    assert y.dtype == torch.float32


def test_an_empty_batch_is_transformed_to_itself():
    assert run(mixture(), normal(1, 3, 5)[:0]).shape == (0, 3, 5)


def test_impossible_mixtures_are_refused():
    def problems(**options):
        spec = Spec.read("feedforward", {"use": "moe", **options})
        return [(p.path, p.code) for p in spec.part.check(spec.config, ModelContext(16, 1, 8, 0))]

    assert problems() == []
    too_many = {"use": "top-k", "chosen": 3}
    assert problems(experts=2, router=too_many) == [(("router",), "more-chosen-than-experts")]
    assert problems(expert="moe") == [(("expert",), "mixture-in-mixture")]
    assert problems(shared_gate=True) == [(("shared_gate",), "gate-without-shared")]
    for groups in ({"groups": 3}, {"groups": 2, "groups_kept": 3}):
        assert problems(router={"use": "top-k", **groups}) == [(("router",), "groups-do-not-divide")]
    few = {"use": "top-k", "chosen": 5, "groups": 2}
    assert problems(router=few) == [(("router",), "more-chosen-than-experts")]
    with pytest.raises(UserError, match="3 of only 2 experts"):
        build("feedforward", {"use": "moe", "experts": 2, "router": too_many}, layer(5))
