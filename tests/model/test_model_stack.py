"""The assembled stack: rows, padding and documents don't meet; schemes and masks are shared; names are stable."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_helpers import (
    CONTEXT,
    GLU,
    GQA,
    LAYOUTS,
    MOE,
    RECURRENT,
    VOCABULARY,
    close,
    config_of,
    configs,
    model_of,
    tokens,
)

from corelm.kinds import Spec, declared
from corelm.model.assemble import assemble, initialise
from corelm.model.stack import begin


@settings(max_examples=40, deadline=None)
@given(configs(), st.integers(1, 4), st.integers(0, 1000))
def test_padding_on_either_side_changes_no_real_token(config, pads, seed):
    model, ids, junk = model_of(config), tokens(2, 6), tokens(2, pads, seed)
    alone, real, padding = model.hidden(ids), torch.ones(2, 6).bool(), torch.zeros(2, pads).bool()
    close(model.hidden(torch.cat([junk, ids], 1), valid=torch.cat([padding, real], 1))[:, pads:], alone)
    close(model.hidden(torch.cat([ids, junk], 1), valid=torch.cat([real, padding], 1))[:, :6], alone)


def test_padding_beyond_the_learned_positions_is_no_error():
    model, ids = model_of(position="learned"), tokens(1, CONTEXT + 2)
    valid = torch.arange(CONTEXT + 2)[None] < CONTEXT
    close(model.hidden(ids, valid=valid)[:, :CONTEXT], model.hidden(ids[:, :CONTEXT]))


@settings(max_examples=40, deadline=None)
@given(configs(), st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_packed_documents_are_as_if_alone(config, lengths):
    model, ids = model_of(config), tokens(1, sum(lengths))
    numbers = [number for number, length in enumerate(lengths, 3) for _ in range(length)]
    packed = model.hidden(ids, documents=torch.tensor([numbers]))
    parts = ids.split(lengths, dim=1)
    close(packed, torch.cat([model.hidden(part) for part in parts], dim=1))


@settings(max_examples=30, deadline=None)
@given(configs())
def test_rows_are_independent(config):
    model, ids = model_of(config), tokens(3, 6)
    valid = torch.ones(3, 6, dtype=torch.bool)
    valid[1, :3] = False
    together = model.hidden(ids, valid=valid)
    for row in range(3):
        close(together[row : row + 1], model.hidden(ids[row : row + 1], valid=valid[row : row + 1]))


@settings(max_examples=30, deadline=None)
@given(configs())
def test_no_token_sees_the_future_and_all_parameters_are_of_use(config):
    model, ids = model_of(config), tokens(1, 6)
    changed = torch.cat([ids[:, :4], (ids[:, 4:] + 1) % VOCABULARY], dim=1)
    close(model.hidden(changed)[:, :4], model.hidden(ids)[:, :4])
    model.logprobs(ids[:, :-1], ids[:, 1:]).sum().backward()
    unused = {
        name for name, parameter in model.named_parameters() if parameter.grad is None and ".experts." not in name
    }
    assert unused <= {"embedding.project_out.weight"}, "only an untied head leaves the way back to the table alone"


def test_positions_count_real_tokens_and_begin_anew_with_each_document():
    valid = torch.tensor([[0, 1, 1, 0, 1, 1, 1, 0]]).bool()
    documents = torch.tensor([[9, 1, 1, 9, 1, 2, 2, 9]])
    ids = torch.zeros(1, 8, dtype=torch.long)
    assert begin(ids, None, None, None).positions.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]
    assert begin(ids, valid, None, None).positions[valid].tolist() == [0, 1, 2, 3, 4]
    assert begin(ids, None, documents, None).positions.tolist() == [[0, 0, 1, 0, 0, 0, 1, 0]]
    assert begin(ids, valid, documents, None).positions[valid].tolist() == [0, 1, 2, 0, 1]


def test_without_padding_and_documents_there_are_no_masks_and_one_row_of_positions():
    step = begin(tokens(3, 5), None, None, None)
    assert step.valid is None
    assert step.documents is None
    assert step.positions.stride(0) == 0
    model = model_of()
    views = model.prepare(step, None, step.positions)
    assert views[0].mask.plain
    with torch.no_grad():
        model.run(model.embedding(step.ids), views, 0, 2)
    assert not views[0].mask.memo, "the causal path never makes a mask"


def test_layers_with_equal_schemes_and_masks_share_one_module_and_one_view():
    window = {"mask": ["causal", {"use": "window", "size": 4}]}
    far = {"position": {"use": "rope", "theta": 1e6}}
    model = model_of(blocks={"near": window, "far": far}, pattern=["near", "far", "near"], layers=6)
    assert list(model.positions) == ["rope", "rope-at-2"]
    step = begin(tokens(2, 5), None, None, None)
    views = model.prepare(step, None, step.positions)
    assert views[0].position is views[2].position is views[3].position
    assert views[0].mask is views[2].mask is views[5].mask
    assert views[1].position is not views[0].position
    assert views[1].mask is not views[0].mask
    assert views[0].position.schemes[0][1] is views[2].position.schemes[0][1], "one table per forward"


def test_a_scheme_of_the_embeddings_is_one_whatever_the_heads_and_is_added_once():
    wide = {"attention": {**GQA, "heads": 2}}
    model = model_of(
        position="learned",
        blocks={"wide": wide, "bare": {"attention": None}},
        pattern=["default", "wide", "bare"],
        layers=3,
    )
    assert list(model.positions) == ["learned"]
    bare = model_of(position="learned", attention=None, feedforward=None, normed=False)
    ids = tokens(1, 3)
    close(bare.hidden(ids), bare.embedding(ids) + bare.positions["learned"].table[:3])


def test_layers_without_attention_prepare_no_positions():
    assert len(model_of(attention=None).positions) == 0


@settings(max_examples=30, deadline=None)
@given(configs())
def test_on_meta_names_and_shapes_are_the_real_ones_and_nothing_is_allocated(config):
    real, meta = model_of(config), assemble(config, VOCABULARY, device="meta")
    shapes = [{name: tuple(p.shape) for name, p in model.named_parameters()} for model in (real, meta)]
    assert shapes[0] == shapes[1]
    assert all(tensor.is_meta for tensor in [*meta.parameters(), *meta.buffers()])


def test_the_names_of_parameters_are_these():
    # Folders on disk and importers rely on them; a change here is a change of the file format.
    model = model_of(layers=1, position="learned", feedforward=GLU, head={"use": "language-model", "tied": False})
    assert [name for name, _, _ in declared(model)] == [
        "embedding.weight",
        "positions.learned.table",
        "layers.0.attention.query.weight",
        "layers.0.attention.key.weight",
        "layers.0.attention.value.weight",
        "layers.0.attention.output.weight",
        "layers.0.feedforward.gate.weight",
        "layers.0.feedforward.up.weight",
        "layers.0.feedforward.down.weight",
        "layers.0.sub_layers.attention.pre_norm.weight",
        "layers.0.sub_layers.feedforward.pre_norm.weight",
        "final_norm.weight",
        "head.weight",
    ]


@settings(max_examples=20, deadline=None)
@given(configs())
def test_layers_run_in_ranges_give_what_they_give_at_once(config):
    model, ids = model_of(config), tokens(2, 5)
    step = begin(ids, None, None, None)
    x = model.embedding(ids)
    for scheme in model.positions.values():
        x = scheme.embed(x, step.positions)
    views = model.prepare(step, None, step.positions)
    cut = len(model.layers) // 2
    x = model.run(model.run(x, views, 0, cut), views, cut, len(model.layers))
    close(model.final_norm(x), model.hidden(ids))


def _drawn(config, seed=3):
    model = assemble(config, VOCABULARY)
    initialise(model, seed)
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("attention", [GQA, RECURRENT])
def test_adding_a_layer_changes_no_other_parameter(attention):
    init = {"use": "normal", "depth_scaled": False}
    few, many = (_drawn(config_of(layers=n, init=init, attention=attention, feedforward=MOE)) for n in (2, 5))
    assert set(few) < set(many)
    assert all(torch.equal(value, many[name]) for name, value in few.items())


def test_depth_scales_only_what_is_added_to_the_stream():
    few, many = (_drawn(config_of(layers=n, init=name)) for name in ("normal",) for n in (2, 8))
    for name, value in few.items():
        factor = 2.0 if name.endswith(("attention.output.weight", "feedforward.down.weight")) else 1.0
        torch.testing.assert_close(value, many[name] * factor)


def test_initial_values_depend_on_seed_and_name_and_not_on_dtype_or_the_global_generator():
    config = config_of()
    torch.manual_seed(1)
    first = _drawn(config)
    state = torch.random.get_rng_state()
    again = assemble(config, VOCABULARY, dtype=torch.float64)
    initialise(again, 3)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter.float(), first[name])
    other = _drawn(config, seed=4)
    drawn = [name for name in first if first[name].std() > 0]
    assert not any(torch.equal(first[name], other[name]) for name in drawn)
    assert not torch.equal(first["layers.0.attention.query.weight"], first["layers.1.attention.query.weight"])


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "post"])
@pytest.mark.parametrize("drop", [None, "attention", "feedforward"])
def test_where_every_branch_is_silent_a_layer_is_the_identity(layout, drop):
    model = model_of(block={"use": "residual", "layout": layout}, **({drop: None} if drop else {}))
    with torch.no_grad():
        for layer in model.layers:
            for branch in (layer.attention, layer.feedforward):
                if branch is not None:
                    (branch.output if branch is layer.attention else branch.down).weight.zero_()
    ids = tokens(2, 5)
    assert torch.equal(model.hidden(ids), model.final_norm(model.embedding(ids)))


def test_auxiliary_losses_are_collected_while_training_only():
    model, ids, found = model_of(feedforward=MOE), tokens(2, 5), {}
    model.hidden(ids, auxiliary=found)
    assert not found
    model.train()
    model.hidden(ids, auxiliary=found)
    assert found
    assert all(
        len(losses) == 2 and loss.ndim == 0 and loss.requires_grad for losses in found.values() for loss in losses
    )


def test_a_new_head_shares_the_body_and_leaves_the_old_model_alone():
    model, ids = model_of(), tokens(2, 5)
    before, names = model.logits(ids), [name for name, _ in model.named_parameters()]
    reward = model.with_head(Spec.read("head", "scalar"), seed=1)
    assert model.logits(ids).shape == before.shape
    assert torch.equal(model.logits(ids), before)
    assert [name for name, _ in model.named_parameters()] == names
    assert reward.layers[0] is model.layers[0]
    assert reward.head.linear.weight.dtype == torch.float64
    assert reward.head.linear.weight.requires_grad
    assert reward.section["head"]["use"] == "scalar"
    assert model.section["head"]["use"] == "language-model"
    twin, other = (model.with_head(Spec.read("head", "scalar"), seed=seed).head.linear.weight for seed in (1, 2))
    assert torch.equal(twin, reward.head.linear.weight)
    assert not torch.equal(other, twin)
    valid = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    scores = reward.scores(ids, valid)
    close(scores[0], reward.head(model.hidden(ids[:1, :3]))[0, -1])
    close(scores[1], reward.head(model.hidden(ids[1:]))[0, -1])
    assert reward.with_head(Spec.read("head", {"use": "classifier", "classes": 5})).scores(ids).shape == (2, 5)
