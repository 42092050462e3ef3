"""The kit is held to what it must catch: each planted bug by the property meant for it."""

import importlib
from collections import Counter
from pathlib import Path

import pytest

from corelm.conformance.planted import planted_bugs, references
from corelm.conformance.running import hold
from corelm.conformance.selection import properties
from corelm.registration import active

DOCS = Path(__file__).parents[2] / "docs"
KINDS = [name for name, kind in active().kinds.items() if kind.distribution == "corelm"]
FEWEST = 4
UNPLANTED = {"import_is_quiet"}  # about modules and not classes: test_conformance_strangers brings some


MEANT = {
    part.cls: {bug.caught_by for bug in planted_bugs() if issubclass(bug.part, part.cls)} for part in references()
}
"""What the bugs of each right part fail; ``docs/make.py --measure-kit`` holds right parts to all that there is."""


def test_every_kind_has_its_gallery():
    found = Counter(bug.kind for bug in planted_bugs())
    assert {kind: found[kind] for kind in KINDS if found[kind] < FEWEST} == {}


def test_every_property_has_caught_something():
    meant = {(bug.kind, bug.caught_by) for bug in planted_bugs()}
    by_any = {name for _, name in meant}
    for kind in KINDS:
        idle = [p.name for p in properties(kind) if p.kind == kind and (kind, p.name) not in meant]
        assert not idle, f"{kind}: no planted bug is meant for {idle}; plant one, or drop them"
    shared = {p.name for p in properties(KINDS[0]) if p.kind == "*"}
    assert shared - by_any <= UNPLANTED


def test_names_of_bugs_are_told_apart():
    found = Counter((bug.kind, bug.name) for bug in planted_bugs())
    assert [key for key, count in found.items() if count > 1] == []


def test_numbers_of_examples_are_what_their_power_asks_for(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    page = importlib.import_module("catches_page")
    for prop in {prop for kind in KINDS for prop in properties(kind)}:
        weakest = page.weakest(prop, page.read())
        if weakest is not None:
            wanted = page.needed(weakest)
            assert prop.examples >= wanted, f"{prop.kind} {prop.name}: {prop.examples} examples, of {wanted} needed"


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
        if prop.name in MEANT[part.cls]
        and prop.name != "same_in_a_fresh_process"  # its planted bug and the installed parts pay for processes
    ],
)
def test_the_right_part_passes_what_its_bugs_fail(part, prop):
    outcome = hold(part, prop)
    assert outcome.status in ("passed", "not-applicable"), f"{outcome.reason} {outcome.story}"
