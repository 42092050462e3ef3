"""Expressions in families' files: evaluated, and solved for each of their fields."""

from __future__ import annotations

import pytest
from corelm_interchange.expressions import Found, Unifier, evaluate
from corelm_interchange.fields import ConfigField, Plain, Values
from corelm_interchange.layers import unify_pattern
from hypothesis import given
from hypothesis import strategies as st

from corelm.kinds import pattern_names

FIELDS = {name: ConfigField(default=None) for name in "abc"}


def solved(node, value, **known):
    unifier = Unifier(Values(FIELDS, {}), lambda given: Plain(Values(FIELDS, given, defaults=False)))
    for found in unifier.unify(node, value, Found(known)):
        closed = unifier.close(found)
        if closed is not None:
            yield dict(closed.fields)


@given(st.integers(1, 4096), st.integers(1, 64))
def test_every_expression_can_be_solved_for_each_argument(a, b):
    given = {"a": a, "b": b}
    for name in ("$product", "$quotient", "$sum", "$difference"):
        node = {name: ["$a", "$b"]}
        value = evaluate(node, Plain(Values(FIELDS, given)))
        assert {**next(solved(node, value, a=a))}["b"] == pytest.approx(b)
        assert {**next(solved(node, value, b=b))}["a"] == pytest.approx(a)
    for name in ("$sqrt", "$inverse_sqrt"):
        value = evaluate({name: "$a"}, Plain(Values(FIELDS, given)))
        assert next(solved({name: "$a"}, value)) == {"a": a}
    assert next(solved({"$not": "$a"}, False)) == {"a": True}


def test_equations_wait_for_each_other():
    template = {"x": {"$product": ["$a", "$b"]}, "y": {"$sum": ["$b", "$c"]}, "z": "$c"}
    assert next(solved(template, {"x": 12, "y": 7, "z": 4})) == {"a": 4, "b": 3, "c": 4}
    assert list(solved({"x": "$a", "y": {"$sum": ["$a", 1]}}, {"x": 1, "y": 5})) == []


def test_cases_are_tried_in_order_and_pin_their_fields_down():
    node = {"$case": [{"when": {"a": 1}, "then": "$b"}, {"when": {"a": [2, 3], "c": {"not": 0}}, "then": 5}]}
    assert list(solved(node, 5)) == [{"a": 1, "b": 5}, {}]
    assert list(solved(node, 5, a=1)) == [{"a": 1, "b": 5}, {"a": 1}]
    assert list(solved(node, 6, a=2)) == []
    assert evaluate(node, Plain(Values(FIELDS, {"a": 3, "c": 1}))) == 5
    with pytest.raises(KeyError):
        evaluate(node, Plain(Values(FIELDS, {"a": 3, "c": 0})))


PATTERNS = [
    ({"first": "$a", "use": "x", "otherwise": "y"}, {"first": 2}),
    ({"every": "$a", "offset": "$b", "use": "x", "otherwise": "y"}, {"every": 3, "offset": 1}),
    ({"at": "$a", "use": "x", "otherwise": "y"}, {"at": [0, 4]}),
    ({"letters": "$a", "names": {"X": "x", "Y": "y"}}, {"letters": "XYYXY"}),
    ("$a", None),
]


@pytest.mark.parametrize(("form", "said"), PATTERNS, ids=str)
def test_patterns_are_found_again(form, said):
    names = pattern_names({**form, **said}, 5) if isinstance(form, dict) else ["x", "y", "x", "x", "y"]
    unifier = Unifier(Values(FIELDS, {}), lambda given: Plain(Values(FIELDS, given, defaults=False)))
    found = next(unify_pattern(unifier, form, names, Found()))
    again = evaluate(form, Values(FIELDS, found.fields))
    assert pattern_names(again, 5) == names


def test_expressions_over_layers():
    scope = Plain(Values(FIELDS, {"a": 4, "b": 2}))
    pattern = {"every": "$b", "offset": 1, "use": "x", "otherwise": "y"}
    assert evaluate({"$layers": [pattern, "$a"]}, scope) == ["y", "x", "y", "x"]
    assert evaluate({"$indices": [pattern, "$a"]}, scope) == [1, 3]
    assert evaluate({"$flags": [pattern, "$a"]}, scope) == [0, 1, 0, 1]
    scaling = {"use": "yarn", "factor": 40.0, "mscale_all_dim": 1.0}
    scale = {"$product": [{"$inverse_sqrt": "$b"}, {"$yarn_scale": "$a"}]}
    value = evaluate(scale, Plain(Values(FIELDS, {"a": scaling, "b": 16})))
    assert value == pytest.approx(1.8738542070926265 / 4)
    assert list(solved({"x": scale, "y": "$a"}, {"x": value, "y": scaling})) == [{"a": scaling, "b": 16}]
