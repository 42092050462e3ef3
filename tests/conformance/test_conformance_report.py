"""What comes out of a run: counts, what is blocked, how little is too little, and the page."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from corelm.conformance import properties, run
from corelm.conformance.bugs.norm import RootMeanSquare
from corelm.conformance.framework import NotApplicable, PartUnderTest, Property
from corelm.conformance.minimum import minimum, shortfall
from corelm.conformance.page import page
from corelm.conformance.report import Report, explain
from corelm.conformance.running import EXCUSES, hold, pending
from corelm.conformance.sequence import Options, blocker, held, outcome_of
from corelm.kinds import KINDS
from corelm.registration import Failure, Record, Registry, active, using

PART = PartUnderTest("norm", "test:RootMeanSquare", given=RootMeanSquare)


def law(name: str, check, **more) -> Property:
    """A property of norms that nobody has registered."""
    some = next(prop for prop in properties("norm") if prop.name == "odd")
    return replace(some, name=name, check=check, examples=1, **more)


def good(part, draw):
    draw.integer("n", 0, 3)


def bad(part, draw):
    raise AssertionError(f"n is {draw.integer('n', 0, 3)}")


def silent(part, draw):
    raise NotApplicable("it is too quiet")


@pytest.fixture
def laws(monkeypatch):
    """Put a list of properties in the place of those of norms."""
    from corelm.conformance import report, selection, sequence

    def put(*chosen: Property) -> None:
        for module in (report, selection, sequence):
            monkeypatch.setattr(module, "properties", lambda kind: list(chosen))

    return put


def statuses(outcomes):
    return [(outcome.prop.name, outcome.status, outcome.reason) for outcome in outcomes]


def test_what_needs_a_failed_property_is_blocked_by_it_and_so_is_what_needs_that(laws):
    laws(
        law("one", bad),
        law("two", good, needs=("one",)),
        law("three", good, needs=("two",)),
        law("four", good),
        law("five", good, needs=("four",)),
    )
    assert statuses(held(PART, Options())) == [
        ("one", "failed", "n is 0"),
        ("two", "blocked", "blocked by one"),
        ("three", "blocked", "blocked by one"),
        ("four", "passed", ""),
        ("five", "passed", ""),
    ]


def test_what_was_not_asked_for_blocks_nothing(laws):
    laws(law("one", bad), law("two", good, needs=("one",)))
    assert statuses(held(PART, Options(names=("two",)))) == [("two", "passed", "")]


def test_what_is_known_from_before_is_not_held_again_and_blocks_all_the_same(laws):
    one, two = law("one", good), law("two", good, needs=("one",))
    laws(one, two)
    before = [pending(PART, one, "failed", "the process died")]
    assert statuses(held(PART, Options(), before)) == [("two", "blocked", "blocked by one")]


def test_asked_for_one_by_one_and_in_any_order_the_outcomes_are_the_same(laws):
    two, three = law("two", good, needs=("one",)), law("three", good, needs=("two",))
    laws(law("one", bad), two, three)
    assert outcome_of(PART, three).reason == "blocked by one"
    assert outcome_of(PART, two).reason == "blocked by one"


def test_needs_name_properties_and_each_stands_behind_what_it_needs():
    for kind, _, _ in KINDS:
        seen: set[str] = set()
        for prop in properties(kind):
            assert set(prop.needs) <= seen, f"{kind}: {prop.name} needs {prop.needs}"
            seen.add(prop.name)
        assert blocker(properties(kind)[-1], {}) == ""


@pytest.mark.parametrize("kind", [name for name, _, _ in KINDS])
def test_every_kind_says_how_many_of_its_properties_must_hold(kind):
    own = [prop for prop in properties(kind) if prop.kind == kind]
    assert 2 <= minimum(kind) <= len(own)


def test_a_part_about_which_too_little_is_said_is_not_well(laws):
    laws(law("one", silent), law("two", good), law("three", silent))
    report = Report(list(held(PART, Options())))
    assert not report.failures
    assert not report.ok
    (said,) = report.short
    assert said == (
        f"norm/test:RootMeanSquare: only 1 of the 3 properties of kind norm passed, at least {minimum('norm')} must; "
        "not applicable: one, three"
    )
    assert f"too little was tested: {said}" in report.text()
    assert "not all is well" in report.text()
    assert said in page(report)
    assert report.data()["short"] == [said]


def test_expected_failures_do_not_make_up_the_number():
    own = dict.fromkeys(map(str, range(20)), "expected-failed")
    assert "only 0 of the 20" in shortfall("norm/x", "norm", own)
    assert shortfall("norm/x", "norm", dict.fromkeys(map(str, range(20)), "passed")) == ""


def test_a_kind_of_a_strangers_needs_one_property_unless_it_says_otherwise():
    assert minimum("a-kind-that-nobody-knows") == 1


def test_a_selection_is_not_too_little():
    assert run("norm/rmsnorm", names=["odd"], examples=1).ok


def test_a_failure_shows_formula_bound_and_where_it_was_seen_if_there_are_any():
    full = law("one", bad, formula="f(x) = 0", tolerance="rounding twice", seen="someone/something#12")
    text = explain(hold(PART, full))
    assert "  formula:      f(x) = 0\n" in text
    assert "  bound:        rounding twice\n" in text
    assert "  seen before:  someone/something#12\n" in text
    assert "  smallest      n = 0\n" in text
    bare = explain(hold(PART, law("one", bad, formula="", tolerance="", seen="")))
    assert not re.search("formula|bound|seen before", bare)


class Page(HTMLParser):
    """Checks that what is opened is closed, and gathers anchors, links and cells."""

    OPEN = ("meta", "tr", "td", "th", "li", "p", "html", "doctype")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors, self.links, self.cells, self.stack = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if "href" in given else []
        self.cells += [(given.get("class"), given.get("title"))] if tag == "td" else []
        if tag not in self.OPEN:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.OPEN:
            assert self.stack.pop() == tag


def test_the_page_has_a_cell_for_each_part_and_property_whose_failures_are_linked(laws):
    laws(law("one", bad), law("two", good, needs=("one",)), law("three", silent), law("four", good))
    outcomes = list(held(PART, Options()))
    outcomes[3].status, outcomes[3].reason = "expected-failed", "it's <so>"
    report = Report(outcomes, [Failure("acme", "acme-parts", "1.0", "OSError: <gone>")])
    text = page(report)
    found = Page(text)
    assert not found.stack
    assert [kind for kind, _ in found.cells if kind != "figure"] == [
        "failed",
        "blocked",
        "not-applicable",
        "expected-failed",
    ]
    assert "it is too quiet" in found.cells[2][1]
    assert found.links == ["#kind-norm", "#norm/test:RootMeanSquare::one", "#norm/test:RootMeanSquare::four"]
    assert {link.removeprefix("#") for link in found.links} <= set(found.anchors)
    assert "plugin acme (acme-parts 1.0) failed to load: OSError: &lt;gone&gt;" in text
    assert "Not all is well." in text
    assert "src=" not in text
    assert "http" not in text


def test_a_strangers_part_is_named_with_its_distribution():
    record = Record("norm", "odd-one", "corelm.nowhere:Norm", "x", 1, "acme-parts", "1.5", "acme")
    with using(Registry(kinds=active().kinds, records=[record])):
        report = run("norm/odd-one")
    assert explain(report.failures[0]).startswith("norm/odd-one (acme-parts 1.5) fails loads\n")
    assert report.data()["outcomes"][0]["from"] == "acme-parts 1.5"


@pytest.mark.parametrize("speaks_at", [None, 3, EXCUSES // 2])
def test_a_law_that_says_nothing_for_long_is_asked_no_more(speaks_at):
    calls = []

    def rare(part, draw):
        draw.integer("n", 0, 10**9)
        calls.append(1)
        if speaks_at is None or len(calls) < speaks_at:
            raise NotApplicable("it is too quiet")

    outcome = hold(PART, law("rare", rare), examples=4 * EXCUSES)
    if speaks_at is None:
        assert (outcome.status, outcome.reason, len(calls)) == ("not-applicable", "it is too quiet", EXCUSES)
    else:
        assert (outcome.status, len(calls)) == ("passed", 4 * EXCUSES)
