import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parts_helpers import build, normal

from corelm.kinds import ModelContext, Spec

NORMS = ["rmsnorm", "layernorm"]


def oracle(x, norm):
    """The definition, row by row, in Python floats."""
    rows = []
    for row in x.reshape(-1, x.shape[-1]).tolist():
        mean = sum(row) / len(row) if norm.centred else 0.0
        square = sum((e - mean) ** 2 for e in row) / len(row)
        rows.append([(e - mean) / math.sqrt(square + norm.epsilon) for e in row])
    y = torch.tensor(rows, dtype=torch.float64).reshape(x.shape)
    if norm.weight is not None:
        y = y * (norm.weight + (1 if norm.config.offset else 0))
    bias = getattr(norm, "bias", None)
    return y if bias is None else y + bias


@pytest.mark.parametrize("name", NORMS)
@settings(max_examples=30, deadline=None)
@given(
    dim=st.integers(1, 24),
    eps=st.floats(1e-8, 1e-2),
    offset=st.booleans(),
    scale=st.sampled_from([1e-3, 1.0, 100.0]),
    seed=st.integers(0, 99),
)
def test_the_result_is_the_definition(name, dim, eps, offset, scale, seed):
    norm = build("norm", {"use": name, "eps": eps, "offset": offset}, dim, seed=seed)
    x = normal(2, 3, dim, seed=seed) * scale
    torch.testing.assert_close(norm(x), oracle(x, norm), atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("options", [{"weight": False}, {"offset": True}, {}])
@pytest.mark.parametrize("name", NORMS)
def test_initial_gain_is_one(name, options):
    norm = Spec.read("norm", {"use": name, **options}).build(8)
    x = normal(4, 8).float()
    square = (x - x.mean(-1, keepdim=True) if norm.centred else x).square().mean(-1)
    torch.testing.assert_close(norm(x).square().mean(-1), square / (square + norm.epsilon))


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize(("dtype", "scale"), [(torch.float16, 1e4), (torch.float16, 1e-4), (torch.bfloat16, 1.0)])
def test_low_precision_is_rounded_once(name, offset, dtype, scale):
    """Half a unit in the last place, besides the error of float32.

    That is, with u = 2⁻²⁴ and sums of n terms: n·u of a deviation in the mean, n/2·u of its own size in the deviation,
    u for each of six operations on an element and for the sum with the bias (Higham, 2002, sections 3.1 and 4.2).
    """
    n, u = 64, 2.0**-24
    norm = build("norm", {"use": name, "offset": offset}, n, seed=3).to(dtype).requires_grad_(False)
    x = (normal(50, n, seed=1) * scale).clamp(-6e4, 6e4).to(dtype)
    y = norm(x)
    assert y.dtype == dtype
    exact = norm.double()(x.double())
    gain, bias = norm.weight + offset, getattr(norm, "bias", torch.zeros(n, dtype=torch.float64))
    single = u * (n * gain.abs() + (n / 2 + 6) * (exact - bias).abs() + bias.abs())
    rounded = exact.abs().to(dtype)
    ulp = torch.nextafter(rounded, torch.tensor(math.inf, dtype=dtype)).double() - rounded
    assert bool(((y.double() - exact).abs() <= 0.5 * ulp + single).all())


@pytest.mark.parametrize("name", NORMS)
def test_zero_gives_the_bias_and_finite_gradients(name):
    norm = build("norm", name, 8)
    x = torch.zeros(2, 8, dtype=torch.float64, requires_grad=True)
    y = norm(x)
    expected = norm.bias if name == "layernorm" else torch.zeros(8, dtype=torch.float64)
    assert torch.equal(y, expected.expand(2, 8))
    y.sum().backward()
    assert x.grad.isfinite().all()


def test_layernorm_keeps_its_digits_far_from_zero():
    norm = build("norm", {"use": "layernorm", "weight": False, "bias": False}, 64)
    x = 3000 + normal(20, 64)
    torch.testing.assert_close(norm(x.float()).double(), norm(x), atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", NORMS)
def test_gradients_are_right_and_layout_does_not_matter(name):
    norm = build("norm", name, 5)
    x = normal(3, 5).requires_grad_()
    assert torch.autograd.gradcheck(norm, (x,))
    wide = normal(5, 4)
    assert torch.equal(norm(wide.T), norm(wide.T.contiguous()))
    assert norm(wide.float().T).dtype == torch.float32


def test_an_offset_without_weight_is_refused():
    spec = Spec.read("norm", {"use": "rmsnorm", "weight": False, "offset": True})
    (problem,) = spec.part.check(spec.config, ModelContext(8, 1, 8, 0))
    assert problem.code == "offset-without-weight"
    assert problem.path == ("offset",)


@pytest.mark.parametrize("weight", [True, False])
@pytest.mark.parametrize("needed", ["both", "x", "weight"])
def test_gradients_are_those_of_the_plain_formula(weight, needed):
    norm = build("norm", {"use": "rmsnorm", "weight": weight, "eps": 0.1}, 7)
    x = normal(3, 5, 7).requires_grad_(needed != "weight")
    if weight:
        norm.weight.requires_grad_(needed != "x")
    wanted = [t for t in (x, norm.weight) if t is not None and t.requires_grad]
    if not wanted:
        return
    plain = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 0.1) * (norm.weight if weight else 1.0)
    upstream = normal(3, 5, 7, seed=1)
    expected = torch.autograd.grad(plain, wanted, upstream)
    for found, right in zip(torch.autograd.grad(norm(x), wanted, upstream), expected, strict=True):
        torch.testing.assert_close(found, right, atol=1e-12, rtol=1e-12)


def test_rmsnorm_is_one_function_with_gradients_without_in_small_and_when_compiled():
    norm = build("norm", "rmsnorm", 32).float()
    x = normal(4, 600, 32).float()
    with_gradients = norm(x)
    with torch.no_grad():
        torch.testing.assert_close(norm(x), with_gradients, atol=0, rtol=0)
        torch.testing.assert_close(norm(x[:1, :9]), with_gradients[:1, :9], atol=2e-6, rtol=2e-6)
    compiled = torch.compile(norm, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), with_gradients, atol=2e-6, rtol=2e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(norm(x), with_gradients)
