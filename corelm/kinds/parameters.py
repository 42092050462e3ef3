"""Parameters with roles: what each tensor of a model is for, so that others need not guess from its name.

Weight decay, Muon, adapters, quantizers, initialisation and importers all read the role. A part declares each
parameter once, with ``declare`` (or by using ``Linear``); the canonical name is the path in the module tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from corelm.kinds.one_row import copies_for, linear

Role = Literal["embedding", "matrix", "vector", "norm", "bias", "router", "head"]


@dataclass(frozen=True)
class ParameterInfo:
    """What one parameter is for.

    Attributes:
        role: ``matrix`` is a weight of a linear map inside a block; ``vector`` any other learned tensor
            (decays, sinks, gates); the others are what they say.
        fan_in: inputs summed into one output, 0 where it makes no sense; initialisations scale by it.
        residual: whether its output is added to the residual stream (initialisations may scale by depth).
        stacked: leading axes that count independent maps, e.g. 1 for ``(experts, out, in)``.
        constant: fixed initial value (norm weights 1, biases 0), or one per element of the first axis; None: drawn by
            the ``init`` part.
    """

    role: Role
    fan_in: int = 0
    residual: bool = False
    stacked: int = 0
    constant: float | tuple[float, ...] | None = None


def declare(module: nn.Module, name: str, shape: tuple[int, ...], info: ParameterInfo) -> nn.Parameter:
    """Register an uninitialised parameter on ``module`` under ``name`` and remember what it is for."""
    parameter = nn.Parameter(torch.empty(shape))
    module.register_parameter(name, parameter)
    module.__dict__.setdefault("parameter_infos", {})[name] = info
    if info.constant is not None and parameter.device.type != "meta":
        fill(parameter, info.constant)
    return parameter


def fill(parameter: Tensor, constant: float | tuple[float, ...]) -> None:
    """Give a parameter its fixed initial value, or one to each element of its first axis."""
    with torch.no_grad():
        if isinstance(constant, tuple):
            values = torch.tensor(constant, dtype=torch.float64)
            parameter.copy_(values.view(-1, *[1] * (parameter.dim() - 1)))
        else:
            parameter.fill_(constant)


def declared(module: nn.Module) -> Iterator[tuple[str, nn.Parameter, ParameterInfo]]:
    """Yield (canonical name, parameter, info) of all parameters, each tied tensor once, in module order.

    Raises:
        TypeError: a parameter was created without ``declare``.
    """
    seen: set[int] = set()
    for prefix, child in module.named_modules():
        infos: dict[str, ParameterInfo] = child.__dict__.get("parameter_infos", {})
        for name, parameter in child.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            full = f"{prefix}.{name}" if prefix else name
            if name not in infos:
                raise TypeError(f"{full} of {type(child).__name__} has no declared role; create it with declare()")
            yield full, parameter, infos[name]


class Linear(nn.Module):
    """``y = x Wᵀ + b`` with a declared role; what adapters wrap and quantizers replace.

    Args:
        inputs: size of the last axis of ``x``.
        outputs: size of the last axis of ``y``.
        bias: whether there is a bias.
        residual: whether ``y`` is added to the residual stream.
        role: role of the weight.
    """

    def __init__(
        self, inputs: int, outputs: int, *, bias: bool = False, residual: bool = False, role: Role = "matrix"
    ) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.weight = declare(self, "weight", (outputs, inputs), ParameterInfo(role, inputs, residual))
        self.bias: nn.Parameter | None
        if bias:
            self.bias = declare(self, "bias", (outputs,), ParameterInfo("bias", constant=0.0))
        else:
            self.register_parameter("bias", None)

    def forward(self, x: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
        """Apply the map to the last axis."""
        return linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Sizes, for ``print(model)``."""
        return f"{self.inputs} -> {self.outputs}, bias={self.bias is not None}"


def together(x: Float[Tensor, "... inputs"], *maps: nn.Module) -> tuple[Float[Tensor, "... outputs"], ...]:
    """What several maps make of the same ``x``: each is called on its own, but for single rows that are decoded.

    Those are one product, unless a map was adapted, quantized or hooked.
    """
    if all(type(one) is Linear and not one._forward_hooks and not one._forward_pre_hooks for one in maps):
        copies = copies_for(x, maps[0].weight)  # type: ignore[arg-type]
        if copies is not None:
            return copies.product(x, tuple((one.weight, one.bias) for one in maps))  # type: ignore[misc]
    return tuple(one(x) for one in maps)
