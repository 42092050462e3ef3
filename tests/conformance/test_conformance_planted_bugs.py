"""The kit is held to what it must catch: each planted bug by the property meant for it."""

import pytest

from corelm.conformance.planted import planted_bugs, references
from corelm.conformance.running import hold
from corelm.conformance.selection import properties


@pytest.mark.parametrize("bug", planted_bugs(), ids=lambda bug: f"{bug.kind}-{bug.name}")
def test_every_planted_bug_is_caught_by_the_property_meant_for_it(bug):
    outcome = bug.caught()
    assert outcome.status == "failed", (
        f"{bug.what} survived {outcome.ran} examples: {outcome.status} {outcome.reason}"
    )


@pytest.mark.parametrize(
    ("part", "prop"),
    [
        pytest.param(part, prop, id=f"{part.kind}-{part.cls.__name__}-{prop.name}")
        for part in references()
        for prop in properties(part.kind)
        if prop.name != "same_in_a_fresh_process"  # its planted bug and the installed parts pay for processes
    ],
)
def test_the_right_part_passes_what_its_bugs_fail(part, prop):
    outcome = hold(part, prop)
    assert outcome.status in ("passed", "not-applicable"), f"{outcome.reason} {outcome.story}"
