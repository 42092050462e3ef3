"""What is replaced in an assembled model: quantized and adapted maps, redone when a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corelm.errors import UserError
from corelm.kinds import adapting, quantizing
from corelm.model.stack import Stack


def reapply(model: Stack, record: Mapping[str, Any]) -> None:
    """Replace modules as the record of a saved model says, empty; their tensors are loaded afterwards.

    Raises:
        UserError: the record is of a kind that this version doesn't know.
    """
    if "quantizer" in record:
        quantizing.rebuild(model, record)
    elif "adapter" in record:
        adapting.rebuild(model, record)
    else:
        raise UserError(f"the model was changed in a way that is not known here: {', '.join(record)}")
