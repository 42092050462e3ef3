"""What optimizers share: parameters listed once, and state that is copied in by parameter name."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from corelm.errors import UserError
from corelm.kinds import ParameterInfo

Parameters = list[tuple[str, nn.Parameter, ParameterInfo]]


def distinct(parameters: Parameters) -> Parameters:
    """The same list, once it is sure that no name and no tensor is in it twice.

    Raises:
        ValueError: one is; it would be updated twice in a step.
    """
    names: set[str] = set()
    tensors: dict[int, str] = {}
    for name, parameter, _ in parameters:
        if name in names:
            raise ValueError(f"parameter {name!r} is listed twice")
        if id(parameter) in tensors:
            raise ValueError(f"parameters {tensors[id(parameter)]!r} and {name!r} are one tensor")
        names.add(name)
        tensors[id(parameter)] = name
    return parameters


def copied(moments: dict[str, dict[str, Any]], parameters: Parameters) -> dict[str, dict[str, Any]]:
    """A copy of saved state, on the parameters' devices and in their dtypes.

    Raises:
        UserError: the state has a parameter that is not there, or one of another shape.
    """
    known = {name: parameter for name, parameter, _ in parameters}
    result: dict[str, dict[str, Any]] = {}
    for name, state in moments.items():
        parameter = known.get(name)
        shapes = {tuple(value.shape) for value in state.values() if isinstance(value, Tensor)}
        if parameter is None or shapes - {tuple(parameter.shape)}:
            raise UserError(
                f"the optimizer's state is of another model: parameter {name!r} is "
                + ("not trained here" if parameter is None else f"{tuple(parameter.shape)} here, {shapes} there"),
                remedy="Redo the stage from its start.",
                code="optimizer-state-mismatch",
            )
        result[name] = {
            key: value.detach().to(parameter.device, parameter.dtype, copy=True)
            if isinstance(value, Tensor)
            else value
            for key, value in state.items()
        }
    return result
