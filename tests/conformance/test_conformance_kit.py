"""The kit itself: what it covers, what it says about a failure, what counts as passed."""

import json
from typing import ClassVar

import pytest
import torch

from corelm import hookimpl
from corelm.conformance import PlantedBug, properties, run
from corelm.conformance.bench import gap, leaves, same_bits
from corelm.conformance.bugs.norm import BesselCorrection, ForgottenMethod, RootMeanSquare
from corelm.conformance.framework import PartUnderTest
from corelm.conformance.planted import planted_bugs, references
from corelm.conformance.report import Report, explain
from corelm.conformance.running import excused, hold
from corelm.conformance.selection import cases, parts
from corelm.conformance.sequence import standing
from corelm.errors import UserError
from corelm.kinds import KINDS
from corelm.registration import Record, Registry, active, using

KIND_NAMES = [name for name, _, _ in KINDS]

# What a kind's own properties must be at least; a check that is lost without anybody noticing is worse than none.
LEAST = {
    "source": 9, "cleaner": 9, "tokenizer": 17, "template": 7, "packer": 14, "embedding": 4, "position": 18,
    "scaling": 4, "mask": 8,
    "attention": 16, "norm": 11, "feedforward": 9, "activation": 6, "router": 5, "block": 5, "connection": 4,
    "head": 5, "init": 4, "optimizer": 21, "schedule": 12, "objective": 11, "trainer": 21, "adapter": 5, "aligner": 17,
    "quantizer": 12, "kernel": 4, "sampler": 17, "evaluator": 10, "interchange": 6, "stage": 19, "tracker": 6,
}  # fmt: skip

# Laws that alone caught some bug in the experiment that the kit was drawn from.
SOLE_KILLERS = {
    "attention": "causal cached_equals_full padding_is_invisible window_is_exact packed_equals_separate",
    "norm": "rounded_once dtype_is_kept",
    "activation": "formula_of_its_name",
    "feedforward": "identical_experts router_learns",
    "tokenizer": "round_trip ids_are_in_range no_memory batches_agree no_injection streams_whole_characters "
    "merges_in_order saves_as_json training_ignores_order",
    "sampler": "a_distribution nucleus_is_minimal keeps_exactly_k penalty_lowers_once threshold_is_relative "
    "rows_are_independent",
    "optimizer": "parameters_are_separate state_resumes orthogonalises",
    "schedule": "in_unit_interval stays_at_the_end shape_of_its_name",
    "aligner": "others_stay_frozen answers_are_learnt",
    "trainer": "resumes_bit_exactly gradients_are_the_mean_loss leaves_no_trace only_the_trainable_move",
    "packer": "tokens_are_conserved resumes_anywhere order_is_drawn targets_are_the_next_tokens ranks_partition",
    "quantizer": "codes_are_in_range",
    "position": "nearer_is_stronger bias_of_one_query slopes_as_declared",
}


def own(kind):
    return [prop for prop in properties(kind) if prop.kind == kind]


def wrong(part, **attributes):
    """A part under test made of a class that nobody registered."""
    made = type(part.__name__, (part,), {"__doc__": part.__doc__, **attributes})
    return PartUnderTest("norm", f"test:{part.__name__}", given=made)


def named(kind, name):
    return next(prop for prop in properties(kind) if prop.name == name)


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_every_kind_has_at_least_its_number_of_properties(kind):
    assert len(own(kind)) >= LEAST[kind]


@pytest.mark.parametrize(("kind", "names"), SOLE_KILLERS.items())
def test_no_law_that_alone_caught_a_bug_is_missing(kind, names):
    assert set(names.split()) <= {prop.name for prop in properties(kind)}


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_every_property_catches_a_planted_bug(kind):
    shared = {bug.caught_by for bug in planted_bugs()}
    caught = {bug.caught_by for bug in planted_bugs(kind)}
    idle = [p.name for p in properties(kind) if p.name not in (shared if p.kind == "*" else caught)]
    assert set(idle) <= {
        "kind_has_properties",
        "import_is_quiet",
    }  # strangers' kinds and imports have tests of their own


def test_a_kind_that_states_no_properties_is_told_so():
    outcome = hold(PartUnderTest("unheard-of", "x", given=RootMeanSquare), named("norm", "kind_has_properties"))
    assert outcome.status == "failed"
    assert "'unheard-of'" in outcome.reason


def test_every_planted_bug_stands_on_a_part_that_is_right():
    right = {part.cls for part in references()}
    for bug in planted_bugs():
        assert bug.part not in right
        assert bug.kind in {part.kind for part in references()} or bug.caught_by == "kind_has_properties"
        assert bug.what, bug.name


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_properties_say_what_they_state_and_what_is_likely_wrong(kind):
    for prop in properties(kind):
        assert prop.statement.endswith("."), prop.name
        assert prop.catches, prop.name
        assert prop.name.isidentifier(), prop.name
        assert prop.examples > 0


def test_a_plugin_can_plant_bugs_of_its_own():
    bug = PlantedBug("norm", "theirs", BesselCorrection, "n − 1 in place of n", "second_moment")

    class Plugin:
        @hookimpl
        def corelm_planted_bugs(self):
            return [bug]

    registry = Registry(kinds=active().kinds, records=active().records)
    registry.manager.register(Plugin())
    with using(registry):
        assert bug in planted_bugs("norm")
        assert bug not in planted_bugs("attention")
        assert bug.caught().status == "failed"
    assert bug not in planted_bugs()


def test_a_failure_says_law_finding_smallest_example_cause_and_how_to_repeat_it():
    outcome = hold(wrong(BesselCorrection), named("norm", "second_moment"), seed=3)
    text = explain(outcome)
    assert "norm/test:BesselCorrection fails second_moment" in text
    assert "mean(y²) = σ²/(σ² + eps) exactly" in text
    assert "mean(y²) and σ²/(σ²+eps): they differ by" in text
    assert "σ²/eps = " in text
    assert "dim = 16" in text, "the smallest example has the simplest choices"
    assert "ddof = 1" in text
    assert "corelm verify norm/test:BesselCorrection --property second_moment --seed 3 --examples 30" in text


def test_the_same_seed_draws_the_same_examples_and_another_seed_others():
    drawn = {}
    for seed in (1, 1, 2):
        seen = []

        def check(part, draw, seen=seen):
            subject = part.bench.subject(part, draw)
            seen.append((repr(subject.config), draw.seed()))

        prop = named("norm", "odd")
        hold(
            PartUnderTest("norm", "x", given=RootMeanSquare), type(prop)(**{**vars(prop), "check": check}), seed=seed
        )
        drawn.setdefault(seed, []).append(seen)
    assert drawn[1][0] == drawn[1][1] != drawn[2][0]


def test_an_expected_failure_needs_a_reason_that_is_shown_and_must_still_fail():
    declared = {"expected_failures": {"second_moment": "the paper divides by n − 1", "odd": "by mistake"}}
    part = wrong(BesselCorrection, **declared)
    failing = hold(part, named("norm", "second_moment"))
    assert (failing.status, failing.reason) == ("expected-failed", "the paper divides by n − 1")
    passing = hold(part, named("norm", "odd"))
    assert passing.status == "failed"
    assert "declared to fail (by mistake) but passes" in passing.reason


def test_what_depends_on_a_part_that_does_not_load_is_blocked_rather_than_failed():
    broken = Record("norm", "broken", "corelm.nowhere:Norm", "x", 1, "acme", "1", "acme")
    with using(Registry(kinds=active().kinds, records=[broken])):
        report = run("norm/broken")
    assert [o.prop.name for o in report.outcomes if o.status == "failed"] == ["loads"]
    assert {o.reason for o in report.outcomes if o.status == "blocked"} == {"blocked by loads"}
    assert report.counts["run"] == 1
    assert not report.ok
    assert "importing corelm.nowhere:Norm failed" in report.failures[0].reason


def test_a_class_of_another_kind_is_named():
    record = Record("norm", "causal", "corelm.conformance.harness:Past", "x", 1, "acme", "1", "acme")
    with using(Registry(kinds=active().kinds, records=[record])):
        outcome = run("norm/causal").failures[0]
    assert outcome.prop.name == "loads"
    assert "Past" in outcome.reason
    assert "norm" in outcome.reason.lower()


def test_a_forgotten_method_is_named():
    outcome = hold(wrong(ForgottenMethod), named("norm", "loads"))
    assert "leaves unwritten: epsilon, forward" in outcome.reason
    assert standing(wrong(ForgottenMethod)) == "loads"


def test_an_exception_is_a_failure_with_its_place():
    def forward(self, x):
        raise IndexError("seven")

    outcome = hold(wrong(RootMeanSquare, forward=forward), named("norm", "odd"))
    assert outcome.status == "failed"
    assert f"it raised IndexError: seven at {__file__}" in outcome.reason


def test_touching_the_global_random_state_fails_whatever_is_tested():
    def forward(self, x):
        torch.rand(1)
        return RootMeanSquare.forward(self, x)

    outcome = hold(wrong(RootMeanSquare, forward=forward), named("norm", "odd"))
    assert "changed the global random state of torch" in outcome.reason


def test_holding_a_part_leaves_the_callers_random_state_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    hold(PartUnderTest("norm", "x", given=RootMeanSquare), named("norm", "odd"))
    assert torch.equal(before, torch.get_rng_state())


def test_counts_add_up_and_a_report_in_which_nothing_ran_is_not_ok():
    report = run("norm/rmsnorm", names=["odd", "centring_as_declared", "gradients_reach_every_parameter"])
    counts = report.counts
    assert counts["applicable"] == counts["run"] == counts["passed"] == 7, "with the four that all others wait for"
    assert counts["applicable"] + counts["not-applicable"] == len(report.outcomes)
    assert report.ok
    assert not Report().ok


def test_a_property_that_does_not_apply_says_why():
    part = next(p for p in parts(["mask/causal"]))
    reason = excused(part, named("mask", "meta_construction"))
    assert reason == "parts of kind mask hold no tensors"


def test_the_report_is_text_a_page_and_plain_data(tmp_path):
    report = Report([hold(wrong(BesselCorrection), named("norm", "second_moment"))])
    report.outcomes[0].reason = "a < b & c"
    assert "1 failed" in report.text()
    report.write(tmp_path / "new" / "page.html")
    page = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert "a &lt; b &amp; c" in page
    assert "http" not in page, "the page is self-contained"
    assert json.loads(json.dumps(report.data()))["counts"]["failed"] == 1


def test_unknown_parts_plugins_and_properties_are_refused_with_what_there_is():
    with pytest.raises(UserError, match="nothing installed is called 'norn'"):
        run("norn")
    with pytest.raises(UserError, match="did you mean 'rmsnorm'"):
        run("norm/rmsnrm")
    with pytest.raises(UserError, match="no part of a distribution called 'acme'"):
        run(plugins=["acme"])
    with pytest.raises(UserError, match="no property is called 'evn'"):
        run("norm", names=["evn"])


def test_parts_are_chosen_by_kind_by_name_and_by_distribution():
    assert {part.label for part in parts(["norm"])} == {"norm/layernorm", "norm/rmsnorm"}
    assert [part.label for part in parts(["norm/corelm:rmsnorm"])] == ["norm/rmsnorm"]
    assert [part.label for part in parts(["corelm:rmsnorm", "norm/rmsnorm"])] == ["norm/rmsnorm"]
    assert {part.label for part in parts(plugins=["corelm"])} == {part.label for part in parts()}


def test_cases_leave_out_what_says_nothing_about_a_part():
    names = {prop.name for part, prop in cases(["mask/causal"])}
    assert "slices_agree" in names
    assert "meta_construction" not in names


class TestComparison:
    CASES: ClassVar = [
        (torch.tensor([1.0, -torch.inf]), torch.tensor([1.0, -torch.inf]), 0.0),
        (torch.tensor([1.0, torch.nan]), torch.tensor([1.0, 2.0]), float("inf")),
        (torch.tensor([1.0, torch.inf]), torch.tensor([1.0, 2.0]), float("inf")),
        (torch.tensor([torch.inf]), torch.tensor([-torch.inf]), float("inf")),
        (torch.tensor([1.0]), torch.tensor([1.0, 1.0]), float("inf")),
        (torch.tensor([100.0]), torch.tensor([101.0]), 0.01),
        (torch.tensor([1, 2]), torch.tensor([1, 3]), float("inf")),
        ({"a": [1, "x"]}, {"a": [1, "y"]}, float("inf")),
    ]

    @pytest.mark.parametrize(("a", "b", "expected"), CASES)
    def test_the_gap_is_relative_and_infinite_where_values_cannot_be_compared(self, a, b, expected):
        assert gap(a, b) == pytest.approx(expected)

    def test_same_bits_tells_types_shapes_and_values_apart(self):
        x = torch.tensor([1.0, torch.nan])
        assert same_bits({"x": x, "n": 1}, {"x": x.clone(), "n": 1})
        assert not same_bits(x, x.double())
        assert not same_bits(x, x[None])
        assert not same_bits(1, 1.0)

    def test_leaves_go_through_maps_lists_and_dataclasses(self):
        assert leaves({"a": [1, (2, {"b": 3})]}) == [1, 2, 3]
