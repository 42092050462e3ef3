"""LoRA: low-rank additions to frozen linear maps."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from corelm.errors import UserError
from corelm.kinds import AdaptedLinear, Adapter, ComponentConfig, Linear, ParameterInfo, declare


class LoRA(Adapter):
    """Low-rank adaptation: ``y = W x + b + s · B A dropout(x)`` with W and b frozen.

    A is ``(rank, inputs)`` and drawn uniformly from ±1/√inputs, B is ``(outputs, rank)`` and starts at zero, so that
    nothing changes at first. s = alpha / rank, or alpha / √rank with ``stabilised``, which keeps the size of the update
    the same for every rank. Hu et al., 2021, arXiv:2106.09685; Kalajdzievski, 2023, arXiv:2312.03732 (rsLoRA).
    """

    class Config(ComponentConfig):
        """Size of the addition."""

        rank: int = Field(8, ge=1, description="Inner size of the addition.")
        alpha: float = Field(16.0, gt=0, description="Strength of the addition, before it is divided by the rank.")
        dropout: float = Field(0.0, ge=0, lt=1, description="Share of the addition's inputs dropped while training.")
        stabilised: bool = Field(False, description="Divide by the rank's root instead of the rank (rsLoRA).")

    def wrap(self, linear: Linear, name: str, generator: torch.Generator) -> LoRALinear:
        """Wrap one map; A is drawn from ``generator``."""
        return LoRALinear(linear, self.config, generator)

    def reference(self, wrapped: LoRALinear, x: Float[Tensor, "tokens inputs"]) -> Float[Tensor, "tokens outputs"]:
        """The definition, one unit of the addition at a time, without dropout."""
        y, rank = wrapped.base(x), self.config.rank
        for a, b in zip(wrapped.down, wrapped.up.T, strict=True):
            strength = self.config.alpha / (math.sqrt(rank) if self.config.stabilised else rank)
            y = y + strength * torch.outer(x @ a, b)
        return y


class LoRALinear(AdaptedLinear):
    """A frozen linear map with a low-rank addition."""

    def __init__(self, linear: Linear, config: LoRA.Config, generator: torch.Generator) -> None:
        super().__init__()
        self.base: Linear = linear.requires_grad_(False)
        self.inputs, self.outputs = linear.inputs, linear.outputs
        self.scale = config.alpha / (math.sqrt(config.rank) if config.stabilised else config.rank)
        self.dropout = config.dropout
        weight = linear.weight
        with weight.device:
            self.down = declare(self, "down", (config.rank, self.inputs), ParameterInfo("matrix", self.inputs))
            self.up = declare(
                self, "up", (self.outputs, config.rank), ParameterInfo("matrix", config.rank, constant=0.0)
            )
        for added in (self.down, self.up):
            added.data = added.data.to(weight.dtype)
        if weight.device.type != "meta":
            bound = 1 / math.sqrt(self.inputs)
            drawn = torch.rand(self.down.shape, generator=generator) * 2 * bound - bound
            with torch.no_grad():
                self.down.copy_(drawn)

    def forward(self, x: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
        """Apply the map and the addition."""
        small = F.linear(F.dropout(x, self.dropout, self.training), self.down)
        return self.base(x) + F.linear(small, self.up) * self.scale

    @torch.no_grad()
    def merged(self) -> Linear:
        """One linear map with the weight ``W + s · B A``.

        Raises:
            UserError: the map that was wrapped has been quantized since.
        """
        base: nn.Module = self.base.merged() if isinstance(self.base, AdaptedLinear) else self.base
        if not isinstance(base, Linear):
            raise UserError(
                "an addition can't be merged into a map that was quantized after it was adapted",
                remedy="Merge first, then quantize: leave out `merge: false`.",
                code="adapted-map-quantized",
            )
        info = base.__dict__["parameter_infos"]["weight"]
        with base.weight.device:
            merged = Linear(
                self.inputs, self.outputs, bias=base.bias is not None, residual=info.residual, role=info.role
            )
        merged.to(base.weight.dtype).load_state_dict(base.state_dict())
        merged.weight.add_(self.scale * (self.up @ self.down))
        return merged
