"""Equality with reference libraries, through the fixtures that ``tests/parity`` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from corelm_alignment.losses import hinge_loss, ipo_loss, margin, sigmoid_loss
from corelm_alignment.policy_gradient import (
    clipped_policy_loss,
    clipped_value_loss,
    generalized_advantages,
    kl_k1,
    kl_k3,
    masked_sum,
    whitened,
)

FOLDER = Path(__file__).parent.parent / "fixtures" / "alignment"


def cases(name: str) -> list[dict[str, Any]]:
    return json.loads((FOLDER / name).read_text())["cases"]


def tensors(case: dict[str, Any], *names: str) -> list[torch.Tensor]:
    return [torch.tensor(case[name], dtype=torch.float64) for name in names]


@pytest.mark.parametrize(
    "case", cases("preference_losses.json"), ids=lambda c: f"{c['loss']}-{c['beta']}-{c['label_smoothing']}"
)
def test_preference_losses_and_rewards_equal_trl(case: dict[str, Any]):
    four = tensors(case, "policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")
    beta = case["beta"]
    if case["loss"] == "sigmoid":
        found = sigmoid_loss(*four, beta=beta, label_smoothing=case["label_smoothing"])
    else:
        found = {"ipo": ipo_loss, "hinge": hinge_loss}[case["loss"]](*four, beta=beta)
    assert torch.equal(found, *tensors(case, "losses"))
    torch.testing.assert_close(beta * margin(*four), *tensors(case, "margins"), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", cases("policy_gradients.json"), ids=lambda c: f"{c['gamma']}-{c['lam']}")
def test_policy_gradients_equal_verl_and_trl(case: dict[str, Any]):
    mask = torch.tensor(case["mask"])
    rewards, values, old, new, ref = tensors(case, "rewards", "values", "old_logprobs", "logprobs", "ref_logprobs")
    advantages = generalized_advantages(rewards, values, mask, case["gamma"], case["lam"])
    returns = advantages + values
    wanted_advantages, wanted_returns, k1, k3 = tensors(case, "advantages", "returns", "k1", "k3")
    torch.testing.assert_close(
        whitened(advantages, mask)[mask], tensors(case, "whitened")[0][mask], rtol=1e-12, atol=1e-12
    )
    # verl adds 1e-8 to the counts that it divides by.
    torch.testing.assert_close(whitened(advantages, mask)[mask], wanted_advantages[mask], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(returns[mask], wanted_returns[mask], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(kl_k1(old, ref)[mask], k1[mask], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(kl_k3(old, ref)[mask], k3[mask], rtol=1e-12, atol=1e-12)
    count = int(mask.sum())
    policy = masked_sum(clipped_policy_loss(new, old, wanted_advantages, 0.2), mask) / count
    torch.testing.assert_close(policy, *tensors(case, "policy_loss"), rtol=1e-8, atol=1e-8)
    (new_values,) = tensors(case, "new_values")
    value = masked_sum(clipped_value_loss(new_values, values, wanted_returns, 0.2), mask) / count
    torch.testing.assert_close(value, *tensors(case, "value_loss"), rtol=1e-8, atol=1e-8)
