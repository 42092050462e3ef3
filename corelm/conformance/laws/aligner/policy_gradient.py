"""Properties of proximal policy optimisation, token by token, seen through what every aligner gives the trainer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from corelm.conformance.bench import Subject, close
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.laws.aligner.bench import job
from corelm.kinds.aligner import Alignment, AlignmentJob
from corelm.kinds.batch import IGNORE, Batch, BatchStream
from corelm.kinds.trainer import Processes

QUIET: dict[str, Any] = {"value_weight": 0.0, "kl_target": None, "missing_stop_penalty": 0.0}
"""Options that leave the loss to be that of the policy, and the reward that of the reward model."""

HEAD: dict[str, Any] = {"value": {"use": "scalar", "bias": True}}


def _not_proximal(part: PartUnderTest) -> str | None:
    return None if getattr(part.cls, "law", part.name) == "ppo" else "it is not proximal policy optimisation"


def _experience(part: PartUnderTest, draw: Draw, score: float, value: float = 0.0, **pins: Any) -> _Rollout:
    """A first batch of answers that all have one score, under a value head that says one value of everything."""
    subject: Subject = part.bench.subject(part, draw, **{**QUIET, **HEAD, **pins})
    return _begun(subject.part, job(part, subject.config, draw), score, value)


def _begun(aligner: Any, given: AlignmentJob, score: float, value: float = 0.0) -> _Rollout:
    """The same of a given part and job, of whose models it takes copies."""
    given = replace(given, models={role: copy.deepcopy(model) for role, model in given.models.items()})
    judged: Any = given.models["reward"]
    judged.scores = lambda ids, valid=None: torch.full((len(ids), 1), score, dtype=torch.float64)
    own = {id(parameter) for parameter in given.models["policy"].module.parameters()}
    alignment = aligner.prepare(given)
    added = [parameter for parameter in alignment.trained.module.parameters() if id(parameter) not in own]
    with torch.no_grad():
        for parameter in added:
            parameter.fill_(value if parameter.dim() == 1 else 0.0)
    return _Rollout(alignment, alignment.streams(Processes()), given, aligner.config, added)


def _logprobs(model: Any, batch: Batch) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.logprobs(batch.ids, batch.targets, valid=batch.valid)
    return found


class _Rollout:
    """The next batch of a stream with what policy and reference said of it when it was made."""

    def __init__(
        self, alignment: Alignment, stream: BatchStream, given: AlignmentJob, config: Any, head: list[nn.Parameter]
    ) -> None:
        self.alignment, self.stream, self.given, self.config, self.head = alignment, stream, given, config, head
        self.batch = next(stream)
        self.policy, self.reference = (_logprobs(given.models[role], self.batch) for role in ("policy", "reference"))

    def following(self) -> _Rollout:
        """The batch after this one."""
        return _Rollout(self.alignment, self.stream, self.given, self.config, self.head)

    @property
    def places(self) -> list[tuple[int, int]]:
        """Row and column of every token of the answers."""
        return [(int(row), int(column)) for row, column in (self.batch.targets != IGNORE).nonzero()]

    def losses(self) -> Tensor:
        """Of each of these tokens, when it is the only one that is learnt."""
        found = []
        for place in self.places:
            targets = torch.full_like(self.batch.targets, IGNORE)
            targets[place] = self.batch.targets[place]
            alone = Batch(self.batch.ids, targets, valid=self.batch.valid, extra=self.batch.extra)
            with torch.no_grad():
                found.append(self.alignment.objective.evaluate(self.alignment.trained, alone).total)
        return torch.stack(found)

    def answers(self) -> list[list[tuple[int, int]]]:
        """The places, by row."""
        rows = sorted({row for row, _ in self.places})
        return [[place for place in self.places if place[0] == row] for row in rows]


@property_of(
    "aligner",
    statement="A token's loss is max(−Aρ, −A·clip(ρ, 1 − ε, 1 + ε)), where ρ = π/π_old begins at 1.",
    formula="ℓ = max(−Aρ, −A clip(ρ, 1 − ε, 1 + ε)), ρ = π/π_old",
    catches="the larger gain in place of the smaller, a clip alone, a ratio upside down, other old log-probabilities",
    tolerance="old log-probabilities may be kept in float32",
    examples=4,
    excuse=_not_proximal,
)
def surrogate_is_clipped(part: PartUnderTest, draw: Draw) -> None:
    """Before the policy has moved, and far from there."""
    rollout = _experience(part, draw, score=draw.choice("score", [1.0, -2.0]))
    advantages = -rollout.losses()
    with torch.no_grad():
        for parameter in rollout.alignment.policy.module.parameters():
            parameter.add_(0.3 * draw.normal(*parameter.shape))
    moved = torch.exp(_logprobs(rollout.alignment.policy, rollout.batch) - rollout.policy)
    ratio = torch.stack([moved[place] for place in rollout.places])
    clip = rollout.config.clip
    wanted = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip))
    figures = rollout.alignment.objective.evaluate(rollout.alignment.trained, rollout.batch).sums
    if "clipped" in figures:
        beyond = int(((ratio - 1).abs() > clip).sum())
        assert int(figures["clipped"]) == beyond, (
            f"clipped are said to be {int(figures['clipped'])} tokens, not {beyond}"
        )
    close(rollout.losses(), wanted, f"losses of single tokens and the surrogate under clip {clip}", 1e-6)


@property_of(
    "aligner",
    statement="Advantages are A_t = Σ (γλ)^l δ_{t+l} with δ_t = r_t + γV_{t+1} − V_t; an answer is a whole episode, "
    "its tokens pay for their KL to the reference, and the last one earns the score.",
    formula="Aₜ = Σ (γλ)ˡ δₜ₊ₗ, δₜ = rₜ + γ Vₜ₊₁ − Vₜ, V after the end = 0, rₜ = −kl·k(ref/π) (+ score at the end)",
    catches="a bootstrap across the end, time turned around, a flipped ratio in the KL",
    tolerance="rewards may be kept in float32",
    examples=6,
    excuse=_not_proximal,
)
def advantages_are_sums_of_errors(part: PartUnderTest, draw: Draw) -> None:
    """With one value everywhere; log-probabilities from the models themselves."""
    gamma, lam = draw.choice("gamma", [0.9, 1.0]), draw.choice("lam", [0.0, 0.7, 1.0])
    cost, score, value = draw.choice("kl", [0.5, 0.0]), 1.5, draw.choice("value", [0.4, 0.0])
    estimates: dict[str, Callable[[Tensor], Tensor]] = {"k1": lambda r: -r, "k3": lambda r: torch.expm1(r) - r}
    name = draw.choice("kl_estimate", list(estimates))
    pins = {"gamma": gamma, "lam": lam, "kl": cost, "kl_estimate": name, "whiten": False}
    rollout = _experience(part, draw, score, value, **pins)
    found = dict(zip(rollout.places, (-rollout.losses()).tolist(), strict=True))
    kl = estimates[name](rollout.reference - rollout.policy)
    for answer in rollout.answers():
        running, after = 0.0, 0.0
        for place in reversed(answer):
            reward = -cost * float(kl[place]) + (score if place == answer[-1] else 0.0)
            running = reward + gamma * after - value + gamma * lam * running
            after = value
            assert abs(found[place] - running) < 1e-6, (
                f"row {place[0]}, {answer[-1][1] - place[1]} tokens before the end: advantage {found[place]:.6f}, "
                f"the sum of errors is {running:.6f}"
            )


@property_of(
    "aligner",
    statement="What is kept of a rollout is kept in float32, whatever the models compute in.",
    formula="models in bfloat16, kl = 0, V = 0: Aₜ = score · (γλ)ᵀ⁻ᵗ to 10⁻⁴",
    catches="advantages that take the dtype of the values, returns of three digits",
    tier="num",
    tolerance="10⁻⁴ of the score: a sixteenth of a step of bfloat16",
    examples=3,
    excuse=_not_proximal,
)
def experience_is_kept_in_float32(part: PartUnderTest, draw: Draw) -> None:
    """Every model in bfloat16; the sum of errors is a power then."""
    pins = {"gamma": 0.9, "lam": draw.choice("lam", [0.7, 0.9]), "kl": 0.0, "whiten": False}
    subject: Subject = part.bench.subject(part, draw, **{**QUIET, **HEAD, **pins})
    given, score = job(part, subject.config, draw), draw.choice("score", [1.1, -2.3])
    for model in given.models.values():
        model.module.to(torch.bfloat16)
    rollout = _begun(subject.part, given, score)
    found = dict(zip(rollout.places, (-rollout.losses()).tolist(), strict=True))
    for answer in rollout.answers():
        for back, place in enumerate(reversed(answer)):
            wanted = score * (pins["gamma"] * pins["lam"]) ** back
            assert abs(found[place] - wanted) <= 1e-4 * abs(score), (
                f"row {place[0]}, {back} tokens before the end: advantage {found[place]:.6f}, wanted {wanted:.6f}"
            )


@property_of(
    "aligner",
    statement="With a target for the KL its cost follows: after each rollout it grows where the KL per answer was above the "
    "target and shrinks where it was below, by a tenth of the relative error, which counts as 0.2 at most.",
    formula="c ← c · (1 + 0.1 · clip(KL/target − 1, ±0.2)) (Ziegler et al., 2019)",
    catches="a cost that grows whatever happens, a target that is taken for a bound",
    tolerance="rewards may be kept in float32",
    examples=6,
    excuse=lambda part: (
        _not_proximal(part)
        or (None if "kl_target" in part.cls.Config.model_fields else "it has no target for the KL")
    ),
)
def kl_cost_follows_its_target(part: PartUnderTest, draw: Draw) -> None:
    """Two rollouts of a batch each, whose answers cost their KL and nothing else; near the target and far from it."""
    plain = {"gamma": 1.0, "lam": 1.0, "whiten": False, "kl": 0.5, "kl_estimate": "k1", "epochs": 1, "rollout": 2}
    subject: Subject = part.bench.subject(part, draw, **{**QUIET, **HEAD, **plain})
    given, target = job(part, subject.config, draw), draw.choice("target", [None, 1e3, 1e-3])
    if target is None:
        target = max(_kl(_begun(subject.part, given, 0.0)), 1e-3) / draw.choice("KL/target", [1.1, 0.9])
    config = type(subject.config).model_validate({**subject.config.model_dump(), "kl_target": target})
    first = _begun(part.cls(config), given, 0.0)
    second, error = first.following(), max(-0.2, min(0.2, _kl(first) / target - 1))
    for number, (rollout, cost) in enumerate(((first, 0.5), (second, 0.5 * (1 + 0.1 * error))), start=1):
        owed = (rollout.policy - rollout.reference) * (rollout.batch.targets != IGNORE)
        to_come = owed.flip(1).cumsum(1).flip(1)
        wanted = torch.stack([cost * to_come[place] for place in rollout.places])
        close(rollout.losses(), wanted, f"losses of rollout {number}, and {cost:.5f} · KL from there on", 1e-5)


def _kl(rollout: _Rollout) -> float:
    """Nats per answer."""
    owed = (rollout.policy - rollout.reference) * (rollout.batch.targets != IGNORE)
    return float(owed.sum()) / len(owed)


@property_of(
    "aligner",
    statement="Where all answers are equally good, whitened advantages are zero.",
    formula="r = const ⇒ |A| < 10⁻⁶",
    catches="a rounding error that is divided by itself",
    seen="NeMo-RL#4161",
    tier="num",
    tolerance="a residue of 10⁻⁸ of the mean, divided by √ε of the whitening",
    examples=12,
    excuse=_not_proximal,
)
def equal_rewards_teach_nothing(part: PartUnderTest, draw: Draw) -> None:
    """0.1 and 0.35 are no binary fractions, and their mean over 6, 10 or 14 tokens is rounded."""
    score, tokens = draw.choice("score", [0.1, 0.35, 1.0, 0.0]), draw.choice("answer_tokens", [3, 5, 7])
    rollout = _experience(part, draw, score, whiten=True, kl=0.0, gamma=1.0, lam=1.0, answer_tokens=tokens)
    worst = float(rollout.losses().abs().max())
    assert worst < 1e-6, f"an advantage of {worst:.3g} out of scores that are all {score}"


@property_of(
    "aligner",
    statement="Values learn what comes back: where they are the returns they stay, below them they rise, above they fall.",
    formula="γ = λ = 1, kl = 0: returns = score; ∂loss/∂v = 0 at v = score, < 0 below, > 0 above",
    catches="advantages in place of returns, whitened ones; values that are taught the rewards of single tokens",
    tolerance="the score is no binary fraction: float32's rounding of it, summed over some tens of tokens",
    examples=6,
    excuse=_not_proximal,
)
def values_learn_the_returns(part: PartUnderTest, draw: Draw) -> None:
    """One value for everything; the gradient of its bias, to which the policy's loss owes nothing."""
    score, off = draw.choice("score", [1.5, -0.3]), draw.choice("value − score", [0.0, -0.1, 0.1])
    options = {
        "kl": 0.0,
        "gamma": 1.0,
        "lam": 1.0,
        "whiten": draw.choice("whiten", [False, True]),
        "value_weight": 0.5,
    }
    rollout = _experience(part, draw, score, score + off, **options)
    rollout.alignment.objective.evaluate(rollout.alignment.trained, rollout.batch).total.backward()
    (bias,) = [p for p in rollout.head if p.dim() == 1]
    found = 0.0 if bias.grad is None else float(bias.grad) / len(rollout.places)
    if off == 0:
        assert abs(found) < 1e-6, f"where the values are the returns, their gradient is {found:.3g}"
    else:
        assert found * off > 1e-3, f"values {off:+} from the returns have the gradient {found:.3g}"
