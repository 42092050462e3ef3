"""First-party stages: what a pipeline does, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corelm import hookimpl

if TYPE_CHECKING:
    from corelm.registration import Registrar

_PARTS: tuple[tuple[str, str, str], ...] = (
    ("pretrain", "pretrain:Pretrain", "Trains the recipe's model on the corpus"),
    ("finetune", "finetune:Finetune", "Trains a model on conversations or texts of one's own"),
    ("reward-model", "reward_model:RewardModel", "Trains a model to score answers, from preferences"),
    ("classifier", "classifier:Classifier", "Trains a model to sort texts into classes"),
    (
        "sample-preferences",
        "sample_preferences:SamplePreferences",
        "Lets a model answer prompts, and a reward model rank the answers into preferences",
    ),
    ("align", "align:Align", "Aligns a model to preferences or rewards"),
    ("quantize", "quantize:Quantize", "Quantizes a model's linear maps to few bits"),
    ("evaluate", "evaluate:Evaluate", "Measures models"),
    ("generate", "generate:Generate", "Lets a model answer prompts or continue texts"),
    ("export", "export:Export", "Writes a model in another format"),
)


@hookimpl
def corelm_register(registry: Registrar) -> None:
    """Register this package's parts."""
    for name, target, summary in _PARTS:
        registry.add("stage", name, f"corelm_stages.{target}", summary=summary)
