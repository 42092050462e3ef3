"""What holds for every family's file, and for the two small algebras that files are written in."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from corelm_interchange import operations
from corelm_interchange.expressions import OPERATORS, Found, Unifier, evaluate
from corelm_interchange.family import Family, families, family_for
from corelm_interchange.family_file import plain_data, read
from corelm_interchange.fields import ConfigField, Plain, Values
from corelm_interchange.layers import unify_pattern
from corelm_interchange.normal import differences, normal_form, same
from corelm_interchange.rope import SCALINGS, RopeFields
from corelm_interchange.tensors import Reading, places
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from corelm.errors import UserError
from corelm.kinds import pattern_names
from corelm.model.assemble import assemble
from corelm.model.config import ModelConfig

sys.path.append(str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
from architectures import drawn_configs

NAMES = sorted(families())


def read_fields(family, config):
    values, notes = family.read_config(config)
    assert notes == []
    assume(family.refused(values) is None)
    return values


@pytest.mark.parametrize("name", NAMES)
@given(st.data())
def test_fields_to_section_to_fields_is_the_identity(name, data):
    family = families()[name]
    values = read_fields(family, data.draw(drawn_configs(family)))
    section = family.section(values)
    found, missing = family.solve(normal_form(section))
    assert missing == []
    again, notes = family.read_config(family.config(found))
    assert notes == []
    assert list(differences(normal_form(section), normal_form(family.section(again)))) == []
    # A field comes back unless the model doesn't show it; then the section was the same above without it.
    for field in found.given:
        if field in values.given and not field.startswith("rope."):
            shown = {**found.given, field: values.given[field]}
            assert same(values.ours(field), found.ours(field)) or same(
                normal_form(family.section(Values(family.fields, shown))), normal_form(section)
            )


@pytest.mark.parametrize("name", NAMES)
@given(st.data())
def test_rules_name_every_tensor_of_the_model_once(name, data):
    family = families()[name]
    values = read_fields(family, data.draw(drawn_configs(family)))
    section = family.section(values)
    model = assemble(ModelConfig.model_validate(section), 0, device="meta")
    found = places(family, values, normal_form(section)["names"])
    ours = [one for layouts in found for one in layouts[0].ours]
    assert sorted(ours) == sorted(model.state_dict())
    theirs = [one for layouts in found for one in layouts[0].theirs]
    assert len(set(theirs)) == len(theirs)


@pytest.mark.parametrize("name", NAMES)
@given(st.data())
def test_a_model_goes_back_to_the_family_that_it_came_from(name, data):
    family = families()[name]
    section = family.section(read_fields(family, data.draw(drawn_configs(family))))
    assert family_for(normal_form(section))[0].name == name


@pytest.mark.parametrize("name", NAMES)
def test_layers_that_a_family_lacks_are_refused(name):
    family = families()[name]
    first = {key: one.examples[0] for key, one in family.file.config.items() if one.examples}
    section = family.section(family.read_config(first)[0])
    section["position"] = [{"use": "alibi", "scale": 0.123}]
    section.pop("pattern", None), section.pop("patterns", None), section.pop("blocks", None)
    values, missing = family.solve(normal_form(section))
    assert values is None and missing


def sizes(operation, inputs):
    return [tuple(tensor.shape) for tensor in operation.forward(inputs)]


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([0, 1, -1, -2]),
)
def test_join_and_its_inverse_lose_nothing(parts, groups, unit, other, axis):
    join = operations.Join(tuple(parts), groups, axis)
    where = axis % 3 if axis >= 0 else 3 + axis
    inputs = []
    for part in parts:
        shape = [other] * 3
        shape[where] = groups * unit * part
        inputs.append(torch.randn(shape))
    joined = join.forward(inputs)
    assert joined[0].shape[where] == groups * unit * sum(parts)
    for one, again in zip(inputs, join.backward(joined), strict=True):
        assert torch.equal(one, again)
    assert torch.equal(join.forward(join.backward(joined))[0], joined[0])
    assert sizes(join, [one.to("meta") for one in inputs]) == [tuple(joined[0].shape)]


def test_join_covers_the_fused_projections_of_the_literature():
    q, k, v = torch.arange(8), torch.arange(8) + 100, torch.arange(8) + 200
    assert operations.Join((1, 1, 1)).forward([q, k, v])[0].tolist() == [
        *range(8),
        *range(100, 108),
        *range(200, 208),
    ]
    per_head = operations.Join((1, 1, 1), groups=4).forward([q, k, v])[0].tolist()
    assert per_head[:6] == [0, 1, 100, 101, 200, 201] and len(per_head) == 24
    shared = operations.Join((2, 1, 1), groups=2).forward([torch.arange(16), k, v])[0].tolist()
    assert shared == [
        *range(8),
        *range(100, 104),
        *range(200, 204),
        *range(8, 16),
        *range(104, 108),
        *range(204, 208),
    ]
    alternating = operations.Join((1, 1), groups=8).forward([q, k])[0].tolist()
    assert alternating[:4] == [0, 100, 1, 101]


def made(name, options):
    return operations.OPERATIONS[name](options)


@pytest.mark.parametrize(
    ("name", "options", "inputs"),
    [
        ("transpose", {}, [(3, 4), (5,), (2, 3, 4)]),
        ("stack", {"count": 3, "axis": 1}, [(2, 4)] * 3),
        ("unstack", {"count": 3, "axis": 1}, [(2, 3, 4)]),
        ("unsqueeze", {"axis": 1}, [(5, 4), (5,)]),
        ("squeeze", {"axis": 1}, [(5, 1, 4)]),
        ("join", {"parts": [8, 4, 4], "groups": 2}, [(8, 3), (4, 3), (4, 3)]),
        ("split", {"parts": [1, 3], "groups": 2, "axis": -1}, [(3, 8)]),
        ("each", {"times": 3, "steps": [{"join": {"parts": [1, 1]}}, {"transpose": {}}]}, [(4, 3)] * 6),
    ],
)
def test_every_operation_has_an_inverse(name, options, inputs):
    operation = made(name, options)
    tensors = [torch.randn(shape) for shape in inputs]
    there = operation.forward(tensors)
    for one, again in zip(tensors, operation.backward(there), strict=True):
        assert torch.equal(one, again)
    for one, again in zip(there, operation.forward(operation.backward(there)), strict=True):
        assert torch.equal(one, again)
    assert set(operations.OPERATIONS) == set(operations.OPTIONS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8])
def test_operations_keep_the_bits_of_any_type(dtype):
    tensors = [torch.randint(-100, 100, (6, 3)).to(dtype) for _ in range(3)]
    steps = [made("join", {"parts": [1, 1, 1], "groups": 2}), made("transpose", {})]
    for one, again in zip(tensors, operations.backward(steps, operations.forward(steps, tensors)), strict=True):
        assert one.dtype == again.dtype and torch.equal(one, again)


def test_tensors_of_another_size_are_refused():
    with pytest.raises(UserError, match="7 rows do not divide into 2 groups of 1"):
        made("join", {"parts": [1, 1], "groups": 2}).backward([torch.zeros(7, 2)])
    with pytest.raises(UserError, match="4 stacked tensors instead of 3"):
        made("stack", {"count": 3}).backward([torch.zeros(4, 2)])


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


OLD_ROPE = [
    ({}, (1e4, 1.0, None)),
    ({"rope_theta": 5e5}, (5e5, 1.0, None)),
    ({"rotary_emb_base": 5e3, "rotary_pct": 0.25}, (5e3, 0.25, None)),
    (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 7.0, "partial_rotary_factor": 0.5}},
        (7.0, 0.5, None),
    ),
    ({"rope_theta": 9.0, "rope_parameters": {"rope_type": "default"}}, (9.0, 1.0, None)),
    ({"rope_scaling": {"type": "linear", "factor": 4.0}}, (1e4, 1.0, {"use": "linear", "factor": 4.0})),
    (
        {"rope_scaling": {"type": "su", "short_factor": [1.0], "long_factor": [2.0]}, "max_position_embeddings": 64},
        (1e4, 1.0, {"use": "longrope", "short_factor": [1.0], "long_factor": [2.0], "original_context": 64}),
    ),
    (
        {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}, "original_max_position_embeddings": 8},
        (1e4, 1.0, {"use": "yarn", "factor": 2.0, "original_context": 8}),
    ),
]


@pytest.mark.parametrize(("config", "expected"), OLD_ROPE, ids=str)
def test_every_spelling_of_rotary_positions_is_read(config, expected):
    fields = RopeFields().read(config, "config.json")
    assert tuple(fields[f"rope.{key}"] for key in ("theta", "fraction", "scaling")) == expected
    again = RopeFields().read({**config, **RopeFields().write(fields)}, "config.json")
    assert again == fields


def test_rotary_positions_of_types_of_layers():
    labels = {"full": {}, "near": {"theta": 10.0, "theta_fields": ["rope_local_base_freq"], "scaled": False}}
    rope = RopeFields.model_validate({"theta": 1e6, "labels": labels})
    old = rope.read({"rope_local_base_freq": 20.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, "config")
    assert old["rope.full.theta"] == 1e6 and old["rope.near.theta"] == 20.0
    assert old["rope.full.scaling"] == {"use": "linear", "factor": 8.0} and old["rope.near.scaling"] is None
    assert rope.read(rope.write(old), "config") == old
    assert rope.read({}, "config")["rope.near.theta"] == 10.0
    assert set(SCALINGS) == set(RopeFields().scalings)


WRONG = [
    ("model: {dim: 1}", "title"),
    ("title: X\nfield: 1", "field"),
    ("tensors: [{ours: a, theirs: b, steps: [{shuffle: {}}]}]", "is no operation"),
    ("tensors: [{ours: a, theirs: b, steps: [{join: {sizes: [1]}}]}]", "is no operation"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_file_that_does_not_follow_the_schema_is_refused(text, message):
    with pytest.raises(ValidationError, match=message):
        read(text)


def test_numbers_in_files_are_those_of_yaml_1_2():
    assert plain_data("{a: 1e-5, b: -3, c: true, d: null, e: no, f: 1.5, g: 1e6, h: 190:20}") == {
        "a": 1e-5,
        "b": -3,
        "c": True,
        "d": None,
        "e": "no",
        "f": 1.5,
        "g": 1e6,
        "h": "190:20",
    }


EXPERTS = """
title: Sparse
model_types: [sparse]
architecture: SparseForCausalLM
config:
  hidden_size: {}
  num_hidden_layers: {}
  num_experts: {}
  first_k_dense_replace: {default: 1}
  biased: {default: false}
model:
  dim: $hidden_size
  layers: $num_hidden_layers
  context: 8
  vocab_size: 9
  attention: {use: gqa, heads: 2}
  blocks:
    dense: {feedforward: {use: mlp}}
    sparse: {feedforward: {use: moe, experts: $num_experts, expert: {use: swiglu, width: 6}}}
  pattern: {first: $first_k_dense_replace, use: dense, otherwise: sparse}
tensors:
  - within: [layers.<layer>.feedforward., model.layers.<layer>.mlp.]
    rules:
      - {ours: up.*, theirs: up_proj.*, blocks: [dense], bias: {biased: true}}
      - ours: [gate, up]
        blocks: [sparse]
        experts: $num_experts
        layouts:
          - theirs: [experts.<expert>.gate_up_proj.weight]
            steps: [{join: {parts: [1, 1], axis: 1}}, {unstack: {count: $num_experts}}]
          - theirs: [experts.gate_up_proj]
            steps: [{join: {parts: [1, 1], axis: 1}}]
"""


def sparse(text):
    return Family("sparse", read(text))


def test_rules_reach_layers_of_their_blocks_and_experts():
    family = sparse(EXPERTS)
    values, _ = family.read_config({"hidden_size": 4, "num_hidden_layers": 3, "num_experts": 2, "biased": True})
    names = normal_form(family.section(values))["names"]
    assert names == ["dense", "sparse", "sparse"]
    found = places(family, values, names)
    assert [one[0].ours for one in found] == [
        ("layers.0.feedforward.up.weight",),
        ("layers.0.feedforward.up.bias",),
        ("layers.1.feedforward.gate", "layers.1.feedforward.up"),
        ("layers.2.feedforward.gate", "layers.2.feedforward.up"),
    ]
    hub, memory = found[2]
    assert hub.theirs == tuple(f"model.layers.1.mlp.experts.{expert}.gate_up_proj.weight" for expert in range(2))
    assert memory.theirs == ("model.layers.1.mlp.experts.gate_up_proj",)
    ours = [torch.randn(2, 6, 4), torch.randn(2, 6, 4)]
    for place in (hub, memory):
        theirs = operations.forward(place.steps, ours)
        assert len(theirs) == len(place.theirs)
        for one, again in zip(ours, operations.backward(place.steps, theirs), strict=True):
            assert torch.equal(one, again)
    found, missing = family.solve(normal_form(family.section(values)))
    assert missing == [] and found.given["first_k_dense_replace"] == 1 and found.given["num_experts"] == 2


class Held(dict):
    def meta(self, name):
        return self[name].to("meta")

    def tensor(self, name):
        return self[name]


def test_either_layout_other_prefixes_and_layers_beyond_the_last_are_read():
    text = (
        EXPERTS[: EXPERTS.index("tensors:")]
        + """
tensors:
  - {ours: experts, theirs: model.experts, experts: $num_experts,
     layouts: [{theirs: model.experts.<expert>, steps: [{unstack: {count: $num_experts}}]}, {theirs: model.experts}]}
also: {model.: [language_model.model., ""]}
unused: [model.layers.<beyond>.*]
"""
    )
    family = sparse(text.replace("theirs: model.experts, experts: $num", "experts: $num"))
    values, _ = family.read_config({"hidden_size": 4, "num_hidden_layers": 3, "num_experts": 2})
    tensor = torch.randn(2, 3)
    names = ["dense", "sparse", "sparse"]
    for held in (
        {"model.experts": tensor, "model.layers.3.x": tensor},
        {"language_model.model.experts.0": tensor[0], "language_model.model.experts.1": tensor[1]},
        {"experts.0": tensor[0], "experts.1": tensor[1]},
    ):
        reading = Reading(family, values, names, Held(held), "folder")
        assert torch.equal(reading["experts"], tensor) and reading.meta("experts").shape == (2, 3)
    with pytest.raises(UserError, match="lacks 1 tensors, the first is model.experts.1"):
        Reading(family, values, names, Held({"experts.0": tensor[0]}), "folder")
    with pytest.raises(UserError, match=r"have no place .* the first is model.layers.2.x"):
        Reading(family, values, names, Held({"experts": tensor, "model.layers.2.x": tensor}), "folder")


def test_templates_may_abbreviate_as_recipes_do():
    text = EXPERTS.replace(
        "attention: {use: gqa, heads: 2}",
        "attention: {use: gqa, heads: 2}\n  position: rope\n  norm: rmsnorm\n  mask: [causal, documents]",
    )
    family = sparse(text)
    values, _ = family.read_config({"hidden_size": 4, "num_hidden_layers": 2, "num_experts": 2})
    section = family.section(values)
    assert family.solve(normal_form(section))[1] == []
    assert family.solve(normal_form({**section, "mask": "causal", "position": ["none", "rope"]}))[1] == []
    assert family.solve(normal_form({**section, "position": []}))[1] == ["no position"]


@pytest.mark.parametrize("name", NAMES)
def test_files_name_only_what_there_is(name):
    assert families()[name].mistakes() == []


def test_mistakes_in_templates_are_named():
    wrong = EXPERTS.replace("$hidden_size", "$hiden_size").replace("heads: 2", "heads: {$prod: [1, 2]}")
    wrong = wrong.replace("{biased: true}", "{biassed: true}")
    mistakes = sparse(wrong).mistakes()
    assert mistakes[0] == "$hiden_size is no field" and mistakes[1].startswith("$prod is no expression")
    assert mistakes[2] == "biassed in a condition is no field"


def test_experts_apart_here_and_together_there():
    """The layouts of a model whose experts are modules of their own, and of files that hold all in one tensor."""
    text = (
        EXPERTS[: EXPERTS.index("tensors:")]
        + """
tensors:
  - ours: [e.<expert>.gate, e.<expert>.up]
    experts: $num_experts
    layouts:
      - theirs: gate_up
        steps:
          - each: {times: $num_experts, steps: [{join: {parts: [1, 1], groups: 6}}, transpose: {}]}
          - stack: {count: $num_experts}
      - {theirs: [e.<expert>.w1, e.<expert>.w3]}
"""
    )
    family = sparse(text)
    values, _ = family.read_config({"hidden_size": 4, "num_hidden_layers": 3, "num_experts": 3})
    ((fused, apart),) = places(family, values, ["dense"])
    assert fused.ours == ("e.0.gate", "e.0.up", "e.1.gate", "e.1.up", "e.2.gate", "e.2.up")
    assert apart.theirs == ("e.0.w1", "e.0.w3", "e.1.w1", "e.1.w3", "e.2.w1", "e.2.w3")
    ours = [torch.randn(6, 4) for _ in range(6)]
    (theirs,) = operations.forward(fused.steps, ours)
    assert theirs.shape == (3, 4, 12)
    assert torch.equal(theirs[1, :, 0::2], ours[2].T) and torch.equal(theirs[1, :, 1::2], ours[3].T)
    for one, again in zip(ours, operations.backward(fused.steps, [theirs]), strict=True):
        assert torch.equal(one, again)


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


PAGE = (Path(__file__).parents[2] / "docs" / "families.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_family_on_the_page_is_one():
    (whole,) = [block for block in BLOCKS if block.startswith("# a family")]
    family = Family("page", read(whole))
    assert family.mistakes() == []
    config = {"vocab_size": 9, "n_embd": 8, "n_head": 2, "n_layer": 1}
    values, notes = family.read_config({**config, "model_type": "gpt2", "strange": 1})
    assert notes == ["config.json: the field 'strange' was not understood"]
    assert family.solve(normal_form(family.section(values)))[1] == []


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.startswith("# part of")])
def test_parts_of_families_on_the_page_follow_the_schema(block):
    data = plain_data(block)
    expressions = [*OPERATORS, "$case"]
    assert {word for word in re.findall(r"\{(\$\w+):", block)} <= set(expressions)
    try:
        read(block)
    except ValidationError as error:
        wrong = [one for one in error.errors() if one["type"] != "missing" and one["loc"][0] != "scale"]
        assert wrong == []
    assert data


def test_the_page_names_every_expression_and_every_step():
    for name in OPERATORS:
        assert f"`{name}:" in PAGE, name
    for name in operations.OPERATIONS:
        assert f"`{name}:" in PAGE, name
