"""Properties of attention beside others: its own reference, long rows, and a whole model around it."""

from __future__ import annotations

from typing import Any, Final

import torch
from pydantic import ValidationError
from torch import Tensor

from corelm.conformance.bench import close, initialise
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.harness import Past, ScoreBias, causal_rules, layer_step
from corelm.conformance.laws.attention.bench import ready
from corelm.conformance.strategies import Undrawable, draw_options, problems_of
from corelm.conformance.tiny import own
from corelm.errors import UserError
from corelm.kinds.carriers import LayerContext
from corelm.kinds.component import ComponentConfig, Spec
from corelm.kinds.mask import MaskFacts
from corelm.model.assemble import assemble
from corelm.model.config import ModelConfig
from corelm.registration import active

LONG: Final = (577, 129, 65)
"""Around the sizes of blocks and chunks, and so long that other kernels are taken."""


@property_of(
    "attention",
    statement="Among padding and packed documents, turned or not, it computes what its own reference says.",
    formula="attention(x, step) = reference(x, step) at every real token",
    catches="a document's first token that sees the last one's state, padding that decays it, heads of another group",
    tolerance="Both are float64; a recurrence over ten tokens rounds by some tens of 10⁻¹⁶.",
    examples=31,
    excuse=lambda part: None if hasattr(part.cls, "reference") else "it brings no reference",
)
def equals_its_reference_in_company(part: PartUnderTest, draw: Draw) -> None:
    """Rows with documents, with holes, or with both; under some masks documents see each other."""
    attention, dim, schemes = ready(part, draw)
    batch, time = 2, draw.integer("time", 2, 10)
    facts: dict[str, Any] = {"schemes": schemes}
    if draw.choice("documents", [True, False]):
        facts["documents"] = (torch.rand(batch, time, generator=draw.generator()) < 0.3).long().cumsum(1)
        if draw.choice("see each other", [False, True]):
            facts["rules"] = [Past(ComponentConfig())]
    if draw.choice("padding", [False, True]):
        facts["valid"] = torch.rand(batch, time, generator=draw.generator()) < 0.7
    x, real = draw.normal(batch, time, dim), facts.get("valid", torch.ones(batch, time, dtype=torch.bool))
    with torch.no_grad():
        expected = attention.reference(x, layer_step(batch, time, **facts))
        close(
            attention(x, layer_step(batch, time, **facts))[real], expected[real], "the part and its reference", 1e-9
        )


@property_of(
    "attention",
    statement="A row of hundreds of tokens begins as the row of its first tokens alone does, whatever is chosen by length.",
    formula="y(x_0 … x_T)[: t] = y(x_0 … x_t) for T around multiples of 64 and beyond 512",
    catches="the tail of a block or chunk, a kernel for long rows that forgets a sink, a bias or the window",
    tolerance="Two kernels in float64, each with its own order of sums over up to 577 terms.",
    examples=12,
)
def long_rows_begin_as_short_ones(part: PartUnderTest, draw: Draw) -> None:
    """Cut a long row anywhere."""
    attention, dim, schemes = ready(part, draw, sharp=False)
    offers = part.cls.offers(attention.config)
    time = draw.choice("time", LONG)
    cut = draw.choice("cut", [time * 3 // 4, 63, time - 1])
    window = draw.choice("window", [None, 70]) if "mask" in offers else None
    if "scores" in offers and draw.choice("biased", [True, True, False]):
        schemes = [*schemes, ScoreBias(attention.geometry, row=0.3, column=-1.5, at=1)]
    documents = torch.arange(time)[None] // 61 if draw.choice("documents", [False, True]) else None
    x, rules = draw.normal(1, time, dim), causal_rules(window)

    def run(length: int) -> Tensor:
        told = None if documents is None else documents[:, :length]
        step = layer_step(1, length, schemes=schemes, rules=rules, documents=told)
        found: Tensor = attention(x[:, :length], step)
        return found

    with torch.no_grad():
        close(run(time)[:, :cut], run(cut), f"the first {cut} of {time} tokens, and they alone", 1e-9)


def _neighbour(kind: str, draw: Draw, context: LayerContext) -> Spec[Any]:
    """An installed part with drawn options that fits sizes."""
    record = draw.pick(active().parts(kind))
    try:
        options = draw_options(record.load().Config, draw, {"size": (3, 1, 16)}, 1, sparse=True)
        spec = Spec.read(kind, {"use": record.qualified, **options})
    except (Undrawable, ValidationError, UserError):
        draw.reject()
    if list(problems_of(spec.part, spec.config, context)):
        draw.reject()
    return spec


def _fits(attention: Spec[Any], position: Spec[Any], mask: Spec[Any]) -> bool:
    offers = {f"attention:{capability}" for capability in attention.offers()}
    return position.needs() <= offers and ("attention:mask" in offers or mask.build().trivial(MaskFacts()))


@property_of(
    "attention",
    statement="In a model, under any position scheme and mask, packed is separate, cached is full, padding is nothing.",
    formula="model(d₁ d₂) = model(d₁), model(d₂); model(x) in calls = model(x); model(pad x) = model(x)",
    catches="state that two layers share, positions of the row for those of the document, a mask of another layer",
    seen="nanoVLM#204, transformers#25420",
    tolerance="Two layers of float64; calls of other lengths take other kernels.",
    examples=12,
    needs=("cached_equals_full", "packed_equals_separate", "padding_is_invisible"),
)
def works_in_a_model(part: PartUnderTest, draw: Draw) -> None:
    """Two layers, a scheme and a mask among all that are installed."""
    subject = part.bench.subject(part, draw)
    context, time = subject.context, 8
    spec = own("attention", part.cls, **subject.config.model_dump(mode="json", exclude_unset=True, by_alias=True))
    position, mask = _neighbour("position", draw, context), _neighbour("mask", draw, context)
    draw.note("position, mask", (position.dump(), mask.dump()))
    if not _fits(spec, position, mask):
        draw.reject()
    try:
        section = {"dim": context.dim, "layers": 2, "context": 16, "position": position, "attention": spec}
        section |= {"mask": ["causal", "documents", mask], "feedforward": {"use": "mlp", "width": 8}}
        model = assemble(ModelConfig.model_validate(section), 24, dtype=torch.float64)
    except UserError:
        draw.reject()
    if model.constant_up_to is not None and model.constant_up_to < time:
        raise NotApplicable("its positions look at the length of each call")
    initialise(model, draw.seed(), generic=True)
    model.eval()
    ids, cut = draw.ids(2, time, 24), draw.integer("cut", 1, time - 1)
    with torch.no_grad():
        full = model.hidden(ids)
        apart = torch.cat([model.hidden(ids[:, :cut]), model.hidden(ids[:, cut:])], 1)
        documents = (torch.arange(time) >= cut).long().expand(2, -1)
        close(model.hidden(ids, documents=documents), apart, "two documents in a row, and each alone", 1e-9)
        state = model.new_state(2)
        calls = [model.hidden(piece, state=state) for piece in (ids[:, :cut], *ids[:, cut:].split(1, 1))]
        close(torch.cat(calls, 1), full, "in calls and at once", 1e-9)
        padded, valid = torch.cat([ids[:, :3], ids], 1), (torch.arange(time + 3) >= 3).expand(2, -1)
        close(model.hidden(padded, valid=valid)[:, 3:], full, "with padding on the left and without", 1e-9)
