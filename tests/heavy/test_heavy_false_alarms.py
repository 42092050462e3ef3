"""The kit against what is right, under many seeds: no false alarm. Run with: python -m pytest -m heavy -n0 -k false_alarms."""

from __future__ import annotations

import pytest

from corelm.conformance.planted import references
from corelm.conformance.running import excused, hold
from corelm.conformance.selection import parts, properties

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1800)]

SEEDS = {"stat": 20, "num": 20}
"""By tier; 3 for those that are exact."""

CASES = [
    pytest.param(part, prop, id=f"{part.label}-{prop.tier}-{prop.name}")
    for part in [*references(), *parts(plugins=["corelm"])]
    for prop in properties(part.kind)
    if not excused(part, prop) and (part.record or prop.name != "same_in_a_fresh_process")
]


@pytest.mark.parametrize(("part", "prop"), CASES)
def test_false_alarms(part, prop):
    for seed in range(SEEDS.get(prop.tier, 3)):
        outcome = hold(part, prop, seed=seed, shrink=False)
        assert outcome.status not in ("failed", "blocked"), f"seed {seed}: {outcome.reason} {outcome.story}"
