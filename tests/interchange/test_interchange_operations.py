"""Operations on tensors: each has an inverse, bit for bit, and refuses tensors of another size."""

from __future__ import annotations

import pytest
import torch
from corelm_interchange import operations
from hypothesis import given
from hypothesis import strategies as st

from corelm.errors import UserError


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
