"""``token_logprobs``: one definition, whatever way it is computed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from corelm.kinds import IGNORE, logprobs, token_logprobs


class Table(nn.Module):
    """A head that is one matrix."""

    def __init__(self, classes: int, dim: int = 5, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(torch.randn(classes, dim, generator=generator, dtype=torch.float64))
        self.outputs = classes
        self.seen: list[int] = []

    def forward(self, hidden: Tensor) -> Tensor:
        self.seen.append(len(hidden))
        return hidden @ self.table.to(hidden.dtype).T


def drawn(rows: int, time: int, classes: int, kept: float, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, time, 5, generator=generator, dtype=torch.float64).requires_grad_()
    targets = torch.randint(classes, (rows, time), generator=generator)
    dropped = torch.rand(rows, time, generator=generator) >= kept
    return hidden, targets.masked_fill(dropped, IGNORE)


def oracle(hidden: Tensor, head: Table, targets: Tensor) -> Tensor:
    whole = torch.log_softmax(hidden @ head.table.T, -1)
    return torch.stack(
        [
            torch.stack([row[t, target] if target != IGNORE else row[t, 0] * 0 for t, target in enumerate(wanted)])
            for row, wanted in zip(whole, targets.tolist(), strict=True)
        ]
    )


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.97, 1.0])
@pytest.mark.parametrize("chunk", [1, 20, 40, 1 << 27])
@pytest.mark.parametrize("cached", [1, 20, 1 << 17])
@given(shape=st.sampled_from([(3, 7, 9), (1, 1, 2), (4, 6, 7), (5, 8, 5)]), seed=st.integers(0, 99))
@settings(max_examples=3, deadline=None)
def test_any_way_of_cutting_gives_the_oracles_values_and_gradients(kept, chunk, cached, shape, seed):
    hidden, targets = drawn(*shape, kept, seed)
    head, slope = Table(shape[2]), torch.rand(shape[:2], generator=torch.Generator().manual_seed(seed)).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logprobs, "CHUNK_ELEMENTS", chunk)
        patch.setattr(logprobs, "CACHED_ELEMENTS", cached)
        found = token_logprobs(hidden, head, targets)
        got = torch.autograd.grad((found * slope).sum(), [hidden, head.table])
    expected = oracle(hidden, head, targets)
    wanted = torch.autograd.grad((expected * slope).sum(), [hidden, head.table])
    assert float((found - expected).detach().abs().max()) < 1e-12
    for one, other in zip(got, wanted, strict=True):
        assert float((one - other).abs().max()) < 1e-12
    assert not found[targets == IGNORE].any()
    assert not got[0][targets == IGNORE].any(), "a position without a target has a gradient"


def test_a_few_positions_without_a_target_are_zero_and_have_no_gradient():
    hidden, targets = drawn(5, 8, 7, 1.0, 1)
    targets[2, 3] = IGNORE
    head = Table(7)
    found = token_logprobs(hidden, head, targets)
    assert head.seen == [40], "they were picked out"
    (gradient,) = torch.autograd.grad(found.sum(), hidden)
    assert float((found - oracle(hidden, head, targets)).detach().abs().max()) < 1e-12
    assert found[2, 3] == 0 and not gradient[2, 3].any() and bool(gradient[2, 4].any())


@pytest.mark.parametrize(("kept", "reached"), [(0.5, None), (1.0, 60)])
def test_positions_without_a_target_reach_the_head_only_where_they_are_few(kept, reached):
    hidden, targets = drawn(6, 10, 7, kept, 3)
    head = Table(7)
    token_logprobs(hidden, head, targets)
    assert head.seen == [reached or int((targets != IGNORE).sum())]


def test_low_precision_logits_give_float32_logprobs():
    """The rounding of a result to bfloat16 would be 0.01 here, and 0.5 over an answer of some tokens."""
    hidden, targets = drawn(4, 16, 50, 1.0, 0)
    head, low = Table(50), hidden.detach().bfloat16()
    found = token_logprobs(low, head, targets)
    exact = torch.log_softmax(head(low).double(), -1).gather(-1, targets[..., None])[..., 0]
    assert found.dtype == torch.float32
    assert float((found - exact).detach().abs().max()) < 1e-5


@pytest.mark.parametrize("size", [1e3, 1e4])
def test_huge_logits_stay_finite(size):
    hidden, targets = drawn(2, 8, 7, 1.0, 0)
    big = (hidden.detach() * size).float().requires_grad_()
    found = token_logprobs(big, Table(7), targets)
    found.sum().backward()
    assert bool(found.isfinite().all()) and bool(big.grad.isfinite().all())  # type: ignore[union-attr]
    assert float(found.detach().max()) <= 0


def test_a_batch_without_any_target_is_zero_everywhere():
    hidden, targets = drawn(2, 3, 7, 0.0, 0)
    found = token_logprobs(hidden, Table(7), targets)
    assert found.shape == (2, 3) and not found.any()
