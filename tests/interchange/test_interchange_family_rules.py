"""A family of the tests' own: its rules reach layers, experts and layouts, and its mistakes are named."""

from __future__ import annotations

import pytest
import torch
from corelm_interchange import operations
from corelm_interchange.family import Family
from corelm_interchange.family_file import read
from corelm_interchange.normal import normal_form
from corelm_interchange.tensors import Reading, places

from corelm.errors import UserError

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
