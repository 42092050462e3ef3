import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parts_helpers import build, normal

from corelm.errors import UserError
from corelm.kinds import ModelContext, PositionGeometry, PositionView, Spec

SHAPES = st.sampled_from([(8, 1.0), (8, 0.5), (16, 0.25), (10, 0.7), (7, 1.0), (6, 0.4)])
PAIRINGS = st.sampled_from(["half", "interleaved"])


def rope(head_dim=8, **options):
    return build("position", {"use": "rope", **options}, PositionGeometry(32, 4, head_dim, 4096))


def turned(scheme, x, positions):
    """``x`` (time, head_dim) at these positions, through the query path; the key path must agree."""
    x, positions = x[None, None], torch.as_tensor(positions)[None]
    q, k = scheme.rotate(x, x, scheme.prepare(positions))
    assert torch.equal(q, k)
    return q[0, 0]


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, pairing=PAIRINGS, theta=st.sampled_from([100.0, 1e4, 5e5]), position=st.integers(0, 10**5))
def test_rope_turns_each_pair_by_its_frequency(shape, pairing, theta, position):
    head_dim, fraction = shape
    scheme = rope(head_dim, theta=theta, fraction=fraction, pairing=pairing)
    rotated = int(head_dim * fraction) // 2 * 2
    matrix = turned(scheme, torch.eye(head_dim, dtype=torch.float64), [position] * head_dim)
    expected = torch.eye(head_dim, dtype=torch.float64)
    for j in range(rotated // 2):
        a, b = (j, j + rotated // 2) if pairing == "half" else (2 * j, 2 * j + 1)
        angle = position * theta ** (-2 * j / rotated)
        expected[a, a] = expected[b, b] = math.cos(angle)
        expected[a, b], expected[b, a] = math.sin(angle), -math.sin(angle)
    torch.testing.assert_close(matrix, expected, atol=1e-8, rtol=0)


@settings(max_examples=60, deadline=None)
@given(
    shape=SHAPES,
    pairing=PAIRINGS,
    m=st.integers(0, 2000),
    n=st.integers(0, 2000),
    shift=st.sampled_from([1, 7, 1000, 100_000]),
    seed=st.integers(0, 99),
)
def test_rope_scores_depend_on_distance_only(shape, pairing, m, n, shift, seed):
    scheme = rope(shape[0], fraction=shape[1], pairing=pairing)
    q, k = normal(2, 1, shape[0], seed=seed)
    before = turned(scheme, q, [m]) @ turned(scheme, k, [n]).T
    after = turned(scheme, q, [m + shift]) @ turned(scheme, k, [n + shift]).T
    torch.testing.assert_close(before, after, atol=1e-9, rtol=0)


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_rope_at_position_zero_changes_no_bit_and_passes_the_rest_through(pairing):
    scheme = rope(8, fraction=0.5, pairing=pairing)
    x = normal(3, 8).bfloat16()
    assert torch.equal(turned(scheme, x, [0, 0, 0]), x)
    assert torch.equal(turned(scheme, x, [1, 5, 9])[:, 4:], x[:, 4:])


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_rope_in_bfloat16_is_within_three_ulp_at_position_30000(pairing):
    scheme = rope(64, pairing=pairing)
    x = normal(200, 64, seed=2).bfloat16()
    positions = list(range(29_900, 30_100))
    exact, rounded = turned(scheme, x.double(), positions), turned(scheme, x, positions)
    assert rounded.dtype == torch.bfloat16
    assert float(((rounded.double() - exact).abs() / (exact.abs() * 2.0**-8 + 1e-6)).max()) <= 3


def test_rope_positions_belong_to_rows_and_history_does_not_matter():
    scheme = rope(8)
    x = normal(2, 4, 5, 8)
    positions = torch.tensor([[0, 1, 2, 0, 1], [7, 8, 9, 10, 11]])
    scheme.prepare(torch.arange(500)[None])
    both, _ = scheme.rotate(x, x, scheme.prepare(positions))
    for row in range(2):
        alone, _ = scheme.rotate(x[row : row + 1], x[row : row + 1], scheme.prepare(positions[row : row + 1]))
        assert torch.equal(both[row], alone[0])
    part, _ = scheme.rotate(x[:, :, 2:], x[:, :, 2:], scheme.prepare(positions[:, 2:]))
    assert torch.equal(part, both[:, :, 2:])


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_the_gradient_of_rope_is_the_opposite_turn(pairing, fraction):
    scaling = {"use": "yarn", "factor": 4.0, "original_context": 16}
    scheme = rope(8, pairing=pairing, fraction=fraction, scaling=scaling)
    assert scheme.attention_factor > 1
    prepared = scheme.prepare(torch.tensor([[3, 0, 7]]))
    q, k = normal(1, 2, 3, 8).requires_grad_(), normal(1, 1, 3, 8, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda q, k: scheme.rotate(q, k, prepared), (q, k))
    assert torch.autograd.gradgradcheck(lambda q, k: scheme.rotate(q, k, prepared), (q, k))


def test_rope_without_a_pair_says_so():
    with pytest.raises(UserError, match="nothing to rotate") as error:
        rope(8, fraction=0.2)
    assert error.value.code == "nothing-to-rotate"


@settings(max_examples=30, deadline=None)
@given(offset=st.integers(0, 3), size=st.none() | st.integers(6, 12), seed=st.integers(0, 99))
def test_learned_adds_the_row_of_each_position(offset, size, seed):
    config = {"use": "learned", "offset": offset} | ({} if size is None else {"size": size})
    scheme = build("position", config, PositionGeometry(4, 2, 2, 6), seed=seed)
    assert scheme.limit == (size or 6)
    assert scheme.table.shape == (scheme.limit + offset, 4)
    positions = torch.tensor([[0, 1, 5], [2, 0, 1]])
    x = normal(2, 3, 4)
    y = scheme.embed(x, positions)
    for row in range(2):
        for t in range(3):
            assert torch.equal(y[row, t], x[row, t] + scheme.table[int(positions[row, t]) + offset])


def test_learned_positions_beyond_the_table_raise():
    scheme = build("position", {"use": "learned", "offset": 2}, PositionGeometry(4, 2, 2, 6))
    with pytest.raises(UserError, match="position 6 is beyond the 6") as error:
        scheme.embed(normal(1, 1, 4), torch.tensor([[6]]))
    assert error.value.code == "position-beyond-table"


def test_too_few_learned_positions_are_refused():
    spec = Spec.read("position", {"use": "learned", "size": 5})
    (problem,) = spec.part.check(spec.config, ModelContext(8, 1, 6, 0))
    assert problem.code == "context-longer-than-positions"


@pytest.mark.parametrize(
    ("heads", "logs"),
    [
        (1, [8]),
        (2, [4, 8]),
        (4, [2, 4, 6, 8]),
        (8, [1, 2, 3, 4, 5, 6, 7, 8]),
        (3, [4, 8, 2]),
        (6, [2, 4, 6, 8, 1, 3]),
        (12, [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5]),
    ],
)
def test_alibi_slopes_are_the_published_ones(heads, logs):
    scheme = build("position", "alibi", PositionGeometry(8, heads, 4, 16))
    bias = scheme.scores(torch.tensor([[9]]), torch.tensor([[9, 8, 4]]))
    slopes = torch.tensor([2.0**-e for e in logs])
    torch.testing.assert_close(bias[0, :, 0], -slopes[:, None] * torch.tensor([0.0, 1.0, 5.0]))
    assert bias.dtype == torch.float32


def test_alibi_rows_have_their_own_positions():
    scheme = build("position", "alibi", PositionGeometry(8, 4, 2, 16))
    positions = torch.tensor([[0, 1, 2], [0, 0, 1]])
    both = scheme.scores(positions, positions)
    assert both.shape == (2, 4, 3, 3)
    assert torch.equal(both[1:], scheme.scores(positions[1:], positions[1:]))
    alike, index = positions[:1].expand(2, -1), torch.arange(3)
    assert torch.equal(PositionView([(scheme, None)], alike).scores(index, index), both[:1])
    view = PositionView([(scheme, None)], positions)
    assert view.scores(index[1:], index) is view.scores(view.memo[0][0], index)
    assert torch.equal(view.scores(index[1:], index), both[:, :, 1:])


@pytest.mark.parametrize("heads", [4, 12])
def test_alibi_rounds_and_scales_as_falcon_does(heads):
    falcon = pytest.importorskip("transformers.models.falcon.modeling_falcon")
    options = {"rounded": "bfloat16", "scale": 0.5}
    scheme = build("position", {"use": "alibi", **options}, PositionGeometry(8 * heads, heads, 4, 16))
    assert not scheme.relative
    time = 700
    theirs = falcon.build_alibi_tensor(torch.ones(1, time, dtype=torch.long), heads, torch.float32)
    positions = torch.arange(time)[None]
    for query in (0, 5, 299, 699):
        found = scheme.scores(positions[:, query : query + 1], positions[:, : query + 1])[0, :, 0]
        wanted = theirs[:, 0, : query + 1] * 0.5
        # What is the same for all keys of a query makes no difference to the softmax.
        torch.testing.assert_close(found - found[:, :1], wanted - wanted[:, :1])
        assert float(found[:, -1].abs().max()) == 0


def test_query_temperature_is_that_of_llama_4():
    scheme = build("position", {"use": "query-temperature", "scale": 0.1, "floor": 4}, PositionGeometry(8, 2, 4, 16))
    positions = torch.arange(20)
    q = normal(1, 2, 20, 4)
    factors = torch.log1p(torch.floor((positions.float() + 1.0) / 4)) * 0.1 + 1.0
    found = scheme.scale_query(q, scheme.prepare(positions[None]))
    torch.testing.assert_close(found, q * factors[:, None].double(), rtol=1e-6, atol=0)
    assert torch.equal(found[:, :, :3], q[:, :, :3])
    rounded = scheme.scale_query(q.bfloat16(), scheme.prepare(positions[None]))
    assert torch.equal(rounded, (q.bfloat16().float() * factors[:, None]).bfloat16())


def test_learned_positions_with_an_offset_are_those_of_opt():
    opt = pytest.importorskip("transformers.models.opt.modeling_opt")
    scheme = build("position", {"use": "learned", "offset": 2}, PositionGeometry(4, 2, 2, 6))
    theirs = opt.OPTLearnedPositionalEmbedding(6, 4)
    assert theirs.weight.shape == scheme.table.shape
    theirs.weight.data = scheme.table.detach().clone()
    valid = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    positions = torch.tensor([[0, 1, 2, 3, 4], [0, 0, 0, 1, 2]])
    found = scheme.embed(torch.zeros(2, 5, 4, dtype=torch.float64), positions)
    assert torch.equal(found[valid.bool()], theirs(valid)[valid.bool()])


def test_none_has_no_hooks():
    assert build("position", "none", PositionGeometry(8, 4, 2, 16)).hooks == frozenset()
