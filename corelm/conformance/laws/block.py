"""Properties of blocks: wiring, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject, close, initialise
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.harness import AddTo, PlainNorm, TokenwiseAttention, TokenwiseFeedForward, layer_step
from corelm.kinds.block import BlockParts, Connection
from corelm.kinds.component import ComponentConfig
from corelm.kinds.norm import Norm

MINIMUM = 4
"""So many of these properties must say something about every part of the kind, and hold."""

Map = Callable[[Tensor], Tensor]


def _parts(
    layer: Any,
    *,
    attention: bool = True,
    feedforward: bool = True,
    norm: Callable[[int], Norm] = lambda dim: PlainNorm(ComponentConfig(), dim),
    connection: type[Connection] = AddTo,
) -> BlockParts:
    plain = ComponentConfig()
    return BlockParts(
        attention=TokenwiseAttention(plain, layer) if attention else None,
        feedforward=TokenwiseFeedForward(plain, layer) if feedforward else None,
        norm=norm,
        connection=connection(plain, layer),
    )


class _TwoStreams(AddTo):
    """Two streams side by side, of which branches see the sum."""

    def enter(self, embedding: Tensor) -> Tensor:
        """Twice."""
        return torch.cat((embedding, embedding), -1)

    def read(self, streams: Tensor) -> Tensor:
        """The sum."""
        return sum(streams.chunk(2, -1), torch.zeros(()))

    def write(self, streams: Tensor, y: Tensor, *, keep: Tensor | None = None) -> Tensor:
        """To the first of them."""
        return (streams if keep is None else self.enter(keep)) + torch.cat((y, 0 * y), -1)

    def exit(self, streams: Tensor) -> Tensor:
        """The sum."""
        return self.read(streams)


class BlockBench(Bench):
    """Branches that mix nothing, so that any mixing is the block's own."""

    kind = "block"
    module = True
    hints = {"alpha": (1.0, 0.5, -1.0, 2.0), "beta": (1.0, 0.5, -1.0)}

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
    statement="Where every branch returns zero, the block is the identity (unless its layout normalises the stream), on "
    "however many streams the connection carries.",
    formula="f = g = 0 ⇒ block(s) = s",
    catches="a norm on the residual path, a stream that is scaled or added twice, streams that one of them replaces",
    examples=30,
)
def identity_at_zero_branches(part: PartUnderTest, draw: Draw) -> None:
    """Silence the branches; on one stream, and on two."""
    subject = part.bench.subject(part, draw, alpha=1.0, carry="stream")
    config, layer = subject.config, subject.context
    if getattr(config, "layout", None) == "post":
        raise NotApplicable("post-norm normalises the stream by definition")
    for connection, width in ((AddTo, layer.dim), (_TwoStreams, 2 * layer.dim)):
        block: Any = part.cls(config, layer, _parts(layer, connection=connection))
        initialise(block.double(), draw.seed(), generic=True).eval()
        streams = draw.normal(2, 3, width, scale=draw.scale())
        with torch.no_grad():
            for branch in (block.attention, block.feedforward):
                branch.map.weight.zero_()
        close(_run(block, streams), streams, "the block with silent branches and its input", 1e-12)


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
    statement="A layer may lack its attention, its feed-forward or both: the rest goes on, and nothing is nothing.",
    formula="block without f, or without g, is defined; without both it is the identity",
    catches="a block that needs both",
    tier="io",
    examples=10,
)
def branches_may_be_missing(part: PartUnderTest, draw: Draw) -> None:
    """Leave one out, then the other, then both."""
    subject = part.bench.subject(part, draw)
    x = draw.normal(2, 3, subject.context.dim)
    for lacking in (["attention"], ["feedforward"], ["attention", "feedforward"]):
        has = {name: name not in lacking for name in ("attention", "feedforward")}
        parts = _parts(subject.context, attention=has["attention"], feedforward=has["feedforward"])
        block: Any = initialise(
            part.cls(subject.config, subject.context, parts).double(), draw.seed(), generic=True
        ).eval()
        y = _run(block, x)
        assert y.shape == x.shape and y.isfinite().all(), f"without {' and '.join(lacking)}: {tuple(y.shape)}"
    assert torch.equal(y, x), "without both branches it changes the stream"


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


@dataclass(frozen=True)
class Wiring:
    """Where a layout has its norms: before a sub-layer, one per branch before or after it, after the sum."""

    before: bool = False
    own: bool = False
    after: bool = False
    last: bool = False
    side_by_side: bool = False


LAYOUTS: Final[Mapping[str, Wiring]] = {
    "pre": Wiring(before=True),
    "post": Wiring(last=True),
    "branch-post": Wiring(after=True),
    "sandwich": Wiring(before=True, after=True),
    "parallel": Wiring(before=True, side_by_side=True),
    "parallel-norms": Wiring(own=True, side_by_side=True),
}
"""What layouts of these names mean."""


def wired(x: Tensor, layout: Wiring, branches: Sequence[Map], norm: Map, config: Any) -> Tensor:
    """What a block of this layout makes of a stream: attention first, then the feed-forward, or both at once."""
    normed = getattr(config, "carry", "stream") == "normed"
    for together in [branches] if layout.side_by_side else [[branch] for branch in branches]:
        h = norm(x) if layout.before or normed else x
        given = [branch(norm(h) if layout.own else h) for branch in together]
        added = torch.stack([norm(y) if layout.after else y for y in given]).sum(0)
        x = getattr(config, "alpha", 1.0) * (h if normed else x) + getattr(config, "beta", 1.0) * added
        x = norm(x) if layout.last else x
    return x


def _layouts(part: PartUnderTest) -> list[str]:
    info = part.cls.Config.model_fields.get("layout")
    return [name for name in LAYOUTS if info and name in get_args(info.annotation)]


@property_of(
    "block",
    statement="A layout that takes a name of the field is wired as that name means, whatever is carried on.",
    formula="pre: x + f(n(x)); post: n(x + f(x)); branch-post: x + n(f(x)); sandwich: x + n(f(n(x))); parallel: "
    "x + f(n(x)) + g(n(x)); αx + βf with factors; carry normed: n(x) for x",
    catches="a norm on the wrong side of the sum, branches in another order, a factor on the wrong term",
    tolerance="The same sums in float64.",
    examples=37,
    excuse=lambda part: None if _layouts(part) else "it has no layouts with names",
)
def layout_of_its_name(part: PartUnderTest, draw: Draw) -> None:
    """Each of them written out, with a norm that has no parameters."""
    subject = part.bench.subject(part, draw)
    layer, norm = subject.context, _Unweighted(subject.context.dim)
    x = draw.normal(2, 3, layer.dim)
    for layout in _layouts(part):
        config = subject.config.model_copy(update={"layout": layout})
        block: Any = part.cls(config, layer, _parts(layer, norm=_Unweighted))
        initialise(block.double(), draw.seed(), generic=True).eval()
        expected = wired(x, LAYOUTS[layout], (block.attention.map, block.feedforward.map), norm, config)
        close(_run(block, x), expected, f"the block and the layout {layout}")


class _Unweighted(Norm):
    """Divides by the root mean square, and nothing else."""

    epsilon = 1e-6

    def __init__(self, dim: int) -> None:
        super().__init__(ComponentConfig(), dim)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        return x / (x.square().mean(-1, keepdim=True) + self.epsilon).sqrt()
