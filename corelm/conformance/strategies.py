"""Configs drawn from a part's own schema, nested parts included."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Len, Lt, MaxLen, MinLen, MultipleOf
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, PydanticUndefined

from corelm.conformance.framework import Draw
from corelm.errors import UserError
from corelm.kinds.component import Component, ComponentConfig, Problem, Spec, nested_specs
from corelm.registration import active

SIZES: Final = (1, 2, 3, 4, 8, 16)
TRIES: Final = 60
DEEPEST: Final = 2


class Undrawable(Exception):  # noqa: N818
    """No value of this type can be made up; the field keeps its default."""


def draw_config(
    part: type[Component],
    draw: Draw,
    context: Any = None,
    *,
    pins: Mapping[str, Any] | None = None,
    hints: Mapping[str, tuple[Any, ...]] | None = None,
    depth: int = 0,
    label: str = "config",
) -> ComponentConfig:
    """Draw a config that the schema and the part's own ``check`` take; the example is given up after some tries.

    Args:
        part: the part's class.
        draw: of the example.
        context: what ``check`` is given; None: it isn't asked.
        pins: values that fields of these names must have, where the config has such fields.
        hints: values to choose from for fields of these names.
        depth: how many parts are around this one.
        label: under which the config is noted.
    """
    fixed = {name: value for name, value in (pins or {}).items() if name in part.Config.model_fields}
    why = ""
    for attempt in range(TRIES):
        options = draw_options(part.Config, draw, hints or {}, depth, sparse=attempt % 3 == 2, given=fixed)
        try:
            config = part.Config.model_validate(options)
            problems = [] if context is None else list(problems_of(part, config, context))
        except (ValidationError, UserError) as error:
            why = str(error)
            continue
        if not problems:
            if depth == 0:
                draw.note(label, {k: v for k, v in _plain(config).items() if k in options})
            return config
        why = problems[0].message
    draw.note("rejected", f"{part.__name__} takes none of {TRIES} drawn configs: {why}")
    draw.reject()


def _plain(config: ComponentConfig) -> dict[str, Any]:
    """A config for the story of an example; where JSON can't say it, as Python writes it."""
    try:
        return config.model_dump(mode="json")
    except PydanticSerializationError:
        return {name: repr(value) for name, value in config}


def problems_of(part: type[Component], config: ComponentConfig, context: Any) -> Iterator[Problem]:
    """What the part and the parts inside its config say against it."""
    yield from part.check(config, context)
    for _, spec in nested_specs(config):
        yield from spec.part.check(spec.config, context)


def draw_options(
    config: type[BaseModel],
    draw: Draw,
    hints: Mapping[str, tuple[Any, ...]],
    depth: int,
    *,
    sparse: bool = False,
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Draw plain options; ``given`` ones are as they are.

    Required fields always, the others now and then; those of few values always too, so that each value is as likely as
    the default is. ``sparse``: required ones alone.
    """
    options: dict[str, Any] = dict(given or {})
    for name, info in config.model_fields.items():
        if name in options:
            continue
        required = info.is_required()
        if name in hints and _fits(config, name, hints[name][0]):
            options[name] = _pick(draw, hints[name])
            continue
        if not required and (sparse or (not _of_few_values(info) and draw.whole(0, 2) == 0)):
            continue
        try:
            value = _value(_annotation(info), draw, info, depth)
        except Undrawable:
            if required and depth:
                raise
            if required:
                draw.note("rejected", f"{config.__qualname__}.{name} is required and can't be made up")
                draw.reject()
            continue
        options[info.alias or name] = value
    return options


def draw_value(config: type[BaseModel], name: str, draw: Draw) -> Any:
    """Draw a plain value of one field that its type and bounds take.

    Raises:
        Undrawable: nothing of this type can be made up.
    """
    info = config.model_fields[name]
    return _value(_annotation(info), draw, info, 0)


def _fits(config: type[BaseModel], name: str, value: Any) -> bool:
    """Whether a hint is of the field's type: options of one name can mean different things in different parts."""
    if isinstance(value, int | None):
        return True
    try:
        TypeAdapter(_annotation(config.model_fields[name])).validate_python(value)
    except (ValidationError, UserError):
        return False
    return True


def _of_few_values(info: FieldInfo) -> bool:
    return info.annotation is bool or get_origin(info.annotation) is Literal


def _pick(draw: Draw, options: Any) -> Any:
    return draw.pick(list(options))


def _annotation(info: FieldInfo) -> Any:
    return Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation


def _value(annotation: Any, draw: Draw, info: FieldInfo | None, depth: int, bounds: tuple[Any, ...] = ()) -> Any:
    """A plain value of this type that keeps to the declared bounds."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    default = info.default if info is not None else PydanticUndefined
    if origin is Annotated:
        return _value(arguments[0], draw, info, depth, bounds + arguments[1:])
    if origin is Literal:
        return _pick(draw, arguments)
    if origin in (Union, types.UnionType):
        return _value(_pick(draw, arguments), draw, info, depth, bounds)
    if origin is Spec:
        return draw_spec(arguments[0].kind, draw, depth + 1)
    if origin in (list, tuple):
        return _several(arguments, draw, depth, bounds)
    if annotation is type(None):
        return None
    if annotation is bool:
        return _pick(draw, (False, True))
    if annotation is int:
        return _whole(draw, _low_high(bounds, integer=True), bounds)
    if annotation is float:
        return _real(draw, _low_high(bounds, integer=False), default)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return draw_options(annotation, draw, {}, depth + 1)
    if annotation in (str, Path, Any) or origin is dict:
        raise Undrawable
    raise Undrawable


def _low_high(bounds: tuple[Any, ...], *, integer: bool) -> tuple[float, float, bool, bool]:
    """Lowest and highest value, and whether each is open."""
    low, high, low_open, high_open = -math.inf, math.inf, False, False
    for bound in _flat(bounds):
        if isinstance(bound, Ge):
            low = float(bound.ge)  # type: ignore[arg-type]
        elif isinstance(bound, Gt):
            low, low_open = float(bound.gt), True  # type: ignore[arg-type]
        elif isinstance(bound, Le):
            high = float(bound.le)  # type: ignore[arg-type]
        elif isinstance(bound, Lt):
            high, high_open = float(bound.lt), True  # type: ignore[arg-type]
    if integer:
        return low + low_open, high - high_open, False, False
    return low, high, low_open, high_open


def _flat(bounds: tuple[Any, ...]) -> list[Any]:
    found: list[Any] = []
    for bound in bounds:
        found.extend(getattr(bound, "metadata", None) or [bound] if isinstance(bound, FieldInfo) else [bound])
    return found


def _whole(draw: Draw, limits: tuple[float, float, bool, bool], bounds: tuple[Any, ...]) -> int:
    low, high, _, _ = limits
    step = next((int(float(str(b.multiple_of))) for b in _flat(bounds) if isinstance(b, MultipleOf)), 1)
    fitting = [n * step for n in (0, *SIZES) if low <= n * step <= high]
    if not fitting:
        start = int(low) if math.isfinite(low) else int(high)
        fitting = [n for n in range(start, start + 4) if low <= n <= high]
    return int(_pick(draw, fitting))


def _real(draw: Draw, limits: tuple[float, float, bool, bool], default: Any) -> float:
    low, high, low_open, high_open = limits
    usual = default if isinstance(default, float | int) and not isinstance(default, bool) else None
    candidates: list[float] = []
    if usual:
        candidates += [usual * factor for factor in (1.0, 0.5, 2.0, 0.01, 100.0)]
    if math.isfinite(low) and math.isfinite(high):
        candidates += [low + (high - low) * share for share in (0.5, 0.1, 0.9)]
    candidates += [value for value in (low, high) if math.isfinite(value)]
    candidates += [0.5, 1.0, 2.0] if not usual else []
    fitting = [
        float(c)
        for c in candidates
        if (low < c or (c == low and not low_open)) and (c < high or (c == high and not high_open))
    ]
    if not fitting:
        raise Undrawable
    return float(_pick(draw, fitting))


def _several(arguments: tuple[Any, ...], draw: Draw, depth: int, bounds: tuple[Any, ...]) -> list[Any]:
    least = next((b.min_length for b in _flat(bounds) if isinstance(b, MinLen | Len)), 0)
    most = next((b.max_length for b in _flat(bounds) if isinstance(b, MaxLen | Len)), None)
    high = least + 2 if most is None else min(most, least + 2)
    count = draw.whole(least, high)
    return [_value(arguments[0], draw, None, depth) for _ in range(count)]


def draw_spec(kind: str, draw: Draw, depth: int) -> dict[str, Any]:
    """Draw a part of a kind among the installed ones, as plain data for a slot of a config."""
    records = active().parts(kind)
    if not records:
        raise Undrawable
    for _ in range(4):
        record = _pick(draw, records)
        try:
            part = record.load()
            options = {} if depth > DEEPEST else draw_options(part.Config, draw, {}, depth, sparse=depth == DEEPEST)
        except (UserError, Undrawable):
            continue
        return {"use": record.qualified, **options}
    raise Undrawable
