"""Properties of direct preference optimisation: the loss is the one that its name and its options say."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import close
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.laws.aligner.bench import chosen_rows, prepared, sums
from corelm.kinds.batch import IGNORE, Batch
from corelm.kinds.trainer import Processes


def _not_dpo(part: PartUnderTest) -> str | None:
    return None if getattr(part.cls, "law", part.name) == "dpo" else "it is not direct preference optimisation"


def _loss(part: PartUnderTest, draw: Draw) -> dict[str, Any]:
    """A loss among those that the part offers, as an option; sigmoid where it offers none."""
    return {"loss": draw.choice("loss", LOSSES)} if "loss" in part.cls.Config.model_fields else {}


LOSSES = ("sigmoid", "ipo", "hinge")


def _margins(given: Any, batch: Batch, *, mean: bool = False) -> Tensor:
    """Δ of each pair, from the models themselves; over means of log-probabilities where asked for."""
    ratio = sums(given.models["policy"], batch) - sums(given.models["reference"], batch)
    if mean:
        ratio = ratio / (batch.targets != IGNORE).sum(1)
    return ratio[0::2] - ratio[1::2]


@property_of(
    "aligner",
    statement="Chosen and rejected swapped change the Bradley–Terry loss by ℓ(c, r) − ℓ(r, c) = −z.",
    formula="ℓ(c, r) − ℓ(r, c) = −z (1 − 2ε), z = β Δ",
    catches="a sign, a missing reference, a clamp",
    tolerance="log-probabilities may be kept in float32, and z is ten of them",
    examples=5,
    excuse=_not_dpo,
)
def antisymmetric(part: PartUnderTest, draw: Draw) -> None:
    """z from the models themselves; smoothing shrinks the difference by 1 − 2ε."""
    pins = {"loss": "sigmoid", "beta": draw.choice("beta", [0.1, 1.0])}
    alignment, given, config = prepared(part, draw, pins=pins)
    batch = next(alignment.streams(Processes()))
    policy, reference = sums(given.models["policy"], batch), sums(given.models["reference"], batch)
    margin = (policy - reference)[0::2] - (policy - reference)[1::2]
    pairs = torch.arange(len(batch.ids)).view(-1, 2).flip(1).flatten()
    swapped = chosen_rows(batch, pairs)
    with torch.no_grad():
        found = alignment.objective.evaluate(alignment.trained, batch).total
        found = found - alignment.objective.evaluate(alignment.trained, swapped).total
    smoothing = getattr(config, "label_smoothing", 0.0)
    close(found, -config.beta * margin.sum() * (1 - 2 * smoothing), "ℓ(c, r) − ℓ(r, c), and −z", 1e-4)


@property_of(
    "aligner",
    statement="With the policy equal to the reference every pair's loss is ln 2, whatever beta and smoothing.",
    formula="π = ref ⇒ ℓ = ln 2, ∀ β, ε",
    catches="beta outside of the log-sigmoid, a reference that isn't subtracted",
    examples=5,
    excuse=_not_dpo,
)
def ln_two_at_the_reference(part: PartUnderTest, draw: Draw) -> None:
    """At the start of training."""
    alignment, _, _ = prepared(part, draw, apart=False, pins={"loss": "sigmoid"})
    batch = next(alignment.streams(Processes()))
    terms = alignment.objective.evaluate(alignment.trained, batch)
    loss = float(terms.total.detach()) / alignment.objective.count(batch)
    assert abs(loss - math.log(2)) < 1e-5, f"loss {loss:.6f} per pair, ln 2 is {math.log(2):.6f}"


@property_of(
    "aligner",
    statement="A pair's loss is that of its name: sigmoid (with label smoothing), IPO or hinge, of the margin Δ.",
    formula="−(1−ε) log σ(βΔ) − ε log σ(−βΔ); (Δ̄ − 1/(2β))²; max(0, 1 − βΔ); Δ = Δ log π − Δ log ref",
    catches="labels smoothed the wrong way round, means for sums, β outside of the log-sigmoid, a squared hinge",
    tolerance="float64 models, whose log-probabilities a part may keep in float32: 1e-7 of some tens of nats",
    examples=5,
    excuse=_not_dpo,
)
def formula_of_its_loss(part: PartUnderTest, draw: Draw) -> None:
    """A batch of pairs under each loss that the part offers, in plain numbers."""
    beta = draw.choice("beta", [0.1, 1.0, 0.01])
    softplus = torch.nn.functional.softplus
    for law in LOSSES if "loss" in part.cls.Config.model_fields else LOSSES[:1]:
        pins = {"loss": law, "beta": beta}
        if law == "sigmoid":
            pins["label_smoothing"] = draw.choice("label_smoothing", [0.2, 0.0])
        alignment, given, config = prepared(part, draw, pins=pins)
        batch = next(alignment.streams(Processes()))
        smoothing = getattr(config, "label_smoothing", 0.0)
        delta = _margins(given, batch, mean=law == "ipo")
        wanted = {
            "sigmoid": (1 - smoothing) * softplus(-beta * delta) + smoothing * softplus(beta * delta),
            "ipo": (delta - 1 / (2 * beta)) ** 2,
            "hinge": (1 - beta * delta).clamp(min=0),
        }
        with torch.no_grad():
            found = alignment.objective.evaluate(alignment.trained, batch).total
        close(found, wanted[law].sum(), f"the loss, and {law} of the margins", 1e-5)


@property_of(
    "aligner",
    statement="However far policy and reference are apart, the loss and its gradient are finite: max(0, −z) plus ln 2.",
    formula="|z| ~ 10³: max(0, −z) ≤ ℓ ≤ max(0, −z) + ln 2, ∇ℓ finite",
    catches="log(sigmoid(z)), which is −∞ from z = −104 on in float32",
    examples=6,
    excuse=_not_dpo,
)
def finite_far_apart(part: PartUnderTest, draw: Draw) -> None:
    """A large β stands for models that are far apart."""
    beta = draw.choice("beta", [1e3, 1e4])
    alignment, given, _ = prepared(part, draw, pins={"loss": "sigmoid", "beta": beta, "label_smoothing": 0.0})
    batch = next(alignment.streams(Processes()))
    least = (-beta * _margins(given, batch)).clamp(min=0).sum()
    total = alignment.objective.evaluate(alignment.trained, batch).total
    assert total.isfinite(), f"the loss is {float(total)}, it should be near {float(least):.1f}"
    above, room = float(total.detach()) - float(least), 1e-5 * float(least) + 1e-6
    most = math.log(2) * len(batch.ids) / 2
    assert -room <= above <= most + room, f"the loss is {above:.4f} above Σ max(0, −z), at most {most:.4f} are right"
    total.backward()
    for name, p in alignment.trained.module.named_parameters():
        assert p.grad is None or bool(p.grad.isfinite().all()), f"the gradient of {name} is not finite"


@property_of(
    "aligner",
    statement="A step down the loss makes the chosen answers likelier against the rejected ones.",
    formula="p ← p − η∇ℓ ⇒ Σ Δ grows",
    catches="ascent, chosen and rejected exchanged, a loss of the reference",
    tier="f64",
    examples=26,
    excuse=_not_dpo,
)
def chosen_gains_on_rejected(part: PartUnderTest, draw: Draw) -> None:
    """One small step from the reference, on one batch, under each loss."""
    alignment, given, _ = prepared(part, draw, apart=False, pins={**_loss(part, draw), "label_smoothing": 0.0})
    batch = next(itertools.islice(alignment.streams(Processes()), 1))
    alignment.objective.evaluate(alignment.trained, batch).total.backward()
    gradients = [p.grad for p in alignment.policy.module.parameters() if p.grad is not None]
    norm = float(torch.stack([g.norm() for g in gradients]).norm())
    assert norm > 0, "there is no gradient where policy and reference are equal"
    before = float(_margins(given, batch).sum())
    with torch.no_grad():
        for p in alignment.policy.module.parameters():
            if p.grad is not None:
                p.sub_(1e-4 / norm * p.grad)
    after = float(_margins(given, batch).sum())
    assert after > before, f"the margin was {before:.3g}, after a step down the loss it is {after:.3g}"
