"""Kernels of attention: all compute the same, forward and backward, and each is chosen where it is meant to be."""

import pytest
import torch
from corelm_attention import kernels
from corelm_attention.kernels import attend as attend_heads
from hypothesis import given, settings
from hypothesis import strategies as st
from parts_helpers import EXACT, HEADS, Setting, build, layer, normal

from corelm.kinds import Heads


def attend(kernel, q, k, v, *, mask=None, bias=None, scale=0.5, sinks=None, **more):
    """Mix under a mask and biases as tensors."""
    blind = None
    if mask is not None:
        blind = ~mask.any(-1, keepdim=True)
        bias = torch.where(mask | blind, 0.0 if bias is None else bias, -torch.inf)
    return attend_heads(kernel, Heads(q, k, v, scale, sinks=sinks), addend=bias, blind=blind, **more)


KERNELS = ["explicit", "sdpa-mask", "sdpa-bias"]


@settings(max_examples=40, deadline=None)
@given(
    heads=HEADS,
    time=st.integers(1, 9),
    past=st.integers(0, 4),
    biased=st.booleans(),
    sunk=st.booleans(),
    width=st.sampled_from([4, 2, 7]),
    magnitude=st.sampled_from([1.0, 300.0]),
    seed=st.integers(0, 999),
)
def test_kernels_agree_forward_and_backward_also_where_nothing_is_allowed(
    heads, time, past, biased, sunk, width, magnitude, seed
):
    q = normal(2, heads[0], time, 4, seed=seed) * magnitude
    k, v = normal(2, heads[1], time + past, 4, seed=seed + 1), normal(2, heads[1], time + past, width, seed=seed + 4)
    sinks = (normal(heads[0], seed=seed + 5) * magnitude).requires_grad_()
    mask = torch.rand(2, 1, time, time + past, generator=torch.Generator().manual_seed(seed)) > 0.5
    mask[0, :, 0] = False
    bias = normal(1, heads[0], time, time + past, seed=seed + 2) if biased else None
    weight = normal(2, heads[0], time, width, seed=seed + 3)
    results = {}
    for kernel in KERNELS[: 3 if biased else 2]:
        inputs = [t.clone().requires_grad_() for t in (q, k, v)]
        sinks.grad = torch.zeros_like(sinks)
        y = attend(kernel, *inputs, mask=mask, bias=bias, scale=0.5, sinks=sinks if sunk else None)
        assert torch.equal(y[0, :, 0], torch.zeros(heads[0], width, dtype=torch.float64))
        (y * weight).sum().backward()
        results[kernel] = [y.detach(), *(t.grad for t in inputs), sinks.grad]
        assert all(t.isfinite().all() for t in results[kernel])
    for kernel in results:
        for found, expected in zip(results[kernel], results["explicit"], strict=True):
            torch.testing.assert_close(found, expected, atol=1e-9 * magnitude, rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(heads=HEADS, time=st.sampled_from([1, 2, 63, 64, 65, 129]), sunk=st.booleans(), seed=st.integers(0, 99))
def test_kernels_that_skip_what_is_later_equal_those_that_mask_it(heads, time, sunk, seed):
    q, k = normal(2, heads[0], time, 4, seed=seed), normal(2, heads[1], time, 4, seed=seed + 1)
    sinks = normal(heads[0], seed=seed + 2).requires_grad_()
    mask = torch.ones(time, time, dtype=torch.bool).tril()[None, None]
    ways = [
        ("explicit", mask, False),
        ("explicit", mask, True),
        ("explicit", None, True),
        ("sdpa-causal", None, True),
    ]
    results = []
    for kernel, given_mask, causal in ways:
        inputs = [t.clone().requires_grad_() for t in (q, k, k)]
        sinks.grad = torch.zeros_like(sinks)
        y = attend(kernel, *inputs, mask=given_mask, causal=causal, sinks=sinks if sunk else None)
        y.square().sum().backward()
        results.append([y.detach(), *(t.grad for t in inputs), sinks.grad])
    for result in results[1:]:
        for found, expected in zip(result, results[0], strict=True):
            torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kernel", ["explicit", "sdpa-mask"])
def test_a_sink_is_a_gate_by_the_sum_of_exponentials(kernel):
    q, k, v = normal(2, 4, 3, 4), normal(2, 2, 5, 4, seed=1), normal(2, 2, 5, 4, seed=2)
    sinks, scale = normal(4, seed=3), 0.5
    scores = scale * q @ k.repeat_interleave(2, 1).transpose(-1, -2)
    gate = torch.sigmoid(scores.logsumexp(-1, keepdim=True) - sinks[:, None, None])
    plain = attend(kernel, q, k, v, scale=scale)
    torch.testing.assert_close(attend(kernel, q, k, v, scale=scale, sinks=sinks), plain * gate, **EXACT)


def names(part, time=8, keys=None, plain=True, biased=False, width=4):
    new = part.query.weight.new_zeros
    q, k, v = new(1, 4, time, 4), new(1, 2, keys or time, 4), new(1, 2, keys or time, width)
    heads = Heads(q.requires_grad_(torch.is_grad_enabled()), k, v, 0.5, part.config.softcap, part.sinks)
    return part.kernel(heads, plain=plain, biased=biased)


def test_slices_of_the_explicit_kernel_change_nothing(monkeypatch):
    q, k = normal(5, 4, 6, 4), normal(5, 2, 6, 4, seed=1)
    bias, mask = normal(5, 4, 6, 6), torch.ones(1, 1, 6, 6, dtype=torch.bool).tril()
    options = {"mask": mask, "bias": bias, "scale": 0.5}
    whole = attend("explicit", q, k, k, **options)
    for rows in (1, 2):
        monkeypatch.setattr(kernels, "SLICE_BYTES", rows * 4 * 6 * 6 * 8)
        torch.testing.assert_close(attend("explicit", q, k, k, **options), whole, **EXACT)
        monkeypatch.setattr(kernels, "BLOCK", 4)
        torch.testing.assert_close(attend("explicit", q, k, k, causal=True, **options), whole, **EXACT)
    assert attend("explicit", q[:0], k[:0], k[:0], mask=mask, bias=None, scale=0.5).shape == (0, 4, 6, 4)


def test_the_kernel_is_chosen_by_shape_and_purpose():
    part = build("attention", {"use": "gqa", "heads": 4, "kv_heads": 2}, layer(16))
    assert names(part) == "explicit"
    assert names(part, time=4096) == "sdpa-causal"
    assert names(part, time=4096, plain=False) == "sdpa-mask"
    assert names(part, time=4096, biased=True) == "sdpa-bias"
    assert names(part, time=8, keys=4096, plain=True) == "explicit"
    assert names(part, time=1024, keys=4096, plain=True) == "sdpa-mask"
    with torch.no_grad():
        assert names(part) == "explicit"
        assert names(part, time=1, keys=10**6) == "explicit"
        assert names(part, time=4096) == "sdpa-causal"
        assert names(part, time=4096, biased=True) == "sdpa-bias"
    half = build("attention", {"use": "gqa", "heads": 4, "kv_heads": 2}, layer(16)).bfloat16()
    for precise in (half, part.float()):
        assert [names(precise, time=t) for t in (512, 513)] == ["explicit", "sdpa-causal"]
    with torch.no_grad():
        assert names(half, time=4096) == "explicit"
    capped = build("attention", {"use": "gqa", "heads": 4, "softcap": 5.0}, layer(16))
    assert names(capped, time=4096) == "explicit"
    dropping = build("attention", {"use": "gqa", "heads": 4, "dropout": 0.5}, layer(16))
    with torch.no_grad():
        assert names(dropping, time=4096) == "sdpa-causal"
        assert names(dropping.train(), time=4096) == "explicit"


@pytest.mark.parametrize("sinks", [False, True])
def test_no_mask_is_made_on_the_plain_paths(sinks, monkeypatch):
    part = build("attention", {"use": "gqa", "heads": 4, "kv_heads": 2, "sinks": sinks}, layer(16))
    setting = Setting(part, ["rope"])
    for fused in (False, True):
        monkeypatch.setattr(kernels, "EXPLICIT_SCORES", 0 if fused else 512)
        step = setting.step(1, 0, 6)
        part(normal(1, 6, 16), step)
        assert not step.mask.memo
        step = setting.step(1, 5, 6)
        part(normal(1, 1, 16), step)
        assert not step.mask.memo
