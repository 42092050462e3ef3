"""Properties of position schemes, hook by hook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject, close
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.errors import UserError
from corelm.kinds.position import PositionGeometry

FAR = 100_000


class PositionBench(Bench):
    """All hooks are called, whatever they do."""

    kind = "position"
    module = True
    varies = True

    def arguments(self, part: PartUnderTest, config: Any, context: Any, draw: Draw) -> tuple[Any, ...]:
        """Built with sizes of an attention."""
        heads = draw.choice("heads", [2, 4, 8])
        return (PositionGeometry(context.dim, heads, draw.choice("head_dim", [8, 4, 16]), context.context),)

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """Queries, keys, embeddings, and positions that restart."""
        geometry = subject.arguments[0]
        return {
            "x": draw.normal(2, 5, geometry.dim),
            "q": draw.normal(2, 5, geometry.heads, geometry.head_dim),
            "k": draw.normal(2, 5, 2, geometry.head_dim),
            "positions": torch.randint(subject.part.limit or 50, (2, 5), generator=draw.generator()),
        }

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Embed, turn, scale and bias (floats with the batch and time in front)."""
        scheme, positions = subject.part, inputs["positions"]
        prepared = scheme.prepare(positions)
        q, k = scheme.rotate(inputs["q"].transpose(1, 2), inputs["k"].transpose(1, 2), prepared)
        q = scheme.scale_query(q, prepared)
        bias = scheme.scores(positions, torch.zeros_like(positions[:, :1]))
        results = [scheme.embed(inputs["x"], positions), q.transpose(1, 2), k.transpose(1, 2)]
        if bias is not None and inputs["x"].dtype == torch.float64:
            results.append(bias.double().expand(len(positions), -1, -1, -1).transpose(1, 2))
        return results


def _hook(name: str) -> Callable[[PartUnderTest], str | None]:
    def excuse(part: PartUnderTest) -> str | None:
        return None if name in part.cls.hooks else f"it has no hook {name!r}"

    return excuse


def _turned(scheme: Any, x: Tensor, positions: Tensor, *, keys: bool = False) -> Tensor:
    """``x`` (batch, heads, time, head_dim) turned as queries or as keys."""
    q, k = scheme.rotate(x, x, scheme.prepare(positions))
    result: Tensor = k if keys else q
    return result


def _ready(part: PartUnderTest, draw: Draw) -> tuple[Any, PositionGeometry]:
    subject = part.bench.subject(part, draw)
    return subject.part, subject.arguments[0]


def _span(scheme: Any, wanted: int) -> int:
    return min(wanted, scheme.limit - 1) if scheme.limit is not None else wanted


@property_of(
    "position",
    statement="hooks names exactly the hooks that do something, and needs asks the attention for them.",
    catches="a hook that is overridden but not named, so that it is never called",
    tier="bit",
    examples=8,
)
def hooks_are_declared(part: PartUnderTest, draw: Draw) -> None:
    """Call each hook and see whether anything moves."""
    scheme, geometry = _ready(part, draw)
    top = _span(scheme, 40)
    positions = torch.arange(max(0, top - 3), top + 1)[None]
    x, q = draw.normal(1, positions.shape[1], geometry.dim), draw.normal(1, 2, positions.shape[1], geometry.head_dim)
    prepared = scheme.prepare(positions)
    active = set()
    if not torch.equal(scheme.embed(x, positions), x):
        active.add("embedding")
    if any(not torch.equal(z, q) for z in scheme.rotate(q, q, prepared)):
        active.add("rotation")
    if not torch.equal(scheme.scale_query(q, prepared), q):
        active.add("query")
    if scheme.scores(positions, positions) is not None:
        active.add("score")
    assert active <= set(part.cls.hooks), f"works in {sorted(active)}, declares {sorted(part.cls.hooks)}"
    needed = {"rotation": "attention:rotation", "query": "attention:query", "score": "attention:scores"}
    for hook in part.cls.hooks:
        if hook in needed:
            assert needed[hook] in part.cls.needs(scheme.config), f"hook {hook} needs {needed[hook]}"


@property_of(
    "position",
    statement="A score depends on the distance of query and key only: shifting both changes nothing.",
    catches="only queries turned, opposite signs, mixed layouts, half-precision or clamped positions",
    examples=30,
    excuse=_hook("rotation"),
)
def relative(part: PartUnderTest, draw: Draw) -> None:
    """⟨R_{m+s} q, R_{n+s} k⟩ = ⟨R_m q, R_n k⟩."""
    scheme, geometry = _ready(part, draw)
    span = _span(scheme, 2 * FAR)
    shift = min(draw.choice("shift", [1, 7, 1000, FAR]), span // 2)
    m, n = (draw.integer(name, 0, min(2000, span - shift)) for name in ("m", "n"))
    q, k = draw.normal(1, 1, 1, geometry.head_dim), draw.normal(1, 1, 1, geometry.head_dim)

    def score(a: int, b: int) -> Tensor:
        left = _turned(scheme, q, torch.tensor([[a]]))
        return (left * _turned(scheme, k, torch.tensor([[b]]), keys=True)).sum()

    close(score(m + shift, n + shift), score(m, n), f"scores at ({m + shift}, {n + shift}) and ({m}, {n})", 1e-9)


@property_of(
    "position",
    statement="Turning keeps lengths.",
    catches="a hidden scale, a wrong sign in one half",
    excuse=_hook("rotation"),
)
def isometry(part: PartUnderTest, draw: Draw) -> None:
    """‖R_m q‖ = ‖q‖."""
    scheme, geometry = _ready(part, draw)
    x = draw.normal(2, 1, 4, geometry.head_dim, scale=draw.scale())
    positions = torch.randint(_span(scheme, 5000) + 1, (2, 4), generator=draw.generator())
    for keys in (False, True):
        close(_turned(scheme, x, positions, keys=keys).norm(dim=-1), x.norm(dim=-1), "lengths after and before")


@property_of(
    "position",
    statement="Position 0 turns nothing, to the bit.",
    catches="positions that count from one",
    tier="bit",
    examples=8,
    excuse=_hook("rotation"),
)
def identity_at_zero(part: PartUnderTest, draw: Draw) -> None:
    """R_0 = 1."""
    scheme, geometry = _ready(part, draw)
    x = draw.normal(2, 1, 1, geometry.head_dim)
    for keys in (False, True):
        assert torch.equal(_turned(scheme, x, torch.zeros(2, 1, dtype=torch.long), keys=keys), x), "position 0 turns"


@property_of(
    "position",
    statement="Turning by a and then by b is turning by a + b, for queries and for keys.",
    catches="anything that is no rotation",
    excuse=_hook("rotation"),
)
def composes(part: PartUnderTest, draw: Draw) -> None:
    """R_a R_b = R_{a+b}."""
    scheme, geometry = _ready(part, draw)
    top = _span(scheme, 3000)
    a, b = draw.integer("a", 0, top // 2), draw.integer("b", 0, top // 2)
    x = draw.normal(1, 2, 1, geometry.head_dim)
    for keys in (False, True):
        twice = x
        for position in (a, b):
            twice = _turned(scheme, twice, torch.tensor([[position]]), keys=keys)
        close(twice, _turned(scheme, x, torch.tensor([[a + b]]), keys=keys), f"R_{a} R_{b} and R_{a + b}", 1e-9)


@property_of(
    "position",
    statement="Turning is linear.",
    catches="a norm or a clamp inside",
    excuse=_hook("rotation"),
    examples=10,
)
def linear(part: PartUnderTest, draw: Draw) -> None:
    """R(ax + y) = aRx + Ry."""
    scheme, geometry = _ready(part, draw)
    x, y = draw.normal(1, 2, 3, geometry.head_dim), draw.normal(1, 2, 3, geometry.head_dim, scale=draw.scale())
    positions = torch.randint(_span(scheme, 500) + 1, (1, 3), generator=draw.generator())
    both = _turned(scheme, 3 * x + y, positions)
    close(both, 3 * _turned(scheme, x, positions) + _turned(scheme, y, positions), "R(3x + y) and 3Rx + Ry")


@property_of(
    "position",
    statement="What is computed for a token depends on no earlier call and on no other token.",
    catches="a table by the longest length seen (transformers#25681), one row's positions for all rows",
    tier="bit",
    examples=15,
)
def no_memory(part: PartUnderTest, draw: Draw) -> None:
    """Short, long, short again; then a slice and a row of its own."""
    subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    before = part.bench.call(subject, inputs)
    longer = {**inputs, "positions": torch.full_like(inputs["positions"], _span(subject.part, 4096))}
    part.bench.call(subject, longer)
    close(part.bench.call(subject, inputs), before, "before and after a longer call", 0.0)
    cut = {name: value[1:, 2:4] for name, value in inputs.items()}
    sliced = [leaf[1:, 2:4] for leaf in before[:3]]
    close(part.bench.call(subject, cut)[:3], sliced, "two tokens alone and among others", 1e-12)


@property_of(
    "position",
    statement="With base theta, pairs turn by theta^(−2j/d) per position: d features move, the ladder begins at 1.",
    catches="exponent j/d for 2j/d, the base ignored",
    examples=10,
    excuse=lambda part: (
        _hook("rotation")(part) or (None if "theta" in part.cls.Config.model_fields else "it declares no base theta")
    ),
)
def frequency_ladder(part: PartUnderTest, draw: Draw) -> None:
    """Read the angles off unit vectors."""
    scheme, geometry = _ready(part, draw)
    others = {"scaling", "factor", "frequencies", "low_freq_factor"} & set(part.cls.Config.model_fields)
    if others:
        raise NotApplicable(f"its ladder is changed by {sorted(others)}")
    units = torch.eye(geometry.head_dim, dtype=torch.float64)[:, None, None]
    at_one = torch.ones(geometry.head_dim, 1, dtype=torch.long)
    cosines = (_turned(scheme, units, at_one) * units).sum((1, 2, 3))
    moved = units.shape[0] - int(((_turned(scheme, units, at_one) - units).abs().sum((1, 2, 3)) == 0).sum())
    expected = torch.cos(scheme.config.theta ** (-torch.arange(0, moved, 2, dtype=torch.float64) / max(moved, 1)))
    wanted = torch.cat([expected.repeat_interleave(2), torch.ones(geometry.head_dim - moved, dtype=torch.float64)])
    close(cosines.sort().values, wanted.sort().values, "cosines of the angles at position 1 and the ladder's", 1e-8)


@property_of(
    "position",
    statement="Neighbouring positions are told apart, however far.",
    catches="half-precision integers, which collide above 256; a clamp",
    excuse=lambda part: None if {"rotation", "embedding"} & set(part.cls.hooks) else "it changes neither q, k nor x",
)
def injective(part: PartUnderTest, draw: Draw) -> None:
    """n and n + 1 differ."""
    scheme, geometry = _ready(part, draw)
    n = draw.integer("n", 0, _span(scheme, FAR) - 1)
    positions = torch.tensor([[n], [n + 1]])
    if "rotation" in part.cls.hooks:
        x = torch.ones(2, 1, 1, geometry.head_dim, dtype=torch.float64)
        a, b = _turned(scheme, x, positions).flatten(1)
    else:
        a, b = scheme.embed(torch.ones(2, 1, geometry.dim, dtype=torch.float64), positions).flatten(1)
    assert float((a - b).detach().abs().max()) > 1e-3, f"positions {n} and {n + 1} look alike"


@property_of(
    "position",
    statement="bfloat16 activations at positions around 30 000 are turned as exactly as the dtype allows.",
    catches="angles computed in the activations' dtype (transformers#29285, vllm#863)",
    tier="num",
    excuse=_hook("rotation"),
)
def precise_far_away(part: PartUnderTest, draw: Draw) -> None:
    """Against float64 on the same input."""
    scheme, geometry = _ready(part, draw)
    top = _span(scheme, 30_500)
    x = draw.normal(1, 2, 4, geometry.head_dim).bfloat16()
    positions = torch.arange(max(0, top - 3), top + 1)[None][:, :4]
    x = x[:, :, : positions.shape[1]]
    exact, y = _turned(scheme, x.double(), positions), _turned(scheme, x, positions)
    assert y.dtype == torch.bfloat16, f"bfloat16 went in, {y.dtype} came out"
    size = x.double().abs().amax(-1, keepdim=True)
    worst = float(((y.double() - exact).abs() / (size * 2**-8)).max())
    assert worst <= 3, f"off by {worst:.1f} units in the last place at positions {positions.tolist()[0]}"


@property_of(
    "position",
    statement="Positions per row give what each row gives with them alone.",
    catches="one row's positions broadcast to all (packing, left padding)",
    examples=15,
)
def rows_have_their_own(part: PartUnderTest, draw: Draw) -> None:
    """Permute rows with their positions."""
    subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    swapped = {name: value.flip(0) for name, value in inputs.items()}
    whole = [leaf.flip(0) for leaf in part.bench.call(subject, inputs)]
    close(part.bench.call(subject, swapped), whole, "rows swapped with their positions", 1e-12)


def _bias(scheme: Any, queries: Tensor, keys: Tensor) -> Tensor:
    bias: Tensor = scheme.scores(queries, keys)
    return bias


@property_of(
    "position",
    statement="A bias on scores depends on the distance only.",
    catches="distances counted from the end, or from the newest token",
    examples=15,
    excuse=_hook("score"),
)
def bias_is_relative(part: PartUnderTest, draw: Draw) -> None:
    """bias(q + s, k + s) = bias(q, k)."""
    scheme, _ = _ready(part, draw)
    positions = torch.arange(6)[None]
    shift = min(draw.choice("shift", [1, 7, 1000]), _span(scheme, 10_000) - 6)
    close(_bias(scheme, positions + shift, positions + shift), _bias(scheme, positions, positions), "shifted", 1e-6)


@property_of(
    "position",
    statement="A bias is zero at distance 0 and lower for keys further back.",
    catches="the sign, a clip, distances from the end",
    tier="bit",
    examples=8,
    excuse=_hook("score"),
)
def nearer_is_stronger(part: PartUnderTest, draw: Draw) -> None:
    """Along one query's row."""
    scheme, _ = _ready(part, draw)
    positions = torch.arange(8)[None]
    row = _bias(scheme, positions, positions)[:, :, 7]
    assert (row[..., 7] == 0).all(), "the bias at distance 0 is not zero"
    assert (row[..., 1:] > row[..., :-1]).all(), "a nearer key doesn't have a larger bias"


@property_of(
    "position",
    statement="One query at position t has the row t of the full matrix.",
    catches="a decoding step that counts from zero",
    tier="bit",
    examples=12,
    excuse=_hook("score"),
)
def bias_of_one_query(part: PartUnderTest, draw: Draw) -> None:
    """As in decoding."""
    scheme, _ = _ready(part, draw)
    positions, t = torch.arange(7)[None], draw.integer("t", 0, 6)
    full = _bias(scheme, positions, positions)
    assert torch.equal(_bias(scheme, positions[:, t : t + 1], positions), full[:, :, t : t + 1]), f"row {t} differs"
    assert full.dtype == torch.float32, f"biases are float32, not {full.dtype}"


@property_of(
    "position",
    statement="Slopes that a part declares are those it uses, 2^(−8h/H) for a power of two of heads.",
    catches="slopes that begin at one, fall linearly or are shared",
    examples=8,
    excuse=_hook("score"),
)
def slopes_as_declared(part: PartUnderTest, draw: Draw) -> None:
    """Bias at distances 1 and 5."""
    scheme, geometry = _ready(part, draw)
    if not hasattr(scheme, "slopes"):
        raise NotApplicable("it declares no slopes")
    slopes = torch.as_tensor(scheme.slopes, dtype=torch.float64)
    wanted = 2.0 ** (-8 * torch.arange(1, geometry.heads + 1, dtype=torch.float64) / geometry.heads)
    close(slopes, wanted, f"slopes of {geometry.heads} heads and 2^(−8h/H)", 1e-12)
    bias = _bias(scheme, torch.tensor([[5]]), torch.tensor([[4, 0]]))[0, :, 0].double()
    close(bias, -slopes[:, None] * torch.tensor([1.0, 5.0]), "bias at distances 1 and 5, and −slope · distance", 1e-6)


@property_of(
    "position",
    statement="A position beyond the limit is refused, never wrapped or clamped.",
    catches="an index out of range on another device, a silent wrap",
    tier="io",
    examples=6,
)
def limit_is_kept(part: PartUnderTest, draw: Draw) -> None:
    """The last position works, the next one doesn't."""
    scheme, geometry = _ready(part, draw)
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
