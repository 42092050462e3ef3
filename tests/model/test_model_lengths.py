"""Models whose positions look at the length of a document: what still holds, and up to where."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_helpers import close, compositions, model_of, tokens

from corelm.kinds import Step
from corelm.model.stack import begin, document_lengths

ORIGINAL = 5
DYNAMIC = {"use": "dynamic", "factor": 4.0, "original_context": ORIGINAL}
LONGROPE = {"use": "longrope", "factor": 3.0, "original_context": ORIGINAL, "short_factor": 1.0, "long_factor": 3.0}
SCALINGS = st.sampled_from([DYNAMIC, LONGROPE])


def stretched(scaling):
    return model_of(position={"use": "rope", "scaling": scaling})


@given(scaling=SCALINGS, lengths=st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_packed_documents_are_turned_by_their_own_lengths(scaling, lengths):
    model, ids = stretched(scaling), tokens(1, sum(lengths))
    documents = torch.tensor([[number for number, length in enumerate(lengths) for _ in range(length)]])
    alone = [model.hidden(part) for part in ids.split(lengths, dim=1)]
    close(model.hidden(ids, documents=documents), torch.cat(alone, dim=1))


@given(scaling=SCALINGS, time=st.integers(1, 9), pads=st.integers(0, 4), longer=st.integers(0, 4))
def test_padding_and_longer_rows_beside_it_change_nothing(scaling, time, pads, longer):
    model = stretched(scaling)
    total = pads + time + longer
    ids = tokens(2, total)
    valid = torch.stack(
        [torch.arange(total) >= 0, (torch.arange(total) >= pads) & (torch.arange(total) < pads + time)]
    )
    alone = model.hidden(ids[1:, pads : pads + time])
    close(model.hidden(ids, valid=valid)[1:, pads : pads + time], alone)


@given(data=st.data(), scaling=SCALINGS, time=st.integers(2, ORIGINAL))
def test_up_to_the_constant_length_calls_make_no_difference(data, scaling, time):
    model, ids = stretched(scaling), tokens(2, time)
    assert model.constant_up_to == ORIGINAL
    state, first, made = model.new_state(2), 0, []
    for piece in data.draw(compositions(time)):
        made.append(model.hidden(ids[:, first : first + piece], state=state))
        first += piece
    close(torch.cat(made, 1), model.hidden(ids))


@pytest.mark.parametrize("scaling", [DYNAMIC, LONGROPE], ids=lambda scaling: scaling["use"])
def test_beyond_it_the_future_is_seen_and_stored_keys_stay_as_they_were(scaling):
    model, ids = stretched(scaling), tokens(1, ORIGINAL + 1)
    whole, short = model.hidden(ids), model.hidden(ids[:, :ORIGINAL])
    assert not torch.allclose(whole[:, :ORIGINAL], short)
    state = model.new_state(1)
    model.hidden(ids[:, :ORIGINAL], state=state)
    kept = state.slots(0)["kv"].view().tensors["k"].clone()
    last = model.hidden(ids[:, ORIGINAL:], state=state)
    assert torch.equal(state.slots(0)["kv"].view().tensors["k"][:, :, :ORIGINAL], kept)
    assert not torch.allclose(last, whole[:, ORIGINAL:])


def test_other_schemes_have_no_such_length():
    assert model_of(position=["learned", "rope"]).constant_up_to is None


@given(
    past=st.integers(0, 8),
    starts=st.none() | st.lists(st.booleans(), min_size=9, max_size=9),
    real=st.none() | st.lists(st.booleans(), min_size=9, max_size=9),
)
def test_lengths_count_the_real_tokens_of_a_document_so_far(past, starts, real):
    documents = None if starts is None else torch.tensor([starts]).long().cumsum(1)
    valid = None if real is None else torch.tensor([real])
    whole = begin(torch.zeros(1, 9, dtype=torch.long), valid, documents, None)
    step = Step(whole.ids[:, past:], whole.index[past:], whole.positions, whole.valid, whole.documents, past)
    found = document_lengths(step)
    assert found.shape == (1, 9 - past)
    marks = [0] * 9 if whole.documents is None else whole.documents[0].tolist()
    for t in range(past, 9):
        # Padding before a document's first real token counts as its beginning, and for a token of it.
        same = [i for i in range(9) if marks[i] == marks[t]]
        counted = sum(real is None or real[i] for i in same)
        assert int(found[0, t - past]) == max(counted, 1), t
