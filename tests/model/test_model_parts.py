"""The blocks, embeddings, heads and initialisations against their formulas, written out again."""

from __future__ import annotations

import math

import pytest
import torch
from model_helpers import GLU, GQA, close, config_of, model_of, tokens

from corelm.kinds import ModelContext, ParameterInfo, Spec
from corelm.model.stack import begin

FORMULAS = {
    "pre": lambda x, f, g, n: (x := x + f(n["pre a"](x))) + g(n["pre f"](x)),
    "post": lambda x, f, g, n: (x := n["out a"](x + f(x)), n["out f"](x + g(x)))[1],
    "branch-post": lambda x, f, g, n: (x := x + n["post a"](f(x))) + n["post f"](g(x)),
    "sandwich": lambda x, f, g, n: (x := x + n["post a"](f(n["pre a"](x)))) + n["post f"](g(n["pre f"](x))),
    "parallel": lambda x, f, g, n: x + f(h := n["pre both"](x)) + g(h),
    "parallel-norms": lambda x, f, g, n: x + f(n["own a"](x)) + g(n["own f"](x)),
}


def norms_of(block):
    subs, found = block.sub_layers, {}
    for key, short in (("attention", "a"), ("feedforward", "f"), ("attention_feedforward", "both")):
        if key in subs:
            found |= {f"pre {short}": subs[key].pre_norm, f"out {short}": subs[key].out_norm}
        for sub in subs.values():
            found |= {f"post {short}": sub.post_norms[key]} if key in sub.post_norms else {}
            found |= {f"own {short}": sub.branch_norms[key]} if key in sub.branch_norms else {}
    return {name: norm for name, norm in found.items() if norm is not None}


@pytest.mark.parametrize("layout", list(FORMULAS))
def test_a_layout_is_its_formula_and_has_the_norms_that_it_uses(layout):
    model = model_of(block={"use": "residual", "layout": layout}, layers=1)
    block, step = model.layers[0], begin(tokens(2, 5), None, None, None)
    view = model.prepare(step, None, step.positions)[0]
    x = torch.randn(2, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    used = {}

    class Seen(dict):
        def __getitem__(self, name):
            used[name] = True
            return super().__getitem__(name)

    norms = norms_of(block)
    expected = FORMULAS[layout](
        x, lambda h: block.attention(h, view), lambda h: block.feedforward(h, view), Seen(norms)
    )
    close(block(x, view), expected)
    assert set(used) == set(norms)
    assert len([n for n, _ in block.named_parameters() if "norm" in n]) == len(norms)


@pytest.mark.parametrize("layout", list(FORMULAS))
@pytest.mark.parametrize("only", ["attention", "feedforward"])
def test_a_layer_of_one_branch_is_the_layout_without_the_other(layout, only):
    other = "feedforward" if only == "attention" else "attention"
    model = model_of(block={"use": "residual", "layout": layout}, layers=1, **{other: None})
    block, step = model.layers[0], begin(tokens(2, 5), None, None, None)
    view = model.prepare(step, None, step.positions)[0]
    x = torch.randn(2, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (sub,) = block.sub_layers.values()

    def same(h):
        return h

    h = (sub.pre_norm or same)(x)
    h = sub.branch_norms[only](h) if only in sub.branch_norms else h
    y = getattr(block, only)(h, view)
    y = sub.post_norms[only](y) if only in sub.post_norms else y
    close(block(x, view), (sub.out_norm or same)(x + y))
    assert len([n for n, _ in block.named_parameters() if "norm" in n]) == (2 if layout == "sandwich" else 1)


def test_the_last_norm_may_be_left_out_or_be_one_of_its_own():
    ids = tokens(2, 4)
    plain = model_of(normed=False)
    assert plain.final_norm is None
    norms = {"norm": {"use": "rmsnorm", "eps": 1e-6}, "final_norm": {"use": "layernorm", "eps": 1e-3}}
    model = model_of(**norms)
    assert type(model.final_norm).__name__ == "LayerNorm"
    assert (model.final_norm.epsilon, model.layers[0].sub_layers["attention"].pre_norm.epsilon) == (1e-3, 1e-6)
    seen = []
    handle = model.final_norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    hidden = model.hidden(ids)
    handle.remove()
    wide = seen[0] - seen[0].mean(-1, keepdim=True)
    expected = wide / (wide.square().mean(-1, keepdim=True) + 1e-3).sqrt()
    close(hidden, expected * model.final_norm.weight + model.final_norm.bias)


def test_what_is_carried_and_added_can_be_scaled_and_be_the_normed_stream():
    options = {"use": "residual", "layout": "pre", "alpha": 0.5, "beta": 0.25, "carry": "normed"}
    model = model_of(block=options, layers=1, attention=None)
    block, step = model.layers[0], begin(tokens(1, 3), None, None, None)
    view = model.prepare(step, None, step.positions)[0]
    x = torch.randn(1, 3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    h = block.sub_layers["feedforward"].pre_norm(x)
    close(block(x, view), 0.5 * h + 0.25 * block.feedforward(h, view))


def test_dropout_is_of_what_is_added_and_only_while_training():
    model = model_of(block={"use": "residual", "dropout": 0.5}, embedding={"use": "token", "dropout": 0.5})
    ids = tokens(2, 6)
    assert torch.equal(model.hidden(ids), model.hidden(ids))
    model.train()
    assert not torch.equal(model.hidden(ids), model.hidden(ids))
    assert torch.equal(model.logits(ids), model.logits(ids))
    assert model.training


def test_embeddings_are_looked_up_projected_scaled_and_normed_in_this_order():
    for scale, factor in (("sqrt-dim", 4.0), (3.0, 3.0), (None, 1.0)):
        options = {"use": "token", "width": 6, "scale": scale, "norm": "rmsnorm"}
        embedding = model_of(embedding=options).embedding
        ids = tokens(2, 3)
        close(embedding(ids), embedding.norm(embedding.project_in(embedding.table[ids]) * factor))


def test_a_tied_head_multiplies_with_the_table_and_goes_back_to_its_width():
    options = {"use": "language-model", "bias": True, "scale": 0.5, "softcap": 2.0}
    model = model_of(embedding={"use": "token", "width": 6, "scale": "sqrt-dim"}, head=options)
    hidden = torch.randn(4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    raw = model.embedding.project_out(hidden) @ model.embedding.table.T + model.head.bias
    close(model.head(hidden), torch.tanh(raw * 0.5 / 2.0) * 2.0)
    plain = model_of()
    plain.head(hidden).sum().backward()
    close(plain.embedding.table.grad, hidden.sum(0).expand(len(plain.embedding.table), -1))
    untied = model_of(head={"use": "language-model", "tied": False})
    close(untied.head(hidden), hidden @ untied.head.weight.T)
    narrow = model_of(embedding={"use": "token", "width": 6}, head={"use": "language-model", "tied": False})
    assert narrow.head.weight.shape[1] == 6
    close(narrow.head(hidden), narrow.embedding.project_out(hidden) @ narrow.head.weight.T)


def test_initialisations_have_the_deviations_that_they_declare():
    facts = ModelContext(dim=64, depth=8, context=8, vocab_size=100)
    inner, outer = ParameterInfo("matrix", fan_in=64), ParameterInfo("matrix", fan_in=256, residual=True)
    cases = [("normal", inner, 0.02), ("normal", outer, 0.02 / 4), ("normal", ParameterInfo("embedding"), 0.02)]
    cases += [("fan-in", inner, 1 / 8), ("fan-in", outer, 1 / 64), ("fan-in", ParameterInfo("embedding"), 0.02)]
    cases += [({"use": "normal", "depth_scaled": False}, outer, 0.02), ({"use": "fan-in", "gain": 2.0}, inner, 1 / 4)]
    for spec, info, expected in cases:
        init = Spec.read("init", spec).build(facts)
        assert init.deviation("x", info) == pytest.approx(expected)
        value = torch.empty(40_000)
        init.draw("x", info, value, torch.Generator().manual_seed(0))
        assert float(value.std()) == pytest.approx(expected, rel=0.02)
        assert abs(float(value.mean())) < 4 * expected / math.sqrt(len(value))


def test_only_biases_and_norms_begin_as_constants():
    model = model_of(
        config_of(norm="layernorm", attention={**GQA, "qkv_bias": True}, feedforward={**GLU, "bias": True})
    )
    from corelm.kinds import declared

    constants = {info.role for _, _, info in declared(model) if info.constant is not None}
    assert constants == {"norm", "bias"}
