"""The law of what attention and feed-forwards add to the residual stream."""

from __future__ import annotations

import torch

from corelm.conformance.bench import close
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.kinds.parameters import declared


def residual_maps_come_last(part: PartUnderTest, draw: Draw) -> None:
    """Without biases, before and after these weights are multiplied."""
    subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    with torch.no_grad():
        for _, parameter, info in declared(subject.part):
            if info.role == "bias" and info.constant == 0:
                parameter.zero_()
    y = part.bench.call(subject, inputs)
    with torch.no_grad():
        for _, parameter, info in declared(subject.part):
            if info.residual:
                parameter.mul_(3.0)
    close(part.bench.call(subject, inputs), 3 * y, "the result under the threefold residual maps, and three times it")


for kind in ("attention", "feedforward"):
    property_of(
        kind,
        statement="Maps that say they add to the residual stream come last: three times these give three times the result.",
        formula="f(x; c·W_residual, …) = c·f(x; W_residual, …) without biases",
        catches="an initialisation by depth that never reaches the last map, or reaches the first as well",
        examples=8,
    )(residual_maps_come_last)
