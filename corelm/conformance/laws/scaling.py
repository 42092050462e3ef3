"""Properties of scalings of rotary frequencies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject, close
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.kinds.position import Ladder

MINIMUM = 3
"""So many of these properties must say something about every part of the kind, and hold."""


class ScalingBench(Bench):
    """Frequencies of tokens whose documents have drawn lengths."""

    kind = "scaling"
    varies = False
    observed = True

    def arguments(self, part: PartUnderTest, config: Any, context: Any, draw: Draw) -> tuple[Any, ...]:
        """Built with a ladder; of as many pairs as the config has numbers, where it has one for each."""
        counts = [len(value) for _, value in config if isinstance(value, list)]
        rotated = 2 * max(counts) if counts else draw.choice("rotated", [8, 4, 16, 64])
        return (Ladder(draw.choice("theta", [10_000.0, 500.0, 1e6]), rotated, context.context),)

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """Lengths around the one from which they matter."""
        most = 3 * (subject.part.constant_up_to or 16)
        return {"lengths": torch.randint(1, most + 1, (2, 5), generator=draw.generator())}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Frequencies of every token."""
        return subject.part.frequencies(None, inputs["lengths"])

    def observe(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Also what it says of itself."""
        scaling = subject.part
        return [self.call(subject, inputs), scaling.attention_factor, scaling.constant_up_to]


def _ready(part: PartUnderTest, draw: Draw) -> tuple[Any, Tensor, Tensor]:
    """A scaling, lengths, and the frequencies of tokens in documents of these lengths."""
    subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    return subject.part, inputs["lengths"], part.bench.call(subject, inputs)


@property_of(
    "scaling",
    statement="Frequencies are float64, finite and positive, one per pair, for all tokens alike or for each.",
    formula="f ∈ ℝ^{d/2}, 0 < f < ∞",
    catches="one per feature, half-precision frequencies, a pair that stands still",
    tier="io",
)
def one_per_pair(part: PartUnderTest, draw: Draw) -> None:
    """Shape, type and sign."""
    scaling, lengths, found = _ready(part, draw)
    pairs = scaling.ladder.rotated // 2
    for what, frequencies, shapes in (
        ("without lengths", scaling.frequencies(), [(pairs,)]),
        ("with lengths", found, [(pairs,), (*lengths.shape, pairs)]),
    ):
        assert tuple(frequencies.shape) in shapes, f"{what} the shape is {tuple(frequencies.shape)}, not of {shapes}"
        assert frequencies.dtype == torch.float64, f"frequencies are {frequencies.dtype}"
        assert (frequencies.isfinite() & (frequencies > 0)).all(), f"frequencies {frequencies.tolist()}"
    factor = scaling.attention_factor
    assert isinstance(factor, float) and math.isfinite(factor) and factor > 0, f"attention factor {factor!r}"


@property_of(
    "scaling",
    statement="Up to constant_up_to tokens the length changes nothing; without it, no length does.",
    formula="length ≤ constant_up_to ⇒ f(length) = f",
    catches="a scaling that begins one token early, or that doesn't say that it looks at lengths",
    tier="bit",
)
def constant_as_declared(part: PartUnderTest, draw: Draw) -> None:
    """Compare with the frequencies that no length has changed."""
    scaling, lengths, _ = _ready(part, draw)
    longest = scaling.constant_up_to
    if longest is not None:
        lengths = torch.cat([lengths.clamp(max=longest), torch.full((2, 1), longest)], 1)
    found, usual = scaling.frequencies(None, lengths), scaling.frequencies()
    close(found, usual.expand(found.shape), f"lengths {lengths.tolist()} and none given", 0.0)


@property_of(
    "scaling",
    statement="A token's frequencies depend on the length of its own document, not on others beside it.",
    formula="f(lengths)_t = f(length_t)",
    catches="the longest of a batch for all (transformers)",
    tier="bit",
)
def tokens_have_their_own(part: PartUnderTest, draw: Draw) -> None:
    """Each token alone."""
    scaling, lengths, found = _ready(part, draw)
    alone = [[scaling.frequencies(None, one[None, None]).flatten() for one in row] for row in lengths]
    expected = torch.stack([torch.stack(row) for row in alone])
    close(found.expand(expected.shape), expected, f"lengths {lengths.tolist()} together and alone", 0.0)


@property_of(
    "scaling",
    statement="A part that takes a name of the field computes what that name means.",
    formula="linear: f/s; dynamic, llama3, yarn, longrope as in their papers",
    catches="a factor that multiplies, a ramp over features for one over pairs: alike for short texts, not for long",
    tolerance="Relative to each frequency; powers and logarithms of float64 in two ways.",
    examples=40,
)
def formula_of_its_name(part: PartUnderTest, draw: Draw) -> None:
    """Pair by pair, written out."""
    scaling, lengths, found = _ready(part, draw)
    name = getattr(part.cls, "formula", part.name)
    if name not in FORMULAS:
        raise NotApplicable(f"{name!r} is no name of the field that the kit knows")
    pairs = range(scaling.ladder.rotated // 2)
    expected = [
        [[FORMULAS[name](scaling.config, scaling.ladder, j, int(length)) for j in pairs] for length in row]
        for row in lengths
    ]
    wanted = torch.tensor(expected, dtype=torch.float64)
    close(found / wanted, torch.ones_like(wanted), f"frequencies over those of {name}, lengths {lengths.tolist()}")


@property_of(
    "scaling",
    statement="Turned features are multiplied by the factor that a part's name means: one, unless its paper says more.",
    formula="factor = 1; yarn: 0.1 ln s + 1; longrope: √(1 + ln s / ln L)",
    catches="a logarithm to another base, a factor on top of the config's own, one that is squared",
    examples=40,
)
def attention_factor_of_its_name(part: PartUnderTest, draw: Draw) -> None:
    """Written out, for models that are longer than they were trained and for shorter ones."""
    pins = {
        "original_context": draw.choice("original context", [8, 64]),
        "mscale": draw.choice("mscale", [0.7, None]),
    }
    subject = part.bench.subject(part, draw, **pins, mscale_all_dim=draw.choice("mscale_all_dim", [1.5, None]))
    name = getattr(part.cls, "formula", part.name)
    if name not in FORMULAS:
        raise NotApplicable(f"{name!r} is no name of the field that the kit knows")
    config, scaling = subject.config, subject.part
    said = getattr(config, "attention_factor", None)
    meant = ATTENTION_FACTORS.get(name)
    wanted = said or (meant(config, scaling.ladder) if meant else 1.0)
    found = scaling.attention_factor
    assert abs(found / wanted - 1) < 1e-12, f"the attention factor is {found}, that of {name} is {wanted}"


@property_of(
    "scaling",
    statement="A settled config names all that followed from the model's context: in another model it means the same.",
    formula="part(settled(c, context), context′) = part(c, context)",
    catches="a default that is settled to nothing, so that an exported model changes with the reader's context",
    examples=20,
)
def settled_stands_alone(part: PartUnderTest, draw: Draw) -> None:
    """Build what was settled under a longer context."""
    subject = part.bench.subject(part, draw)
    scaling, settled = subject.part, part.cls.settled(subject.config, subject.context)
    other = part.cls(settled, replace(scaling.ladder, context=8 * scaling.ladder.context))
    lengths = part.bench.inputs(subject, draw)["lengths"]
    close(other.frequencies(None, lengths), scaling.frequencies(None, lengths), "frequencies in a longer model", 0.0)
    close(other.attention_factor, scaling.attention_factor, "attention factors in a longer model", 0.0)


@property_of(
    "scaling",
    statement="With a factor of one, the frequencies are those of the plain ladder.",
    formula="factor = 1 ⇒ f_j = theta^(−2j/d), in documents that are not longer than in training",
    catches="a factor that is applied twice or to the base, another ladder than the one given",
    tolerance="A ramp adds shares that sum to one only up to rounding in float64.",
    examples=12,
    excuse=lambda part: None if "factor" in part.cls.Config.model_fields else "it has no single factor",
)
def factor_one_is_plain(part: PartUnderTest, draw: Draw) -> None:
    """Pin the factor; what has a list of factors as well gets ones."""
    lists = {name: 1.0 for name in ("short_factor", "long_factor") if name in part.cls.Config.model_fields}
    scaling = part.bench.subject(part, draw, factor=1.0, **lists).part
    found, plain = scaling.frequencies(), scaling.ladder.frequencies()
    close(found / plain, torch.ones_like(plain), "frequencies at factor one over those of the ladder", 1e-12)


def _plain(ladder: Ladder, pair: int) -> float:
    return float(ladder.theta ** (-2 * pair / ladder.rotated))


def _linear(config: Any, ladder: Ladder, pair: int, length: int) -> float:
    return _plain(ladder, pair) / float(config.factor)


def _dynamic(config: Any, ladder: Ladder, pair: int, length: int) -> float:
    size = max(length, config.original_context)
    growth = config.factor * size / config.original_context - (config.factor - 1)
    base = ladder.theta * growth ** (ladder.rotated / (ladder.rotated - 2))
    return float(base ** (-2 * pair / ladder.rotated))


def _llama3(config: Any, ladder: Ladder, pair: int, length: int) -> float:
    frequency, context = _plain(ladder, pair), config.original_context
    wavelength = 2 * math.pi / frequency
    if wavelength <= context / config.high_factor:
        return frequency
    if wavelength > context / config.low_factor:
        return float(frequency / config.factor)
    share = (context / wavelength - config.low_factor) / (config.high_factor - config.low_factor)
    return float((1 - share) * frequency / config.factor + share * frequency)


def _yarn(config: Any, ladder: Ladder, pair: int, length: int) -> float:
    factor = _stretch(config, ladder)

    def pair_with(turns: float) -> float:
        return ladder.rotated / 2 * math.log(config.original_context / (2 * math.pi * turns), ladder.theta)

    low, high = pair_with(config.beta_fast), pair_with(config.beta_slow)
    if config.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, ladder.rotated - 1)
    ramp = min(max((pair - low) / (high - low if high != low else 0.001), 0), 1)
    return float(_plain(ladder, pair) * (ramp / factor + 1 - ramp))


def _stretch(config: Any, ladder: Ladder) -> float:
    """How many times longer than it was trained the model reads."""
    return float(config.factor or max(1.0, ladder.context / config.original_context))


def _yarn_attention(config: Any, ladder: Ladder) -> float:
    def grown(by: float) -> float:
        return 1 + by * math.log(_stretch(config, ladder)) / 10

    both = config.mscale is not None and config.mscale_all_dim is not None
    return grown(config.mscale) / grown(config.mscale_all_dim) if both else grown(1)


def _longrope_attention(config: Any, ladder: Ladder) -> float:
    return math.sqrt(1 + math.log(_stretch(config, ladder), config.original_context))


def _longrope(config: Any, ladder: Ladder, pair: int, length: int) -> float:
    divisors = config.long_factor if length > config.original_context else config.short_factor
    return _plain(ladder, pair) / float(divisors[pair] if isinstance(divisors, list) else divisors)


FORMULAS: dict[str, Callable[[Any, Ladder, int, int], float]] = {
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
"""What the names of the field mean, for a pair of a ladder in a document of some length."""

ATTENTION_FACTORS: dict[str, Callable[[Any, Ladder], float]] = {
    "yarn": _yarn_attention,
    "longrope": _longrope_attention,
}
"""What turned features are multiplied by under names that say more than one."""
