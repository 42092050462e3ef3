"""Every installed part against every property of its kind."""

import pytest

from corelm.conformance.selection import cases, enforce


@pytest.mark.parametrize(
    ("part", "prop"), [pytest.param(part, prop, id=f"{part.label}::{prop.name}") for part, prop in cases()]
)
def test_part_has_property(part, prop):
    enforce(part, prop)
