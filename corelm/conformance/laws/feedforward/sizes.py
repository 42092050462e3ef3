"""The law of how wide feed-forwards are by default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import torch

from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of


def _two_thirds(dim: int) -> int:
    return 64 * len(range(0, 8 * dim, 3 * 64))


WIDTHS: Final[Mapping[str, Callable[[int], int]]] = {
    "mlp": lambda dim: 4 * dim,
    "glu": _two_thirds,
    "swiglu": _two_thirds,
}
"""Hidden features by default: Vaswani et al., 2017, arXiv:1706.03762; Shazeer, 2020, arXiv:2002.05202."""


@property_of(
    "feedforward",
    statement="A part that takes a name of the field has by default the width of that name: 4 · dim, or where a gate brings "
    "a third matrix 8/3 · dim up to a multiple of 64.",
    formula="mlp: 4d; glu, swiglu: ⌈8d / (3 · 64)⌉ · 64",
    catches="a gated unit with half as many parameters more than the one it replaces; a width that is rounded down",
    tier="bit",
    examples=12,
)
def width_of_its_name(part: PartUnderTest, draw: Draw) -> None:
    """Settle, build, look at the shapes of the maps."""
    name = getattr(part.cls, "formula", part.name)
    if name not in WIDTHS or "width" not in part.cls.Config.model_fields:
        raise NotApplicable("its name promises no width")
    subject = part.bench.subject(part, draw, width=None)
    dim = draw.choice("dim", [16, 64, 500, 1024, 4096])
    context, width = replace(subject.context, dim=dim), WIDTHS[name](dim)
    settled = part.cls.settled(subject.config, context)
    assert settled.width == width, f"for dim {dim} it settles on a width of {settled.width}, its name means {width}"
    with torch.device("meta"):
        built = part.cls(subject.config, context)
    sizes = {tuple(sorted(p.shape)) for p in built.parameters() if p.dim() == 2}
    assert sizes == {tuple(sorted((dim, width)))}, (
        f"for dim {dim} maps are {sorted(sizes)}, their width means {width}"
    )
