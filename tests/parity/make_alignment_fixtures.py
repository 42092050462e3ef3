"""Write tests/fixtures/alignment/*.json with reference libraries; run in an environment of their own.

    pip install trl==0.24.0 transformers==4.57.6 tokenizers==0.22.2 huggingface_hub==0.36.2 datasets==4.4.1 \
        peft==0.18.0 accelerate==1.12.0 httpx omegaconf
    pip install --no-deps verl==0.9.1 tensordict==0.10.0 pyvers importlib_metadata
    python tests/parity/make_alignment_fixtures.py
"""

from __future__ import annotations

import importlib.machinery
import json
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import torch

FOLDER = Path(__file__).parent.parent / "fixtures" / "alignment"
SEED = 20_260_101


def normal(generator: torch.Generator, *shape: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def write(name: str, versions: dict[str, str], cases: list[dict]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"versions": versions, "seed": SEED, "cases": cases}, indent=1)
    (FOLDER / name).write_text(text + "\n")


def preference_losses() -> None:
    import trl
    from trl import DPOTrainer
    from trl.trainer.dpo_config import FDivergenceType

    generator = torch.Generator().manual_seed(SEED)
    cases = []
    for loss, smoothing in [("sigmoid", 0.0), ("sigmoid", 0.1), ("sigmoid", 0.45), ("ipo", 0.0), ("hinge", 0.0)]:
        for beta in (0.01, 0.1, 1.0, 10.0):
            four = [normal(generator, 6, scale=3.0) for _ in range(4)]
            trainer = SimpleNamespace(
                beta=beta,
                label_smoothing=smoothing,
                reference_free=False,
                f_divergence_type=FDivergenceType.REVERSE_KL,
                f_divergence_params=None,
                accelerator=SimpleNamespace(device="cpu"),
                args=SimpleNamespace(discopop_tau=0.05),
                use_weighting=False,
                loss_type=[loss],
            )
            losses, chosen, rejected = DPOTrainer.dpo_loss(trainer, *four, loss_type=loss)
            cases.append(
                {
                    "loss": loss,
                    "beta": beta,
                    "label_smoothing": smoothing,
                    "policy_chosen": four[0].tolist(),
                    "policy_rejected": four[1].tolist(),
                    "reference_chosen": four[2].tolist(),
                    "reference_rejected": four[3].tolist(),
                    "losses": losses.tolist(),
                    "margins": (chosen - rejected).tolist(),
                }
            )
    write("preference_losses.json", {"trl": trl.__version__, "torch": torch.__version__}, cases)


def core_algorithms():
    for name in (
        "ray",
        "ray.actor",
        "ray.experimental",
        "ray.experimental.state",
        "ray.experimental.state.api",
        "ray.util",
        "ray.util.collective",
        "ray.util.placement_group",
        "ray.util.scheduling_strategies",
    ):
        module = types.ModuleType(name)
        module.__getattr__ = lambda _: MagicMock()
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__path__ = []
        sys.modules[name] = module
    from verl.trainer.ppo import core_algos

    return core_algos


def policy_gradient(algorithms, generator: torch.Generator, gamma: float, lam: float) -> dict:
    """One batch of answers of unequal length: advantages, losses and divergences."""
    from trl.core import masked_whiten

    rows, time = 5, 7
    lengths = torch.randint(1, time + 1, (rows,), generator=generator)
    mask = torch.arange(time)[None] < lengths[:, None]
    real = mask.double()
    rewards, values = normal(generator, rows, time) * real, normal(generator, rows, time) * real
    old, new, ref = (-normal(generator, rows, time).abs() * real for _ in range(3))
    new_values = values + normal(generator, rows, time, scale=0.3) * real
    advantages, returns = algorithms.compute_gae_advantage_return(
        token_level_rewards=rewards, values=values, response_mask=real, gamma=gamma, lam=lam
    )
    config = SimpleNamespace(
        clip_ratio=0.2,
        clip_ratio_low=0.2,
        clip_ratio_high=0.2,
        policy_loss={},
        global_batch_info={},
        get=lambda key, default=None: 1e9 if key == "clip_ratio_c" else default,
    )
    policy_loss = algorithms.compute_policy_loss_vanilla(
        old_log_prob=old, log_prob=new, advantages=advantages, response_mask=real, config=config
    )[0]
    value_loss = algorithms.compute_value_loss(
        vpreds=new_values, returns=returns, values=values, response_mask=real, cliprange_value=0.2
    )[0]
    return {
        "gamma": gamma,
        "lam": lam,
        "mask": mask.tolist(),
        **{
            name: tensor.tolist()
            for name, tensor in {
                "rewards": rewards,
                "values": values,
                "new_values": new_values,
                "old_logprobs": old,
                "logprobs": new,
                "ref_logprobs": ref,
                "advantages": advantages,
                "returns": returns,
                "whitened": masked_whiten(returns - values, real),
                "k1": algorithms.kl_penalty(old, ref, "k1"),
                "k3": algorithms.kl_penalty(old, ref, "k3"),
                "policy_loss": policy_loss,
                "value_loss": value_loss,
            }.items()
        },
    }


def policy_gradients() -> None:
    from importlib.metadata import version

    import trl

    algorithms = core_algorithms()
    generator = torch.Generator().manual_seed(SEED + 1)
    settings = [(1.0, 1.0), (1.0, 0.95), (0.9, 0.5), (0.75, 0.0)]
    cases = [policy_gradient(algorithms, generator, gamma, lam) for gamma, lam in settings]
    write(
        "policy_gradients.json", {"verl": version("verl"), "trl": trl.__version__, "torch": torch.__version__}, cases
    )


if __name__ == "__main__":
    preference_losses()
    policy_gradients()
