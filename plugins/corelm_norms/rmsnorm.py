"""Root mean square normalisation."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from corelm_norms.gain import GainedNorm, statistics_dtype


class RMSNorm(GainedNorm):
    """Divides by the root mean square (Zhang & Sennrich, 2019, arXiv:1910.07467).

    ``y = x / √(mean(x²) + eps) · gain``, all in float32 or better and rounded once to the type of ``x``. Published
    code differs in whether the gain comes before or after that rounding; in float32 there is no difference.
    """

    centred: ClassVar[bool] = False

    def forward(self, x: Float[Tensor, "... dim"]) -> Float[Tensor, "... dim"]:
        """Normalise the last axis."""
        wide = x.to(statistics_dtype(x))
        gain = self.gain(wide.dtype)
        # Elsewhere, and when compiled, torch has a fused kernel; on CPUs its backward pass is a chain of ten.
        if wide.device.type == "cpu" and not torch.compiler.is_compiling():
            return normalised(wide, gain, self.epsilon).to(x.dtype)
        return F.rms_norm(wide, (self.dim,), gain, self.epsilon).to(x.dtype)


def normalised(
    x: Float[Tensor, "... dim"], gain: Float[Tensor, " dim"] | None, eps: float
) -> Float[Tensor, "... dim"]:
    """``x / √(mean(x²) + eps) · gain`` with a backward pass of few kernels; float32 or float64."""
    x = x.contiguous()
    if not torch.is_grad_enabled():
        return _divided(x, gain, eps)[0]
    y: Tensor = _Normalised.apply(x, gain, eps)  # type: ignore[no-untyped-call]
    return y


def _divided(x: Tensor, gain: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """The result, and the reciprocal root mean square of each token."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    reciprocal = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    y = x * reciprocal
    return y if gain is None else y.mul_(gain), reciprocal


class _Normalised(torch.autograd.Function):
    """With ``r = 1/√(mean(x²) + eps)``, ``x̂ = r x`` and the incoming gradient ``h = gain · ∂y``::

        ∂x = r (h − x̂ · mean(h · x̂))        ∂gain = Σ ∂y · x̂

    Layer normalisation with mean zero and reciprocal deviation r has the same gradients, but for ``− r · mean(h)`` in
    ∂x, since it subtracts the mean. So its one kernel does the work, and the term is added back.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor | None, eps: float) -> Tensor:
        """Normalise; keeps x, gain and one number per token."""
        y, reciprocal = _divided(x, gain, eps)
        ctx.save_for_backward(x, gain, reciprocal)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Gradients of x and gain."""
        x, gain, reciprocal = ctx.saved_tensors
        of_x, of_gain = ctx.needs_input_grad[0], gain is not None and ctx.needs_input_grad[1]
        grad_x, grad_gain, _ = torch.ops.aten.native_layer_norm_backward(
            grad, x, x.shape[-1:], torch.zeros_like(reciprocal), reciprocal, gain, None, [of_x, of_gain, False]
        )
        if of_x:
            through = grad if gain is None else grad * gain
            grad_x.add_(through.mean(-1, keepdim=True).mul_(reciprocal))
        return grad_x if of_x else None, grad_gain if of_gain else None, None
