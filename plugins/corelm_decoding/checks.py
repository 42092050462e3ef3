"""What every sampler asks of its logits."""

from __future__ import annotations

import torch
from torch import Tensor

from corelm.errors import UserError


def without_nan(logits: Tensor) -> Tensor:
    """The logits themselves.

    Raises:
        UserError: a logit is NaN.
    """
    bad = torch.isnan(logits)
    if bool(bad.any()):
        row, token = (int(i) for i in bad.nonzero()[0])
        raise UserError(
            f"the logit of token {token} in row {row} is NaN",
            remedy="The model's weights or activations overflow: try float32, or an earlier checkpoint.",
            code="logits-nan",
        )
    return logits
