"""Properties of packers."""

from __future__ import annotations

import copy
import json
from collections import Counter
from typing import Any

import numpy as np
import torch

from corelm.conformance.bench import Bench, Subject, leaves, same_bits
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.kinds.batch import IGNORE, Batch
from corelm.kinds.packer import Tokens

END = 0


class PackerBench(Bench):
    """Documents of unequal length; every token is unique, so that nothing can hide."""

    kind = "packer"

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """Documents and the shape of a batch."""
        return {
            "store": documents(draw),
            "batch": draw.choice("batch", [2, 1, 3]),
            "time": draw.choice("time", [8, 5, 24]),
            "seed": draw.integer("seed", 0, 3),
        }

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """One epoch."""
        return [[b.ids, b.targets] for b in _epoch(subject.part, inputs)]


def documents(draw: Draw) -> list[Tokens]:
    """Up to nine documents of lengths 1, 2, 5, 20 and none; ids count on, 0 is the end of text."""
    lengths = [draw.choice("length", [5, 2, 1, 20, 0]) for _ in range(draw.integer("documents", 1, 9))]
    if not sum(lengths):
        lengths.append(3)
    start, store = 1 + draw.seed() % 5, []
    for number, length in enumerate(lengths):
        store.append(Tokens(np.arange(start, start + length), name=f"document {number}"))
        start += length
    return store


def _stream(packer: Any, inputs: dict[str, Any], **more: Any) -> Any:
    given = {
        "batch": inputs["batch"],
        "time": inputs["time"],
        "seed": inputs["seed"],
        "end_of_text": END,
        "epochs": 1,
    }
    return packer.stream(inputs["store"], **{**given, **more})


def _epoch(packer: Any, inputs: dict[str, Any], **more: Any) -> list[Batch]:
    return list(_stream(packer, inputs, **more))


def _valid(batch: Batch) -> torch.Tensor:
    return torch.ones_like(batch.ids, dtype=torch.bool) if batch.valid is None else batch.valid


def _ready(part: PartUnderTest, draw: Draw) -> tuple[Any, dict[str, Any]]:
    subject = part.bench.subject(part, draw)
    return subject.part, part.bench.inputs(subject, draw)


def _whole(part: PartUnderTest, inputs: dict[str, Any]) -> None:
    """Documents that fit, for parts that cut longer ones."""
    if part.cls.truncates:
        short = [d for d in inputs["store"] if len(d.ids) < inputs["time"]]
        inputs["store"] = [*short, Tokens(np.array([901, 902]), name="last")]


@property_of(
    "packer",
    statement="Within an epoch every token of every document is there exactly once.",
    catches="a dropped tail, a doubled row, a truncation that nobody declared",
    tier="bit",
    examples=40,
)
def tokens_are_conserved(part: PartUnderTest, draw: Draw) -> None:
    """Compare multisets."""
    packer, inputs = _ready(part, draw)
    _whole(part, inputs)
    wanted = Counter(int(i) for d in inputs["store"] for i in d.ids)
    found: Counter[int] = Counter()
    for batch in _epoch(packer, inputs):
        found.update(i for i in batch.ids[_valid(batch)].tolist() if i != END)
    assert found == wanted, f"lost {dict(wanted - found)}, doubled or invented {dict(found - wanted)}"


@property_of(
    "packer",
    statement="Targets are the next token of the same document: all such pairs, and no others, row edges included.",
    catches="labels that aren't shifted, a target in the next document, the pair at the end of a row",
    tier="bit",
    examples=40,
)
def targets_are_the_next_tokens(part: PartUnderTest, draw: Draw) -> None:
    """Pairs (token, target)."""
    packer, inputs = _ready(part, draw)
    _whole(part, inputs)
    wanted = Counter((int(a), int(b)) for d in inputs["store"] for a, b in zip(d.ids[:-1], d.ids[1:], strict=True))
    found: Counter[tuple[int, int]] = Counter()
    for batch in _epoch(packer, inputs):
        taught = batch.targets != IGNORE
        assert not (taught & ~_valid(batch)).any(), "padding has a target"
        found.update(zip(batch.ids[taught].tolist(), batch.targets[taught].tolist(), strict=True))
    pairs = Counter({pair: n for pair, n in found.items() if pair[1] != END})
    assert pairs == wanted, f"missing {dict(wanted - pairs)}, wrong {dict(pairs - wanted)}"
    assert not any(a == END for a, _ in found), "the end of text is taught to lead on into another document"


@property_of(
    "packer",
    statement="learn is honoured: a token that isn't to be learnt is nobody's target, the others all are.",
    catches="a mask that is shifted by one",
    tier="bit",
    examples=30,
)
def learn_is_honoured(part: PartUnderTest, draw: Draw) -> None:
    """Draw masks."""
    packer, inputs = _ready(part, draw)
    _whole(part, inputs)
    masked = []
    for d in inputs["store"]:
        learn = torch.rand(len(d.ids), generator=draw.generator()) < 0.5
        masked.append(Tokens(d.ids, learn.numpy(), d.name))
    inputs["store"] = masked
    wanted = Counter(int(i) for d in masked if d.learn is not None for i in d.ids[1:][d.learn[1:]])
    found: Counter[int] = Counter()
    for batch in _epoch(packer, inputs):
        found.update(i for i in batch.targets[batch.targets != IGNORE].tolist() if i != END)
    assert found == wanted, f"missing targets {dict(wanted - found)}, unwanted {dict(found - wanted)}"


@property_of(
    "packer",
    statement="Wherever two documents share a row, their numbers differ; a document's own tokens share one.",
    catches="document ids that aren't reset or never counted up (nanoVLM#201)",
    tier="bit",
    examples=30,
)
def documents_are_told_apart(part: PartUnderTest, draw: Draw) -> None:
    """Compare with who owns which token."""
    packer, inputs = _ready(part, draw)
    _whole(part, inputs)
    owner = {int(i): n for n, d in enumerate(inputs["store"]) for i in d.ids}
    for batch in _epoch(packer, inputs):
        for row in range(len(batch.ids)):
            seen: dict[int, int] = {}
            for column in range(batch.ids.shape[1]):
                token = int(batch.ids[row, column])
                if token == END or not bool(_valid(batch)[row, column]):
                    continue
                number = 0 if batch.documents is None else int(batch.documents[row, column])
                document = owner[token]
                assert seen.setdefault(number, document) == document, (
                    f"row {row} holds two documents numbered {number}"
                )
                assert [n for n, d in seen.items() if d == document] == [number], "one document has two numbers"


@property_of(
    "packer",
    statement="The number of batches that it announces is the number that its stream yields.",
    catches="epochs counted by documents where a row holds several: the data gone over five times instead of once",
    tier="bit",
    examples=20,
)
def batches_are_counted(part: PartUnderTest, draw: Draw) -> None:
    """Count one to three epochs."""
    packer, inputs = _ready(part, draw)
    epochs = draw.integer("epochs", 1, 3)
    how = {"batch": inputs["batch"], "time": inputs["time"], "seed": inputs["seed"], "end_of_text": END}
    announced = packer.batches(inputs["store"], **how, epochs=epochs)
    found = len(_epoch(packer, inputs, epochs=epochs))
    assert announced == found, f"{announced} batches announced, {found} made"


@property_of(
    "packer",
    statement="State after k batches, loaded into a fresh stream, goes on with batch k, over epochs; it is plain data.",
    catches="a counter that is ahead of the consumer (datasets#7538), an epoch that is lost",
    tier="bit",
    examples=30,
)
def resumes_anywhere(part: PartUnderTest, draw: Draw) -> None:
    """Two epochs, any k."""
    packer, inputs = _ready(part, draw)
    whole = [_plain(b) for b in _epoch(packer, inputs, epochs=2)]
    k = draw.integer("k", 0, len(whole))
    stream = _stream(packer, inputs, epochs=2)
    for _ in range(k):
        next(stream)
    state = copy.deepcopy(stream.state_dict())
    for leaf in leaves(state):
        if not isinstance(leaf, torch.Tensor):
            json.dumps(leaf)
    fresh = _stream(packer, inputs, epochs=2)
    fresh.load_state_dict(state)
    rest = [_plain(b) for b in fresh]
    assert same_bits(rest, whole[k:]), f"resumed after {k} of {len(whole)} batches, the rest is another"


def _plain(batch: Batch) -> list[Any]:
    return [batch.ids, batch.targets, batch.documents, batch.valid, batch.names]


@property_of(
    "packer",
    statement="The order depends on seed and epoch: the same again for the same, another for another.",
    catches="every epoch in the same order, the global random state",
    tier="bit",
    examples=10,
)
def order_is_drawn(part: PartUnderTest, draw: Draw) -> None:
    """Enough documents that two orders can't agree by chance."""
    packer, inputs = _ready(part, draw)
    inputs["store"] = [Tokens(np.array([2 * n + 1, 2 * n + 2]), name=str(n)) for n in range(40)]

    def order(seed: int, epochs: int) -> list[int]:
        batches = _epoch(packer, inputs, seed=seed, epochs=epochs)
        return [i for b in batches for i in b.ids[_valid(b)].tolist() if i != END]

    two = order(1, 2)
    assert two == order(1, 2), "the same seed gives another order"
    assert order(1, 1) != order(2, 1), "another seed gives the same order"
    assert two[: len(two) // 2] != two[len(two) // 2 :], "the second epoch has the order of the first"


@property_of(
    "packer",
    statement="The streams of all ranks together are the batches of one process: r has batches r, r + world, and so on.",
    catches="duplicates per rank (datasets#5360), a lost remainder, more ranks than batches",
    tier="bit",
    examples=25,
)
def ranks_partition(part: PartUnderTest, draw: Draw) -> None:
    """Worlds up to four."""
    packer, inputs = _ready(part, draw)
    world = draw.integer("world", 1, 4)
    whole = [_plain(b) for b in _epoch(packer, inputs)]
    for rank in range(world):
        mine = [_plain(b) for b in _epoch(packer, inputs, rank=rank, world=world)]
        assert same_bits(mine, whole[rank::world]), f"rank {rank} of {world} has other batches"


@property_of(
    "packer",
    statement="Batches are rectangles of at most batch × time, with names for messages.",
    catches="a row that is too long, a batch without rows",
    tier="io",
    examples=25,
)
def shapes_are_bounded(part: PartUnderTest, draw: Draw) -> None:
    """Shapes and types."""
    packer, inputs = _ready(part, draw)
    for batch in _epoch(packer, inputs):
        rows, columns = batch.ids.shape
        assert 0 < rows <= inputs["batch"] and 0 < columns <= inputs["time"], f"a batch of {rows} × {columns}"
        assert batch.ids.dtype == torch.long == batch.targets.dtype, f"{batch.ids.dtype}, {batch.targets.dtype}"
        assert batch.targets.shape == batch.ids.shape, "targets of another shape"
        assert len(batch.names) == rows, f"{len(batch.names)} names for {rows} rows"
        assert _valid(batch).any(1).all(), "a row without a real token"


@property_of(
    "packer",
    statement="Documents of one group come side by side in one batch, in their order.",
    catches="a chosen answer that is compared with somebody else's rejected one",
    tier="bit",
    examples=15,
)
def groups_stay_together(part: PartUnderTest, draw: Draw) -> None:
    """Pairs in neighbouring rows."""
    packer, inputs = _ready(part, draw)
    pairs = draw.integer("pairs", 1, 6)
    inputs["store"] = [
        Tokens(
            np.arange(10 * n + 1, 10 * n + 4 + n % 2), np.array([False, *[True] * (2 + n % 2)]), str(n), group=n // 2
        )
        for n in range(2 * pairs)
    ]
    from corelm.errors import UserError

    try:
        batches = _epoch(packer, inputs, batch=4, time=8)
    except UserError as refusal:
        raise NotApplicable(f"it refuses groups: {refusal.message}") from None
    names = [name for batch in batches for name in batch.names]
    assert sorted(names, key=int) == [str(n) for n in range(2 * pairs)], f"rows {names}"
    for batch in batches:
        for first, second in zip(batch.names[::2], batch.names[1::2], strict=True):
            assert int(second) == int(first) + 1 and int(first) % 2 == 0, f"rows {batch.names}"
