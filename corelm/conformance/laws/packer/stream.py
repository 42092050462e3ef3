"""Properties of packers: the streams that they make, their order, their state and their shares."""

from __future__ import annotations

import copy
import itertools
import json
from collections import Counter
from typing import Any

import numpy as np
import torch

from corelm.conformance.bench import leaves, same_bits
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.laws.packer.bench import END, epoch, fitting, ready, stream, valid
from corelm.errors import UserError
from corelm.kinds.batch import Batch
from corelm.kinds.packer import Tokens


@property_of(
    "packer",
    statement="The number of batches that it announces is the number that its stream yields.",
    formula="batches(…) = |stream(…)|",
    catches="epochs counted by documents where a row holds several: the data gone over five times instead of once",
    tier="bit",
    examples=20,
)
def batches_are_counted(part: PartUnderTest, draw: Draw) -> None:
    """Count one to three epochs."""
    packer, inputs = ready(part, draw)
    epochs = draw.integer("epochs", 1, 3)
    how = {"batch": inputs["batch"], "time": inputs["time"], "seed": inputs["seed"], "end_of_text": END}
    announced = packer.batches(inputs["store"], **how, epochs=epochs)
    found = len(epoch(packer, inputs, epochs=epochs))
    assert announced == found, f"{announced} batches announced, {found} made"


@property_of(
    "packer",
    statement="So many batches as an epoch has hold all of it, also where the stream goes on.",
    formula="∪ first batches(epochs = e) of stream(epochs = ∞) ⊇ e epochs",
    catches="rows that are mixed with those of later epochs: in one epoch some come twice, and others never",
    tier="bit",
    examples=16,
)
def epochs_come_in_turn(part: PartUnderTest, draw: Draw) -> None:
    """Count every token in the first one to three epochs of an endless stream."""
    packer, inputs = ready(part, draw)
    fitting(part, inputs)
    epochs = draw.integer("epochs", 1, 3)
    how = {"batch": inputs["batch"], "time": inputs["time"], "seed": inputs["seed"], "end_of_text": END}
    number = packer.batches(inputs["store"], **how, epochs=epochs)
    batches = itertools.islice(stream(packer, inputs, epochs=None), number)
    found = Counter(token for batch in batches for token in batch.ids[valid(batch)].tolist())
    for document in inputs["store"]:
        rare = [token for token in document.ids.tolist() if found[token] < epochs]
        assert not rare, (
            f"{document.name}: in {number} batches, which are {epochs} epochs, {found[rare[0]]} of {rare[0]}"
        )


@property_of(
    "packer",
    statement="State after k batches, loaded into a fresh stream, goes on with batch k, over epochs; it is plain data.",
    formula="load(state after k) yields batches k, k + 1, …, ∀ k",
    catches="a counter that is ahead of the consumer, an epoch that is lost",
    seen="datasets#7538",
    tier="bit",
    examples=30,
)
def resumes_anywhere(part: PartUnderTest, draw: Draw) -> None:
    """Two epochs, any k."""
    packer, inputs = ready(part, draw)
    whole = [_plain(b) for b in epoch(packer, inputs, epochs=2)]
    k = draw.integer("k", 0, len(whole))
    first = stream(packer, inputs, epochs=2)
    for _ in range(k):
        next(first)
    state = copy.deepcopy(first.state_dict())
    for leaf in leaves(state):
        if not isinstance(leaf, torch.Tensor):
            json.dumps(leaf)
    fresh = stream(packer, inputs, epochs=2)
    fresh.load_state_dict(state)
    rest = [_plain(b) for b in fresh]
    assert same_bits(rest, whole[k:]), f"resumed after {k} of {len(whole)} batches, the rest is another"


def _plain(batch: Batch) -> list[Any]:
    return [batch.ids, batch.targets, batch.documents, batch.valid, batch.names]


@property_of(
    "packer",
    statement="The order depends on seed and epoch: the same again for the same, another for another.",
    formula="order = f(seed, epoch), injective in practice",
    catches="every epoch in the same order, the global random state",
    tier="bit",
    examples=10,
)
def order_is_drawn(part: PartUnderTest, draw: Draw) -> None:
    """Enough documents that two orders can't agree by chance."""
    packer, inputs = ready(part, draw)
    inputs["store"] = [Tokens(np.array([2 * n + 1, 2 * n + 2]), name=str(n)) for n in range(40)]

    def order(seed: int, epochs: int) -> list[int]:
        batches = epoch(packer, inputs, seed=seed, epochs=epochs)
        return [i for b in batches for i in b.ids[valid(b)].tolist() if i != END]

    two = order(1, 2)
    assert two == order(1, 2), "the same seed gives another order"
    assert order(1, 1) != order(2, 1), "another seed gives the same order"
    assert two[: len(two) // 2] != two[len(two) // 2 :], "the second epoch has the order of the first"


@property_of(
    "packer",
    statement="The streams of all ranks together are the batches of one process: r has batches r, r + world, and so on.",
    formula="stream(rank r of W) = stream[r::W], ∀ W, also W > batches",
    catches="duplicates per rank, a lost remainder, more ranks than batches",
    seen="datasets#5360, datasets#8568",
    tier="bit",
    examples=30,
)
def ranks_partition(part: PartUnderTest, draw: Draw) -> None:
    """Worlds up to four."""
    packer, inputs = ready(part, draw)
    world = draw.integer("world", 1, 4)
    whole = [_plain(b) for b in epoch(packer, inputs)]
    for rank in range(world):
        mine = [_plain(b) for b in epoch(packer, inputs, rank=rank, world=world)]
        assert same_bits(mine, whole[rank::world]), f"rank {rank} of {world} has other batches"


@property_of(
    "packer",
    statement="Stopped with one number of processes and gone on with in another, what is left is shared anew, whole.",
    formula="state of W ranks after k rounds, loaded into W′: rank r has batches kW + r, kW + r + W′, …",
    catches="a position per process, so that a run can't move to another machine without losing or doubling data",
    tier="bit",
    examples=36,
)
def goes_on_in_another_world(part: PartUnderTest, draw: Draw) -> None:
    """Worlds up to four, two epochs."""
    packer, inputs = ready(part, draw)
    before, after = draw.integer("world", 1, 4), draw.integer("other world", 1, 4)
    whole = [_plain(b) for b in epoch(packer, inputs, epochs=2)]
    rounds = draw.integer("rounds", 0, len(whole) // before)
    old = draw.integer("rank", 0, before - 1)
    stopped = stream(packer, inputs, epochs=2, rank=old, world=before)
    for _ in range(rounds):
        next(stopped)
    left = whole[rounds * before :]
    for rank in range(after):
        fresh = stream(packer, inputs, epochs=2, rank=rank, world=after)
        fresh.load_state_dict(copy.deepcopy(stopped.state_dict()))
        assert same_bits([_plain(b) for b in fresh], left[rank::after]), (
            f"{rounds} rounds of {before} processes, gone on with by {after}: rank {rank} has other batches than left"
        )


@property_of(
    "packer",
    statement="A batch is its taker's own: whatever is done to it, later batches, epochs and documents are as they were.",
    formula="batches after b ← 0 = batches",
    catches="a view of the store or of a buffer that is filled again",
    tier="bit",
    examples=41,
)
def batches_are_ones_own(part: PartUnderTest, draw: Draw) -> None:
    """Every batch is overwritten once it was read."""
    packer, inputs = ready(part, draw)
    documents = [d.ids.copy() for d in inputs["store"]]
    wanted = [copy.deepcopy(_plain(b)) for b in stream(packer, inputs, epochs=2)]
    found = []
    for batch in stream(packer, inputs, epochs=2):
        found.append(copy.deepcopy(_plain(batch)))
        for tensor in (batch.ids, batch.targets, batch.documents, batch.valid):
            if tensor is not None:
                tensor.zero_()
    assert same_bits(found, wanted), "batches depend on what was done to the ones before"
    kept = list(stream(packer, inputs, epochs=2))
    assert same_bits([_plain(b) for b in kept], wanted), "batches that were kept have changed while others were made"
    for document, before in zip(inputs["store"], documents, strict=True):
        assert np.array_equal(document.ids, before), f"{document.name} was changed in the store"


class _Patience(list[Tokens]):
    """Documents without a token; whoever reads them over and over is stopped."""

    def __init__(self, count: int) -> None:
        super().__init__(Tokens(np.zeros(0, dtype=np.int64), name=str(n)) for n in range(count))
        self.read = 0

    def __getitem__(self, index: Any) -> Any:
        self.read += 1
        assert self.read < 1_000, "it goes through documents without a token for ever"
        return super().__getitem__(index)


@property_of(
    "packer",
    statement="Where there is no token at all, that is said, or the stream ends; it doesn't look for one for ever.",
    formula="Σ |d| = 0 ⇒ stream raises UserError, or yields nothing",
    catches="an endless stream over nothing: a training that stands still without a word",
    tier="io",
    examples=4,
)
def nothing_is_not_searched_for_ever(part: PartUnderTest, draw: Draw) -> None:
    """Up to three empty documents, an endless stream."""
    packer, inputs = ready(part, draw)
    inputs["store"] = _Patience(draw.integer("documents", 0, 3))
    try:
        found = list(itertools.islice(stream(packer, inputs, epochs=None), 3))
    except UserError:
        return
    assert not found, f"{len(found)} batches out of no tokens"
