"""Properties of packers: what batches hold."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch

from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.packer import order, stream
from corelm.conformance.laws.packer.bench import END, epoch, fitting, ready, valid
from corelm.errors import UserError
from corelm.kinds.batch import IGNORE
from corelm.kinds.packer import Tokens

MINIMUM = 7
"""So many of these properties must say something about every part of the kind, and hold."""

__all__ = ["order", "stream"]


@property_of(
    "packer",
    statement="Within an epoch every token of every document is there exactly once.",
    formula="⊎ valid tokens of an epoch = ⊎ tokens of the documents",
    catches="a dropped tail, a doubled row, a truncation that nobody declared",
    tier="bit",
    examples=40,
)
def tokens_are_conserved(part: PartUnderTest, draw: Draw) -> None:
    """Compare multisets."""
    packer, inputs = ready(part, draw)
    fitting(part, inputs)
    wanted = Counter(int(i) for d in inputs["store"] for i in d.ids)
    found: Counter[int] = Counter()
    for batch in epoch(packer, inputs):
        found.update(i for i in batch.ids[valid(batch)].tolist() if i != END)
    assert found == wanted, f"lost {dict(wanted - found)}, doubled or invented {dict(found - wanted)}"


@property_of(
    "packer",
    statement="Targets are the next token of the same document: all such pairs, and no others, row edges included.",
    formula="{(xₜ, yₜ) : yₜ ≠ ignore} = ⊎ over documents {(dᵢ, dᵢ₊₁)}",
    catches="labels that aren't shifted, a target in the next document, the pair at the end of a row",
    tier="bit",
    examples=40,
)
def targets_are_the_next_tokens(part: PartUnderTest, draw: Draw) -> None:
    """Pairs (token, target)."""
    packer, inputs = ready(part, draw)
    fitting(part, inputs)
    wanted = Counter((int(a), int(b)) for d in inputs["store"] for a, b in zip(d.ids[:-1], d.ids[1:], strict=True))
    found: Counter[tuple[int, int]] = Counter()
    for batch in epoch(packer, inputs):
        taught = batch.targets != IGNORE
        assert not (taught & ~valid(batch)).any(), "padding has a target"
        found.update(zip(batch.ids[taught].tolist(), batch.targets[taught].tolist(), strict=True))
    pairs = Counter({pair: n for pair, n in found.items() if pair[1] != END})
    assert pairs == wanted, f"missing {dict(wanted - pairs)}, wrong {dict(pairs - wanted)}"
    assert not any(a == END for a, _ in found), "the end of text is taught to lead on into another document"


@property_of(
    "packer",
    statement="learn is honoured: a token that isn't to be learnt is nobody's target, the others all are.",
    formula="⊎ targets = ⊎ {dᵢ : i > 0, learn(i)}",
    catches="a mask that is shifted by one",
    tier="bit",
    examples=30,
)
def learn_is_honoured(part: PartUnderTest, draw: Draw) -> None:
    """Draw masks."""
    packer, inputs = ready(part, draw)
    fitting(part, inputs)
    masked = []
    for d in inputs["store"]:
        learn = torch.rand(len(d.ids), generator=draw.generator()) < 0.5
        masked.append(Tokens(d.ids, learn.numpy(), d.name))
    inputs["store"] = masked
    wanted = Counter(int(i) for d in masked if d.learn is not None for i in d.ids[1:][d.learn[1:]])
    found: Counter[int] = Counter()
    for batch in epoch(packer, inputs):
        found.update(i for i in batch.targets[batch.targets != IGNORE].tolist() if i != END)
    assert found == wanted, f"missing targets {dict(wanted - found)}, unwanted {dict(found - wanted)}"


@property_of(
    "packer",
    statement="Wherever two documents share a row, their numbers differ; a document's own tokens share one.",
    formula="tokens of one row: number equal ⇔ document equal",
    catches="document ids that aren't reset or never counted up",
    seen="nanoVLM#201, nanoVLM#204",
    tier="bit",
    examples=30,
)
def documents_are_told_apart(part: PartUnderTest, draw: Draw) -> None:
    """Compare with who owns which token."""
    packer, inputs = ready(part, draw)
    fitting(part, inputs)
    owner = {int(i): n for n, d in enumerate(inputs["store"]) for i in d.ids}
    for batch in epoch(packer, inputs):
        for row in range(len(batch.ids)):
            seen: dict[int, int] = {}
            for column in range(batch.ids.shape[1]):
                token = int(batch.ids[row, column])
                if token == END or not bool(valid(batch)[row, column]):
                    continue
                number = 0 if batch.documents is None else int(batch.documents[row, column])
                document = owner[token]
                assert seen.setdefault(number, document) == document, (
                    f"row {row} holds two documents numbered {number}"
                )
                assert [n for n, d in seen.items() if d == document] == [number], "one document has two numbers"


@property_of(
    "packer",
    statement="Batches are rectangles of at most batch × time, with names for messages, none of a document without tokens.",
    formula="0 < rows ≤ batch, 0 < columns ≤ time, d ∈ name(row) ⇒ |d| > 0",
    catches="a row that is too long, a batch without rows, a document without a token in the name of a row",
    tier="io",
    examples=35,
)
def shapes_are_bounded(part: PartUnderTest, draw: Draw) -> None:
    """Shapes and types."""
    packer, inputs = ready(part, draw)
    empty = {document.name for document in inputs["store"] if not len(document.ids)}
    for batch in epoch(packer, inputs):
        rows, columns = batch.ids.shape
        assert 0 < rows <= inputs["batch"] and 0 < columns <= inputs["time"], f"a batch of {rows} × {columns}"
        assert batch.ids.dtype == torch.long == batch.targets.dtype, f"{batch.ids.dtype}, {batch.targets.dtype}"
        assert batch.targets.shape == batch.ids.shape, "targets of another shape"
        assert len(batch.names) == rows, f"{len(batch.names)} names for {rows} rows"
        assert valid(batch).any(1).all(), "a row without a real token"
        stray = empty & {document for name in batch.names for document in name.split(", ")}
        assert not stray, f"a row is named after {min(stray)}, which has no token"


@property_of(
    "packer",
    statement="Documents of one group come side by side in one batch, in their order.",
    formula="group(d) = group(d′) ⇒ d, d′ neighbours in one batch, in order",
    catches="a chosen answer that is compared with somebody else's rejected one",
    tier="bit",
    examples=15,
)
def groups_stay_together(part: PartUnderTest, draw: Draw) -> None:
    """Pairs in neighbouring rows."""
    packer, inputs = ready(part, draw)
    pairs = draw.integer("pairs", 1, 6)
    inputs["store"] = [
        Tokens(
            np.arange(10 * n + 1, 10 * n + 4 + n % 2), np.array([False, *[True] * (2 + n % 2)]), str(n), group=n // 2
        )
        for n in range(2 * pairs)
    ]
    if not packer.keeps_apart(packer.config):
        raise NotApplicable("it says that rows hold several documents")
    batches = epoch(packer, inputs, batch=4, time=8)
    names = [name for batch in batches for name in batch.names]
    assert sorted(names, key=int) == [str(n) for n in range(2 * pairs)], f"rows {names}"
    for batch in batches:
        for first, second in zip(batch.names[::2], batch.names[1::2], strict=True):
            assert int(second) == int(first) + 1 and int(first) % 2 == 0, f"rows {batch.names}"


@property_of(
    "packer",
    statement='A document\'s class is that of the rows that hold it, in extra["labels"].',
    formula="labels[row] = label of the document in the row",
    catches="classes in the order of the store, rows in that of the epoch",
    tier="bit",
    examples=12,
)
def labels_stay_with_their_rows(part: PartUnderTest, draw: Draw) -> None:
    """As many classes as documents."""
    packer, inputs = ready(part, draw)
    count = draw.integer("documents", 2, 8)
    inputs["batch"] = draw.choice("rows", [3, 2, 4])
    inputs["store"] = [
        Tokens(np.arange(10 * n + 1, 10 * n + 2 + n % 3), name=str(n), label=count - n) for n in range(count)
    ]
    if not packer.keeps_apart(packer.config):
        raise NotApplicable("it says that rows hold several documents")
    batches = epoch(packer, inputs)
    for batch in batches:
        assert "labels" in batch.extra, "documents have classes, the batch has none"
        told, wanted = batch.extra["labels"].tolist(), [count - int(row[0]) // 10 for row in batch.ids]
        assert told == wanted, f"rows of documents with the classes {wanted} are labelled {told}"


@property_of(
    "packer",
    statement="It says whether documents are kept apart: then those of a group or with a class are taken, else they are "
    "refused.",
    formula="keeps_apart(config) ⇔ stream({d with a class}) and stream({d, d′ of one group}) are no errors",
    catches="classes that are dropped in silence, a recipe that is refused when half of it has run",
    tier="bit",
    examples=12,
)
def says_whether_it_keeps_apart(part: PartUnderTest, draw: Draw) -> None:
    """Two short documents of one class, or of one group."""
    packer, inputs = ready(part, draw)
    inputs["batch"], grouped = draw.choice("rows", [2, 3]), draw.choice("grouped", [False, True])
    how: dict[str, Any] = {"group": 0} if grouped else {"label": 1}
    inputs["store"] = [Tokens(np.arange(1, 4), name="one", **how), Tokens(np.arange(4, 7), name="other", **how)]
    try:
        epoch(packer, inputs)
    except UserError as refusal:
        assert not packer.keeps_apart(packer.config), f"it keeps documents apart, and refuses them: {refusal.message}"
    else:
        assert packer.keeps_apart(packer.config), f"it doesn't keep documents apart, and takes them with {how}"
