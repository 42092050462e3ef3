"""Properties of attention that goes on from a state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import close
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.harness import Shelf, causal_rules, layer_step
from corelm.conformance.laws.attention.bench import needs, ready


def _pieces(draw: Draw, time: int) -> list[int]:
    pieces: list[int] = []
    while sum(pieces) < time:
        pieces.append(min(draw.quiet(_one_to_three()), time - sum(pieces)))
    draw.note("calls of", pieces)
    return pieces


def _one_to_three() -> Any:
    from hypothesis import strategies

    return strategies.integers(1, 3)


def _shelves(attention: Any, window: int | None = None) -> dict[str, Shelf]:
    return {name: Shelf(spec) for name, spec in attention.slots(window).items()}


def _in_calls(
    attention: Any, x: Tensor, pieces: list[int], shelves: dict[str, Shelf], *, past: int = 0, **facts: Any
) -> Tensor:
    """Outputs of the new tokens ``x``, computed in several calls; masks and documents cover past and new tokens."""
    outputs, start = [], past
    for count in pieces:
        end = start + count
        cut: dict[str, Any] = {k: v[:, :end] if isinstance(v, Tensor) else v for k, v in facts.items()}
        step = layer_step(x.shape[0], count, past=start, slots=shelves, **cut)
        outputs.append(attention(x[:, start - past : end - past], step))
        start = end
    return torch.cat(outputs, 1)


@property_of(
    "attention",
    statement="Computing token by token, or in any pieces, through the state equals one call over the whole.",
    formula="f(x₁ … x_T) = f(x₁ … x_n), f(x_{n+1} …; state), for every split",
    catches="a mask that forgets the past's length, positions that restart, a stale cache (transformers#25420)",
    seen="transformers#25420, torchtune#959, x-transformers#219",
    examples=30,
)
def cached_equals_full(part: PartUnderTest, draw: Draw) -> None:
    """Any composition of the length."""
    attention, dim, schemes = ready(part, draw)
    batch, time = draw.integer("batch", 1, 3), draw.integer("time", 2, 9)
    window = draw.choice("window", [None, 2, 3]) if "mask" in part.cls.offers(attention.config) else None
    documents = (
        torch.tensor([[0] * 2 + [1] * (time - 2)] * batch) if draw.choice("documents", [False, True]) else None
    )
    x = draw.normal(batch, time, dim)
    facts: dict[str, Any] = {"schemes": schemes, "rules": causal_rules(window), "documents": documents}
    full = attention(x, layer_step(batch, time, **facts))
    close(
        _in_calls(attention, x, _pieces(draw, time), _shelves(attention, window), **facts),
        full,
        "in calls and at once",
    )


@property_of(
    "attention",
    statement="Continuing left-padded rows through the state equals computing each row without padding.",
    formula="f(pad ‖ x in calls) = f(x)",
    catches="a cache that forgets which of its tokens are padding (transformers#29149)",
    seen="transformers#29149",
    examples=15,
    needs=("cached_equals_full",),
)
def padded_rows_continue(part: PartUnderTest, draw: Draw) -> None:
    """Prefill padded, then go on in pieces."""
    attention, dim, schemes = ready(part, draw)
    time, pads = draw.integer("time", 3, 7), draw.integer("pads", 1, 3)
    x = draw.normal(1, time, dim)
    padded = torch.cat([draw.normal(1, pads, dim, scale=100.0), x], 1)
    valid = torch.cat([torch.zeros(1, pads, dtype=torch.bool), torch.ones(1, time, dtype=torch.bool)], 1)
    pieces = [pads + 1, *_pieces(draw, time - 1)]
    y = _in_calls(attention, padded, pieces, _shelves(attention), schemes=schemes, valid=valid)
    close(y[:, pads:], attention(x, layer_step(1, time, schemes=schemes)), "padded in calls and alone at once")


@property_of(
    "attention",
    statement="Rows of the state can be selected, repeated and reordered: what follows is what each row gives alone.",
    formula="f(y; state[rows]) = f(x[rows] ‖ y)",
    catches="state outside of the slots, rows tied together (beam search, batching)",
    examples=15,
    needs=("cached_equals_full",),
)
def state_rows_can_be_selected(part: PartUnderTest, draw: Draw) -> None:
    """Prefill three rows, keep some in another order, go on."""
    attention, dim, schemes = ready(part, draw)
    time, more = draw.integer("time", 1, 4), draw.integer("more", 1, 3)
    x, rows = draw.normal(3, time, dim), torch.tensor(draw.choice("rows", [[1], [2, 0], [0, 0, 1]]))
    y = draw.normal(len(rows), more, dim)
    shelves = _shelves(attention)
    _in_calls(attention, x, [time], shelves, schemes=schemes)
    for shelf in shelves.values():
        shelf.select(rows)
    after = _in_calls(attention, y, [1] * more, shelves, past=time, schemes=schemes)
    full = attention(torch.cat([x[rows], y], 1), layer_step(len(rows), time + more, schemes=schemes))
    close(after, full[:, time:], "selected rows and rows from scratch")


@property_of(
    "attention",
    statement="A growing state cut back to length n goes on as if nothing had followed; a fixed one keeps its size.",
    formula="f(x; truncate(state(x ‖ wrong), n)) = f(x); |state| doesn't depend on T where recurrent",
    catches="a length kept outside of the slots, a recurrent state that grows",
    examples=15,
    needs=("cached_equals_full",),
)
def state_goes_back_or_stays_small(part: PartUnderTest, draw: Draw) -> None:
    """Speculate, go back, go on; or compare sizes."""
    attention, dim, schemes = ready(part, draw)
    time, wrong = draw.integer("time", 2, 5), draw.integer("wrong", 1, 3)
    x, shelves = draw.normal(2, time + 1, dim), _shelves(attention)
    _in_calls(
        attention, torch.cat([x[:, :time], draw.normal(2, wrong, dim)], 1), [time, wrong], shelves, schemes=schemes
    )
    recurrent = [name for name, shelf in shelves.items() if not shelf.spec.grows]
    assert bool(recurrent) == ("recurrent" in part.cls.offers(attention.config)), (
        f"slots of fixed size: {recurrent}, but offers {sorted(part.cls.offers(attention.config))}"
    )
    if recurrent:
        return  # the shelf has compared each stored shape with the declared one, which knows no time
    for shelf in shelves.values():
        shelf.truncate(time)
    after = _in_calls(attention, x[:, time:], [1], shelves, past=time, schemes=schemes)
    close(
        after, attention(x, layer_step(2, time + 1, schemes=schemes))[:, time:], "after going back, and from scratch"
    )


def _stored(shelves: dict[str, Shelf]) -> dict[str, Tensor]:
    """Every tensor of fixed size, by slot and field."""
    fixed = {name: shelf for name, shelf in shelves.items() if not shelf.spec.grows}
    return {f"{name}.{field}": t for name, shelf in fixed.items() for field, t in shelf.tensors.items()}


@property_of(
    "attention",
    statement="Padding leaves a state of fixed size as it is, to the bit, while other rows move on.",
    formula="state(x ‖ pad) = state(x)",
    catches="a decay at padding, a convolution's window that takes padding in",
    tier="bit",
    examples=15,
)
def padding_leaves_the_state(part: PartUnderTest, draw: Draw) -> None:
    """One row gets padding, the other goes on."""
    attention, dim, schemes = ready(part, draw)
    needs(part, attention, "recurrent")
    time, more = draw.integer("time", 1, 4), draw.integer("more", 1, 4)
    shelves = _shelves(attention)
    _in_calls(attention, draw.normal(2, time, dim), [time], shelves, schemes=schemes)
    before = {name: tensor.clone() for name, tensor in _stored(shelves).items()}
    x = torch.cat([draw.normal(1, more, dim, scale=100.0), draw.normal(1, more, dim)])
    valid = torch.ones(2, time + more, dtype=torch.bool)
    valid[0, time:] = False
    pieces = draw.choice("calls", [[more], [1] * more])
    _in_calls(attention, x, pieces, shelves, past=time, schemes=schemes, valid=valid)
    after = _stored(shelves)
    for name, tensor in after.items():
        assert torch.equal(tensor[0], before[name][0]), f"padding changed {name}"
    moved = [name for name, tensor in after.items() if not torch.equal(tensor[1], before[name][1])]
    assert moved, "the state of the row that went on is what it was"


@property_of(
    "attention",
    statement="A state of fixed size is float32 or better, whatever the type of the activations.",
    formula="dtype(state) ≥ float32",
    catches="a sum over thousands of tokens in bfloat16, in which small terms are lost",
    tier="bit",
    examples=4,
)
def fixed_state_is_wide(part: PartUnderTest, draw: Draw) -> None:
    """Mix in bfloat16 and look at what is stored."""
    subject = part.bench.subject(part, draw, dtype=torch.bfloat16)
    needs(part, subject.part, "recurrent")
    shelves = _shelves(subject.part)
    x = draw.normal(2, draw.integer("time", 1, 4), subject.context.dim).to(torch.bfloat16)
    _in_calls(subject.part, x, [x.shape[1]], shelves)
    for name, tensor in _stored(shelves).items():
        narrow = tensor.is_floating_point() and torch.finfo(tensor.dtype).bits < 32
        assert not narrow, f"{name} is kept in {tensor.dtype}"


@property_of(
    "attention",
    statement="A state of fixed size that is put back goes on as if nothing had followed.",
    formula="f(y; state kept before wrong) = f(x ‖ y)",
    catches="writing into what the slot has handed out, a part of the state outside of the slots",
    examples=15,
    needs=("cached_equals_full",),
)
def state_can_be_put_back(part: PartUnderTest, draw: Draw) -> None:
    """Speculate, put the tensors back, go on."""
    attention, dim, schemes = ready(part, draw)
    needs(part, attention, "recurrent")
    time, wrong, more = (draw.integer(name, 1, 4) for name in ("time", "wrong", "more"))
    x, shelves = draw.normal(2, time + more, dim), _shelves(attention)
    _in_calls(attention, x[:, :time], [time], shelves, schemes=schemes)
    kept = {name: dict(shelf.tensors) for name, shelf in shelves.items()}
    _in_calls(attention, draw.normal(2, wrong, dim), [1] * wrong, shelves, past=time, schemes=schemes)
    for name, shelf in shelves.items():
        if shelf.spec.grows:
            shelf.truncate(time)
        else:
            shelf.tensors = kept[name]
    after = _in_calls(attention, x[:, time:], _pieces(draw, more), shelves, past=time, schemes=schemes)
    full = attention(x, layer_step(2, time + more, schemes=schemes))
    close(after, full[:, time:], "after putting the state back, and from scratch")
