"""Products of single rows while decoding: the same numbers, from copies in a quicker form."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from corelm.conformance.tiny import tiny
from corelm.kinds.one_row import RowCopies, linear, quick_rows


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    st.booleans(),
    st.sampled_from([1e-3, 1.0, 3e4]),
)
def test_a_row_gives_what_the_plain_product_gives(inputs, outputs, dtype, biased, size):
    torch.manual_seed(inputs * 41 + outputs)
    weight, x = torch.randn(outputs, inputs).to(dtype), (size * torch.randn(1, 1, inputs)).to(dtype)
    bias = torch.randn(outputs).to(dtype) if biased else None
    exact = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    with quick_rows(RowCopies()):
        found = linear(x, weight, bias)
    assert found.dtype == dtype
    scale = x.double().abs() @ weight.double().abs().T + (0 if bias is None else bias.double().abs())
    ulp = torch.finfo(dtype).eps
    assert bool(
        ((found.double() - exact).abs() <= max(2 * ulp, 2**-9 if dtype == torch.bfloat16 else 0) * scale).all()
    )


def test_several_rows_and_rows_outside_take_the_plain_product():
    weight, x = torch.randn(5, 7), torch.randn(2, 7)
    copies = RowCopies()
    with quick_rows(copies):
        torch.testing.assert_close(linear(x, weight, None), F.linear(x, weight), rtol=0, atol=0)
    torch.testing.assert_close(linear(x[:1], weight, None), F.linear(x[:1], weight), rtol=0, atol=0)
    assert not copies._copies


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weight_that_changes_is_copied_again(dtype):
    weight, x = torch.randn(5, 7).to(dtype), torch.randn(1, 7).to(dtype)
    copies = RowCopies()
    with torch.no_grad():
        with quick_rows(copies):
            before = linear(x, weight, None)
        weight.mul_(2)
        with quick_rows(copies):
            torch.testing.assert_close(linear(x, weight, None), 2 * before)


def test_a_weight_beyond_float16_is_left_as_it_is():
    weight, x = torch.full((3, 4), 1e5).bfloat16(), torch.ones(1, 4).bfloat16()
    with quick_rows(RowCopies()):
        torch.testing.assert_close(linear(x, weight, None), F.linear(x, weight), rtol=0, atol=0)


def test_a_model_keeps_its_copies_until_it_is_trained():
    model = tiny(0).eval()
    ids = torch.tensor([[1, 2, 3]])
    before = model.generate_ids(ids, max_new_tokens=4).tolist()
    kept = model.row_copies
    assert kept._copies
    assert copy.deepcopy(model).row_copies._copies == {}
    with torch.no_grad():
        model.head.weight.zero_() if hasattr(model.head, "weight") else model.embedding.table.zero_()
    assert model.generate_ids(ids, max_new_tokens=4).tolist() != before or not any(before[0])
    assert model.row_copies is kept
    model.train()
    assert not model.row_copies._copies


def test_a_model_that_changes_its_type_between_two_texts_is_copied_again():
    model, ids = tiny(0).eval(), torch.tensor([[1, 2, 3]])
    for dtype in (torch.float32, torch.bfloat16, torch.float32):
        model.to(dtype)
        new = model.generate_ids(ids, max_new_tokens=4)
        state, rows = model.new_state(1), ids
        for column in range(4):  # the same, without copies
            with torch.no_grad():
                logits = model.head(model.hidden(rows, state=state)[:, -1])
            assert int(logits.argmax(-1)) == int(new[0, column])
            rows = new[:, column : column + 1]
