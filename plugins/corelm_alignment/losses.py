"""Preference losses, as pure functions of sequence log-probabilities.

Every argument holds one number per pair. Its name says whether the tokens' log-probabilities were summed
(``…_sum``) or averaged over the answer's length (``…_mean``): the same formula over the other one is another
algorithm. All functions return one loss per pair; nothing is reduced.

With Δ = (log π(chosen) − log ref(chosen)) − (log π(rejected) − log ref(rejected)):

* ``sigmoid``: −log σ(βΔ) (Rafailov et al., 2023, arXiv:2305.18290), with label smoothing ε
  −(1 − ε) log σ(βΔ) − ε log σ(−βΔ) (Mitchell, 2023; Chowdhury et al., 2024, arXiv:2403.00409);
* ``ipo``: (Δ − 1/(2β))² over averaged log-probabilities (Azar et al., 2023, arXiv:2310.12036);
* ``hinge``: max(0, 1 − βΔ) (Zhao et al., 2023, arXiv:2305.10425).
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

PerPair = Float[Tensor, " pairs"]


def margin(policy_chosen: PerPair, policy_rejected: PerPair, ref_chosen: PerPair, ref_rejected: PerPair) -> PerPair:
    """Δ: by how much more than the reference the policy prefers the chosen answer."""
    return (policy_chosen - policy_rejected) - (ref_chosen - ref_rejected)


def sigmoid_loss(
    policy_chosen_sum: PerPair,
    policy_rejected_sum: PerPair,
    ref_chosen_sum: PerPair,
    ref_rejected_sum: PerPair,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> PerPair:
    """Bradley–Terry likelihood; a share ``label_smoothing`` of the labels is taken to be the wrong way round."""
    z = beta * margin(policy_chosen_sum, policy_rejected_sum, ref_chosen_sum, ref_rejected_sum)
    return -F.logsigmoid(z) * (1 - label_smoothing) - F.logsigmoid(-z) * label_smoothing


def ipo_loss(
    policy_chosen_mean: PerPair,
    policy_rejected_mean: PerPair,
    ref_chosen_mean: PerPair,
    ref_rejected_mean: PerPair,
    *,
    beta: float,
) -> PerPair:
    """Squared distance of Δ from its regularised optimum 1/(2β)."""
    return (
        margin(policy_chosen_mean, policy_rejected_mean, ref_chosen_mean, ref_rejected_mean) - 1 / (2 * beta)
    ) ** 2


def hinge_loss(
    policy_chosen_sum: PerPair,
    policy_rejected_sum: PerPair,
    ref_chosen_sum: PerPair,
    ref_rejected_sum: PerPair,
    *,
    beta: float,
) -> PerPair:
    """Zero once βΔ has reached 1."""
    return F.relu(1 - beta * margin(policy_chosen_sum, policy_rejected_sum, ref_chosen_sum, ref_rejected_sum))
