"""The laws that come before all others: that the part and its kind can be had at all, and say what they are."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import PydanticUserError

from corelm.conformance import importing
from corelm.conformance.bench import load_kind
from corelm.conformance.framework import Draw, PartUnderTest, known, property_of
from corelm.conformance.minimum import minimum
from corelm.kinds.component import ComponentConfig
from corelm.registration import active


@property_of(
    "*",
    statement="The part can be imported, is of its kind, and leaves nothing of the kind's contract unwritten.",
    catches="a wrong import string, a missing dependency, a class of another kind, a forgotten method",
    tier="io",
    examples=1,
    first=True,
)
def loads(part: PartUnderTest, draw: Draw) -> None:
    """Load the class and look at it."""
    base = active().kinds[part.kind].load()
    assert issubclass(part.cls, base), f"{part.cls.__qualname__} is no subclass of {base.__qualname__}"
    missing = sorted(
        name for name in dir(base) if getattr(getattr(part.cls, name, None), "__isabstractmethod__", False)
    )
    assert not missing, f"{part.cls.__qualname__} leaves unwritten: {', '.join(missing)}"
    _config(part.cls.Config)
    assert isinstance(part.cls.revision, int), f"revision is a whole number, not {part.cls.revision!r}"
    _expected(part)


def _config(config: Any) -> None:
    """A config is a strict model that JSON Schema can describe."""
    assert isinstance(config, type) and issubclass(config, ComponentConfig), (
        f"Config must be a class that derives from ComponentConfig (strict, no extra keys), not {config!r}"
    )
    try:
        config.model_json_schema()
    except PydanticUserError as error:
        raise AssertionError(
            f"the config can't be written as JSON Schema: {error.message}; give its fields types that JSON has"
        ) from error


def _expected(part: PartUnderTest) -> None:
    """Expected failures name properties, and give reasons."""
    expected = getattr(part.cls, "expected_failures", {})
    assert isinstance(expected, Mapping), f"expected_failures maps names of properties to reasons, not {expected!r}"
    names = {prop.name for prop in [*known("*"), *known(part.kind)]}
    for name, reason in expected.items():
        near = difflib.get_close_matches(str(name), names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        assert name in names, f"expected_failures names {name!r}, which is no property of kind {part.kind}{hint}"
        assert isinstance(reason, str) and reason.strip(), f"expected_failures gives no reason for {name!r}"


@property_of(
    "*",
    statement="The part's kind says what its parts must satisfy.",
    catches="a new kind whose base class names no module with properties in its attribute `conformance`",
    tier="io",
    examples=1,
    first=True,
)
def kind_has_properties(part: PartUnderTest, draw: Draw) -> None:
    """Import the module and count."""
    try:
        found = load_kind(part.kind)
    except Exception as error:
        raise AssertionError(
            f"importing the properties of the kind {part.kind!r} failed: {type(error).__name__}: {error}"
        ) from error
    assert found, (
        f"no properties are stated for the kind {part.kind!r}; name the module that states them in its base class: "
        'conformance = "package.module"'
    )
    stated = len(known(part.kind))
    assert stated >= minimum(part.kind), (
        f"the module of the kind {part.kind!r} makes {stated} properties with property_of({part.kind!r}, …); "
        f"at least {minimum(part.kind)} are needed"
    )


@property_of(
    "*",
    statement="Importing the part prints nothing, and changes nothing that others rely on.",
    catches="a greeting, torch.set_default_dtype() in a module",
    tier="io",
    examples=1,
    excuse=lambda part: None if part.record else "nobody registered it",
)
def import_is_quiet(part: PartUnderTest, draw: Draw) -> None:
    """Look at what was noticed when it was imported."""
    _ = part.cls
    remark = importing.remark(part.record)
    assert not remark, remark
