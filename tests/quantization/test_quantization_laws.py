"""What every quantizer and its grid satisfy, whatever the weights."""

import math

import pytest
import torch
from corelm_quantization.gptq import GPTQ, quadratic
from corelm_quantization.round_to_nearest import RoundToNearest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from corelm.errors import UserError
from corelm.kinds import Statistics
from corelm.kinds.quantized_linear import pack, packed_size, unpack

FEW = settings(max_examples=60, deadline=None)
MANY = settings(max_examples=150, deadline=None)


@st.composite
def one_group(draw, size):
    """A group of weights, biased to those on which grids go wrong."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    values = torch.randn(size, generator=generator, dtype=torch.float64)
    values *= draw(st.sampled_from([1e-3, 1.0, 1e2]))
    trap = draw(st.integers(0, 99))
    if trap < 15:
        values = values.abs() + draw(st.floats(0.5, 4)) * values.abs().max()
    elif trap < 30:
        values = -values.abs() - draw(st.floats(0.5, 4)) * values.abs().max()
    elif trap < 40:
        values = torch.zeros_like(values)
    elif trap < 50:
        values = torch.full_like(values, float(values[0]))
    elif trap < 60:
        values[draw(st.integers(0, size - 1))] *= 1e4
    return values


@st.composite
def matrices(draw, least_inputs=1):
    """Weights of a few outputs, the group size, and the grid's options."""
    outputs, inputs = draw(st.integers(1, 4)), draw(st.integers(least_inputs, 40))
    group = draw(st.sampled_from([0, 1, 3, 7, 8, 16, 64]))
    rows = []
    for _ in range(outputs):
        pieces, left = [], inputs
        while left:
            size = min(group or left, left)
            pieces.append(draw(one_group(size)))
            left -= size
        rows.append(torch.cat(pieces))
    options = {"bits": draw(st.integers(2, 8)), "group": group, "symmetric": draw(st.booleans())}
    return torch.stack(rows), options


def nearest(**options):
    return RoundToNearest(RoundToNearest.Config(**options))


def gptq(**options):
    return GPTQ(GPTQ.Config(**options))


def half_steps(weight, bits, group, symmetric):
    """Half a step for every weight, from the range of the data and nothing else."""
    result = torch.empty_like(weight)
    size = group or weight.shape[1]
    for start in range(0, weight.shape[1], size):
        piece = weight[:, start : start + size]
        if symmetric:
            step = piece.abs().amax(1) / (2 ** (bits - 1) - 1)
        else:
            step = (piece.amax(1).clamp(min=0) - piece.amin(1).clamp(max=0)) / (2**bits - 1)
        result[:, start : start + size] = step[:, None] / 2
    return result


def inputs_like(weight, seed, tokens=64):
    """Correlated activations and their Hessian."""
    generator = torch.Generator().manual_seed(seed)
    n = weight.shape[1]
    mix = torch.eye(n, dtype=torch.float64) + 0.5 * torch.randn(n, n, generator=generator, dtype=torch.float64)
    x = torch.randn(tokens, n, generator=generator, dtype=torch.float64) @ mix
    return x, 2 * x.T @ x / tokens


@MANY
@given(matrices())
def test_every_weight_is_within_half_a_step_taken_from_the_data(case):
    weight, options = case
    for part in (nearest(**options), gptq(**options)):  # without statistics gptq rounds to nearest
        error = (part.quantize(weight).dequantize() - weight).abs()
        assert (error <= half_steps(weight, **options) * (1 + 1e-9)).all()


@FEW
@given(matrices())
def test_codes_are_whole_numbers_in_range_and_zero_points_too(case):
    weight, options = case
    codes = nearest(**options).quantize(weight)
    assert codes.codes.dtype == codes.zero.dtype == torch.uint8
    assert codes.groups.dtype == torch.int32
    assert int(codes.codes.max()) < 2 ** options["bits"]
    assert int(codes.zero.max()) < 2 ** options["bits"]
    assert torch.isfinite(codes.scale).all()
    assert (codes.scale > 0).all()
    if options["symmetric"]:
        assert (codes.zero == 2 ** (options["bits"] - 1)).all()


@FEW
@given(matrices())
def test_quantizing_what_was_quantized_changes_nothing(case):
    weight, options = case
    part = nearest(**options)
    once = part.quantize(weight).dequantize()
    torch.testing.assert_close(part.quantize(once).dequantize(), once, rtol=1e-12, atol=0)


@FEW
@given(matrices())
def test_zero_weights_stay_exactly_zero(case):
    weight, options = case
    weight = weight.clone()
    weight[:, ::3] = 0
    again = nearest(**options).quantize(weight).dequantize()
    assert (again[:, ::3] == 0).all()


@FEW
@given(matrices(), st.integers(-40, 40), st.integers(0, 1000))
def test_scaling_by_a_power_of_two_scales_the_result_exactly(case, power, seed):
    weight, options = case
    hessian = inputs_like(weight, seed)[1]
    for part, statistics in ((nearest(**options), None), (gptq(**options), Statistics(hessian, 64))):
        codes, scaled = part.quantize(weight, statistics), part.quantize(weight * 2.0**power, statistics)
        assert torch.equal(codes.codes, scaled.codes)
        assert torch.equal(codes.dequantize() * 2.0**power, scaled.dequantize())


@FEW
@given(matrices())
def test_symmetric_grids_commute_with_negation(case):
    weight, options = case
    part = nearest(**{**options, "symmetric": True})
    assert torch.equal(part.quantize(-weight).dequantize(), -part.quantize(weight).dequantize())


@FEW
@given(matrices(least_inputs=2))
def test_rounding_is_monotone_inside_a_group(case):
    weight, options = case
    size = options["group"] or weight.shape[1]
    again = nearest(**options).quantize(weight).dequantize()
    for start in range(0, weight.shape[1], size):
        order = weight[:, start : start + size].argsort(dim=1)
        ordered = again[:, start : start + size].gather(1, order)
        assert (ordered.diff(dim=1) >= 0).all()


@FEW
@given(matrices(least_inputs=9), st.integers(0, 2**31))
def test_groups_and_outputs_do_not_touch_each_other(case, seed):
    weight, options = case
    options = {**options, "group": 4}
    part, changed = nearest(**options), weight.clone()
    generator = torch.Generator().manual_seed(seed)
    changed[0, :4] = 50 * torch.randn(4, generator=generator, dtype=torch.float64)
    before, after = part.quantize(weight), part.quantize(changed)
    assert torch.equal(before.codes[:, 4:], after.codes[:, 4:])
    assert torch.equal(before.scale[:, 1:], after.scale[:, 1:])
    assert torch.equal(before.codes[1:], after.codes[1:])
    # A shorter last group leaves the full ones alone.
    short = part.quantize(weight[:, :-1])
    full = (weight.shape[1] - 1) // 4 * 4
    assert torch.equal(short.codes[:, :full], before.codes[:, :full])


def test_more_bits_and_smaller_groups_are_better():
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def error(**options):
        return float((nearest(**options).quantize(weight).dequantize() - weight).square().mean())

    assert error(bits=8) < error(bits=4) / 50
    assert error(bits=4, group=32) < error(bits=4)
    errors = [error(bits=bits, group=32) for bits in range(2, 9)]
    assert errors == sorted(errors, reverse=True)


@FEW
@given(matrices(), st.integers(0, 1000))
def test_the_error_of_a_product_is_bounded_by_the_steps(case, seed):
    weight, options = case
    x = inputs_like(weight, seed, tokens=5)[0]
    error = (x @ (nearest(**options).quantize(weight).dequantize() - weight).T).abs()
    bound = x.abs() @ half_steps(weight, **options).T
    assert (error <= bound * (1 + 1e-9) + 1e-12 * bound.max()).all()


@MANY
@given(st.integers(0, 200), st.integers(1, 8), st.integers(0, 2**31))
def test_packing_can_be_undone_and_takes_the_bytes_it_must(n, bits, seed):
    codes = torch.randint(0, 2**bits, (n,), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.numel() == packed_size(n, bits) == math.ceil(n * bits / 8)
    assert torch.equal(unpack(packed, bits, n), codes)
    stream = sum(int(code) << (place * bits) for place, code in enumerate(codes))
    assert bytes(packed.tolist()) == stream.to_bytes(packed_size(n, bits), "little")


@pytest.mark.parametrize("part", [nearest(bits=4), gptq(bits=4)])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused_by_channel(part, value):
    weight = torch.ones(4, 8)
    weight[2, 5] = value
    with pytest.raises(UserError, match=f"output channel 2, input 5, is {value}"):
        part.quantize(weight, Statistics(torch.eye(8), 8))


@MANY
@given(matrices(), st.sampled_from(["float16", "bfloat16"]), st.integers(-30, 0))
def test_scales_in_half_precision_are_those_that_codes_were_chosen_with(case, scale_dtype, power):
    weight, options = case
    weight = weight * 2.0**power / (1 + weight.abs().max())
    codes = nearest(**options, scale_dtype=scale_dtype).quantize(weight)
    assert codes.scale.dtype == getattr(torch, scale_dtype)
    step = codes.scale.double()[:, codes.groups.long()]
    error = (codes.dequantize(torch.float64) - weight).abs()
    assert (error <= step / 2 * (1 + 1e-5)).all()
    smallest = torch.finfo(codes.scale.dtype).smallest_normal * torch.finfo(codes.scale.dtype).eps
    assert (error <= half_steps(weight, **options) * (1 + 2 / 2**8) + smallest).all()


def test_scales_too_large_for_half_precision_are_refused():
    with pytest.raises(UserError, match="too large for float16") as caught:
        nearest(bits=4, scale_dtype="float16").quantize(torch.full((2, 2), 1e6))
    assert "float32" in caught.value.remedy


def test_the_weights_handed_in_are_not_changed():
    weight = torch.randn(8, 32, requires_grad=True)
    before, hessian = weight.detach().clone(), inputs_like(weight, 1)[1]
    kept = hessian.clone()
    for part in (nearest(), gptq(group=8, act_order=True)):
        part.quantize(weight, Statistics(hessian, 64))
    assert torch.equal(weight, before)
    assert torch.equal(hessian, kept)


# GPTQ ---------------------------------------------------------------------------------------------------------------


@FEW
@given(matrices(), st.booleans(), st.booleans(), st.sampled_from([1.0, 0.25, 4.0]))
def test_with_an_identity_hessian_gptq_is_rounding_to_nearest(case, act_order, static, size):
    weight, options = case
    hessian = size * torch.eye(weight.shape[1], dtype=torch.float64)
    part = gptq(**options, act_order=act_order, static_groups=static)
    codes, plain = part.quantize(weight, Statistics(hessian, 9)), nearest(**options).quantize(weight)
    assert codes.note == ""
    assert torch.equal(codes.codes, plain.codes)
    assert torch.equal(codes.scale, plain.scale)
    assert torch.equal(codes.zero, plain.zero)
    assert torch.equal(codes.groups, plain.groups)


@FEW
@given(matrices(least_inputs=4), st.integers(0, 10**6), st.booleans(), st.booleans())
def test_gptq_is_never_worse_than_rounding_to_nearest_on_the_calibration_data(case, seed, act_order, static):
    weight, options = case
    hessian = inputs_like(weight, seed)[1]
    codes = gptq(**options, act_order=act_order, static_groups=static).quantize(weight, Statistics(hessian, 64))
    plain = quadratic(weight, nearest(**options).quantize(weight), hessian)
    assert quadratic(weight, codes, hessian) <= plain


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("static", [False, True])
def test_gptq_beats_rounding_by_far_where_inputs_are_correlated(act_order, static):
    ratios = []
    for seed in range(10):
        weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        hessian = inputs_like(weight, seed, tokens=256)[1]
        options = {"bits": 4, "group": 16}
        codes = gptq(**options, act_order=act_order, static_groups=static).quantize(weight, Statistics(hessian, 256))
        assert codes.note == ""
        ratios.append(
            quadratic(weight, codes, hessian) / quadratic(weight, nearest(**options).quantize(weight), hessian)
        )
    assert max(ratios) < 0.6


@FEW
@given(matrices(least_inputs=4), st.integers(0, 10**6), st.booleans(), st.booleans(), st.integers(1, 50))
def test_the_block_size_changes_nothing(case, seed, act_order, static, block):
    weight, options = case
    statistics = Statistics(inputs_like(weight, seed)[1], 64)
    options = {**options, "act_order": act_order, "static_groups": static}
    one, other = gptq(**options, block=block), gptq(**options, block=128)
    a, b = one.quantize(weight, statistics), other.quantize(weight, statistics)
    assume(a.note == b.note)  # rounding noise may tip the comparison with rounding to nearest where both are equal
    assert torch.equal(a.codes, b.codes)
    torch.testing.assert_close(a.scale, b.scale, rtol=1e-9, atol=0)


def explicit(weight, hessian, bits, group, symmetric, act_order, static):
    """Optimal brain surgery column by column: the inverse Hessian is updated explicitly, no factorisation."""
    w, inputs = weight.clone(), weight.shape[1]
    size, top = group or inputs, 2**bits - 1
    diagonal = hessian.diagonal()
    dead = diagonal == 0
    w[:, dead] = 0
    damped = hessian + torch.diag(dead.double() + 0.01 * diagonal.mean())
    inverse = torch.linalg.inv(damped)
    order = sorted(range(inputs), key=lambda i: -float(diagonal[i])) if act_order else list(range(inputs))
    original, result = w.clone(), torch.zeros_like(w)
    steps = {}
    for place, i in enumerate(order):
        key = i // size if static else place // size
        if key not in steps:
            if static:
                members = list(range(key * size, min(inputs, (key + 1) * size)))
                data = original[:, members]
            else:
                data = w[:, order[key * size : (key + 1) * size]]
            high, low = data.amax(1).clamp(min=0), data.amin(1).clamp(max=0)
            scale = torch.maximum(high, -low) / (2 ** (bits - 1) - 1) if symmetric else (high - low) / top
            scale[scale == 0] = 1
            zero = torch.full_like(scale, 2 ** (bits - 1)) if symmetric else torch.round(-low / scale)
            steps[key] = scale, zero
        scale, zero = steps[key]
        code = (torch.round(w[:, i] / scale) + zero).clamp(0, top)
        result[:, i] = (code - zero) * scale
        error = (w[:, i] - result[:, i]) / inverse[i, i]
        rest = order[place + 1 :]
        w[:, rest] -= error[:, None] * inverse[i, rest][None]
        inverse = inverse - torch.outer(inverse[:, i], inverse[i]) / inverse[i, i]
    return result


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("group", [0, 8, 10])
@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("static", [False, True])
def test_gptq_equals_an_explicit_oracle(symmetric, group, act_order, static):
    for seed in range(3):
        weight = torch.randn(6, 24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        x, _ = inputs_like(weight, seed, tokens=80)
        x[:, 5] = 0
        hessian = 2 * x.T @ x / 80
        options = {"bits": 3, "group": group, "symmetric": symmetric, "act_order": act_order, "static_groups": static}
        codes = gptq(**options, block=7).quantize(weight, Statistics(hessian, 80))
        assert codes.note == ""
        expected = explicit(weight, hessian, 3, group, symmetric, act_order, static)
        torch.testing.assert_close(codes.dequantize(), expected, rtol=1e-9, atol=1e-12)
        assert (codes.dequantize()[:, 5] == 0).all()


def test_a_singular_hessian_is_damped_and_says_so():
    weight = torch.randn(4, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.randn(1, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    codes = gptq(group=8, damp=1e-18).quantize(weight, Statistics(1e6 * x.T @ x, 1))
    assert "damping raised from 1e-18 to" in codes.note


def test_a_hessian_that_is_none_falls_back_to_rounding_and_says_so():
    weight = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    part, plain = gptq(group=8), nearest(bits=4, group=8).quantize(weight)
    indefinite = torch.eye(16) - 5 * torch.ones(16, 16) + torch.diag(torch.full((16,), 5.0))
    for hessian, reason in ((indefinite, "can't be factorised"), (torch.zeros(16, 16), "all its inputs were zero")):
        codes = part.quantize(weight, Statistics(hessian, 3))
        assert codes.note.startswith("rounded to nearest: ")
        assert reason in codes.note
        assert torch.equal(codes.codes, plain.codes)
    assert "no calibration data" in part.quantize(weight).note
    assert "no calibration data" in part.quantize(weight, Statistics(torch.zeros(16, 16), 0)).note


def test_activations_that_are_not_finite_are_refused():
    hessian = torch.eye(8)
    hessian[0, 3] = math.nan
    with pytest.raises(UserError, match="not finite"):
        gptq().quantize(torch.ones(2, 8), Statistics(hessian, 3))
