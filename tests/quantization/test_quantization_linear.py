"""The quantized map: what it saves, what it computes, which kernel it picks."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from corelm_quantization.dequantize import Dequantize
from corelm_quantization.gptq import GPTQ
from corelm_quantization.int4_packed import Int4Packed
from corelm_quantization.int8_packed import Int8Packed
from corelm_quantization.round_to_nearest import RoundToNearest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn

from corelm import registration
from corelm.errors import UserError
from corelm.kinds import Codes, Statistics
from corelm.kinds.quantized_linear import QuantizedLinear

CPU = torch.device("cpu")


def codes_of(outputs, inputs, seed=0, dtype=torch.float32, **options):
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return RoundToNearest(RoundToNearest.Config(**options)).quantize(weight)


@st.composite
def any_codes(draw):
    return codes_of(
        draw(st.integers(1, 9)),
        draw(st.integers(1, 70)),
        seed=draw(st.integers(0, 2**31)),
        dtype=draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16])),
        bits=draw(st.integers(2, 8)),
        group=draw(st.sampled_from([0, 1, 3, 16, 32])),
        symmetric=draw(st.booleans()),
        scale_dtype=draw(st.sampled_from(["float32", "float16", "bfloat16"])),
    )


def assert_same_codes(one, other):
    assert one.bits == other.bits
    for name in ("codes", "scale", "zero", "groups"):
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype
        assert torch.equal(left, right)


@settings(max_examples=60, deadline=None)
@given(any_codes(), st.booleans())
def test_what_is_saved_gives_back_the_same_codes_and_outputs(codes, with_bias):
    outputs, inputs = codes.codes.shape
    bias = torch.randn(outputs) if with_bias else None
    linear = QuantizedLinear.from_codes(codes, bias)
    assert_same_codes(linear.canonical(), codes)
    x = torch.randn(2, 3, inputs)
    saved = save({name: tensor.contiguous() for name, tensor in linear.state_dict().items()})
    assert save(linear.state_dict()) == saved
    with torch.device("meta"):
        empty = QuantizedLinear(outputs, inputs, dict(linear.facts))
    fresh = empty.to_empty(device="cpu")
    fresh.load_state_dict(load(saved), strict=True)
    assert_same_codes(fresh.canonical(), codes)
    assert torch.equal(fresh(x), linear(x))


@settings(max_examples=40, deadline=None)
@given(any_codes())
def test_it_computes_what_a_linear_map_with_the_dequantized_weights_does(codes):
    outputs, inputs = codes.codes.shape
    bias = torch.randn(outputs)
    x = torch.randn(4, inputs)
    expected = F.linear(x, codes.dequantize(torch.float32), bias)
    assert torch.equal(QuantizedLinear.from_codes(codes, bias)(x), expected)


@settings(max_examples=40, deadline=None)
@given(any_codes())
def test_symmetric_zero_points_and_regular_groups_are_not_stored(codes):
    state = QuantizedLinear.from_codes(codes).state_dict()
    middle = 2 ** (codes.bits - 1)
    assert ("zero" in state) == bool((codes.zero != middle).any())
    assert "groups" not in state


def test_groups_in_activation_order_are_stored_and_restored():
    weight = torch.randn(8, 40, generator=torch.Generator().manual_seed(1))
    x = torch.randn(99, 40, generator=torch.Generator().manual_seed(2)) * torch.linspace(1, 5, 40)
    part = GPTQ(GPTQ.Config(bits=4, group=16, act_order=True))
    codes = part.quantize(weight, Statistics(2 * x.T @ x / 99, 99))
    linear = QuantizedLinear.from_codes(codes)
    assert "groups" in linear.state_dict()
    fresh = QuantizedLinear(8, 40, linear.facts)
    fresh.load_state_dict(linear.state_dict())
    assert_same_codes(fresh.canonical(), codes)


@pytest.mark.parametrize(
    ("options", "declared"),
    [
        ({"bits": 4, "group": 64}, 4 + 32 / 64),
        ({"bits": 4, "group": 64, "scale_dtype": "float16"}, 4 + 16 / 64),
        ({"bits": 4, "group": 64, "symmetric": False}, 4 + (32 + 4) / 64),
        ({"bits": 3, "group": 128, "scale_dtype": "bfloat16"}, 3 + 16 / 128),
        ({"bits": 8}, 8 + 32 / 512),
    ],
)
def test_its_size_on_disk_is_what_was_declared(options, declared):
    linear = QuantizedLinear.from_codes(codes_of(256, 512, **options))
    size = 8 * len(save(linear.state_dict())) / (256 * 512)
    assert size == pytest.approx(declared, rel=0.01)
    assert linear.bits_per_weight == pytest.approx(declared, rel=1e-12)


def test_casting_the_model_leaves_the_scales_alone():
    linear = QuantizedLinear.from_codes(codes_of(4, 32, bits=4, group=16), torch.randn(4))
    before = linear.canonical()
    linear(torch.randn(1, 32))
    linear.to(torch.bfloat16)
    assert_same_codes(linear.canonical(), before)
    assert linear.bias.dtype == torch.bfloat16
    x = torch.randn(3, 32, dtype=torch.bfloat16)
    assert linear(x).dtype == torch.bfloat16
    assert torch.equal(linear(x), F.linear(x, before.dequantize(torch.bfloat16)) + linear.bias)


def test_loading_other_codes_drops_what_was_derived_from_the_old_ones():
    one, other = (QuantizedLinear.from_codes(codes_of(4, 32, seed=seed)) for seed in (0, 1))
    x = torch.randn(2, 32)
    assert not torch.equal(one(x), other(x))
    one.load_state_dict(other.state_dict())
    assert torch.equal(one(x), other(x))


def test_derived_layouts_are_never_saved():
    linear = QuantizedLinear.from_codes(codes_of(16, 64, bits=4, group=32))
    names = set(linear.state_dict())
    linear(torch.randn(1, 64, dtype=torch.bfloat16))
    linear(torch.randn(1, 64))
    assert set(linear.state_dict()) == names == {"codes", "scale"}


def test_its_bias_keeps_its_role_and_codes_are_no_parameters():
    from corelm.kinds import declared

    linear = nn.Sequential(QuantizedLinear.from_codes(codes_of(4, 8), torch.randn(4)))
    assert [(name, info.role) for name, _, info in declared(linear)] == [("0.bias", "bias")]


# Kernels ------------------------------------------------------------------------------------------------------------


def test_the_kernel_is_chosen_by_dtype_rows_shape_and_gradient():
    linear = QuantizedLinear.from_codes(codes_of(32, 64, bits=4, group=32))
    assert linear.kernel(torch.bfloat16, CPU, 1).name == "corelm:int4-packed"
    assert linear.kernel(torch.float16, CPU, 8).name == "corelm:int4-packed"
    for case in ((torch.float32, CPU, 1), (torch.bfloat16, CPU, 9), (torch.bfloat16, CPU, 0)):
        assert linear.kernel(*case).name == "corelm:dequantize"
    passed_over = linear.kernel(torch.bfloat16, CPU, 1, gradient=True)
    assert passed_over.name == "corelm:dequantize"
    assert passed_over.refused["corelm:int4-packed"] == "gradients don't flow through it"
    eight = QuantizedLinear.from_codes(codes_of(7, 64, bits=8))
    assert eight.kernel(torch.bfloat16, CPU, 1).name == "corelm:int8-packed"
    assert eight.kernel(torch.bfloat16, CPU, 100).refused["corelm:int8-packed"] == "100 rows; it takes 1 to 8"


def test_gradients_flow_to_the_input_whatever_the_rows():
    linear = QuantizedLinear.from_codes(codes_of(32, 64, bits=4, group=32))
    x = torch.randn(1, 64, dtype=torch.bfloat16, requires_grad=True)
    linear(x).sum().backward()
    expected = linear.canonical().dequantize(torch.float32).sum(0, keepdim=True)
    torch.testing.assert_close(x.grad.float(), expected, rtol=0.05, atol=0.05)


def test_one_map_serves_activations_of_several_dtypes():
    linear = QuantizedLinear.from_codes(codes_of(32, 64, bits=4, group=32))
    exact = linear.canonical().dequantize(torch.float64)
    for rows in (1, 30):
        for dtype, within in ((torch.float64, 1e-12), (torch.bfloat16, 0.05), (torch.float32, 1e-5)):
            x = torch.randn(rows, 64, dtype=dtype)
            torch.testing.assert_close(linear(x).double(), x.double() @ exact.T, rtol=within, atol=within * 8)


def test_without_any_kernel_the_message_says_so():
    registry = registration.Registry()
    with registration.using(registry), pytest.raises(UserError, match="no installed kernel multiplies 1 rows"):
        QuantizedLinear.from_codes(codes_of(4, 8))(torch.randn(1, 8))


REFUSALS = [
    (Int8Packed, codes_of(16, 40), torch.bfloat16, 1, "40 inputs in bfloat16; it takes multiples of 16"),
    (Int8Packed, codes_of(16, 64, group=32), torch.bfloat16, 1, "2 groups per output channel; it takes one"),
    (Int8Packed, codes_of(16, 64), torch.float32, 1, "slower than dequantized"),
    (Int8Packed, codes_of(16, 64), torch.bfloat16, 0, "0 rows"),
    (Int4Packed, codes_of(8, 64, bits=4, group=32), torch.bfloat16, 1, "8 outputs; it takes multiples of 16"),
    (Int4Packed, codes_of(16, 64, bits=8, group=32), torch.bfloat16, 1, "codes of 8 bits; it takes 4"),
    (Int4Packed, codes_of(16, 48, bits=4, group=32), torch.bfloat16, 1, "48 inputs in 2 groups"),
    (Int4Packed, codes_of(16, 96, bits=4, group=48), torch.bfloat16, 1, "96 inputs in 2 groups"),
    (Int4Packed, codes_of(16, 1024, bits=4), torch.bfloat16, 1, "1024 inputs in 1 groups"),
]


@pytest.mark.parametrize(("kernel", "codes", "dtype", "rows", "reason"), REFUSALS)
def test_what_would_crash_or_be_wrong_is_refused_with_a_reason(kernel, codes, dtype, rows, reason):
    assert reason in kernel(kernel.Config()).supports(codes, dtype, CPU, rows)


def test_other_refusals():
    codes = codes_of(16, 64, bits=4, group=32)
    mixed = Codes(codes.codes, codes.scale, codes.zero, codes.groups.flip(0), 4)
    assert "not consecutive" in Int4Packed(Int4Packed.Config()).supports(mixed, torch.bfloat16, CPU, 1)
    assert "CPUs only" in Int4Packed(Int4Packed.Config()).supports(codes, torch.bfloat16, torch.device("cuda"), 1)
    far = Codes(codes.codes, codes.scale[:, :1], torch.full((16, 1), 200, dtype=torch.uint8), codes.groups * 0, 8)
    assert "8 signed bits" in Int8Packed(Int8Packed.Config()).supports(far, torch.bfloat16, CPU, 1)


@pytest.mark.parametrize("kernel", [Dequantize, Int8Packed, Int4Packed])
def test_kernels_judge_without_the_codes_themselves(kernel):
    codes = codes_of(16, 64, bits=4, group=32)
    outline = Codes(torch.empty(16, 64, dtype=torch.uint8, device="meta"), codes.scale, codes.zero, codes.groups, 4)
    part = kernel(kernel.Config())
    assert part.supports(outline, torch.bfloat16, CPU, 1) == part.supports(codes, torch.bfloat16, CPU, 1)


SCRIPT = """
import torch
from corelm_quantization.round_to_nearest import RoundToNearest
from corelm_quantization.int4_packed import Int4Packed
from corelm_quantization.int8_packed import Int8Packed
from corelm_quantization.dequantize import Dequantize

CPU, tried = torch.device("cpu"), {}
for kernel in (Dequantize, Int8Packed, Int4Packed):
    part = kernel(kernel.Config())
    for bits in (2, 4, 7, 8):
        for outputs, inputs in ((1, 1), (7, 16), (16, 32), (16, 48), (48, 256), (17, 33), (64, 512)):
            for group in (0, 32, 64, 128, 256):
                for symmetric in (True, False):
                    for offset in (0.0, 3.0):
                        seed = torch.Generator().manual_seed(bits * outputs + inputs)
                        weight = torch.randn(outputs, inputs, generator=seed) + offset
                        codes = RoundToNearest(
                            RoundToNearest.Config(bits=bits, group=group, symmetric=symmetric)
                        ).quantize(weight)
                        for dtype in (torch.float32, torch.bfloat16, torch.float16):
                            for rows in (1, 3, 8):
                                if part.supports(codes, dtype, CPU, rows) is not None:
                                    continue
                                x = torch.randn(rows, inputs, generator=seed).to(dtype)
                                y = part.matmul(x, part.prepare(codes, dtype)).double()
                                exact = codes.dequantize(torch.float64)
                                scale = x.double().abs() @ exact.abs().T
                                bound = 32 * torch.finfo(dtype).eps * inputs**0.5
                                size = x.double().norm(dim=1)[:, None] * exact.norm(dim=1)
                                error = (y - x.double() @ exact.T).abs()
                                assert y.shape == (rows, outputs), y.shape
                                assert (error <= bound * size / inputs**0.5).all(), (kernel, bits, outputs, inputs, group,
                                    symmetric, offset, dtype, rows, (error / size).max())
                                tried[kernel.__name__] = tried.get(kernel.__name__, 0) + 1
print(tried)
assert all(tried.get(name, 0) > 20 for name in ("Dequantize", "Int8Packed", "Int4Packed")), tried
"""


def test_every_kernel_equals_the_product_with_dequantized_weights_wherever_it_says_it_can():
    # In a process of its own: a kernel that is called with what it can't take ends the process.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
