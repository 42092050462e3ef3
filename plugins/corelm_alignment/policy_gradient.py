"""Policy gradients per token, as pure functions: KL estimates, rewards, advantages, losses, their sum.

All tensors are (rows, time) and aligned: column t belongs to one token of an answer. ``mask`` is True at the
answers' tokens, which are contiguous in their row; what the other columns hold never matters.
No function averages: ``masked_sum`` adds up, and whoever knows the *global* number of tokens divides.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

PerToken = Float[Tensor, "rows time"]
Mask = Bool[Tensor, "rows time"]


def kl_k1(logprobs: PerToken, ref_logprobs: PerToken) -> PerToken:
    """log π − log ref: unbiased for KL(π‖ref) over tokens drawn from π, of either sign."""
    return logprobs - ref_logprobs


def kl_k3(logprobs: PerToken, ref_logprobs: PerToken) -> PerToken:
    """r − 1 − log r with r = ref/π: unbiased too, never negative (Schulman, 2020, "Approximating KL divergence")."""
    log_ratio = ref_logprobs - logprobs
    return torch.expm1(log_ratio) - log_ratio


def token_rewards(score: Float[Tensor, " rows"], kl: PerToken, mask: Mask, kl_coefficient: float) -> PerToken:
    """−coefficient · KL at every token of the answer, and the answer's score at its last one."""
    rewards = torch.where(mask, -kl_coefficient * kl, 0.0)
    columns = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, columns, -1).amax(dim=1, keepdim=True)
    return rewards + torch.where(mask & (columns == last), score[:, None].to(rewards.dtype), 0.0)


def generalized_advantages(rewards: PerToken, values: PerToken, mask: Mask, gamma: float, lam: float) -> PerToken:
    """Generalized advantage estimation (Schulman et al., 2016, arXiv:1506.02438); 0 outside the mask.

    A_t = Σ_l (γλ)^l δ_{t+l} with δ_t = r_t + γ V_{t+1} − V_t. An answer is a whole episode: the value after its
    last token is 0.
    """
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    advantages = torch.zeros_like(values)
    running = torch.zeros_like(values[:, 0])
    after = torch.zeros_like(values[:, 0])
    for column in reversed(range(values.shape[1])):
        delta = rewards[:, column] + gamma * after - values[:, column]
        running = torch.where(mask[:, column], delta + gamma * lam * running, 0.0)
        advantages[:, column] = running
        after = values[:, column]
    return advantages


def whitened(values: PerToken, mask: Mask) -> PerToken:
    """Mean 0 and variance 1 over all tokens of the mask; 0 outside it.

    The variance is the unbiased one, 1e-8 is added to it. The arithmetic is in float64: equal values that are no
    binary fractions would otherwise leave rounding errors that the division blows up.
    """
    picked = values[mask].double()
    if picked.numel() < 2:
        return torch.zeros_like(values)
    whitened_ = (picked - picked.mean()) * torch.rsqrt(picked.var(unbiased=True) + 1e-8)
    return torch.zeros_like(values).masked_scatter(mask, whitened_.to(values.dtype))


def clipped_policy_loss(logprobs: PerToken, old_logprobs: PerToken, advantages: PerToken, clip: float) -> PerToken:
    """max(−Aρ, −A·clip(ρ, 1−ε, 1+ε)) with ρ = π/π_old (Schulman et al., 2017, arXiv:1707.06347)."""
    ratio = torch.exp(logprobs - old_logprobs)
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip))


def clipped_value_loss(values: PerToken, old_values: PerToken, returns: PerToken, clip: float) -> PerToken:
    """½ max((V − R)², (V_clipped − R)²), V_clipped within ``clip`` of what the values were."""
    near = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (near - returns) ** 2)


def masked_sum(per_token: PerToken, mask: Mask) -> Float[Tensor, ""]:
    """Sum over the tokens of the mask; divided by the global number of such tokens it is the loss.

    Tokens outside are left out, not multiplied by zero, so that even an infinity there has no effect.
    """
    return per_token[mask].sum()
