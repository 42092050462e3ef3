"""First-party training parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corelm import hookimpl

if TYPE_CHECKING:
    from corelm.registration import Registrar

_PARTS: tuple[tuple[str, str, str, str], ...] = (
    (
        "optimizer",
        "adamw",
        "adamw:AdamW",
        "AdamW: moments of the gradient set each coordinate's step, weight decay acts apart from them.",
    ),
    (
        "schedule",
        "cosine",
        "cosine:Cosine",
        "Warm-up, then half a cosine from 1 down to ``final`` (Loshchilov & Hutter, 2016, arXiv:1608.03983).",
    ),
    (
        "optimizer",
        "muon",
        "muon:Muon",
        "Muon for the matrices inside blocks, AdamW for all other parameters.",
    ),
    ("schedule", "linear", "linear:Linear", "Warm-up, then a straight line from 1 down to ``final``."),
    ("schedule", "constant", "constant:Constant", "Warm-up, then 1 for good: training can be prolonged at any time."),
    (
        "schedule",
        "warmup-stable-decay",
        "warmup_stable_decay:WarmupStableDecay",
        "Warm-up, then exactly 1, then a decay to ``final`` over the last steps.",
    ),
    (
        "objective",
        "next-token",
        "next_token:NextToken",
        "Predict every token that follows another in its document, prompts included.",
    ),
    (
        "objective",
        "completion-only",
        "completion_only:CompletionOnly",
        "Predict only the tokens that the batch marks as learnt: answers with their stop tokens, no prompts.",
    ),
    (
        "objective",
        "classification",
        "classification:Classification",
        'Cross-entropy of each row\'s class; reads ``extra["labels"]``, ``(batch,)``, where −1 is no label.',
    ),
    (
        "objective",
        "pairwise-reward",
        "pairwise_reward:PairwiseReward",
        "Bradley–Terry loss: the chosen answer's reward shall exceed the rejected one's.",
    ),
    ("trainer", "plain", "plain:Plain", "The whole loop in the open: one process, which trains where the model is."),
    (
        "trainer",
        "accelerate",
        "accelerate:Accelerate",
        "The loop of ``plain`` on the devices and processes that the accelerate library finds.",
    ),
)


@hookimpl
def corelm_register(registry: Registrar) -> None:
    """Register this package's parts."""
    for kind, name, target, summary in _PARTS:
        registry.add(kind, name, f"corelm_training.{target}", summary=summary)
