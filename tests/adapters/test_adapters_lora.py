"""LoRA: nothing at first, a low-rank addition later, one map when merged."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from corelm.kinds import AdaptedLinear, Linear, Spec, declared


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(inputs: int = 6, outputs: int = 5, bias: bool = True, seed: int = 0, **more: Any) -> Linear:
    made = Linear(inputs, outputs, bias=bias, **more).double()
    with torch.no_grad():
        for i, parameter in enumerate(made.parameters()):
            parameter.copy_(draw(seed + i, *parameter.shape))
    return made


def wrap(base: Linear, seed: int = 0, **options: Any) -> AdaptedLinear:
    adapter = Spec.read("adapter", {"use": "lora", **options}).build()
    return adapter.wrap(base, "layer", torch.Generator().manual_seed(seed))


def trained(wrapped: AdaptedLinear, seed: int = 3) -> AdaptedLinear:
    """As after some training: no addition is zero."""
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.copy_(draw(seed, *parameter.shape))
    return wrapped.eval()


options = st.fixed_dictionaries(
    {
        "rank": st.integers(1, 8),
        "alpha": st.sampled_from([0.5, 8.0, 16.0]),
        "stabilised": st.booleans(),
        "dropout": st.sampled_from([0.0, 0.3]),
    }
)
shapes = st.tuples(st.integers(1, 8), st.integers(1, 8), st.booleans())


@given(shapes, options, st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_at_first_the_map_computes_exactly_what_it_did(shape, options, seed):
    base, x = linear(*shape, seed=seed), draw(seed, 2, 3, shape[0])
    before = base(x)
    assert torch.equal(wrap(base, seed, **options)(x), before), "training mode, dropout and all"


@given(shapes, options, st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_it_computes_the_papers_formula_and_so_does_the_merged_map(shape, options, seed):
    base, x = linear(*shape, seed=seed), draw(seed + 1, 2, 3, shape[0])
    wrapped = trained(wrap(base, seed, **options))
    down, up = (p for p in wrapped.parameters() if p.requires_grad)
    rank = options["rank"]
    assert down.shape == (rank, shape[0]) and up.shape == (shape[1], rank)
    scale = options["alpha"] / (math.sqrt(rank) if options["stabilised"] else rank)
    expected = x @ (base.weight + scale * up @ down).T + (0 if base.bias is None else base.bias)
    assert float((wrapped(x) - expected).detach().abs().max()) < 1e-10
    merged = wrapped.merged()
    assert type(merged) is Linear
    assert float((merged(x) - wrapped(x)).detach().abs().max()) < 1e-10
    difference = (merged.weight - base.weight).detach()
    assert int(torch.linalg.matrix_rank(difference, rtol=1e-9)) <= rank


@given(st.integers(0, 50))
@settings(max_examples=10, deadline=None)
def test_only_the_addition_is_trained_and_merging_changes_nothing_that_exists(seed):
    base = linear(seed=seed)
    wrapped = wrap(base, seed, rank=2, dropout=0.5)
    weight, bias = base.weight.detach().clone(), base.bias.detach().clone()  # type: ignore[union-attr]
    optimizer = torch.optim.SGD([p for p in wrapped.parameters() if p.requires_grad], lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        wrapped(draw(step, 4, 6)).square().sum().backward()
        optimizer.step()
    assert base.weight.grad is None and not base.weight.requires_grad
    assert sum(p.requires_grad for p in wrapped.parameters()) == 2
    additions = [p.detach().clone() for p in wrapped.parameters() if p.requires_grad]
    assert all(float(a.abs().max()) > 0 for a in additions), "an addition never moved"
    merged = wrapped.merged()
    with torch.no_grad():
        merged.weight.zero_()
    assert torch.equal(base.weight, weight) and torch.equal(base.bias, bias)
    assert all(
        torch.equal(a, p)
        for a, p in zip(additions, (p for p in wrapped.parameters() if p.requires_grad), strict=True)
    )


def test_dropout_acts_on_the_additions_input_while_training_only():
    wrapped = trained(wrap(linear(), rank=2, dropout=0.5))
    x = draw(0, 200, 6)
    assert torch.equal(wrapped(x), wrapped(x))
    wrapped.train()
    assert not torch.equal(wrapped(x), wrapped(x))
    mean = torch.stack([wrapped(x[:1]) for _ in range(4000)]).mean(0)
    spread = float(torch.stack([wrapped(x[:1]) for _ in range(500)]).std(0).detach().max())
    assert float((mean - wrapped.eval()(x[:1])).detach().abs().max()) < 6 * spread / math.sqrt(4000)


def test_the_draw_is_the_generators_and_bounded():
    one, same, other = (wrap(linear(64, 3), seed, rank=16) for seed in (1, 1, 2))
    first = next(p for p in one.parameters() if p.requires_grad).detach()
    state = torch.get_rng_state()
    again = next(p for p in same.parameters() if p.requires_grad).detach()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, next(p for p in other.parameters() if p.requires_grad))
    assert float(first.abs().max()) <= 1 / 8
    assert abs(float(first.std()) - 1 / 8 / math.sqrt(3)) < 0.01


def test_parameters_are_declared_and_what_is_merged_keeps_its_role():
    holder = nn.Module()
    holder.map = linear(role="head", residual=True)  # type: ignore[assignment]
    holder.map = wrap(holder.map, rank=2)  # type: ignore[arg-type]
    names = {name: info.role for name, _, info in declared(holder)}
    assert names == {"map.down": "matrix", "map.up": "matrix", "map.base.weight": "head", "map.base.bias": "bias"}
    merged = holder.map.merged()  # type: ignore[operator]
    (_, _, weight), (_, _, bias) = declared(merged)
    assert (weight.role, weight.residual, bias.role) == ("head", True, "bias")
    assert all(p.requires_grad for p in merged.parameters())


def test_it_is_built_without_memory_on_the_meta_device():
    with torch.device("meta"):
        base = Linear(6, 5)
    wrapped = wrap(base, rank=2)
    assert {p.device.type for p in wrapped.parameters()} == {"meta"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_addition_has_the_dtype_of_the_map(dtype):
    wrapped = wrap(linear().to(dtype), rank=2)
    assert {p.dtype for p in wrapped.parameters()} == {dtype}
    assert wrapped(torch.zeros(2, 6, dtype=dtype)).dtype == dtype
    assert wrapped.merged().weight.dtype == dtype
