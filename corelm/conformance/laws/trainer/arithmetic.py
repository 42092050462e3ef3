"""Properties of trainers that compile, or calculate in half precision."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Iterator
from unittest import mock

import torch

from corelm.conformance.bench import close, gap, same_bits
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.trainer.bench import IDS, built, job, small
from corelm.conformance.tiny import SEEN, Descent, own, refused, rows, weights


@contextlib.contextmanager
def _without_code() -> Iterator[None]:
    """torch.compile traces and differentiates, but runs torch's own operators; no graphs of other examples."""
    bars = importlib.import_module("tqdm").tqdm if importlib.util.find_spec("tqdm") else mock.Mock()
    torch._dynamo.reset()
    compile_ = functools.partial(torch.compile, backend="aot_eager")
    try:
        with mock.patch.object(bars, "monitor_interval", 0), mock.patch.object(torch, "compile", compile_):
            yield
    finally:
        torch._dynamo.reset()


@property_of(
    "trainer",
    statement="Compiled, it trains to the same parameters.",
    formula="fit(compile) = fit(eager)",
    catches="a count of terms that is burnt into the graph, another mode, a loss that leaves something out",
    tolerance="float64; the compiler may take sums apart and join them otherwise",
    examples=1,
    excuse=lambda part: None if "compile" in part.cls.Config.model_fields else "it doesn't compile",
)
def compiled_step_equals_eager(part: PartUnderTest, draw: Draw) -> None:
    """Two steps of documents of two lengths, traced, but without generated code."""
    seed, documents = draw.seed(), rows((5, 3), draw.generator(), IDS)
    found = []
    for compiled in (False, True):
        trainer, model = built(part, draw, compile=compiled, clip=None), small(seed)
        with _without_code():
            error = refused(lambda trainer=trainer, model=model: trainer.fit(job(model, documents, steps=2)))
        if error is not None:
            raise NotApplicable(f"it can't compile here: {error.message}")
        found.append(weights(model))
    close(found[1], found[0], "parameters after two compiled steps, and after two others", 1e-9)


@property_of(
    "trainer",
    statement="In bfloat16 gradients are near those of float32, while weights keep their type and their small steps.",
    formula="|g₁₆ − g₃₂| ≤ 0.1 |g₃₂|, 0 < |Δp| < ulp₁₆(p)",
    catches="weights in bfloat16, where a small step is no step; a loss that is added up in bfloat16",
    tier="num",
    tolerance="some twenty operations, each rounded to 2⁻⁹ of its result: 4 % together, a tenth to be sure",
    examples=2,
    excuse=lambda part: None if "precision" in part.cls.Config.model_fields else "it has one precision",
)
def half_precision_is_for_products(part: PartUnderTest, draw: Draw) -> None:
    """One step of 10⁻⁶ in each precision."""
    seed, documents = draw.seed(), rows((4, 7, 3), draw.generator(), IDS)
    slow, gradients = own("optimizer", Descent, learning_rate=1e-6), []
    for precision in ("fp32", "bf16"):
        trainer, model = built(part, draw, precision=precision, clip=None), small(seed, dtype=torch.float32)
        before = weights(model)
        trainer.fit(job(model, documents, steps=1, accumulate=3, optimizer=slow))
        gradients.append(dict(SEEN[0]))
        for (name, p), old in zip(model.named_parameters(), before, strict=True):
            assert p.dtype == torch.float32, f"{precision}: {name} became {p.dtype}"
            step = (p.detach() - old).abs().max()
            assert 0 < float(step) < 1e-4, (
                f"{precision}: a step of {float(step):.2g} in {name}, asked for was one of 1e-6"
            )
    exact, rounded = (torch.cat([g.double().flatten() for _, g in sorted(some.items())]) for some in gradients)
    share = float((rounded - exact).norm() / exact.norm())
    assert share < 0.1, f"gradients in bfloat16 are {share:.0%} away from those in float32"


@property_of(
    "trainer",
    statement="Under `precision: auto` it calculates in bfloat16 where the processor multiplies that, else in float32.",
    formula="auto = bf16 on a processor that has it, auto = fp32 on one that hasn't, bf16 ≠ fp32",
    catches="an automatic choice that is always the same, or one that overrules what was asked for",
    tier="bit",
    examples=1,
    excuse=lambda part: None if "precision" in part.cls.Config.model_fields else "it has one precision",
)
def auto_precision_is_the_hardwares(part: PartUnderTest, draw: Draw) -> None:
    """Gradients of one step, on a processor with bfloat16 and on one without, as torch reports them."""
    subject, seed, documents = (
        part.bench.subject(part, draw, clip=None),
        draw.seed(),
        rows((4, 7), draw.generator(), IDS),
    )

    def gradients(precision: str, hardware: bool) -> list[torch.Tensor]:
        options = subject.config.model_dump(mode="json", by_alias=True) | {"precision": precision}
        trainer = part.cls(part.cls.Config.model_validate(options))
        with mock.patch.object(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": hardware}):
            trainer.fit(job(small(seed, dtype=torch.float32), documents, steps=1, accumulate=2))
        return [gradient for _, gradient in sorted(SEEN[0].items())]

    low, single = gradients("bf16", False), gradients("fp32", True)
    assert not same_bits(low, single), "in bfloat16 and in float32 gradients are the same"
    assert same_bits(gradients("auto", True), low), "auto isn't bf16 where the processor has that"
    assert same_bits(gradients("auto", False), single), "auto isn't fp32 where the processor has no bfloat16"


@property_of(
    "trainer",
    statement="Each micro-batch of a step has chances of its own: its dropout doesn't drop what another's drops.",
    formula="g(b, b) ≠ g(b) under dropout, though the mean loss of b and b is that of b",
    catches="one seed for all micro-batches, so that every row of a step loses the same features",
    tolerance="10⁻⁶ is far above rounding in float64; half of all features are dropped.",
    examples=2,
)
def chances_are_not_repeated(part: PartUnderTest, draw: Draw) -> None:
    """The same micro-batch once and twice in a step."""
    trainer, seed = built(part, draw, clip=None), draw.seed()
    documents, found = rows((9,), draw.generator(), IDS), []
    for count in (1, 2):
        model = small(seed, block={"use": "residual", "dropout": 0.5})
        trainer.fit(job(model, documents, steps=1, accumulate=count))
        found.append([gradient for _, gradient in sorted(SEEN[0].items())])
    assert gap(found[0], found[1]) > 1e-6, "the same features were dropped in both micro-batches of a step"
