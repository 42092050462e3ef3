"""Laws of preference losses."""

from __future__ import annotations

import math

import pytest
import torch
from corelm_alignment.losses import hinge_loss, ipo_loss, margin, sigmoid_loss
from hypothesis import given, settings
from hypothesis import strategies as st

FEW = settings(max_examples=40, deadline=None)

LOSSES = {"sigmoid": sigmoid_loss, "ipo": ipo_loss, "hinge": hinge_loss}
betas = st.floats(-2, 1).map(lambda power: 10.0**power)
seeds = st.integers(0, 2**31)
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def four(seed: int, pairs: int = 5, scale: float = 3.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(pairs, generator=generator, dtype=torch.float64) for _ in range(4)]


def swapped(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    return [inputs[1], inputs[0], inputs[3], inputs[2]]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@FEW
@given(seeds, betas)
def test_swapping_the_answers_changes_the_sigmoid_loss_by_minus_z(seed: int, beta: float):
    inputs = four(seed)
    pc, pr, rc, rr = inputs
    z = beta * ((pc - rc) - (pr - rr))
    close(sigmoid_loss(*inputs, beta=beta) - sigmoid_loss(*swapped(inputs), beta=beta), -z)


@FEW
@given(seeds, betas)
def test_swapping_the_answers_changes_the_ipo_loss_by_minus_two_delta_over_beta(seed: int, beta: float):
    inputs = four(seed)
    pc, pr, rc, rr = inputs
    delta = (pc - rc) - (pr - rr)
    close(ipo_loss(*inputs, beta=beta) - ipo_loss(*swapped(inputs), beta=beta), -2 * delta / beta)


@FEW
@given(seeds, betas)
def test_swapping_the_answers_changes_the_hinge_loss_by_cases(seed: int, beta: float):
    inputs = four(seed)
    pc, pr, rc, rr = inputs
    z = beta * ((pc - rc) - (pr - rr))
    expected = torch.where(z.abs() <= 1, -2 * z, -z.sign() * (1 + z.abs()))
    close(hinge_loss(*inputs, beta=beta) - hinge_loss(*swapped(inputs), beta=beta), expected)


@FEW
@given(seeds, betas, st.floats(0, 0.49))
def test_the_loss_is_a_constant_where_the_policy_is_the_reference(seed: int, beta: float, smoothing: float):
    pc, pr, _, _ = four(seed)
    same = [pc, pr, pc, pr]
    ln2 = torch.full_like(pc, math.log(2))
    close(sigmoid_loss(*same, beta=beta, label_smoothing=smoothing), ln2)
    close(ipo_loss(*same, beta=beta) * 4 * beta**2, torch.ones_like(pc))
    close(hinge_loss(*same, beta=beta), torch.ones_like(pc))


@every_loss
@FEW
@given(seed=seeds, beta=betas)
def test_gradients_raise_the_chosen_and_lower_the_rejected_answer_alike(loss, seed: int, beta: float):
    inputs = [tensor.requires_grad_() for tensor in four(seed, scale=1e-3)]
    chosen, rejected, _, _ = torch.autograd.grad(loss(*inputs, beta=beta).sum(), inputs)
    # IPO alone turns back, beyond its optimum of 1/(2 beta); these margins stay far below it.
    assert (chosen < 0).all()
    assert (rejected > 0).all()
    close(chosen, -rejected)


@every_loss
@FEW
@given(seed=seeds, beta=betas, shift=st.floats(-50, 50))
def test_shifts_that_leave_the_log_ratio_leave_the_loss(loss, seed: int, beta: float, shift: float):
    pc, pr, rc, rr = four(seed)
    expected = loss(pc, pr, rc, rr, beta=beta)
    torch.testing.assert_close(loss(pc + shift, pr + shift, rc, rr, beta=beta), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(loss(pc + shift, pr, rc + shift, rr, beta=beta), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(loss(pc, pr, rc + shift, rr + shift, beta=beta), expected, rtol=1e-9, atol=1e-9)


@FEW
@given(seeds)
def test_huge_margins_give_finite_losses_and_gradients(seed: int):
    inputs = [tensor.requires_grad_() for tensor in four(seed, scale=3000.0)]
    losses = sigmoid_loss(*inputs, beta=1.0)
    z = margin(*inputs).detach()
    assert torch.isfinite(losses).all()
    assert ((losses - torch.clamp(-z, min=0)).abs() < 1).all()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(losses.sum(), inputs))


@pytest.mark.parametrize("loss", [sigmoid_loss, hinge_loss])
@FEW
@given(seed=seeds, beta=betas)
def test_beta_only_scales_the_log_probabilities(loss, seed: int, beta: float):
    inputs = four(seed)
    close(loss(*inputs, beta=beta), loss(*(beta * tensor for tensor in inputs), beta=1.0))


@FEW
@given(seeds, betas, st.floats(0, 0.49))
def test_label_smoothing_mixes_the_losses_of_both_orders(seed: int, beta: float, share: float):
    inputs = four(seed)
    plain, turned = sigmoid_loss(*inputs, beta=beta), sigmoid_loss(*swapped(inputs), beta=beta)
    close(sigmoid_loss(*inputs, beta=beta, label_smoothing=share), (1 - share) * plain + share * turned)


@every_loss
@FEW
@given(seed=seeds, beta=betas, order=st.permutations(range(5)))
def test_a_pair_does_not_know_its_batch_mates(loss, seed: int, beta: float, order: list[int]):
    inputs = four(seed)
    some = order[:3]
    assert torch.equal(loss(*(t[some] for t in inputs), beta=beta), loss(*inputs, beta=beta)[some])


@every_loss
def test_one_step_raises_the_odds_of_the_chosen_answer(loss):
    logits = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    reference = torch.full((2,), math.log(0.5), dtype=torch.float64)
    policy = logits.log_softmax(0)
    total = loss(policy[:1], policy[1:], reference[:1], reference[1:], beta=0.5).sum()
    (gradient,) = torch.autograd.grad(total, logits)
    after = (logits - 0.1 * gradient).softmax(0)
    assert after[0] > 0.5 > after[1]
