"""Properties of position schemes: what holds for all hooks, and for rotations."""

from __future__ import annotations

import torch
from torch import Tensor

from corelm.conformance.bench import close
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.harness import ScoreBias, Turning
from corelm.conformance.laws.position import scores
from corelm.conformance.laws.position.bench import FAR, hook, ready, span, turned
from corelm.kinds.component import ComponentConfig
from corelm.kinds.position import PositionView, no_positions

MINIMUM = 3
"""So many of these properties must say something about every part of the kind, and hold."""

__all__ = ["scores"]


@property_of(
    "position",
    statement="hooks names exactly the hooks that do something, and needs asks the attention for them.",
    formula="hooks = {h: hook h changes something}, needs ⊇ attention:h",
    catches="a hook that is overridden but not named, so that it is never called",
    tier="bit",
    examples=8,
)
def hooks_are_declared(part: PartUnderTest, draw: Draw) -> None:
    """Call each hook and see whether anything moves."""
    scheme, geometry = ready(part, draw)
    top = span(scheme, 40)
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
    for name in part.cls.hooks:
        if name in needed:
            assert needed[name] in part.cls.needs(scheme.config), f"hook {name} needs {needed[name]}"


@property_of(
    "position",
    statement="A score depends on the distance of query and key only: shifting both changes nothing.",
    formula="⟨R_{m+s} q, R_{n+s} k⟩ = ⟨R_m q, R_n k⟩",
    catches="only queries turned, opposite signs, mixed layouts, half-precision or clamped positions",
    tolerance="Angles up to 2·10⁵ lose five of float64's sixteen digits.",
    examples=30,
    excuse=hook("rotation"),
)
def relative(part: PartUnderTest, draw: Draw) -> None:
    """⟨R_{m+s} q, R_{n+s} k⟩ = ⟨R_m q, R_n k⟩."""
    scheme, geometry = ready(part, draw)
    reach = span(scheme, 2 * FAR)
    shift = min(draw.choice("shift", [1, 7, 1000, FAR]), reach // 2)
    m, n = (draw.integer(name, 0, min(2000, reach - shift)) for name in ("m", "n"))
    q, k = draw.normal(1, 1, 1, geometry.head_dim), draw.normal(1, 1, 1, geometry.head_dim)

    def score(a: int, b: int) -> Tensor:
        left = turned(scheme, q, torch.tensor([[a]]))
        return (left * turned(scheme, k, torch.tensor([[b]]), keys=True)).sum()

    close(score(m + shift, n + shift), score(m, n), f"scores at ({m + shift}, {n + shift}) and ({m}, {n})", 1e-9)


@property_of(
    "position",
    statement="Turning keeps lengths, but for the attention factor, which is the same at all positions.",
    formula="‖R_m q‖ = ‖R_0 q‖",
    catches="a hidden scale, a wrong sign in one half",
    excuse=hook("rotation"),
)
def isometry(part: PartUnderTest, draw: Draw) -> None:
    """‖R_m q‖ = ‖R_0 q‖."""
    scheme, geometry = ready(part, draw)
    x = draw.normal(2, 1, 4, geometry.head_dim, scale=draw.scale())
    positions = torch.randint(span(scheme, 5000) + 1, (2, 4), generator=draw.generator())
    for keys in (False, True):
        lengths = [turned(scheme, x, at, keys=keys).norm(dim=-1) for at in (positions, torch.zeros_like(positions))]
        close(lengths[0], lengths[1], "lengths after and before")


@property_of(
    "position",
    statement="Position 0 turns nothing, to the bit, but multiplies what is turned by the attention factor.",
    formula="R_0 = attention_factor · 1",
    catches="positions that count from one, a factor that isn't declared",
    tier="bit",
    examples=8,
    excuse=hook("rotation"),
)
def identity_at_zero(part: PartUnderTest, draw: Draw) -> None:
    """R_0 = 1, or the declared factor where features turn."""
    scheme, geometry = ready(part, draw)
    x = draw.normal(2, 1, 1, geometry.head_dim)
    start, later = torch.zeros(2, 1, dtype=torch.long), torch.full((2, 1), span(scheme, 1))
    for keys in (False, True):
        y = turned(scheme, x, start, keys=keys)
        if scheme.attention_factor == 1:
            assert torch.equal(y, x), "position 0 turns"
        turns = turned(scheme, x, later, keys=keys) != x
        close(y, torch.where(turns, x * scheme.attention_factor, x), "position 0 and the attention factor", 1e-12)


@property_of(
    "position",
    statement="Turning by a and then by b is turning by a + b, for queries and for keys.",
    formula="R_a R_b = R_{a+b} R_0",
    catches="anything that is no rotation",
    tolerance="Angles of some thousands lose three of float64's sixteen digits.",
    excuse=hook("rotation"),
)
def composes(part: PartUnderTest, draw: Draw) -> None:
    """R_a R_b = R_{a+b} R_0."""
    scheme, geometry = ready(part, draw)
    top = span(scheme, 3000)
    a, b = draw.integer("a", 0, top // 2), draw.integer("b", 0, top // 2)
    x = draw.normal(1, 2, 1, geometry.head_dim)
    for keys in (False, True):
        results = []
        for way in ((a, b), (0, a + b)):
            results.append(x)
            for position in way:
                results[-1] = turned(scheme, results[-1], torch.tensor([[position]]), keys=keys)
        close(results[0], results[1], f"R_{a} R_{b} and R_{a + b}", 1e-9)


@property_of(
    "position",
    statement="Turning is linear.",
    formula="R(3x + y) = 3Rx + Ry",
    catches="a norm or a clamp inside",
    excuse=hook("rotation"),
    examples=10,
)
def linear(part: PartUnderTest, draw: Draw) -> None:
    """R(ax + y) = aRx + Ry."""
    scheme, geometry = ready(part, draw)
    x, y = draw.normal(1, 2, 3, geometry.head_dim), draw.normal(1, 2, 3, geometry.head_dim, scale=draw.scale())
    positions = torch.randint(span(scheme, 500) + 1, (1, 3), generator=draw.generator())
    both = turned(scheme, 3 * x + y, positions)
    close(both, 3 * turned(scheme, x, positions) + turned(scheme, y, positions), "R(3x + y) and 3Rx + Ry")


@property_of(
    "position",
    statement="What is computed for a token depends on no earlier call and on no other token.",
    formula="R_p x after a longer call = R_p x before",
    catches="a table by the longest length seen (transformers#25681), one row's positions for all rows",
    seen="transformers#25681",
    tier="bit",
    examples=15,
)
def no_memory(part: PartUnderTest, draw: Draw) -> None:
    """Short, long, short again; then a slice and a row of its own."""
    subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    before = part.bench.call(subject, inputs)
    far = torch.full_like(inputs["positions"], span(subject.part, 4096))
    longer = {**inputs, "positions": far} | ({"lengths": far + 1} if "lengths" in inputs else {})
    part.bench.call(subject, longer)
    close(part.bench.call(subject, inputs), before, "before and after a longer call", 0.0)
    cut = {name: value[1:, 2:4] for name, value in inputs.items()}
    sliced = [leaf[1:, 2:4] for leaf in before[:3]]
    close(part.bench.call(subject, cut)[:3], sliced, "two tokens alone and among others", 1e-12)


@property_of(
    "position",
    statement="With base theta, pairs turn by theta^(−2j/d) per position: d features move, the ladder begins at 1.",
    formula="⟨R_1 e_j, e_j⟩ = cos theta^(−2j/d)",
    catches="exponent j/d for 2j/d, the base ignored",
    tolerance="cos near 1 keeps half of the digits of its angle.",
    examples=10,
    excuse=lambda part: (
        hook("rotation")(part) or (None if "theta" in part.cls.Config.model_fields else "it declares no base theta")
    ),
)
def frequency_ladder(part: PartUnderTest, draw: Draw) -> None:
    """Read the angles off unit vectors."""
    subject = part.bench.subject(part, draw)
    scheme, geometry = subject.part, subject.arguments[0]
    options = ("scaling", "factor", "frequencies", "low_freq_factor")
    others = [name for name in options if getattr(scheme.config, name, None) is not None]
    if others:
        raise NotApplicable(f"its ladder is changed by {others}")
    units = torch.eye(geometry.head_dim, dtype=torch.float64)[:, None, None]
    at_one = torch.ones(geometry.head_dim, 1, dtype=torch.long)
    cosines = (turned(scheme, units, at_one) * units).sum((1, 2, 3))
    moved = units.shape[0] - int(((turned(scheme, units, at_one) - units).abs().sum((1, 2, 3)) == 0).sum())
    expected = torch.cos(scheme.config.theta ** (-torch.arange(0, moved, 2, dtype=torch.float64) / max(moved, 1)))
    wanted = torch.cat([expected.repeat_interleave(2), torch.ones(geometry.head_dim - moved, dtype=torch.float64)])
    close(cosines.sort().values, wanted.sort().values, "cosines of the angles at position 1 and the ladder's", 1e-8)


@property_of(
    "position",
    statement="Neighbouring positions are told apart, however far.",
    formula="R_n x ≠ R_{n+1} x for n ≤ 10⁵",
    catches="half-precision integers, which collide above 256; a clamp",
    tolerance="The fastest pair turns by one radian per position: far more than 10⁻³.",
    excuse=lambda part: None if {"rotation", "embedding"} & set(part.cls.hooks) else "it changes neither q, k nor x",
)
def injective(part: PartUnderTest, draw: Draw) -> None:
    """n and n + 1 differ."""
    scheme, geometry = ready(part, draw)
    n = draw.integer("n", 0, span(scheme, FAR) - 1)
    positions = torch.tensor([[n], [n + 1]])
    if "rotation" in part.cls.hooks:
        x = torch.ones(2, 1, 1, geometry.head_dim, dtype=torch.float64)
        a, b = turned(scheme, x, positions).flatten(1)
    else:
        a, b = scheme.embed(torch.ones(2, 1, geometry.dim, dtype=torch.float64), positions).flatten(1)
    assert float((a - b).detach().abs().max()) > 1e-3, f"positions {n} and {n + 1} look alike"


@property_of(
    "position",
    statement="bfloat16 activations at positions around 30 000 are turned as exactly as the dtype allows.",
    formula="|R_p x in bfloat16 − R_p x| ≤ 3 · 2⁻⁸ max|x|, p ~ 30 000",
    catches="angles computed in the activations' dtype (transformers#29285, vllm#863)",
    seen="transformers#29285, vllm#863, sglang-jax#1472, candle#3520",
    tier="num",
    tolerance="Two products and a sum, each rounded at most once to bfloat16.",
    excuse=hook("rotation"),
)
def precise_far_away(part: PartUnderTest, draw: Draw) -> None:
    """Against float64 on the same input."""
    scheme, geometry = ready(part, draw)
    top = span(scheme, 30_500)
    x = draw.normal(1, 2, 4, geometry.head_dim).bfloat16()
    positions = torch.arange(max(0, top - 3), top + 1)[None][:, :4]
    x = x[:, :, : positions.shape[1]]
    exact, y = turned(scheme, x.double(), positions), turned(scheme, x, positions)
    assert y.dtype == torch.bfloat16, f"bfloat16 went in, {y.dtype} came out"
    size = x.double().abs().amax(-1, keepdim=True)
    worst = float(((y.double() - exact).abs() / (size * 2**-8)).max())
    assert worst <= 3, f"off by {worst:.1f} units in the last place at positions {positions.tolist()[0]}"


@property_of(
    "position",
    statement="Positions per row give what each row gives with them alone.",
    formula="R_P X with rows swapped = (R_P X) with rows swapped",
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


@property_of(
    "position",
    statement="What the hook embedding makes of two embeddings at one position is as different as they are told apart.",
    formula="embed(a, p) = embed(b, p) ⇒ a = b",
    catches="positions that replace the tokens, a gate that closes",
    examples=8,
    excuse=hook("embedding"),
)
def tokens_stay_told_apart(part: PartUnderTest, draw: Draw) -> None:
    """Two embeddings at the same positions."""
    scheme, geometry = ready(part, draw)
    positions = torch.randint(span(scheme, 500) + 1, (1, 4), generator=draw.generator())
    a, b = draw.normal(1, 4, geometry.dim), draw.normal(1, 4, geometry.dim)
    apart = (scheme.embed(a, positions) - scheme.embed(b, positions)).detach().abs().amax(-1)
    assert (apart > 1e-6).all(), "another token at the same position gives the same embedding"


@property_of(
    "position",
    statement="A view of several schemes applies each one's hooks, one after the other, and adds up their biases.",
    formula="rotate = R_n ∘ … ∘ R_1, scale_query likewise, scores = Σ bias_i, or none where no scheme has any",
    catches="a scheme that is skipped, a bias kept from another question, all rows' positions taken to be alike",
    examples=24,
)
def views_apply_every_scheme(part: PartUnderTest, draw: Draw) -> None:
    """Beside one that turns, one that scales and one that biases; asked for all tokens and for the last."""
    subject = part.bench.subject(part, draw)
    geometry, inputs = subject.arguments[0], part.bench.inputs(subject, draw)
    besides = [Turning(ComponentConfig(), geometry), ScoreBias(geometry, row=0.5, column=2.0, at=3)]
    schemes = [subject.part, *draw.choice("besides", [besides, besides[:1], besides[1:], []])]
    positions = (
        inputs["positions"] if draw.choice("rows differ", [True, False]) else inputs["positions"][:1].expand(2, -1)
    )
    prepared = [(scheme, scheme.prepare(positions)) for scheme in schemes]
    view = PositionView(prepared, positions)
    q, k = inputs["q"].transpose(1, 2), inputs["k"].transpose(1, 2)
    expected_q, expected_k, scaled = q, k, q
    for scheme, found in prepared:
        expected_q, expected_k = scheme.rotate(expected_q, expected_k, found)
        scaled = scheme.scale_query(scaled, found)
    close(view.rotate(q, k), (expected_q, expected_k), "the view's rotation and all schemes'", 1e-12)
    close(view.scale_query(q), scaled, "the view's queries and all schemes'", 1e-12)
    tokens = torch.arange(positions.shape[1])
    for query, key in ((tokens, tokens), (tokens, tokens[:2]), (tokens[-1:], tokens), (tokens, tokens)):
        biases = [scheme.scores(positions[:, query], positions[:, key]) for scheme in schemes]
        some = [bias.expand(2, *bias.shape[1:]) for bias in biases if bias is not None]
        answer = view.scores(query, key)
        assert (answer is None) == (not some), "a bias is there, or missing"
        if answer is not None:
            close(
                answer.expand(2, *answer.shape[1:]),
                torch.stack(some).sum(0),
                "the view's bias and all schemes'",
                1e-6,
            )
    assert no_positions(2, 5).positions.tolist() == [list(range(5))] * 2, "without schemes tokens stand at 0, 1, 2 …"


@property_of(
    "position",
    statement="In documents of up to constant_up_to tokens, the length makes no difference.",
    formula="length ≤ constant_up_to ⇒ R_p doesn't depend on it",
    catches="a scaling that begins early, so that a state no longer gives what one pass gives",
    tier="bit",
    examples=12,
)
def length_as_declared(part: PartUnderTest, draw: Draw) -> None:
    """The same tokens in documents of several lengths."""
    subject = part.bench.subject(part, draw)
    scheme, geometry = subject.part, subject.arguments[0]
    longest = scheme.constant_up_to
    if longest is None:
        raise NotApplicable("it never looks at a document's length")
    x = draw.normal(1, 2, 1, geometry.head_dim)
    at = torch.tensor([[draw.integer("position", 0, longest - 1)]])
    lengths = {"none": None, "the least": at + 1, "the most": torch.full_like(at, longest)}
    results = {}
    for name, length in lengths.items():
        prepared = scheme.prepare(at, length)
        results[name] = [*scheme.rotate(x, x, prepared), scheme.scale_query(x, prepared)]
    for name in ("the least", "the most"):
        close(results[name], results["none"], f"given {name} length of up to {longest} tokens, and none", 0.0)
