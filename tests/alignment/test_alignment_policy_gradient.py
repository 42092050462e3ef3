"""Laws of policy gradients."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from corelm_alignment.policy_gradient import (
    clipped_policy_loss,
    clipped_value_loss,
    generalized_advantages,
    kl_k1,
    kl_k3,
    masked_sum,
    token_rewards,
    whitened,
)
from hypothesis import given, settings
from hypothesis import strategies as st

FEW = settings(max_examples=40, deadline=None)

seeds = st.integers(0, 2**31)


class Drawn:
    """Random tensors over answers of random places and lengths; garbage outside of them."""

    def __init__(self, seed: int, rows: int = 4, time: int = 7) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.shape = rows, time
        start = torch.randint(0, time, (rows, 1), generator=self.generator)
        length = torch.randint(1, time + 1, (rows, 1), generator=self.generator)
        columns = torch.arange(time)
        self.mask = (columns >= start) & (columns < start + length)

    def normal(self) -> torch.Tensor:
        values = torch.randn(self.shape, generator=self.generator, dtype=torch.float64)
        garbage = 1e4 * torch.randn(self.shape, generator=self.generator, dtype=torch.float64)
        return torch.where(self.mask, values, garbage)


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def expected_advantages(rewards, values, mask, gamma, lam):
    """The definition, as a double sum."""
    result = torch.zeros_like(rewards)
    for row in range(len(rewards)):
        places = mask[row].nonzero()[:, 0].tolist()
        r, v = rewards[row, places].tolist(), [*values[row, places].tolist(), 0.0]
        deltas = [r[t] + gamma * v[t + 1] - v[t] for t in range(len(r))]
        for t, place in enumerate(places):
            result[row, place] = sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas[t:]))
    return result


@FEW
@given(seeds, st.floats(0.1, 1), st.floats(0, 1))
def test_advantages_are_the_discounted_sum_of_errors(seed: int, gamma: float, lam: float):
    drawn = Drawn(seed)
    rewards, values = drawn.normal(), drawn.normal()
    found = generalized_advantages(rewards, values, drawn.mask, gamma, lam)
    close(found, expected_advantages(rewards, values, drawn.mask, gamma, lam))


@FEW
@given(seeds, st.floats(0.1, 1))
def test_lambda_one_is_the_return_less_the_value_and_lambda_zero_the_error_of_one_step(seed: int, gamma: float):
    drawn = Drawn(seed)
    rewards, values = drawn.normal(), drawn.normal()
    long = generalized_advantages(rewards, values, drawn.mask, gamma, 1.0)
    short = generalized_advantages(rewards, values, drawn.mask, gamma, 0.0)
    for row in range(len(rewards)):
        places = drawn.mask[row].nonzero()[:, 0].tolist()
        for t, place in enumerate(places):
            after = [rewards[row, later].item() for later in places[t:]]
            discounted = sum(gamma**k * reward for k, reward in enumerate(after))
            assert long[row, place].item() == pytest.approx(discounted - values[row, place].item(), abs=1e-9)
            following = values[row, places[t + 1]].item() if t + 1 < len(places) else 0.0
            error = rewards[row, place].item() + gamma * following - values[row, place].item()
            assert short[row, place].item() == pytest.approx(error, abs=1e-9)


@FEW
@given(seeds)
def test_whitened_values_have_mean_zero_and_unbiased_variance_one(seed: int):
    drawn = Drawn(seed, rows=6)
    values = drawn.normal()
    found = whitened(values, drawn.mask)
    assert not found[~drawn.mask].any()
    if drawn.mask.sum() > 1:
        assert abs(found[drawn.mask].mean().item()) < 1e-9
        variance = values[drawn.mask].var().item()
        assert found[drawn.mask].var().item() == pytest.approx(variance / (variance + 1e-8), rel=1e-9)


@FEW
@given(seeds, st.floats(0.5, 100), st.floats(-100, 100))
def test_whitening_ignores_scale_and_shift(seed: int, scale: float, shift: float):
    drawn = Drawn(seed, rows=6)
    values = drawn.normal()
    close(whitened(values * scale + shift, drawn.mask), whitened(values, drawn.mask), 1e-5)


@pytest.mark.parametrize("reward", [0.0, 0.1, 0.35, 1.0])
@pytest.mark.parametrize("tokens", [1, 2, 7, 63])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_advantages_whiten_to_zero(reward: float, tokens: int, dtype: torch.dtype):
    found = whitened(torch.full((3, tokens), reward, dtype=dtype), torch.ones(3, tokens, dtype=torch.bool))
    assert torch.isfinite(found).all()
    assert found.abs().max() < 1e-6


@FEW
@given(seeds)
def test_on_policy_the_loss_is_minus_the_mean_advantage_and_so_is_its_gradient(seed: int):
    drawn = Drawn(seed)
    old, advantages = -drawn.normal().abs(), drawn.normal()
    new = old.clone().requires_grad_()
    count = int(drawn.mask.sum())
    loss = masked_sum(clipped_policy_loss(new, old, advantages, 0.2), drawn.mask) / count
    close(loss.detach(), -advantages[drawn.mask].sum() / count)
    (gradient,) = torch.autograd.grad(loss, new)
    close(gradient, torch.where(drawn.mask, -advantages / count, 0.0))


@pytest.mark.parametrize(
    ("advantage", "log_ratio", "gradient_sign"), [(1.0, 0.5, 0), (-1.0, -0.5, 0), (1.0, -0.5, -1), (-1.0, 0.5, 1)]
)
def test_clipping_stops_the_gradient_at_two_corners_and_only_there(advantage, log_ratio, gradient_sign):
    old = torch.tensor([[-1.0]], dtype=torch.float64)
    new = (old + log_ratio).requires_grad_()
    clipped_policy_loss(new, old, torch.full_like(old, advantage), 0.2).sum().backward()
    assert new.grad is not None
    assert new.grad.sign().item() == gradient_sign


@FEW
@given(seeds)
def test_values_that_moved_little_pay_half_their_squared_error(seed: int):
    drawn = Drawn(seed)
    old, returns = drawn.normal(), drawn.normal()
    near = old + 0.1 * torch.tanh(drawn.normal())
    close(clipped_value_loss(near, old, returns, 0.2), 0.5 * (near - returns) ** 2)


@FEW
@given(seeds)
def test_clipped_values_never_pay_less_than_unclipped_ones(seed: int):
    drawn = Drawn(seed)
    new, old, returns = drawn.normal(), drawn.normal(), drawn.normal()
    assert (clipped_value_loss(new, old, returns, 0.2) >= 0.5 * (new - returns) ** 2).all()


@FEW
@given(seeds)
def test_the_k3_estimate_is_never_negative_and_zero_at_equality(seed: int):
    drawn = Drawn(seed)
    a, b = -drawn.normal().abs().clamp(max=20), -drawn.normal().abs().clamp(max=20)
    assert (kl_k3(a, b) >= 0).all()
    assert not kl_k3(a, a).any()
    assert not kl_k1(a, a).any()


@pytest.mark.parametrize("estimate", [kl_k1, kl_k3])
@FEW
@given(seed=seeds)
def test_the_estimates_are_unbiased_for_the_divergence_from_the_policy(estimate, seed: int):
    generator = torch.Generator().manual_seed(seed)
    p, q = (torch.randn(5, generator=generator, dtype=torch.float64).log_softmax(0) for _ in range(2))
    close((p.exp() * estimate(p, q)).sum(), (p.exp() * (p - q)).sum())


@FEW
@given(seeds, st.floats(0, 2))
def test_every_token_pays_for_its_divergence_and_the_last_one_gets_the_score(seed: int, coefficient: float):
    drawn = Drawn(seed)
    kl = drawn.normal()
    score = torch.arange(1.0, 5.0, dtype=torch.float64)
    rewards = token_rewards(score, kl, drawn.mask, coefficient)
    assert not rewards[~drawn.mask].any()
    for row in range(4):
        places = drawn.mask[row].nonzero()[:, 0].tolist()
        for place in places:
            expected = -coefficient * kl[row, place].item() + (row + 1 if place == places[-1] else 0)
            assert rewards[row, place].item() == pytest.approx(expected, abs=1e-9)


@FEW
@given(seeds)
def test_what_stands_outside_the_answers_never_matters(seed: int):
    drawn = Drawn(seed)
    inputs = [drawn.normal() for _ in range(5)]
    other = [torch.where(drawn.mask, x, 1e4 * torch.randn(drawn.shape, generator=drawn.generator)) for x in inputs]
    score = torch.ones(4, dtype=torch.float64)

    def everything(a, b, c, d, e):
        rewards = token_rewards(score, a, drawn.mask, 0.1)
        advantages = generalized_advantages(rewards, b, drawn.mask, 0.9, 0.8)
        policy = clipped_policy_loss(-c.abs(), -d.abs(), whitened(advantages, drawn.mask), 0.2)
        value = clipped_value_loss(e, b, advantages + b, 0.2)
        return torch.stack([masked_sum(policy, drawn.mask), masked_sum(value, drawn.mask)])

    assert torch.equal(everything(*inputs), everything(*other))


@FEW
@given(seeds)
def test_sums_over_micro_batches_add_up_to_the_sum_over_the_batch(seed: int):
    drawn = Drawn(seed)
    losses = drawn.normal()
    whole = masked_sum(losses, drawn.mask)
    parts = masked_sum(losses[:1], drawn.mask[:1]) + masked_sum(losses[1:], drawn.mask[1:])
    close(whole, parts)


STOP, STEPS = 1, 3
ANSWERS = [
    answer
    for length in range(1, STEPS + 1)
    for answer in itertools.product((0, STOP), repeat=length)
    if STOP not in answer[:-1] and (length == STEPS or answer[-1] == STOP)
]
PREFIXES = [prefix for length in range(STEPS) for prefix in itertools.product((0, STOP), repeat=length)]


@settings(max_examples=15, deadline=None)
@given(seeds, st.sampled_from([0.0, 0.3]))
def test_the_expected_gradient_over_all_answers_is_the_gradient_of_the_expected_reward(seed: int, coefficient: float):
    """Policy, values, KL penalty and score meet at the right tokens, with any baseline."""
    generator = torch.Generator().manual_seed(seed)

    def table(width: int) -> dict[tuple[int, ...], torch.Tensor]:
        return {prefix: torch.randn(width, generator=generator, dtype=torch.float64) for prefix in PREFIXES}

    policy, reference, baseline = table(2), table(2), table(1)
    score = {answer: torch.randn(1, generator=generator, dtype=torch.float64) for answer in ANSWERS}
    parameters = [logits.requires_grad_() for logits in policy.values()]

    def logprobs(of: dict[tuple[int, ...], torch.Tensor], answer: tuple[int, ...]) -> torch.Tensor:
        return torch.stack([of[answer[:t]].log_softmax(0)[token] for t, token in enumerate(answer)])

    expected_reward = sum(
        logprobs(policy, a).sum().exp()
        * (score[a][0] - coefficient * (logprobs(policy, a) - logprobs(reference, a)).sum())
        for a in ANSWERS
    )
    wanted = torch.autograd.grad(expected_reward, parameters, allow_unused=True)

    total = torch.zeros((), dtype=torch.float64)
    for answer in ANSWERS:
        new = logprobs(policy, answer)[None]
        old, ref = new.detach(), logprobs(reference, answer)[None]
        mask = torch.ones(1, len(answer), dtype=torch.bool)
        values = torch.stack([baseline[answer[:t]][0] for t in range(len(answer))])[None]
        rewards = token_rewards(score[answer], kl_k1(old, ref), mask, coefficient)
        advantages = generalized_advantages(rewards, values, mask, 1.0, 1.0)
        total = total + old.sum().exp() * masked_sum(clipped_policy_loss(new, old, advantages, 0.2), mask)
    found = torch.autograd.grad(total, parameters, allow_unused=True)
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            close(-one, other, 1e-9)


def test_all_answers_of_the_enumeration_have_probability_one():
    assert sum(0.5 ** len(answer) for answer in ANSWERS) == 1.0
    assert math.isclose(len(ANSWERS), 4)
