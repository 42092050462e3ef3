"""Properties of position schemes: biases of scores, factors of queries, limits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import close
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.position.bench import hook, ready, span
from corelm.errors import UserError
from corelm.kinds.parameters import declared


def _bias(scheme: Any, queries: Tensor, keys: Tensor) -> Tensor:
    bias: Tensor = scheme.scores(queries, keys)
    return bias


@property_of(
    "position",
    statement="A bias on scores depends on the distance only.",
    formula="bias(q + s, k + s) = bias(q, k)",
    catches="distances counted from the end, or from the newest token",
    tolerance="Biases are float32, positions up to 10⁴ are exact in it.",
    examples=15,
    excuse=hook("score"),
)
def bias_is_relative(part: PartUnderTest, draw: Draw) -> None:
    """bias(q + s, k + s) = bias(q, k)."""
    scheme, _ = ready(part, draw)
    positions = torch.arange(6)[None]
    if not scheme.relative:
        far = positions + span(scheme, 1007) - 6
        same = torch.equal(_bias(scheme, far, far), _bias(scheme, positions, positions))
        assert not same, "it says that it rounds by position, and doesn't"
        raise NotApplicable("it says that it rounds by position")
    shift = min(draw.choice("shift", [1, 7, 1000]), span(scheme, 10_000) - 6)
    close(_bias(scheme, positions + shift, positions + shift), _bias(scheme, positions, positions), "shifted", 1e-6)


@property_of(
    "position",
    statement="A bias is zero at distance 0 and lower for keys further back.",
    formula="bias(t, t) = 0, bias(t, s) < bias(t, s + 1)",
    catches="the sign, a clip, distances from the end",
    tier="bit",
    examples=8,
    excuse=hook("score"),
)
def nearer_is_stronger(part: PartUnderTest, draw: Draw) -> None:
    """Along one query's row."""
    scheme, _ = ready(part, draw)
    positions = torch.arange(8)[None]
    row = _bias(scheme, positions, positions)[:, :, 7]
    assert (row[..., 7] == 0).all(), "the bias at distance 0 is not zero"
    assert (row[..., 1:] > row[..., :-1]).all(), "a nearer key doesn't have a larger bias"


@property_of(
    "position",
    statement="One query at position t has the row t of the full matrix.",
    formula="bias(t, ·) = row t of bias",
    catches="a decoding step that counts from zero",
    tier="bit",
    examples=13,
    excuse=hook("score"),
)
def bias_of_one_query(part: PartUnderTest, draw: Draw) -> None:
    """As in decoding."""
    scheme, _ = ready(part, draw)
    positions, t = torch.arange(7)[None], draw.integer("t", 0, 6)
    full = _bias(scheme, positions, positions)
    assert torch.equal(_bias(scheme, positions[:, t : t + 1], positions), full[:, :, t : t + 1]), f"row {t} differs"
    assert full.dtype == torch.float32, f"biases are float32, not {full.dtype}"


@property_of(
    "position",
    statement="Slopes that a part declares are those it uses, times its scale: for a power of two of heads 2^(−8h/H); for "
    "other numbers those of the power below, and then every second one of the power above.",
    formula="bias(t, s) = −m_h · (t − s) · scale; H = 2ⁿ: m_h = 2^(−8h/H); P < H < 2P: m(H) = m(P) ‖ m(2P)₁, m(2P)₃, …",
    catches="slopes that begin at one, fall linearly or are shared, a ladder of their own for six heads",
    examples=23,
    excuse=hook("score"),
)
def slopes_as_declared(part: PartUnderTest, draw: Draw) -> None:
    """Bias at distances 1 and 5."""
    scheme, geometry = ready(part, draw)
    if not hasattr(scheme, "slopes"):
        raise NotApplicable("it declares no slopes")
    slopes = torch.as_tensor(scheme.slopes, dtype=torch.float64)
    close(slopes, _slopes(geometry.heads), f"slopes of {geometry.heads} heads and those of the paper", 1e-12)
    bias = _bias(scheme, torch.tensor([[5]]), torch.tensor([[4, 0]]))[0, :, 0].double() / getattr(
        scheme, "scale", 1.0
    )
    # Where a scheme rounds to bfloat16, slope and product are off by 2⁻⁹ of what they are, here and at the query.
    tolerance = 1e-6 if scheme.relative else 4 * 5 * 2**-9 * float(slopes.max())
    close(
        bias, -slopes[:, None] * torch.tensor([1.0, 5.0]), "bias at distances 1 and 5, −slope · distance", tolerance
    )


def _slopes(heads: int) -> Tensor:
    """Of Press, Smith and Lewis, 2022, arXiv:2108.12409."""
    power = 1 << (heads.bit_length() - 1)
    own, finer = (2.0 ** (-8 * torch.arange(1, n + 1, dtype=torch.float64) / n) for n in (power, 2 * power))
    return torch.cat([own, finer[: 2 * (heads - power) : 2]])


@property_of(
    "position",
    statement="The hook query multiplies each query by a positive number that its position alone decides.",
    formula="scale_query(q, p) = c(p) · q, c > 0",
    catches="a shift in place of a factor, a norm, heads that differ",
    examples=12,
    excuse=hook("query"),
)
def query_is_scaled_by_position(part: PartUnderTest, draw: Draw) -> None:
    """Read the factors off, and compare the queries with those times the factors."""
    scheme, geometry = ready(part, draw)
    positions = torch.randint(span(scheme, 50_000) + 1, (2, 4), generator=draw.generator())
    prepared = scheme.prepare(positions)
    q, ones = (draw.normal(2, 3, 4, geometry.head_dim, scale=scale) for scale in (draw.scale(), 0.0))
    factors = scheme.scale_query(ones + 1, prepared)
    assert (factors > 0).all(), "a query is multiplied by zero or less"
    close(factors, factors[:, :1, :, :1].expand(factors.shape), "factors of a token's heads and features", 0.0)
    close(scheme.scale_query(q, prepared), q * factors, "scaled queries, and queries times those factors", 1e-12)


@property_of(
    "position",
    statement="A position beyond the limit is refused, never wrapped or clamped.",
    formula="p < limit is taken, p = limit refused",
    catches="an index out of range on another device, a silent wrap",
    tier="io",
    examples=6,
)
def limit_is_kept(part: PartUnderTest, draw: Draw) -> None:
    """The last position works, the next one doesn't."""
    scheme, geometry = ready(part, draw)
    if scheme.limit is None:
        raise NotApplicable("it has no limit")

    def use(position: int) -> None:
        at = torch.tensor([[position]])
        scheme.embed(torch.zeros(1, 1, geometry.dim, dtype=torch.float64), at)
        prepared = scheme.prepare(at)
        x = torch.zeros(1, geometry.heads, 1, geometry.head_dim, dtype=torch.float64)
        scheme.rotate(x, x, prepared)
        scheme.scores(at, at)

    use(scheme.limit - 1)
    try:
        use(scheme.limit)
    except UserError:
        return
    raise AssertionError(f"position {scheme.limit} was taken, though the limit is {scheme.limit}")


@property_of(
    "position",
    statement="Whatever the type of a scheme's own numbers, embeddings, queries and keys keep theirs.",
    formula="dtype(embed(x)) = dtype(x), dtype(R q) = dtype(c q) = dtype(q), parameters in float32",
    catches="a float32 table that lifts bfloat16 activations, and all that comes after them",
    tier="bit",
    examples=6,
    excuse=lambda part: None if {"embedding", "rotation", "query"} & set(part.cls.hooks) else "it changes no tensor",
)
def activations_keep_their_type(part: PartUnderTest, draw: Draw) -> None:
    """Parameters in float32, activations in less and in more."""
    subject = part.bench.subject(part, draw, dtype=torch.float32)
    scheme, inputs = subject.part, part.bench.inputs(subject, draw)
    prepared = scheme.prepare(inputs["positions"])
    for dtype in (torch.bfloat16, torch.float64):
        x, q, k = inputs["x"].to(dtype), inputs["q"].to(dtype).transpose(1, 2), inputs["k"].to(dtype).transpose(1, 2)
        found = (
            scheme.embed(x, inputs["positions"]),
            *scheme.rotate(q, k, prepared),
            scheme.scale_query(q, prepared),
        )
        for name, result in zip(("embed", "rotate", "rotate", "scale_query"), found, strict=True):
            assert result.dtype == dtype, f"{dtype} went into {name}, {result.dtype} came out"


@property_of(
    "position",
    statement="A part that takes a name of the field adds what that name means: learned adds row p of its table, after "
    "the unused rows.",
    formula="learned: embed(x, p) = x + T[p + offset]",
    catches="a row that is subtracted, which training makes up for and no checkpoint; the row before or after",
    examples=6,
    excuse=hook("embedding"),
)
def formula_of_its_name(part: PartUnderTest, draw: Draw) -> None:
    """Look the rows up."""
    if getattr(part.cls, "formula", part.name) != "learned":
        raise NotApplicable("its name promises no formula")
    scheme, geometry = ready(part, draw)
    (table,) = (parameter for _, parameter, info in declared(scheme) if info.role == "embedding")
    positions = torch.randint(span(scheme, 500) + 1, (2, 4), generator=draw.generator())
    x, offset = draw.normal(2, 4, geometry.dim), getattr(scheme.config, "offset", 0)
    rows = torch.stack([torch.stack([table[int(p) + offset] for p in row]) for row in positions])
    close(scheme.embed(x, positions), x + rows, "the embedding, and token plus position", 1e-12)
