"""The laws of options that all kinds share: each does something, and says so when it is refused."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin

import torch
from pydantic import ValidationError
from torch import nn

from corelm.conformance.bench import Bench, Subject, close, initialise, same_bits
from corelm.conformance.chance import Chance
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.strategies import Undrawable, draw_options, draw_value, problems_of
from corelm.errors import UserError
from corelm.kinds.parameters import declared

ATTEMPTS: Final = 200
"""Pairs of configs that differ in one option, before it is said to do nothing; one that needs three others takes some ten."""

T = TypeVar("T")


def _not_observed(part: PartUnderTest) -> str | None:
    if part.bench.module or part.bench.observed:
        return None
    return f"what options of the kind {part.kind} change is held by its own properties"


def _pair(part: PartUnderTest, name: str, chance: Chance) -> tuple[Subject, Subject] | None:
    """The same part under two configs that differ in one option and in nothing else; None where the draw failed."""
    bench, config = part.bench, part.cls.Config
    try:
        first = bench.subject(part, chance)
        options = first.config.model_dump(mode="json", by_alias=True, exclude_unset=True)
        key = config.model_fields[name].alias or name
        hints = bench.hints.get(name)
        value = chance.pick(hints) if hints and chance.whole(0, 1) else draw_value(config, name, chance)
        changed = config.model_validate({**options, key: value})
        if changed == first.config or list(problems_of(part.cls, changed, bench.place(first.context))):
            return None
        seed, built = chance.seed(), []
        for chosen in (first.config, changed):
            made = bench.make(part, chosen, first.arguments)
            if isinstance(made, nn.Module):
                initialise(made.to(torch.float64), seed, generic=True).eval()
            built.append(replace(first, part=made, config=chosen))
    except (Undrawable, UserError, ValidationError):
        return None
    return built[0], built[1]


def _facts(subject: Subject) -> list[Any]:
    """What of a part is there to see without using it."""
    found: list[Any] = [sorted(type(subject.part).offers(subject.config)), sorted(subject.part.needs(subject.config))]
    if isinstance(subject.part, nn.Module):
        found += [repr((name, tuple(p.shape), info)) for name, p, info in declared(subject.part)]
    return found


def _told_apart(a: Subject, b: Subject, bench: Bench, chance: Chance) -> bool:
    if _facts(a) != _facts(b):
        return True
    inputs = bench.inputs(a, chance)
    try:
        return not same_bits(bench.observe(a, inputs), bench.observe(b, inputs))
    except UserError:
        return True  # one of the two refuses what the other takes


@property_of(
    "*",
    statement="Every option changes something that can be seen, unless the part says that it changes only speed.",
    formula="∀ option o ∃ configs c, c′ that differ in o alone: part(c) ≠ part(c′)",
    catches="an option that is accepted and never used, or read under another name",
    seen="keras-hub#1472 (epsilon accepted, never used); mlx's eps of rms_norm",
    tier="bit",
    tolerance="With equal parameters and inputs nothing but the option can change a bit, or a shape, role or capability.",
    examples=1,
    excuse=_not_observed,
)
def every_option_matters(part: PartUnderTest, draw: Draw) -> None:
    """For each option, pairs of configs until one shows."""
    names = [name for name in part.cls.Config.model_fields if name not in part.cls.only_speed]
    if not names:
        raise NotApplicable("it has no options")
    for name in names:
        chance, tried = Chance(draw.seed()), 0
        for _ in range(ATTEMPTS):
            two = _pair(part, name, chance)
            tried += two is not None
            if two is not None and _told_apart(*two, part.bench, chance):
                break
        else:
            if tried:
                raise AssertionError(f"the option {name!r} changed nothing in {tried} pairs of configs")


def _left_out(part: PartUnderTest) -> list[str]:
    """Options that are whole numbers, or None by default."""
    fields = part.cls.Config.model_fields.items()
    return [
        name for name, info in fields if info.default is None and set(_types(info.annotation)) == {int, type(None)}
    ]


def _types(annotation: Any) -> Iterator[Any]:
    """The plain types in a union."""
    if get_origin(annotation) is Annotated:
        yield from _types(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for inner in get_args(annotation):
            yield from _types(inner)
    else:
        yield annotation


def _shapes(part: PartUnderTest, subject: Subject, name: str, value: int | None) -> Any:
    """Shapes of all parameters under one value of an option; what is refused has none."""
    try:
        with torch.device("meta"):
            config = part.cls.Config.model_validate(subject.config.model_dump() | {name: value})
            built: nn.Module = part.bench.make(part, config, subject.arguments)
    except (UserError, ValidationError):
        return None
    return [(key, tuple(parameter.shape)) for key, parameter in built.named_parameters()]


@property_of(
    "*",
    statement="What an option that is left out stands for is written out by settled: if it stands for a number.",
    formula="shapes(part(o = None)) = shapes(part(o = v)) ≠ shapes(part(o = v + 1)) ⇒ settled(c).o = v",
    catches="a width that is left to the reader to guess, so that an exported model is another one elsewhere",
    tier="bit",
    examples=3,
    excuse=lambda part: (
        None if part.bench.module and _left_out(part) else "no option of it is a number that may be left out"
    ),
)
def settled_leaves_nothing_out(part: PartUnderTest, draw: Draw) -> None:
    """Look for the number that gives the same parameters."""
    names = _left_out(part)
    subject = part.bench.subject(part, draw, **dict.fromkeys(names))
    settled = part.cls.settled(subject.config, subject.context)
    for name in names:
        if getattr(settled, name) is not None:
            continue
        wanted = _shapes(part, subject, name, None)
        assert wanted is not None, f"{name} may not be left out, though that is its default"
        for number in range(1, 2 + max([subject.context.context, *(size for _, shape in wanted for size in shape)])):
            if _shapes(part, subject, name, number) == wanted != _shapes(part, subject, name, number + 1):
                raise AssertionError(f"left out, {name} is {number} here, but settled leaves it out as well")


@property_of(
    "*",
    statement="An option that the part declares to change only speed changes no result.",
    formula="o ∈ only_speed ⇒ part(c)(x) = part(c′)(x) for configs c, c′ that differ in o alone",
    catches="the last, shorter chunk; a block's boundary inside of a group",
    tolerance="Sums in another order differ by rounding in float64 only.",
    examples=15,
    excuse=lambda part: (
        _not_observed(part) or (None if part.cls.only_speed else "none of its options is only for speed")
    ),
)
def speed_changes_no_result(part: PartUnderTest, draw: Draw) -> None:
    """The same parameters and inputs under two values."""
    name = draw.choice("option", sorted(part.cls.only_speed))
    chance = Chance(draw.seed())
    two = next(filter(None, (_pair(part, name, chance) for _ in range(ATTEMPTS))), None)
    if two is None:
        draw.reject()
    draw.note("values", [getattr(subject.config, name) for subject in two])
    inputs = part.bench.inputs(two[0], draw)
    results = [part.bench.observe(subject, inputs) for subject in two]
    close(results[1], results[0], f"under two values of {name!r}", 1e-9)


@property_of(
    "*",
    statement="What is refused is refused in words: where, what, what to do instead, and under a name.",
    formula="refused(c) ⇒ message, remedy, code, path ∈ options",
    catches="a bare ValueError out of a constructor, a path to an option that isn't there",
    tier="io",
    examples=51,
)
def refusals_say_why(part: PartUnderTest, draw: Draw) -> None:
    """Options that the schema takes and nobody has checked."""
    bench, cls = part.bench, part.cls
    context = bench.context(draw)
    names = {info.alias or name for name, info in cls.Config.model_fields.items()}
    try:
        config = cls.Config.model_validate(draw_options(cls.Config, draw, bench.hints, 0))
        problems = list(cls.check(config, bench.place(context)))
        for problem in problems:
            _in_words(problem.message, problem.remedy, problem.code)
            where = problem.path[0] if problem.path else ""
            assert not where or where in names, (
                f"the refusal {problem.message!r} points to {where!r}, no option of it"
            )
        if not problems and not list(problems_of(cls, config, bench.place(context))):
            bench.make(part, config, bench.arguments(part, config, context, draw))
    except ValidationError:
        return
    except UserError as refusal:
        _in_words(refusal.message, refusal.remedy, refusal.code)


def _in_words(message: str, remedy: str, code: str) -> None:
    assert len(message.split()) > 2, f"a refusal that says only {message!r}"
    assert remedy, f"the refusal {message!r} doesn't say what to do instead"
    assert code and code == code.lower() and " " not in code, f"the refusal {message!r} has the name {code!r}"
