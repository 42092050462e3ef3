"""Properties of blocks: wiring, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject, close, initialise
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.harness import AddTo, PlainNorm, TokenwiseAttention, TokenwiseFeedForward, layer_step
from corelm.kinds.block import BlockParts
from corelm.kinds.component import ComponentConfig
from corelm.kinds.norm import Norm

MINIMUM = 4
"""So many of these properties must say something about every part of the kind, and hold."""


def _parts(layer: Any, *, attention: bool = True, feedforward: bool = True) -> BlockParts:
    plain = ComponentConfig()
    return BlockParts(
        attention=TokenwiseAttention(plain, layer) if attention else None,
        feedforward=TokenwiseFeedForward(plain, layer) if feedforward else None,
        norm=lambda dim: PlainNorm(plain, dim),
        connection=AddTo(plain, layer),
    )


class BlockBench(Bench):
    """Branches that mix nothing, so that any mixing is the block's own."""

    kind = "block"
    module = True

    def arguments(self, part: PartUnderTest, config: Any, context: Any, draw: Draw) -> tuple[Any, ...]:
        """Built with the layer's context; the parts are made when it is built."""
        return (context,)

    def make(self, part: PartUnderTest, config: Any, arguments: tuple[Any, ...]) -> Any:
        """Build it around fresh parts."""
        (layer,) = arguments
        return part.cls(config, layer, _parts(layer))

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """One stream."""
        return {"x": draw.normal(2, 4, subject.context.dim)}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Run."""
        return self.program(subject, inputs)()

    def program(self, subject: Subject, inputs: dict[str, Any]) -> Callable[[], Any]:
        """With the step made beforehand."""
        x = inputs["x"]
        step = layer_step(x.shape[0], x.shape[1], device=x.device)
        return lambda: subject.part(x, step)


def _run(block: Any, x: Tensor, step: Any = None) -> Tensor:
    y: Tensor = block(x, step or layer_step(x.shape[0], x.shape[1]))
    return y


@property_of(
    "block",
    statement="Where every branch returns zero, the block is the identity (unless its layout normalises the stream).",
    formula="f = g = 0 ⇒ block(x) = x",
    catches="a norm on the residual path, a stream that is scaled or added twice",
    examples=30,
)
def identity_at_zero_branches(part: PartUnderTest, draw: Draw) -> None:
    """Silence the branches."""
    subject = part.bench.subject(part, draw, alpha=1.0, carry="stream")
    if getattr(subject.config, "layout", None) == "post":
        raise NotApplicable("post-norm normalises the stream by definition")
    x = draw.normal(2, 3, subject.context.dim, scale=draw.scale())
    with torch.no_grad():
        for branch in (subject.part.attention, subject.part.feedforward):
            branch.map.weight.zero_()
    close(_run(subject.part, x), x, "the block with silent branches and its input", 1e-12)


@property_of(
    "block",
    statement="A block mixes no tokens itself.",
    formula="∂y_t/∂x_s = 0 for s ≠ t where branches don't mix",
    catches="a norm over time, a shift",
    tier="bit",
    examples=12,
)
def mixes_nothing_itself(part: PartUnderTest, draw: Draw) -> None:
    """With branches that don't mix, neither does the block."""
    subject = part.bench.subject(part, draw)
    x = draw.normal(1, 4, subject.context.dim).requires_grad_()
    t = draw.integer("t", 0, 3)
    (gradient,) = torch.autograd.grad(_run(subject.part, x)[:, t].sum() * 3.7, x)
    others = gradient.abs().sum((0, 2))[[s for s in range(4) if s != t]]
    assert (others == 0).all(), f"output {t} depends on other tokens"


@property_of(
    "block",
    statement="Each branch runs once per call and is given the step that the block was given.",
    formula="calls after − calls before = 1",
    catches="a branch that is forgotten or run twice, a step that is lost on the way",
    tier="bit",
    examples=12,
)
def runs_each_branch_once(part: PartUnderTest, draw: Draw) -> None:
    """Count."""
    subject = part.bench.subject(part, draw)
    step = layer_step(2, 3)
    branches = {"attention": subject.part.attention, "feedforward": subject.part.feedforward}
    before = {name: branch.calls for name, branch in branches.items()}
    _run(subject.part, draw.normal(2, 3, subject.context.dim), step)
    for name, branch in branches.items():
        assert branch.calls == before[name] + 1, f"{name} ran {branch.calls - before[name]} times"
        assert branch.steps[-1] is step, f"{name} was given another step"


@property_of(
    "block",
    statement="A layer may lack its attention or its feed-forward: the rest goes on.",
    formula="block without f, or without g, is defined",
    catches="a block that needs both",
    tier="io",
    examples=10,
)
def branches_may_be_missing(part: PartUnderTest, draw: Draw) -> None:
    """Leave one out."""
    subject = part.bench.subject(part, draw)
    lacking = draw.choice("lacking", ["attention", "feedforward"])
    block = part.cls(subject.config, subject.context, _parts(subject.context, **{lacking: False})).double().eval()
    torch.nn.init.normal_(
        next(m for n, m in block.named_parameters() if n.endswith("map.weight")), generator=draw.generator()
    )
    y = _run(block, draw.normal(2, 3, subject.context.dim))
    assert y.shape == (2, 3, subject.context.dim) and y.isfinite().all(), f"without {lacking}: {tuple(y.shape)}"


@property_of(
    "block",
    statement="Both branches matter, and in evaluation nothing is dropped.",
    formula="f ≠ f′ ⇒ block_f(x) ≠ block_f′(x)",
    catches="a branch whose result is thrown away",
    tolerance="10⁻⁹ is far above rounding in float64.",
    examples=10,
)
def both_branches_matter(part: PartUnderTest, draw: Draw) -> None:
    """Change one branch at a time."""
    subject = part.bench.subject(part, draw, beta=1.0)
    x = draw.normal(2, 3, subject.context.dim)
    before = _run(subject.part, x).detach().clone()
    for name in ("attention", "feedforward"):
        branch = getattr(subject.part, name)
        kept = branch.map.weight.detach().clone()
        with torch.no_grad():
            branch.map.weight.copy_(kept.flip(0))
        assert float((_run(subject.part, x) - before).detach().abs().max()) > 1e-9, f"{name} has no influence"
        with torch.no_grad():
            branch.map.weight.copy_(kept)


Map = Callable[[Tensor], Tensor]
LAYOUTS: dict[str, Callable[[Tensor, Map, Map, Map, float, float], Tensor]] = {
    "pre": lambda x, f, g, n, a, b: _twice(x, f, g, lambda z, h: a * z + b * h(n(z))),
    "post": lambda x, f, g, n, a, b: _twice(x, f, g, lambda z, h: n(a * z + b * h(z))),
    "branch-post": lambda x, f, g, n, a, b: _twice(x, f, g, lambda z, h: a * z + b * n(h(z))),
    "sandwich": lambda x, f, g, n, a, b: _twice(x, f, g, lambda z, h: a * z + b * n(h(n(z)))),
    "parallel": lambda x, f, g, n, a, b: a * x + b * (f(n(x)) + g(n(x))),
    "parallel-norms": lambda x, f, g, n, a, b: a * x + b * (f(n(x)) + g(n(x))),
}
"""What layouts of these names make of a stream: attention f, feed-forward g, norm n, factors a and b."""


def _twice(x: Tensor, f: Map, g: Map, update: Callable[[Tensor, Map], Tensor]) -> Tensor:
    """Attention first, then the feed-forward."""
    return update(update(x, f), g)


@property_of(
    "block",
    statement="A layout that takes a name of the field is wired as that name means.",
    formula="pre: x + f(n(x)); post: n(x + f(x)); branch-post: x + n(f(x)); sandwich: x + n(f(n(x))); parallel: x + f + g",
    catches="a norm on the wrong side of the sum, branches in another order, a factor on the wrong term",
    tolerance="The same sums in float64.",
    examples=20,
    excuse=lambda part: None if "layout" in part.cls.Config.model_fields else "it has no layouts with names",
)
def layout_of_its_name(part: PartUnderTest, draw: Draw) -> None:
    """Written out, with a norm that has no parameters."""
    subject = part.bench.subject(part, draw, carry="stream")
    config, layer = subject.config, subject.context
    if config.layout not in LAYOUTS:
        raise NotApplicable(f"the kit knows no layout {config.layout!r}")
    parts = _parts(layer)
    parts.norm = _Unweighted
    block: Any = initialise(part.cls(config, layer, parts).double(), draw.seed(), generic=True).eval()
    x, norm = draw.normal(2, 3, layer.dim), _Unweighted(layer.dim)
    maps = (block.attention.map, block.feedforward.map)
    expected = LAYOUTS[config.layout](x, *maps, norm, getattr(config, "alpha", 1.0), getattr(config, "beta", 1.0))
    close(_run(block, x), expected, f"the block and the layout {config.layout}")


class _Unweighted(Norm):
    """Divides by the root mean square, and nothing else."""

    epsilon = 1e-6

    def __init__(self, dim: int) -> None:
        super().__init__(ComponentConfig(), dim)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        return x / (x.square().mean(-1, keepdim=True) + self.epsilon).sqrt()
