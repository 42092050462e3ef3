"""What a model keeps between calls gives the same as reading everything at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_helpers import CONTEXT, GQA, RECURRENT, close, compositions, config_of, configs, model_of, tokens
from torch import Tensor

from corelm.errors import UserError
from corelm.kinds.carriers import SlotSpec
from corelm.model.state import FIRST_CAPACITY, State

WINDOW = ["causal", {"use": "window", "size": 3}]
STORAGE = st.sampled_from(["growing", "static"])


@torch.no_grad()
def in_calls(model: Any, ids: Tensor, pieces: list[int], state: State, **facts: Tensor | None) -> Tensor:
    first, made = 0, []
    for piece in pieces:
        part = {name: None if fact is None else fact[:, first : first + piece] for name, fact in facts.items()}
        made.append(model.hidden(ids[:, first : first + piece], state=state, **part))
        first += piece
    return torch.cat(made, dim=1)


@settings(max_examples=60, deadline=None)
@given(st.data(), configs(), STORAGE, st.integers(2, CONTEXT))
def test_any_split_into_calls_gives_what_one_call_gives(data, config, storage, time):
    model, ids = model_of(config), tokens(2, time)
    state = model.new_state(2, time, storage)
    close(in_calls(model, ids, data.draw(compositions(time)), state), model.hidden(ids))
    assert state.length == time


@settings(max_examples=40, deadline=None)
@given(st.data(), configs(), STORAGE)
def test_splits_of_padded_and_packed_rows_do_too(data, config, storage):
    model, ids, time = model_of(config), tokens(2, 9), 9
    documents = torch.tensor([[4, 4, 4, 7, 7, 2, 2, 2, 2], [1, 1, 1, 1, 1, 1, 1, 5, 5]])
    valid = torch.tensor([[0, 0, 1, 1, 1, 1, 0, 1, 1], [1, 1, 1, 0, 1, 1, 1, 1, 0]]).bool()
    facts = data.draw(
        st.sampled_from([{"documents": documents}, {"valid": valid}, {"documents": documents, "valid": valid}])
    )
    pieces = data.draw(compositions(time))
    made = in_calls(model, ids, pieces, model.new_state(2, time, storage), **facts)
    close(made[valid], model.hidden(ids, **facts)[valid])


@settings(max_examples=20, deadline=None)
@given(configs(), STORAGE)
def test_the_positions_go_on_after_left_padding_without_a_mask(config, storage):
    model, ids = model_of(config), tokens(2, 7)
    valid = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]]).bool()
    state = model.new_state(2, 7, storage)
    model.hidden(ids[:, :3], valid=valid[:, :3], state=state)
    after = model.hidden(ids[:, 3:], state=state)
    close(after, model.hidden(ids, valid=valid)[:, 3:])
    assert state.positions.tolist() == [[0, 0, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6]]


def test_tokens_without_a_document_continue_the_last_one():
    model, ids = model_of(), tokens(1, 6)
    state = model.new_state(1)
    model.hidden(ids[:, :4], documents=torch.tensor([[0, 0, 3, 3]]), state=state)
    after = model.hidden(ids[:, 4:], state=state)
    close(after, model.hidden(ids[:, 2:])[:, 2:])


@settings(max_examples=30, deadline=None)
@given(configs(recurrent=False, windows=False), STORAGE, st.integers(0, 5), st.booleans())
def test_after_truncation_the_state_is_that_of_the_shorter_text(config, storage, kept, facts):
    model, ids, other = model_of(config), tokens(2, 6), tokens(2, 4, seed=1)
    state, before, after, whole = model.new_state(2, CONTEXT, storage), {}, {}, {}
    if facts:
        valid = torch.tensor([[0, 1, 1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 1, 1, 1, 1, 1]]).bool()
        documents = torch.tensor([[0, 0, 0, 1, 1, 1, 2, 2, 2, 2], [3, 3, 3, 3, 3, 4, 4, 4, 5, 5]])
        whole = {"valid": torch.cat([valid[:, :kept], valid[:, 6:]], 1)}
        whole["documents"] = torch.cat([documents[:, :kept], documents[:, 6:]], 1)
        before, after = (
            {"valid": valid[:, part], "documents": documents[:, part]} for part in (slice(6), slice(6, 10))
        )
    model.hidden(ids, state=state, **before)
    state.truncate(kept)
    assert state.length == state.positions.shape[1] == kept
    close(
        model.hidden(other, state=state, **after),
        model.hidden(torch.cat([ids[:, :kept], other], 1), **whole)[:, kept:],
    )


@settings(max_examples=30, deadline=None)
@given(configs(), STORAGE, st.lists(st.integers(0, 2), min_size=1, max_size=4))
def test_selected_rows_go_on_as_if_they_had_been_alone(config, storage, rows):
    model, ids, rest = model_of(config), tokens(3, 5), tokens(3, 4, seed=1)
    valid = torch.ones(3, 5, dtype=torch.bool)
    valid[1, :2] = False
    state = model.new_state(3, CONTEXT, storage)
    model.hidden(ids, valid=valid, state=state)
    state.select(torch.tensor(rows))
    more = model.hidden(rest[rows], state=state)
    whole = torch.cat([valid, torch.ones(3, 4, dtype=torch.bool)], dim=1)
    close(more, model.hidden(torch.cat([ids, rest], dim=1), valid=whole)[rows][:, 5:])


@settings(max_examples=30, deadline=None)
@given(configs(), STORAGE)
def test_a_snapshot_and_what_it_was_taken_of_go_separate_ways(config, storage):
    model, ids, one, two = model_of(config), tokens(1, 5), tokens(1, 3, seed=1), tokens(1, 3, seed=2)
    state = model.new_state(1, CONTEXT, storage)
    model.hidden(ids, state=state)
    copy = state.snapshot()
    after_one = model.hidden(one, state=state)
    close(model.hidden(two, state=copy), model.hidden(torch.cat([ids, two], 1))[:, 5:])
    close(after_one, model.hidden(torch.cat([ids, one], 1))[:, 5:])
    close(model.hidden(two, state=state), model.hidden(torch.cat([ids, one, two], 1))[:, 8:])
    assert (state.length, copy.length) == (11, 8)


@settings(max_examples=20, deadline=None)
@given(configs(), STORAGE)
def test_a_reset_state_is_a_new_one(config, storage):
    model, ids = model_of(config), tokens(2, 5)
    state = model.new_state(2, CONTEXT, storage)
    model.hidden(tokens(2, 7, seed=1), documents=torch.arange(14).view(2, 7) // 3, state=state)
    state.reset()
    assert (state.length, state.documents, state.positions) == (0, None, None)
    close(model.hidden(ids, state=state), model.hidden(ids))


def test_a_window_drops_what_no_query_can_see_and_keeps_what_this_call_sees():
    model = model_of(mask=WINDOW)
    state = model.new_state(1)
    slot = state.layers[0]["kv"]
    model.hidden(tokens(1, 7), state=state)
    assert slot.view().index.tolist() == [0, 1, 2, 3, 4, 5, 6]
    model.hidden(tokens(1, 2), state=state)
    assert slot.view().index.tolist() == [5, 6, 7, 8], "queries 7 and 8 look back to 5"


def test_a_windows_buffer_stays_small_over_a_long_text():
    model = model_of(config_of(mask=WINDOW, context=1000))
    state = model.new_state(1, 1000, "static")
    for _ in range(50):
        model.hidden(tokens(1, 10), state=state)
    assert state.length == 500
    assert state.layers[0]["kv"].buffers["k"].shape[-2] < 40


def test_a_growing_buffer_is_copied_only_when_it_doubles():
    spec = SlotSpec({"k": (1, 2)}, grows=True)
    state = State([{"kv": spec}], 1, None, "growing")
    slot, places = state.layers[0]["kv"], set()
    for token in range(16 * FIRST_CAPACITY):
        view = slot.update(k=torch.full((1, 1, 1, 2), float(token)))
        state.length += 1
        places.add(slot.buffers["k"].data_ptr())
    assert len(places) <= 6, f"{len(places)} buffers for {state.length} tokens"
    assert view.tensors["k"][0, 0, :, 0].tolist() == list(range(state.length))


def test_static_storage_never_moves_and_says_when_it_is_full():
    model = model_of()
    state = model.new_state(1, 6, "static")
    model.hidden(tokens(1, 1), state=state)
    place = state.layers[0]["kv"].buffers["k"].data_ptr()
    model.hidden(tokens(1, 5), state=state)
    assert state.layers[0]["kv"].buffers["k"].data_ptr() == place
    with pytest.raises(UserError, match="7 tokens don't fit into a state with room for 6"):
        model.hidden(tokens(1, 1), state=state)
    with pytest.raises(UserError, match="needs a capacity"):
        model.new_state(1, storage="static")
    with pytest.raises(UserError, match="unknown storage 'paged'"):
        model.new_state(1, 6, "paged")


def test_what_can_not_go_back_says_so_and_stays_as_it_was():
    for options, code in (({"attention": RECURRENT}, "truncate-recurrent"), ({"mask": WINDOW}, "truncate-window")):
        model, ids = model_of(**options), tokens(1, 8)
        state = model.new_state(1)
        in_calls(model, ids, [5, 3], state)
        for one in (state.snapshot(), state):
            with pytest.raises(UserError, match="can't go back to 4 tokens") as error:
                one.truncate(4)
            assert error.value.code == code
        assert state.length == 8
        close(
            model.hidden(tokens(1, 2, seed=1), state=state),
            model.hidden(torch.cat([ids, tokens(1, 2, seed=1)], 1))[:, 8:],
        )
    with pytest.raises(UserError, match="can't truncate 10 tokens to 11"):
        state.truncate(11)


def test_a_window_that_has_dropped_nothing_can_go_back():
    model, ids = model_of(mask=WINDOW), tokens(1, 6)
    state = model.new_state(1)
    model.hidden(ids, state=state)
    state.truncate(4)
    close(model.hidden(ids[:, 4:], state=state), model.hidden(ids)[:, 4:])


def test_recurrent_says_whether_some_layer_is():
    assert model_of(attention=RECURRENT).recurrent
    assert model_of(blocks={"r": {"attention": RECURRENT}}, pattern=["default", "r"]).recurrent
    assert not model_of(attention=GQA).recurrent


def test_a_state_of_another_number_of_rows_is_refused():
    model = model_of()
    with pytest.raises(ValueError, match="2 rows can't continue a state of 3"):
        model.hidden(tokens(2, 2), state=model.new_state(3))


def test_slots_that_hold_the_same_tokens_share_their_indices():
    blocks = {"near": {"mask": WINDOW}, "far": {}}
    model, ids = model_of(blocks=blocks, pattern=["near", "far"], layers=4), tokens(1, 8)
    state = model.new_state(1)
    for piece in ids.split([5, 1, 1, 1], dim=1):
        model.hidden(piece, state=state)
        near, far, near_too, far_too = (state.slots(layer)["kv"].view().index for layer in range(4))
        assert near is near_too
        assert far is far_too
        assert far.tolist() == list(range(state.length))
        assert near.tolist() == far.tolist()[-len(near) :]
    assert len(near) == 3
