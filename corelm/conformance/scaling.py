"""Properties of scalings of rotary frequencies."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject, close
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.kinds.position import Ladder


class ScalingBench(Bench):
    """Frequencies of tokens whose documents have drawn lengths."""

    kind = "scaling"
    varies = False

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


def _ready(part: PartUnderTest, draw: Draw) -> tuple[Any, Tensor, Tensor]:
    """A scaling, lengths, and the frequencies of tokens in documents of these lengths."""
    subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    return subject.part, inputs["lengths"], part.bench.call(subject, inputs)


@property_of(
    "scaling",
    statement="Frequencies are float64, finite and positive, one per pair, for all tokens alike or for each.",
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
    catches="a factor that multiplies, a ramp over features for one over pairs: alike for short texts, not for long",
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
    factor = config.factor or max(1.0, ladder.context / config.original_context)

    def pair_with(turns: float) -> float:
        return ladder.rotated / 2 * math.log(config.original_context / (2 * math.pi * turns), ladder.theta)

    low, high = pair_with(config.beta_fast), pair_with(config.beta_slow)
    if config.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, ladder.rotated - 1)
    ramp = min(max((pair - low) / (high - low if high != low else 0.001), 0), 1)
    return float(_plain(ladder, pair) * (ramp / factor + 1 - ramp))


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
