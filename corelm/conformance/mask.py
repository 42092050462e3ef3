"""Properties of masks: rules about pairs, as descriptions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject, same_bits
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.harness import positions_of
from corelm.kinds.mask import MaskFacts


class MaskBench(Bench):
    """Masks are asked about all pairs of a short row."""

    kind = "mask"
    varies = False

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """Indices and, perhaps, documents."""
        total = draw.choice("time", [6, 1, 9])
        index = torch.arange(total)
        return {"query": index, "key": index, "facts": _facts(draw, total)}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """All pairs."""
        return subject.part.allows(inputs["query"], inputs["key"], inputs["facts"])


def _facts(draw: Draw, total: int) -> MaskFacts:
    """Nothing special, documents, padding on the left, or both."""
    has = draw.choice("rows have", ["nothing", "documents", "padding", "both"])
    documents = valid = positions = None
    if has in ("documents", "both"):
        documents = (torch.rand(2, total, generator=draw.generator()) < 0.4).long().cumsum(1)
    if has in ("padding", "both"):
        valid = torch.arange(total) >= torch.tensor([[0], [draw.integer("padding", 0, total - 1)]])
    if documents is not None or valid is not None:
        positions = positions_of(valid, documents, 2, total)
    return MaskFacts(documents, valid, positions, total)


def _first(facts: MaskFacts, total: int) -> MaskFacts:
    """The facts of rows that end after ``total`` tokens."""
    documents, valid, positions = (
        None if fact is None else fact[:, :total] for fact in (facts.documents, facts.valid, facts.positions)
    )
    return MaskFacts(documents, valid, positions, total)


def _ask(part: PartUnderTest, draw: Draw) -> tuple[Any, Tensor, MaskFacts, Tensor]:
    subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    return subject.part, inputs["query"], inputs["facts"], part.bench.call(subject, inputs)


@property_of(
    "mask",
    statement="Asking about some queries and keys gives the slice of asking about all.",
    catches="a triangle drawn from the shape instead of from absolute indices (decoding sees nothing)",
    tier="bit",
    examples=30,
)
def slices_agree(part: PartUnderTest, draw: Draw) -> None:
    """Any range of queries, any range of keys."""
    mask, index, facts, full = _ask(part, draw)
    n = len(index)
    a, c = draw.integer("first query", 0, n - 1), draw.integer("first key", 0, n - 1)
    b, d = draw.integer("last query", a, n - 1) + 1, draw.integer("last key", c, n - 1) + 1
    cut = mask.allows(index[a:b], index[c:d], facts)
    assert torch.equal(cut, full[:, a:b, c:d]), f"queries {a}…{b - 1}, keys {c}…{d - 1} differ from the whole's slice"


@property_of(
    "mask",
    statement="The answer is boolean, (rows, queries, keys), with one row where rows are alike.",
    catches="an additive mask, a missing axis",
    tier="io",
    examples=15,
)
def answers_in_booleans(part: PartUnderTest, draw: Draw) -> None:
    """Shape and type."""
    _, index, facts, full = _ask(part, draw)
    rows = 1 if facts.positions is None else len(facts.positions)
    assert full.dtype == torch.bool, f"the answer is {full.dtype}"
    shapes = [(1, len(index), len(index)), (rows, len(index), len(index))]
    assert tuple(full.shape) in shapes, f"shape {tuple(full.shape)}, expected one of {shapes}"


@property_of(
    "mask",
    statement="A mask that says causal allows no key after the query; one that doesn't allows some.",
    catches="a flag that kernels trust and that isn't true",
    tier="bit",
)
def causal_as_declared(part: PartUnderTest, draw: Draw) -> None:
    """Look above the diagonal."""
    mask, index, _, full = _ask(part, draw)
    future = (index > index[:, None])[None]
    if mask.causal:
        assert not (full & future).any(), "declared causal, but a later key is allowed"
    elif len(index) > 1:
        plain = mask.allows(index, index, MaskFacts())
        assert (plain & future).any(), "allows no later key at all: declare it causal"


@property_of(
    "mask",
    statement="No key further back than window is allowed, and the key just inside it is somewhere.",
    catches="a window that is off by one, so that state forgets a token that is still looked at",
    tier="bit",
)
def window_as_declared(part: PartUnderTest, draw: Draw) -> None:
    """Look at distances."""
    mask, asked, _, found = _ask(part, draw)
    window = mask.window
    if window is not None:
        assert not (found & ((asked[:, None] - asked) >= window)).any(), f"looks further back than window {window}"
    index = torch.arange(max(12, (window or 0) + 2))
    full = mask.allows(index, index, MaskFacts())
    distance = (index[:, None] - index)[None]
    if window is None:
        assert full[:, -1, 0].all() or not mask.trivial(MaskFacts()), (
            "forgets the far past without declaring a window"
        )
    else:
        assert not (full & (distance >= window)).any(), f"declares window {window}, but looks further back"
        assert (full & (distance == window - 1)).any(), f"declares window {window}, but never looks that far"


@property_of(
    "mask",
    statement="Where trivial says so, everything that a causal mask allows is allowed.",
    catches="a fast path that forgets the rule",
    tier="bit",
    examples=30,
)
def trivial_is_true(part: PartUnderTest, draw: Draw) -> None:
    """Compare with the triangle."""
    mask, index, facts, full = _ask(part, draw)
    if mask.trivial(facts):
        past = (index <= index[:, None])[None]
        assert (full | ~past).all(), "says trivial, but forbids a pair that causality allows"


@property_of(
    "mask",
    statement="Every token may look at itself.",
    catches="a strict inequality",
    tier="bit",
)
def sees_itself(part: PartUnderTest, draw: Draw) -> None:
    """The diagonal."""
    _, _, _, full = _ask(part, draw)
    assert full.diagonal(dim1=1, dim2=2).all(), "a token may not look at itself"


@property_of(
    "mask",
    statement="Later tokens change no answer about earlier ones.",
    catches="a rule that counts from the end",
    tier="bit",
    examples=60,
)
def the_future_changes_nothing(part: PartUnderTest, draw: Draw) -> None:
    """Cut facts and indices short."""
    mask, index, facts, full = _ask(part, draw)
    n = draw.integer("kept", 1, len(index))
    cut = mask.allows(index[:n], index[:n], _first(facts, n))
    assert same_bits(cut.expand(full[:, :n, :n].shape), full[:, :n, :n]), (
        f"the first {n} tokens alone get other answers"
    )


@property_of(
    "mask",
    statement="Within a document, tokens may look at what they may look at where it stands alone and unpadded.",
    catches="chunks counted from the beginning of the row, padding that counts as text",
    tier="bit",
    examples=60,
)
def documents_stand_alone(part: PartUnderTest, draw: Draw) -> None:
    """Every document of every row against itself alone."""
    mask, index, facts, full = _ask(part, draw)
    for row in range(2):
        valid = torch.ones(len(index), dtype=torch.bool) if facts.valid is None else facts.valid[row]
        documents = torch.zeros_like(index) if facts.documents is None else facts.documents[row]
        for document in documents[valid].unique():
            own = index[valid & (documents == document)]
            alone = mask.allows(index[: len(own)], index[: len(own)], MaskFacts(total=len(own)))[0]
            together = full[row % len(full)][own][:, own]
            assert torch.equal(together, alone), f"tokens {own.tolist()} of row {row} get other answers alone"
