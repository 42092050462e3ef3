"""First-party evaluation parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corelm import hookimpl

if TYPE_CHECKING:
    from corelm.registration import Registrar

_PARTS: tuple[tuple[str, str, str, str], ...] = (
    (
        "evaluator",
        "perplexity",
        "perplexity:Perplexity",
        "How well a model predicts text: bits per byte, and perplexity per token, byte and word.",
    ),
    (
        "evaluator",
        "multiple-choice",
        "multiple_choice:MultipleChoice",
        "Which of several endings a model finds likeliest (Zellers et al., 2019, arXiv:1905.07830, and its kin).",
    ),
    (
        "evaluator",
        "last-word",
        "last_word:LastWord",
        "Guess the last word of a passage, as in LAMBADA (Paperno et al., 2016, arXiv:1606.06031).",
    ),
    (
        "evaluator",
        "pair-accuracy",
        "pair_accuracy:PairAccuracy",
        "How often a reward model scores the chosen answer above the rejected one.",
    ),
    (
        "evaluator",
        "class-accuracy",
        "class_accuracy:ClassAccuracy",
        "How often a classifier gives a text's own class the largest logit.",
    ),
    (
        "evaluator",
        "mean-reward",
        "mean_reward:MeanReward",
        "How a reward model scores the answers that a model gives.",
    ),
)


@hookimpl
def corelm_register(registry: Registrar) -> None:
    """Register this package's parts."""
    for kind, name, target, summary in _PARTS:
        registry.add(kind, name, f"corelm_evaluation.{target}", summary=summary)
