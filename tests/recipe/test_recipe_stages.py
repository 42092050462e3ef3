"""The graph of stages: roles, types, order; with stages made for the purpose."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from corelm import hookimpl, registration
from corelm.kinds import ArtifactType, ComponentConfig, RunContext, Stage
from corelm.recipe.schema import RecipeConfig


class Fake(Stage):
    """Takes nothing."""

    class Config(ComponentConfig):
        """Options."""

    takes: ClassVar[dict[str, ArtifactType]] = {}

    @classmethod
    def inputs(cls, config: Any) -> Mapping[str, ArtifactType]:
        return cls.takes

    def run(self, context: RunContext, inputs: Mapping[str, Any]) -> dict[str, float]:
        return {}


class Make(Fake):
    """Makes a model."""


class Tune(Fake):
    """Takes a model."""

    takes = {"model": "model"}


class Judge(Fake):
    """Makes a reward model."""

    takes = {"model": "model"}
    output = "reward-model"


class Align(Fake):
    """Takes two, or three, and several."""

    takes = {"policy": "model", "reference": "model", "reward?": "reward-model", "extra?*": "model"}


class Measure(Fake):
    """Takes several."""

    takes = {"models*": "model"}
    output = "metrics"


class Convert(Fake):
    """Takes the tokenizer."""

    takes = {"vocabulary": "tokenizer"}
    output = "folder"


PARTS = {"make": Make, "tune": Tune, "judge": Judge, "align": Align, "measure": Measure, "convert": Convert}


class Plugin:
    @hookimpl
    def corelm_register(self, registry: registration.Registrar) -> None:
        for name, part in PARTS.items():
            registry.add("stage", name, f"{__name__}:{part.__name__}", summary=str(part.__doc__))


@pytest.fixture(autouse=True, scope="module")
def scratch() -> Iterator[None]:
    import corelm.kinds

    sys.modules.setdefault(__name__, types.ModuleType(__name__))
    registry = registration.Registry()
    registration.add_plugin(registry, corelm.kinds, "core", "corelm", "0")
    registration.add_plugin(registry, Plugin(), "fakes", "fakes", "1")
    with registration.using(registry):
        yield


def stages(**nodes: Any) -> Any:
    return RecipeConfig.model_validate({"corelm": 1, "name": "x", "trackers": [], "stages": nodes}).stages


def refused(**nodes: Any) -> set[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        stages(**nodes)
    return {(".".join(map(str, e["loc"][1:])), e["type"]) for e in caught.value.errors()}


def test_from_defaults_to_the_stage_before():
    found = stages(a="make", b="tune", c={"use": "judge"})
    assert found["b"].inputs == {"model": "a"}
    assert found["c"].inputs == {"model": "b"}


def test_a_stage_that_needs_nothing_reads_nothing_even_after_others():
    assert stages(a="make", b="make")["b"].inputs == {}


def test_roles_may_be_optional_or_take_several():
    found = stages(
        a="make",
        b="tune",
        j={"use": "judge", "from": "b"},
        p={"use": "align", "from": {"policy": "b", "reference": "a"}},
        q={"use": "align", "from": {"policy": "b", "reference": "a", "reward": "j", "extra": "a"}},
    )
    assert found["p"].inputs == {"policy": "b", "reference": "a", "reward": None, "extra": None}
    assert found["q"].inputs == {"policy": "b", "reference": "a", "reward": "j", "extra": ["a"]}
    assert found["q"].upstream() == ["b", "a", "j"]


def test_one_name_for_a_role_that_takes_several_is_a_list_of_one():
    assert stages(a="make", m={"use": "measure", "from": "a"})["m"].inputs == {"models": ["a"]}
    assert stages(a="make", m="measure")["m"].inputs == {"models": ["a"]}


def test_a_list_of_one_fills_a_role_that_takes_one():
    assert stages(a="make", b={"use": "tune", "from": ["a"]})["b"].inputs == {"model": "a"}


def test_the_stages_that_every_run_has_can_be_read_from():
    assert stages(c={"use": "convert", "from": "tokenizer"})["c"].inputs == {"vocabulary": "tokenizer"}
    assert refused(c={"use": "convert", "from": "corpus"}) == {("c.from", "stage_type")}


@pytest.mark.parametrize(
    ("nodes", "errors"),
    [
        ({"b": "tune"}, {("b", "from_missing")}),
        ({"a": "make", "b": {"use": "align", "from": "a"}}, {("b.from", "from_ambiguous")}),
        ({"a": "make", "b": "align"}, {("b", "from_missing")}),
        ({"a": "make", "b": {"use": "align", "from": {"policy": "a"}}}, {("b.from", "from_missing")}),
        ({"a": "make", "b": {"use": "tune", "from": {"modle": "a", "model": "a"}}}, {("b.from.modle", "from_role")}),
        ({"a": "make", "b": {"use": "make", "from": "a"}}, {("b.from", "from_unwanted")}),
        ({"a": "make", "b": {"use": "tune", "from": 3}}, {("b.from", "from_name")}),
        ({"a": "make", "j": "judge", "b": "tune"}, {("b", "stage_type")}),
        ({"a": "make", "j": "judge", "m": {"use": "measure", "from": ["a", "j"]}}, {("m.from.1", "stage_type")}),
        ({"a": "make", "b": {"use": "tune", "from": ["a", "a"]}}, {("b.from", "from_one")}),
        ({"a": {"use": "tune", "from": "b"}, "b": {"use": "tune", "from": "a"}}, {("a.from", "stage_cycle")}),
        ({"a": {"use": "tune", "from": "a"}}, {("a.from", "stage_cycle")}),
        ({"corpus": "make"}, {("corpus", "stage_name")}),
        ({"..": "make"}, {("..", "stage_name")}),
        ({"a b": "make"}, {("a b", "stage_name")}),
        ({"": "make"}, {("", "stage_name")}),
        ({"x" * 65: "make"}, {("x" * 65, "stage_name")}),
        ({"a": "made"}, {("a", "part_unknown_part")}),
        ({"a": 3}, {("a", "part_expected")}),
        ({"a": {"use": "make", "of": 1}}, {("a.of", "extra_forbidden")}),
    ],
)
def test_what_does_not_fit_is_refused_at_its_place(nodes, errors):
    assert refused(**nodes) == errors


def test_everything_that_is_wrong_is_found_at_once():
    found = refused(a="made", b={"use": "tune", "from": "c"}, j={"use": "judge", "from": "b", "x": 1}, tokens="make")
    assert found == {
        ("a", "part_unknown_part"),
        ("b.from", "unknown_stage"),
        ("j.x", "extra_forbidden"),
        ("tokens", "stage_name"),
    }


@given(st.data())
def test_stages_come_in_an_order_in_which_each_has_what_it_reads(data):
    """Any acyclic graph, written in any order."""
    names = [f"s{n}" for n in range(data.draw(st.integers(1, 6)))]
    nodes: dict[str, Any] = {}
    for n, name in enumerate(names):
        reads = data.draw(st.sets(st.sampled_from(names[:n]), max_size=3)) if n else set()
        first, *more = sorted(reads) or [None]
        if first is None:
            nodes[name] = {"use": "make"}
        else:
            nodes[name] = {"use": "align", "from": {"policy": first, "reference": first, "extra": more or None}}
    written = data.draw(st.permutations(names))
    found = stages(**{name: nodes[name] for name in written})
    assert set(found) == set(names)
    seen: set[str] = set()
    for name, node in found.items():
        assert set(node.upstream()) <= seen
        seen.add(name)
    again = RecipeConfig.model_validate(
        {"corelm": 1, "name": "x", "trackers": [], "stages": {name: node.dump() for name, node in found.items()}}
    )
    assert again.stages == found


@given(st.permutations(["a", "b", "c", "d"]))
def test_stages_that_do_not_depend_on_each_other_keep_the_order_of_the_file(names):
    assert list(stages(**{name: "make" for name in names})) == list(names)
