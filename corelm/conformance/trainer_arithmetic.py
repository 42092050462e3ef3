"""Properties of trainers that compile, or calculate in half precision."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Iterator
from unittest import mock

import torch

from corelm.conformance.bench import close
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.tiny import SEEN, Descent, own, refused, rows, weights
from corelm.conformance.trainer_bench import IDS, built, job, small


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
