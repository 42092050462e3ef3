"""AdamW and Muon: laws, an oracle, and the library's own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from corelm_training.muon import orthogonalise
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from corelm.errors import UserError
from corelm.kinds import Optimizer, ParameterInfo, Spec

kernels = pytest.mark.parametrize("kernel", ["open", "fused"])
optimizers = pytest.mark.parametrize("use", ["adamw", "muon"])


def draw(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def named(*shapes: tuple[str, tuple[int, ...]], seed: int = 0, stacked: int = 0) -> list[Any]:
    return [
        (f"{role}{i}", nn.Parameter(draw(seed + i, *shape)), ParameterInfo(role, stacked=stacked))  # type: ignore[arg-type]
        for i, (role, shape) in enumerate(shapes)
    ]


def build(parameters: list[Any], use: str = "adamw", **options: Any) -> Optimizer:
    return Spec.read("optimizer", {"use": use, **options}).build(parameters)


def step(optimizer: Optimizer, gradients: list[Tensor | None], scale: float = 1.0) -> None:
    for (_, parameter, _), gradient in zip(optimizer.parameters, gradients, strict=True):
        parameter.grad = None if gradient is None else gradient.clone()
    optimizer.step(scale)


@kernels
@given(
    seed=st.integers(0, 50),
    betas=st.sampled_from([(0.9, 0.95), (0.9, 0.999), (0.0, 0.5)]),
    eps=st.sampled_from([1e-8, 1e-3, 0.1]),
    decay=st.sampled_from([0.0, 0.1]),
)
@settings(max_examples=15, deadline=None)
def test_adamw_is_the_librarys_adamw(kernel, seed, betas, eps, decay):
    ours = named(("matrix", (3, 4)), ("matrix", (5,)), seed=seed)
    theirs = [nn.Parameter(p.detach().clone()) for _, p, _ in ours]
    optimizer = build(ours, learning_rate=0.01, betas=betas, eps=eps, weight_decay=decay, kernel=kernel)
    library = torch.optim.AdamW(theirs, lr=0.01, betas=betas, eps=eps, weight_decay=decay)
    for t in range(20):
        gradients = [draw(100 * seed + t, *p.shape, scale=10.0 ** (t % 5 - 2)) for p in theirs]
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient.clone()
        for group in library.param_groups:
            group["lr"] = 0.01 * (1 - t / 40)
        library.step()
        step(optimizer, gradients, 1 - t / 40)
    for (_, parameter, _), other in zip(ours, theirs, strict=True):
        assert float((parameter - other).abs().max()) < 1e-12


@kernels
@given(seed=st.integers(0, 50), decay=st.sampled_from([0.0, 0.3]), late=st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_adamw_follows_the_scalar_recursion_with_steps_counted_per_parameter(kernel, seed, decay, late):
    (beta1, beta2), eps, rate = (0.8, 0.9), 1e-3, 0.02
    parameters = named(("matrix", (1,)), ("norm", (1,)), seed=seed)
    optimizer = build(
        parameters, learning_rate=rate, betas=(beta1, beta2), eps=eps, weight_decay=decay, kernel=kernel
    )
    values, means, squares, counts = [float(p) for _, p, _ in parameters], [0.0] * 2, [0.0] * 2, [0] * 2
    for t in range(20):
        gradients: list[Tensor | None] = [draw(7 * seed + 2 * t + i, 1) for i in range(2)]
        if t == late:
            gradients[0] = None
        step(optimizer, gradients)
        for i, gradient in enumerate(gradients):
            if gradient is None:
                continue
            g, counts[i] = float(gradient), counts[i] + 1
            values[i] *= 1 - rate * (decay if i == 0 else 0.0)
            means[i] = beta1 * means[i] + (1 - beta1) * g
            squares[i] = beta2 * squares[i] + (1 - beta2) * g * g
            corrected = math.sqrt(squares[i] / (1 - beta2 ** counts[i])) + eps
            values[i] -= rate * means[i] / (1 - beta1 ** counts[i]) / corrected
    for (_, parameter, _), value in zip(parameters, values, strict=True):
        assert abs(float(parameter) - value) < 1e-12


@kernels
@given(seed=st.integers(0, 30), power=st.integers(-8, 8))
@settings(max_examples=10, deadline=None)
def test_the_scale_of_the_gradients_does_not_matter_to_adamw(kernel, seed, power):
    runs = []
    for factor in (1.0, 2.0**power):
        parameters = named(("matrix", (4,)), seed=seed)
        optimizer = build(parameters, eps=1e-20, kernel=kernel)
        for t in range(8):
            step(optimizer, [draw(50 * seed + t, 4) * factor])
        runs.append(parameters[0][1].detach())
    assert float((runs[0] - runs[1]).abs().max()) < 1e-12


@kernels
@given(seed=st.integers(0, 100), betas=st.sampled_from([(0.9, 0.999), (0.9, 0.95), (0.5, 0.9)]))
@settings(max_examples=20, deadline=None)
def test_adamws_steps_are_bounded(kernel, seed, betas):
    """|Δ_t| ≤ lr · C_t by Cauchy–Schwarz; |Δ| ≤ lr alone is false."""
    beta1, beta2 = betas
    ratio = beta1**2 / beta2
    parameters = named(("bias", (16,)), seed=seed)
    optimizer = build(parameters, learning_rate=1.0, betas=betas, eps=1e-20, kernel=kernel)
    for t in range(1, 13):
        before = parameters[0][1].detach().clone()
        step(optimizer, [draw(99 * seed + t, 16) * 10.0 ** draw(seed * 31 + t, 16).mul(3).clamp(-6, 6)])
        bound = (1 - beta1) / math.sqrt(1 - beta2) * math.sqrt((1 - ratio**t) / (1 - ratio))
        bound *= math.sqrt(1 - beta2**t) / (1 - beta1**t)
        assert float((parameters[0][1] - before).abs().max()) <= bound * (1 + 1e-9)


@optimizers
def test_betas_whose_steps_have_no_bound_are_refused(use):
    def read(*betas: float) -> Spec[Optimizer]:
        return Spec.read(
            "optimizer", {"use": use, **({"betas": betas} if use == "adamw" else {"others": {"betas": betas}})}
        )

    for betas in ((0.9, 0.95), (0.9, 0.81), (0.0, 0.0), (0.95, 0.95)):
        read(*betas)
    with pytest.raises(ValueError, match="grow without bound; raise the second to 0.25 at least"):
        read(0.5, 0.0)


@kernels
@pytest.mark.parametrize("shape", [(), (0,), (1,), (0, 3)])
def test_scalars_and_empty_tensors_are_parameters_too(kernel, shape):
    parameters = named(("vector", shape), ("matrix", (2, 2)))
    optimizer = build(parameters, kernel=kernel)
    for t in range(2):
        step(optimizer, [torch.ones(shape, dtype=torch.float64), draw(t, 2, 2)])
    assert parameters[0][1].shape == shape and bool(parameters[0][1].isfinite().all())


@kernels
def test_parameters_and_gradients_need_not_be_contiguous(kernel):
    straight, turned = named(("matrix", (3, 5))), named(("matrix", (3, 5)))
    turned[0][1].data = turned[0][1].data.t().contiguous().t()
    for parameters, gradient in ((straight, draw(1, 3, 5)), (turned, draw(1, 3, 5).t().contiguous().t())):
        optimizer = build(parameters, kernel=kernel)
        parameters[0][1].grad = gradient
        optimizer.step(1.0)
        optimizer.step(1.0)
    assert float((straight[0][1] - turned[0][1]).abs().max()) < 1e-14


@kernels
def test_roles_that_decay_are_the_configs(kernel):
    roles = ["matrix", "embedding", "head", "norm", "bias", "router", "vector"]
    for decayed in (["matrix", "embedding", "head"], ["norm"], []):
        parameters = named(*[(role, (3,)) for role in roles])
        before = [p.detach().clone() for _, p, _ in parameters]
        options = {} if len(decayed) == 3 else {"decayed": decayed}
        optimizer = build(parameters, learning_rate=0.5, weight_decay=0.2, kernel=kernel, **options)
        step(optimizer, [torch.zeros(3, dtype=torch.float64)] * len(roles))
        for (_, parameter, info), old in zip(parameters, before, strict=True):
            assert torch.allclose(parameter, old * (0.9 if info.role in decayed else 1.0), atol=1e-15), info.role


@optimizers
def test_a_state_of_other_parameters_is_refused(use):
    state = build(named(("matrix", (2, 2))), use)
    step(state, [draw(0, 2, 2)])
    with pytest.raises(UserError, match="parameter 'matrix0' is .* here") as caught:
        build(named(("matrix", (2, 3))), use).load_state_dict(state.state_dict())
    assert caught.value.code == "optimizer-state-mismatch"
    with pytest.raises(UserError, match="not trained here"):
        build([], use).load_state_dict(state.state_dict())


@optimizers
def test_a_parameter_is_listed_once(use):
    parameters = named(("matrix", (2, 2)), ("norm", (2,)))
    with pytest.raises(ValueError, match="'matrix0' and 'other' are one tensor"):
        build([*parameters, ("other", parameters[0][1], parameters[0][2])], use)
    with pytest.raises(ValueError, match="'norm1' is listed twice"):
        build([*parameters, ("norm1", nn.Parameter(draw(0, 2)), parameters[1][2])], use)


@optimizers
def test_state_is_float_tensors_and_plain_data_under_the_parameters_names(use):
    parameters = named(("matrix", (4, 3)), ("embedding", (5, 2)))
    optimizer = build(parameters, use)
    step(optimizer, [draw(0, 4, 3), None])
    text = repr(optimizer.state_dict())
    assert "matrix0" in text and "embedding1" not in text, "state of a parameter that was never updated"
    # Adam keeps two numbers for each of a parameter, Muon one for those of matrices.
    tensors = [
        v
        for s in (optimizer.state_dict().get("momenta") or optimizer.state_dict()["moments"]).values()
        for v in s.values()
    ]
    floats = sum(t.numel() for t in tensors if isinstance(t, Tensor))
    assert floats == {"adamw": 24, "muon": 12}[use]


@given(
    seed=st.integers(0, 100),
    rows=st.integers(1, 8),
    columns=st.integers(1, 8),
    size=st.sampled_from([1e-12, 1e-3, 1.0, 1e6]),
)
@settings(max_examples=40, deadline=None)
def test_orthogonalised_singular_values_are_near_one_whatever_the_scale(seed, rows, columns, size):
    rank = min(rows, columns)
    values = torch.logspace(-1, 0, rank, dtype=torch.float64)
    left, right = torch.linalg.qr(draw(seed, rows, rows)).Q, torch.linalg.qr(draw(seed + 1, columns, columns)).Q
    matrix = left[:, :rank] @ torch.diag(values) @ right[:, :rank].T * size
    found = torch.linalg.svdvals(orthogonalise(matrix))
    assert float(found.min()) > 0.5 and float(found.max()) < 1.5


@given(seed=st.integers(0, 30), smallest=st.sampled_from([0.002, 0.02, 0.05, 0.2]))
@settings(max_examples=15, deadline=None)
def test_singular_values_down_to_a_five_hundredth_are_raised_to_one(seed, smallest):
    """Of the gradient's norm; fewer iterations leave them behind."""
    values = torch.tensor([0.9, smallest], dtype=torch.float64)
    left, right = torch.linalg.qr(draw(seed, 4, 4)).Q[:, :2], torch.linalg.qr(draw(seed + 1, 6, 6)).Q[:, :2]
    found = torch.linalg.svdvals(orthogonalise(left @ torch.diag(values / values.norm()) @ right.T))[:2]
    assert float(found.min()) > 0.65 and float(found.max()) < 1.25


@given(seed=st.integers(0, 100), rows=st.integers(1, 40), columns=st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_in_bfloat16_singular_values_stay_near_one_and_the_result_has_the_gradients_type(seed, rows, columns):
    rank = min(rows, columns)
    values = torch.logspace(-1, 0, rank, dtype=torch.float64)
    left, right = torch.linalg.qr(draw(seed, rows, rows)).Q, torch.linalg.qr(draw(seed + 1, columns, columns)).Q
    matrix = left[:, :rank] @ torch.diag(values) @ right[:, :rank].T
    direction = orthogonalise(matrix, torch.bfloat16)
    assert direction.dtype == torch.float64
    found = torch.linalg.svdvals(direction)
    # Exact arithmetic stays in (0.65, 1.25); each of ten products rounds by 2⁻⁹ of entries whose spectral norm is 1.2.
    assert float(found.min()) > 0.5 and float(found.max()) < 1.4


@given(seed=st.integers(0, 100), rows=st.integers(1, 6), columns=st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_the_direction_turns_transposes_and_mirrors_with_the_gradient(seed, rows, columns):
    gradient = draw(seed, rows, columns)
    u, v = torch.linalg.qr(draw(seed + 1, rows, rows)).Q, torch.linalg.qr(draw(seed + 2, columns, columns)).Q
    direction = orthogonalise(gradient)
    assert float((orthogonalise(u @ gradient @ v) - u @ direction @ v).abs().max()) < 1e-10
    assert float((orthogonalise(gradient.T) - direction.T).abs().max()) < 1e-12
    assert torch.equal(orthogonalise(-gradient), -direction)
    assert float((direction * gradient).sum()) > 0


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20, 1e30])
def test_in_float32_too_the_scale_does_not_matter(size):
    gradient = draw(0, 5, 3).float()
    assert float((orthogonalise(gradient * size) - orthogonalise(gradient)).abs().max()) < 1e-4


def test_a_zero_gradient_has_no_direction():
    assert torch.equal(orthogonalise(torch.zeros(3, 4)), torch.zeros(3, 4))


@pytest.mark.parametrize("shape", [(4, 6), (6, 4)])
def test_a_stack_of_matrices_is_updated_one_by_one(shape):
    stack = [("experts", nn.Parameter(draw(0, 3, *shape)), ParameterInfo("matrix", stacked=1))]
    alone = [(f"e{i}", nn.Parameter(stack[0][1][i].detach().clone()), ParameterInfo("matrix")) for i in range(3)]
    together, apart = build(stack, "muon"), build(alone, "muon")
    for t in range(3):
        gradient = draw(10 + t, 3, *shape)
        step(together, [gradient])
        step(apart, list(gradient))
    for i, (_, parameter, _) in enumerate(alone):
        assert float((stack[0][1][i] - parameter).abs().max()) < 1e-12


def test_what_is_no_matrix_is_updated_by_adamw():
    roles = [
        ("embedding", (3, 4)),
        ("head", (3, 4)),
        ("norm", (4,)),
        ("matrix", (4,)),
        ("matrix", (2, 3, 4)),
        ("router", (3, 4)),
    ]
    muon, adamw = named(*roles), named(*roles)
    options = {"learning_rate": 0.01, "weight_decay": 0.3}
    one, other = (
        build(muon, "muon", **options, others={"betas": (0.8, 0.9)}),
        build(adamw, **options, betas=(0.8, 0.9)),
    )
    for t in range(3):
        gradients = [draw(t, *shape) for _, shape in roles]
        step(one, gradients, 0.5)
        step(other, gradients, 0.5)
    for (name, a, _), (_, b, _) in zip(muon, adamw, strict=True):
        assert torch.equal(a, b), name


def test_the_others_rate_leaves_their_decay_as_it_was():
    for rate in (0.1, 5.0):
        parameters = named(("embedding", (3, 4)))
        before = parameters[0][1].detach().clone()
        optimizer = build(parameters, "muon", learning_rate=0.1, weight_decay=0.5, others={"rate": rate})
        step(optimizer, [torch.zeros(3, 4, dtype=torch.float64)])
        assert torch.allclose(parameters[0][1], before * 0.95, atol=1e-14)
        step(optimizer, [torch.ones(3, 4, dtype=torch.float64)])
        assert parameters[0][1].isfinite().all()


@pytest.mark.parametrize(("scale", "wide", "tall"), [("rms", 0.2 * 8**0.5, 0.2 * 8**0.5), ("spectral", 1.0, 2.0)])
def test_the_size_of_muons_update_follows_the_shape(scale, wide, tall):
    for shape, expected in (((2, 8), wide), ((8, 2), tall)):
        parameters = named(("matrix", shape))
        before = parameters[0][1].detach().clone()
        optimizer = build(parameters, "muon", learning_rate=1.0, weight_decay=0.0, scale=scale)
        step(optimizer, [draw(3, *shape)])
        found = torch.linalg.svdvals(before - parameters[0][1].detach())
        assert 0.65 * expected < float(found.min()) and float(found.max()) < 1.25 * expected


@pytest.mark.parametrize("nesterov", [True, False])
def test_muons_momentum_is_the_sum_that_the_paper_writes(nesterov):
    parameters = named(("matrix", (3, 5)))
    weight = parameters[0][1].detach().clone()
    optimizer = build(
        parameters, "muon", learning_rate=0.1, weight_decay=0.2, momentum=0.5, nesterov=nesterov, scale="spectral"
    )
    momentum = torch.zeros(3, 5, dtype=torch.float64)
    for t in range(4):
        gradient = draw(t, 3, 5)
        momentum = 0.5 * momentum + gradient
        ahead = gradient + 0.5 * momentum if nesterov else momentum
        weight = weight * (1 - 0.1 * 0.2) - 0.1 * orthogonalise(ahead)
        step(optimizer, [gradient])
    assert float((weight - parameters[0][1]).abs().max()) < 1e-12


@optimizers
def test_the_bottom_of_a_bowl_is_found(use):
    parameters = named(("matrix", (4, 6)), ("norm", (5,)))
    bottoms = [p.detach() + 2 * torch.sign(draw(9 + i, *p.shape)) for i, (_, p, _) in enumerate(parameters)]
    optimizer = build(
        parameters, use, learning_rate=0.05, weight_decay=0.0, **({"scale": "spectral"} if use == "muon" else {})
    )
    for t in range(400):
        step(optimizer, [2 * (p.detach() - a) for (_, p, _), a in zip(parameters, bottoms, strict=True)], 1 - t / 400)
    for (name, parameter, _), bottom in zip(parameters, bottoms, strict=True):
        assert float((parameter - bottom).detach().abs().max()) < 0.1, name
