"""Muon: momentum whose directions are made orthogonal."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from corelm.kinds import ComponentConfig, Optimizer, ParameterInfo, Role
from corelm_training.adamw import AdamW, Betas
from corelm_training.moments import copied, distinct
from corelm_training.precision import Precision, resolve

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that Newton–Schulz iterates: steep at 0, so that small singular values rise fast; 1 is not fixed, but
five iterations bring all of [0.002, 1] to [0.68, 1.21]."""
ITERATIONS = 5


def orthogonalise(
    matrix: Float[Tensor, "... rows columns"], dtype: torch.dtype | None = None
) -> Float[Tensor, "... rows columns"]:
    """Bring all singular values near 1 and keep the singular vectors; leading axes are independent matrices.

    Newton–Schulz: ``X ← aX + (bA + cA²)X`` with ``A = XXᵀ``, from ``X = G / ‖G‖``, in ``dtype`` (default: the
    matrix's; the result has the matrix's). A zero matrix stays zero.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix  # the smaller Gram matrix
    tiny = torch.finfo(x.dtype).tiny
    x = x / x.abs().amax((-2, -1), keepdim=True).clamp(min=tiny)  # else squares of 1e-25 are zero in float32
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=tiny)
    x = x.to(dtype or x.dtype).reshape(-1, *x.shape[-2:])
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    x = x.to(matrix.dtype).reshape(*matrix.shape[:-2], *x.shape[-2:])
    return x.mT if tall else x


class Others(ComponentConfig):
    """How the parameters that are no matrices are updated."""

    rate: float = Field(1.0, gt=0, description="Their learning rate, as a multiple of the matrices'.")
    betas: Betas = Field((0.9, 0.95), description="AdamW's decay of the means of the gradient and of its square.")
    eps: float = Field(1e-8, ge=1e-20, description="Added to the root of AdamW's second moment.")


class Muon(Optimizer):
    """Muon for the matrices inside blocks, AdamW for all other parameters.

    For gradient G of a matrix (or each of a stack of them), with momentum μ, learning rate η and decay λ::

        M ← μ M + G            O = orthogonalise(G + μ M)   (or of M, without Nesterov's look-ahead)
        W ← (1 − ηλ) W − η · s · O

    ``scale: rms`` takes s = 0.2 √max(rows, columns), which gives the update the size that AdamW's have, so that both
    can share learning rate and decay (Liu et al., 2025, arXiv:2502.16982); ``spectral`` takes s = √max(1, rows / columns)
    (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon, where the iteration is shown to bear bfloat16). Matrices
    are weights of the role ``matrix``, a stack of them (the experts of a mixture) one by one. Schedule and decay per
    step, ηλ, are the same for all parameters.
    """

    class Config(ComponentConfig):
        """Rates, and who updates the rest."""

        learning_rate: float = Field(1e-3, ge=0, description="Step size of the matrices, scaled by the schedule.")
        momentum: float = Field(0.95, ge=0, lt=1, description="Decay of the sum of gradients.")
        nesterov: bool = Field(True, description="Look one step ahead.")
        weight_decay: float = Field(0.1, ge=0, description="Decoupled decay, multiplied by the learning rate.")
        scale: Literal["rms", "spectral"] = Field("rms", description="How the update's size depends on the shape.")
        decayed: list[Role] = Field(
            ["matrix", "embedding", "head"], description="Roles of the parameters that decay."
        )
        others: Others = Field(Others(), description="How AdamW updates all other parameters.")
        precision: Precision = Field(
            "auto",
            description="Of the iteration that makes directions orthogonal; auto: bf16 where the hardware has it.",
        )

    def __init__(self, config: Config, parameters: list[tuple[str, nn.Parameter, ParameterInfo]]) -> None:
        super().__init__(config, distinct(parameters))
        self.matrices = [entry for entry in parameters if _is_matrix(*entry[1:])]
        others = config.others
        adamw = AdamW.Config(
            learning_rate=config.learning_rate * others.rate,
            weight_decay=config.weight_decay / others.rate,
            betas=others.betas,
            eps=others.eps,
            decayed=config.decayed,
        )
        self.rest = AdamW(adamw, [entry for entry in parameters if not _is_matrix(*entry[1:])])
        self.momenta: dict[str, dict[str, Any]] = {}

    @property
    def learning_rate(self) -> float:
        """The config's learning rate of the matrices."""
        rate: float = self.config.learning_rate
        return rate

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """Update every parameter that has a gradient."""
        config, rate = self.config, self.learning_rate * scale
        for name, weight, _ in self.matrices:
            if weight.grad is None:
                continue
            momentum = self.momenta.setdefault(name, {"momentum": torch.zeros_like(weight)})["momentum"]
            momentum.mul_(config.momentum).add_(weight.grad)
            ahead = weight.grad.add(momentum, alpha=config.momentum) if config.nesterov else momentum
            direction = orthogonalise(ahead, self._dtype(weight))
            if "matrix" in config.decayed:
                weight.mul_(1 - rate * config.weight_decay)
            weight.add_(direction, alpha=-rate * self._size(*weight.shape[-2:]))
        self.rest.step(scale)

    def _dtype(self, weight: Tensor) -> torch.dtype:
        """What directions are computed in; weights of more than float32 keep their own type."""
        if weight.dtype.itemsize > 4:
            return weight.dtype
        return torch.bfloat16 if resolve(self.config.precision, weight.device) == "bf16" else torch.float32

    def _size(self, rows: int, columns: int) -> float:
        if self.config.scale == "rms":
            return 0.2 * float(max(rows, columns)) ** 0.5
        return max(1.0, rows / columns) ** 0.5

    @classmethod
    def state_bytes(cls, config: Any, parameter: Tensor, info: ParameterInfo) -> int:
        """The momentum of a matrix, AdamW's moments of the rest."""
        if _is_matrix(parameter, info):
            return parameter.nbytes
        return AdamW.state_bytes(config, parameter, info)

    def state_dict(self) -> dict[str, Any]:
        """Momentum by parameter name, and the state of the others."""
        momenta = {name: dict(state) for name, state in self.momenta.items()}
        return {"momenta": momenta, "others": self.rest.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave, copied."""
        self.momenta = copied(state["momenta"], self.matrices)
        self.rest.load_state_dict(state["others"])


def _is_matrix(parameter: Tensor, info: ParameterInfo) -> bool:
    """Whether Muon updates it: a linear map inside a block, or a stack of such maps."""
    return info.role == "matrix" and parameter.ndim - info.stacked == 2
