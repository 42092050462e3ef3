"""Properties of masks: rules about pairs, as descriptions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject, close, same_bits
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.harness import Nearby, Past, SameDocument, positions_of
from corelm.kinds.component import ComponentConfig
from corelm.kinds.mask import Mask, MaskFacts, MaskView

MINIMUM = 6
"""So many of these properties must say something about every part of the kind, and hold."""


class MaskBench(Bench):
    """Masks are asked about all pairs of a short row."""

    kind = "mask"
    varies = False
    observed = True

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
    formula="allows(Q, K) = allows(all, all)[Q, K]",
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
    formula="allows ∈ {0, 1}^{rows × queries × keys}",
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
    formula="causal ⇔ allows(q, k) = 0 for all k > q",
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
    formula="allows(q, k) ⇒ q − k < window, and some q − k = window − 1",
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
    formula="trivial ⇒ allows(q, k) for all k ≤ q",
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
    statement="Trivial says so wherever nothing but the future is forbidden; of unknown lengths, where none is too long.",
    formula="allows(q, k) for all k ≤ q < total ⇒ trivial",
    catches="a fast path that is never taken, an answer that needs the length of the rows and isn't given it",
    tier="bit",
)
def trivial_where_it_can_be(part: PartUnderTest, draw: Draw) -> None:
    """Rows of one document without padding, short and long, and rows that don't say how long they are."""
    mask = part.bench.subject(part, draw).part
    if not mask.causal:
        raise NotApplicable("it is not causal on its own, so that kernels ask others of the rules")
    total = draw.choice("time", [1, 2, 4, 7, 16])
    index = torch.arange(total)
    facts = MaskFacts(total=total)
    past = (index <= index[:, None])[None]
    if torch.equal(mask.allows(index, index, facts), past):
        assert mask.trivial(facts), f"forbids nothing in rows of {total} tokens, and doesn't say so"
    if mask.trivial(MaskFacts()):
        longer = torch.arange(4 * max(16, mask.window or 0))
        allowed = mask.allows(longer, longer, MaskFacts())
        assert (allowed | (longer > longer[:, None])).all(), "says trivial whatever the length, and forbids a far key"


@property_of(
    "mask",
    statement="A view of several rules allows what all of them allow and no padding, and describes it as each rule does.",
    formula="dense = ⋀ rules ∧ valid; plain ⇔ some causal, all trivial, no padding; addend = bias where allowed, −∞ elsewhere",
    catches="the answer to an earlier question, one rule for all, padding that is looked at, a row that may look at nothing",
    tier="bit",
    examples=30,
)
def views_join_their_rules(part: PartUnderTest, draw: Draw) -> None:
    """With the triangle, documents and a window; asked twice, for other tokens, with and without a bias."""
    subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    facts, index = inputs["facts"], inputs["key"]
    others: list[Mask] = [Past(ComponentConfig()), SameDocument(ComponentConfig()), Nearby(2)]
    rules = [subject.part, *draw.choice("besides", [others, others[:1], others[1:], []])]
    view = MaskView(rules, facts)
    assert view.causal == any(rule.causal for rule in rules), "causal is where one of the rules is"
    plain = view.causal and facts.valid is None and all(rule.trivial(facts) for rule in rules)
    assert view.plain == plain, f"plain is {view.plain}"
    windows = [rule.window for rule in rules if rule.window is not None]
    assert view.window == (min(windows) if windows else None), f"the window is {view.window}"
    bias = draw.normal(1, 2, len(index), len(index))
    allowed = torch.ones(1, len(index), len(index), dtype=torch.bool)
    for rule in rules:
        allowed = allowed & rule.allows(index, index, facts)
    if facts.valid is not None:
        allowed = allowed & facts.valid[:, None]
    whole = slice(None)
    for query, rows in ((index, whole), (index[-1:], slice(-1, None)), (index[:1], slice(0, 1)), (index, whole)):
        expected = allowed[:, None, rows]
        close(view.dense(query, index), expected, "the view and all of its rules", 0.0)
        for given in (None, bias[:, :, rows]):
            _compare_addend(view, query, index, given, expected)


def _compare_addend(view: MaskView, query: Tensor, key: Tensor, bias: Tensor | None, allowed: Tensor) -> None:
    """What is added to scores, and which queries see nothing."""
    blind = ~allowed.any(-1, keepdim=True)
    for dtype in (torch.float64, torch.float32):
        added, wiped = view.addend(query, key, dtype, bias)
        told = torch.zeros_like(blind) if wiped is None else wiped
        close(told, blind, "the queries that may look at nothing", 0.0)
        expected = torch.where(allowed | blind, 0.0 if bias is None else bias.to(dtype), -torch.inf)
        assert added.dtype == dtype, f"the addend is {added.dtype}, asked for was {dtype}"
        close(added.expand(expected.shape), expected.to(dtype), "the addend", 0.0)


FORMULAS: dict[str, Callable[[Any, int, int, int, int, bool], bool]] = {
    "causal": lambda config, query, key, at, of, same: key <= query,
    "window": lambda config, query, key, at, of, same: 0 <= query - key < config.size,
    "documents": lambda config, query, key, at, of, same: same,
    "chunk": lambda config, query, key, at, of, same: (
        same and 0 <= query - key < config.size and at // config.size == of // config.size
    ),
}
"""What the names of the field mean, for a query and a key at these places of a row and these positions of their
documents, which are the same or not."""


@property_of(
    "mask",
    statement="A part that takes a name of the field allows what that name means.",
    formula="causal: k ≤ q; window: 0 ≤ q − k < w; documents: d(q) = d(k); chunk: ⌊p(q)/c⌋ = ⌊p(k)/c⌋ besides",
    catches="a window that counts from the other end, chunks that begin one token late",
    tier="bit",
    examples=25,
)
def formula_of_its_name(part: PartUnderTest, draw: Draw) -> None:
    """Pair by pair."""
    mask, index, facts, full = _ask(part, draw)
    name = getattr(part.cls, "formula", part.name)
    if name not in FORMULAS:
        raise NotApplicable(f"{name!r} is no name of the field that the kit knows")
    for row, query, key in torch.cartesian_prod(torch.arange(len(full)), index, index).tolist():
        at, of = (query, key) if facts.positions is None else facts.positions[row, [query, key]].tolist()
        same = facts.documents is None or bool(facts.documents[row, query] == facts.documents[row, key])
        expected = FORMULAS[name](mask.config, query, key, at, of, same)
        allows = bool(full[row, query, key])
        assert allows == expected, f"{'allows' if allows else 'forbids'} query {query}, key {key} of row {row}"


@property_of(
    "mask",
    statement="Every token may look at itself.",
    formula="allows(q, q) = 1",
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
    formula="allows on t tokens = allows on T tokens, cut to t",
    catches="a rule that counts from the end",
    tier="bit",
    examples=123,
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
    formula="allows within a document = allows of it alone",
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
