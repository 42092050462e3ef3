"""Properties of feed-forwards, dense and mixtures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from corelm.conformance import residual
from corelm.conformance.bench import Bench, Subject, close
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.harness import layer_step
from corelm.conformance.laws.feedforward import sizes
from corelm.kinds.feedforward import Router
from corelm.kinds.parameters import declared

MINIMUM = 4
"""So many of these properties must say something about every part of the kind, and hold."""

__all__ = ["residual", "sizes"]


class FeedForwardBench(Bench):
    """Feed-forwards see a step, of which they use little."""

    kind = "feedforward"
    module = True

    def arguments(self, part: PartUnderTest, config: Any, context: Any, draw: Draw) -> tuple[Any, ...]:
        """Built with the layer's context."""
        return (context,)

    def idle(self, subject: Subject) -> set[str]:
        """A router whose one choice has weight one learns from the balancing loss alone."""
        found = _experts(subject.part)
        if found is None or float(found[0](torch.eye(subject.context.dim).double()).weights.detach().std()) > 1e-9:
            return set()
        return {name for name, p in subject.part.named_parameters() if any(p is q for q in found[0].parameters())}

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """Enough tokens that every expert gets some."""
        return {"x": draw.normal(2, 12, subject.context.dim, scale=draw.choice("magnitude", [1.0, 0.1, 10.0]))}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Transform."""
        return self.program(subject, inputs)()

    def program(self, subject: Subject, inputs: dict[str, Any]) -> Callable[[], Any]:
        """With the step made beforehand."""
        x = inputs["x"]
        step = layer_step(x.shape[0], x.shape[1], device=x.device)
        return lambda: subject.part(x, step)

    def reference(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """``reference(x, step)``."""
        return subject.part.reference(inputs["x"], layer_step(*inputs["x"].shape[:2]))

    def observe(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """In training also what is reported to the step."""
        x, step = inputs["x"], layer_step(*inputs["x"].shape[:2])
        found = [self.call(subject, inputs)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found.append(subject.part.train()(x, step))
            subject.part.eval()
        return [*found, step.step.auxiliary]


def _run(part: Any, x: Tensor) -> Tensor:
    y: Tensor = part(x, layer_step(x.shape[0], x.shape[1]))
    return y


def _experts(part: nn.Module) -> tuple[Router, nn.ModuleList] | None:
    """Router and experts of a mixture, found by their types."""
    routers = [m for m in part.modules() if isinstance(m, Router)]
    lists = [m for m in part.children() if isinstance(m, nn.ModuleList)]
    return (routers[0], lists[0]) if routers and lists else None


def _mixture(part: PartUnderTest, draw: Draw, **pins: Any) -> tuple[Any, Router, nn.ModuleList, int]:
    subject = part.bench.subject(part, draw, **pins)
    found = _experts(subject.part)
    if found is None:
        raise NotApplicable("it is no mixture of experts")
    return subject.part, *found, subject.context.dim


@property_of(
    "feedforward",
    statement="Permuting or slicing tokens permutes or slices the output.",
    formula="f(PX) = P f(X) for tokens P",
    catches="tokens that mix, a capacity that depends on order",
)
def positionwise(part: PartUnderTest, draw: Draw) -> None:
    """Shuffle tokens."""
    subject = part.bench.subject(part, draw)
    x, order = draw.normal(2, 6, subject.context.dim, scale=draw.scale()), draw.permutation(6)
    y = _run(subject.part, x)
    close(_run(subject.part, x[:, order]), y[:, order], "permuted tokens")
    close(_run(subject.part, x[1:, 2:5]), y[1:, 2:5], "sliced tokens")


@property_of(
    "feedforward",
    statement="Output t depends on token t, and not in the least on any other.",
    formula="∂y_t/∂x_s = 0 for s ≠ t, ∂y/∂x ≠ 0",
    catches="a tiny leak between tokens",
    tier="bit",
    examples=10,
)
def no_leaks(part: PartUnderTest, draw: Draw) -> None:
    """The Jacobian across tokens is exactly zero; that of some token by itself is not (a unit may sleep)."""
    subject = part.bench.subject(part, draw)
    x = draw.normal(1, 24, subject.context.dim).requires_grad_()
    y = _run(subject.part, x)
    t = draw.integer("t", 0, 23)
    (gradient,) = torch.autograd.grad((y[:, t] * draw.normal(subject.context.dim)).sum(), x, retain_graph=True)
    influence = gradient.abs().sum((0, 2))
    others = [s for s in range(24) if s != t]
    assert (influence[others] == 0).all(), f"output {t} depends on tokens {influence.nonzero().flatten().tolist()}"
    (own,) = torch.autograd.grad((y * draw.normal(subject.context.dim)).sum(), x)
    assert own.abs().sum() > 0, "no output depends on its token"


@property_of(
    "feedforward",
    statement="Without biases zero gives zero.",
    formula="f(0) = 0",
    catches="a stray bias",
    tier="bit",
    examples=10,
)
def zero_gives_zero(part: PartUnderTest, draw: Draw) -> None:
    """Feed nothing."""
    subject = part.bench.subject(part, draw)
    if any(info.role == "bias" for _, _, info in declared(subject.part)):
        raise NotApplicable("it has biases")
    if not _activations_vanish(subject.part):
        raise NotApplicable("its activation is not zero at zero")
    y = _run(subject.part, torch.zeros(1, 2, subject.context.dim, dtype=torch.float64))
    assert torch.equal(y, torch.zeros_like(y)), "zero gives something"


def _activations_vanish(part: nn.Module) -> bool:
    from corelm.kinds.feedforward import Activation

    zero = torch.zeros(1, dtype=torch.float64)
    return all(bool((m(zero) == 0).all()) for m in part.modules() if isinstance(m, Activation))


@property_of(
    "feedforward",
    statement="Every row of every weight receives a gradient within a few batches.",
    formula="∀ rows of every matrix: ∂y/∂W_i ≠ 0, or the whole matrix is idle",
    catches="a dead gate, an expert or a unit that is cut off",
    examples=6,
)
def every_unit_lives(part: PartUnderTest, draw: Draw) -> None:
    """Look at rows rather than at whole tensors."""
    subject = part.bench.subject(part, draw)
    seen: dict[str, Tensor] = {}
    for _ in range(8):
        subject.part.zero_grad()
        y = _run(subject.part, draw.normal(4, 12, subject.context.dim))
        (y * torch.randn(y.shape, generator=draw.generator(), dtype=y.dtype)).sum().backward()
        for name, parameter in subject.part.named_parameters():
            if parameter.grad is not None and parameter.dim() == 2:
                alive = parameter.grad.abs().sum(1) > 0
                seen[name] = seen.get(name, torch.zeros_like(alive)) | alive
    for name, alive in seen.items():
        # Whole experts may stay without tokens under a lopsided router; single dead rows are never right.
        assert not alive.any() or alive.all(), (
            f"rows {(~alive).nonzero().flatten().tolist()} of {name} have no gradient"
        )


@property_of(
    "feedforward",
    statement="In evaluation no auxiliary loss is reported; in training each is a scalar with a gradient.",
    formula="evaluation: no loss; training: finite scalars with gradients",
    catches="a loss that is reported twice, or for tokens that nobody trains on",
    examples=10,
)
def auxiliary_in_training_only(part: PartUnderTest, draw: Draw) -> None:
    """Look into the step."""
    subject = part.bench.subject(part, draw)
    x, step = draw.normal(2, 4, subject.context.dim), layer_step(2, 4)
    subject.part(x, step)
    assert not step.step.auxiliary, f"reported in evaluation: {sorted(step.step.auxiliary)}"
    subject.part.train()
    subject.part(x, step)
    for name, losses in step.step.auxiliary.items():
        assert all(loss.dim() == 0 and loss.isfinite() for loss in losses), f"{name} is not a finite scalar"
        assert any(loss.requires_grad for loss in losses), f"{name} has no gradient"


@property_of(
    "feedforward",
    statement="Padding has no part in auxiliary losses.",
    formula="aux(x ‖ pad) = aux(x)",
    catches="load balance over padding",
    tolerance="Losses are kept in float32 by some routers.",
    examples=10,
)
def padding_has_no_load(part: PartUnderTest, draw: Draw) -> None:
    """Append padding and compare the losses."""
    mixture, _, _, dim = _mixture(part, draw)
    mixture.train()
    x = draw.normal(2, 5, dim)
    short, longer = layer_step(2, 5), layer_step(2, 7, valid=(torch.arange(7) < 5).expand(2, 7))
    mixture(x, short)
    mixture(torch.cat([x, draw.normal(2, 2, dim, scale=10.0)], 1), longer)
    if not short.step.auxiliary:
        raise NotApplicable("it reports no auxiliary loss under this config")
    for name, losses in short.step.auxiliary.items():
        close(longer.step.auxiliary[name], losses, f"{name} with and without padding", 1e-6)


@property_of(
    "feedforward",
    statement="Identical experts with normalised weights compute what one of them does, whatever the router says.",
    formula="f_1 = … = f_E, Σ w = 1 ⇒ y = f_1(x)",
    catches="weights that aren't normalised again after the choice",
    tolerance="Weights are float32 or better by contract.",
    examples=12,
)
def identical_experts(part: PartUnderTest, draw: Draw) -> None:
    """Copy the first expert to all others."""
    mixture, router, experts, dim = _mixture(part, draw, shared=None)
    x = draw.normal(1, 5, dim)
    routing = router(x[0])
    if routing.weigh == "input":
        raise NotApplicable("it weighs what experts are given")
    if float((routing.weights.detach().sum(-1) - 1).abs().max()) > 1e-6:
        promised = getattr(router.config, "normalise", None) and getattr(router.config, "scale", 1.0) == 1.0
        assert not promised, f"the router promises normalised weights, they sum to {routing.weights.sum(-1).tolist()}"
        raise NotApplicable("its weights aren't normalised under this config")
    for expert in list(experts)[1:]:
        expert.load_state_dict(experts[0].state_dict())
    close(_run(mixture, x), _run(experts[0], x), "the mixture and its only expert", 1e-6)


@property_of(
    "feedforward",
    statement="The mixture is the sum of what the chosen experts compute one by one, inputs or outputs weighed.",
    formula="y = Σ w_e f_e(x), or Σ f_e(w_e x)",
    catches="weights paired with the wrong experts, an expert's index off by one, dropped tokens, the wrong side weighed",
    tolerance="Weights may be float32: 10⁻⁸ of the sum.",
    examples=15,
)
def mixture_is_the_weighted_sum(part: PartUnderTest, draw: Draw) -> None:
    """Dense loop."""
    mixture, router, experts, dim = _mixture(part, draw, shared=None)
    x = draw.normal(1, 6, dim)
    routing = router(x[0])
    expected = torch.zeros_like(x[0])
    for token in range(6):
        alone = x[:, token : token + 1]
        for expert, weight in zip(routing.experts[token].tolist(), routing.weights[token].to(x.dtype), strict=True):
            if routing.weigh == "input":
                expected[token] += _run(experts[expert], weight * alone)[0, 0]
            else:
                expected[token] += weight * _run(experts[expert], alone)[0, 0]
    close(_run(mixture, x)[0], expected, "the mixture and the loop over its experts", 1e-8)


@property_of(
    "feedforward",
    statement="What the shared feed-forward gives is added whole, or under a gate the share σ(w · x) of it.",
    formula="y − y without the shared one = f_s(x), or σ(w·x) f_s(x)",
    catches="an average in place of the sum, a gate per feature, a gate that nobody declared",
    examples=12,
)
def shared_is_added(part: PartUnderTest, draw: Draw) -> None:
    """Silence the shared one, and compare."""
    subject = part.bench.subject(part, draw, shared={"use": "mlp", "width": 4, "bias": False})
    mixture, x = subject.part, draw.normal(1, 6, subject.context.dim)
    shared = getattr(mixture, "shared", None)
    if _experts(mixture) is None or shared is None:
        raise NotApplicable("it is no mixture with a shared feed-forward")
    whole, given = _run(mixture, x), _run(shared, x)
    with torch.no_grad():
        for parameter in shared.parameters():
            parameter.zero_()
    added = whole - _run(mixture, x)
    gate = getattr(mixture, "shared_gate", None)
    share = 1.0 if gate is None else torch.sigmoid((x * gate.weight[0]).sum(-1, keepdim=True))
    close(added, share * given, "what the shared one adds and what it gives", 1e-10)


@property_of(
    "feedforward",
    statement="The router receives a gradient from the output.",
    formula="∂y/∂router ≠ 0",
    catches="detached gates",
    examples=8,
)
def router_learns(part: PartUnderTest, draw: Draw) -> None:
    """Weights must carry a gradient unless they are constant."""
    mixture, router, experts, dim = _mixture(part, draw)
    x = draw.normal(1, 6, dim)
    weights = router(x[0]).weights
    if float(weights.detach().std()) < 1e-9 or len(experts) == 1:
        raise NotApplicable("its weights are constant under this config")
    _run(mixture, x).square().sum().backward()
    grads = [p.grad for p in router.parameters()]
    assert any(g is not None and g.abs().sum() > 0 for g in grads), "no gradient reaches the router"


@property_of(
    "feedforward",
    statement="Experts that nobody chose change nothing.",
    formula="e ∉ chosen(x) ⇒ y(x) doesn't depend on f_e",
    catches="a weight of all experts, a sum over those that were left out",
    tier="bit",
    examples=10,
)
def unchosen_experts_are_idle(part: PartUnderTest, draw: Draw) -> None:
    """Change all of those that no token goes to."""
    mixture, router, experts, dim = _mixture(part, draw)
    x = draw.normal(1, 2, dim)
    chosen = set(router(x[0]).experts.flatten().tolist())
    before = _run(mixture, x).detach().clone()
    idle = [expert for number, expert in enumerate(experts) if number not in chosen]
    if not idle:
        raise NotApplicable("two tokens choose all of its experts under this config")
    with torch.no_grad():
        for parameter in (p for expert in idle for p in expert.parameters()):
            parameter.mul_(-3).add_(1)
    assert torch.equal(_run(mixture, x), before), "an expert that nobody chose changes the result"


AUXILIARY: dict[str, Callable[[Any, Any], Tensor]] = {
    "balance": lambda config, routing: (
        config.balance
        * routing.probabilities.shape[1]
        * sum(
            (routing.experts == expert).double().mean() * routing.probabilities[:, expert].mean()
            for expert in range(routing.probabilities.shape[1])
        )
    ),
    "router-z": lambda config, routing: config.z_loss * routing.logits.exp().sum(-1).log().square().mean(),
}
"""What losses of these names are, for a routing of all real tokens."""


@property_of(
    "feedforward",
    statement="An auxiliary loss that takes a name of the field is what that name means.",
    formula="balance: E · Σ f_e P_e, router-z: mean(ln² Σ exp z); each times its weight",
    catches="a sum for a mean, the share of tokens for that of choices, a weight that is applied twice",
    examples=12,
)
def auxiliary_losses_are_those_named(part: PartUnderTest, draw: Draw) -> None:
    """Expert by expert."""
    weights = {name: draw.choice(name, [0.5, 0.0]) for name in ("balance", "z_loss")}
    subject = part.bench.subject(part, draw, shared=None, **weights)
    found = _experts(subject.part)
    if found is None:
        raise NotApplicable("it is no mixture of experts")
    x, step = draw.normal(1, 7, subject.context.dim), layer_step(1, 7)
    routing = found[0](x[0])
    subject.part.train()
    with torch.random.fork_rng(devices=[]):
        subject.part(x, step)
    told = step.step.auxiliary
    for name, option in (("balance", "balance"), ("router-z", "z_loss")):
        weight = getattr(subject.config, option, None)
        if weight is None:
            continue
        assert (weight > 0) == (name in told), f"{option} is {weight}, reported are {sorted(told)}"
        if weight:
            wanted = [AUXILIARY[name](subject.config, routing)]
            close(told[name], wanted, f"the loss {name!r}, and what that is", 1e-9)
