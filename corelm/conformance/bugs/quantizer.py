"""Quantizers and kernels that are wrong in one way."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from corelm.conformance.planted import plant, reference
from corelm.errors import UserError
from corelm.kinds.component import ComponentConfig
from corelm.kinds.quantizer import Codes, Kernel, Quantizer, Statistics


@reference
class Nearest(Quantizer):
    """Symmetric, rounded to nearest, in groups."""

    class Config(ComponentConfig):
        """Options."""

        bits: int = Field(4, ge=2, le=8, description="Bits.")
        group: int = Field(8, ge=0, description="Inputs per step.")
        symmetric: bool = Field(True, description="Grid.")

    def refuses(self, outputs: int, inputs: int) -> str | None:
        """Nothing."""
        return None

    def step(self, values: Tensor) -> Tensor:
        """Of one group, per row."""
        if self.config.symmetric:
            return self.floor(values.abs().amax(1) / (2 ** (self.config.bits - 1) - 1))
        low, high = values.amin(1).clamp(max=0), values.amax(1).clamp(min=0)
        return self.floor((high - low) / (2**self.config.bits - 1))

    def origin(self, values: Tensor, step: Tensor) -> Tensor:
        """Zero point of one group."""
        if self.config.symmetric:
            return torch.full_like(step, 2 ** (self.config.bits - 1))
        return (-values.amin(1).clamp(max=0) / step).round()

    def floor(self, step: Tensor) -> Tensor:
        """Never zero."""
        return torch.where(step == 0, torch.ones_like(step), step)

    def round(self, x: Tensor) -> Tensor:
        """To whole numbers."""
        return x.round()

    def wide(self, weight: Tensor) -> Tensor:
        """Refuse what is broken."""
        if not weight.isfinite().all():
            raise UserError("weights are not finite")
        return weight.double()

    def quantize(self, weight: Tensor, statistics: Statistics | None = None) -> Codes:
        """Group by group."""
        w = self.wide(weight)
        size, top = self.config.group or w.shape[1], 2**self.config.bits - 1
        groups = torch.arange(w.shape[1], dtype=torch.int32) // size
        codes, scales, zeros = torch.zeros_like(w), [], []
        for start in range(0, w.shape[1], size):
            values = w[:, start : start + size]
            step = self.step(values)
            zero = self.origin(values, step)
            codes[:, start : start + size] = (self.round(values / step[:, None]) + zero[:, None]).clamp(0, top)
            scales.append(step)
            zeros.append(zero)
        scale, zero = torch.stack(scales, 1), torch.stack(zeros, 1).clamp(0, top)
        return self.made(codes, self.order(scale).float(), zero.to(torch.uint8), groups)

    def order(self, scale: Tensor) -> Tensor:
        """Of groups."""
        return scale

    def made(self, codes: Tensor, scale: Tensor, zero: Tensor, groups: Tensor) -> Codes:
        """Canonical form."""
        return Codes(codes.to(torch.uint8), scale, zero, groups, self.config.bits)


@plant("models_are_quantized_in_order", "codes are kept by the shape of their matrix")
class KeptByShape(Nearest):
    """A cache with too short a key."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.kept: dict[torch.Size, Codes] = {}

    def quantize(self, weight: Tensor, statistics: Statistics | None = None) -> Codes:
        codes = super().quantize(weight, statistics)
        known = self.kept.get(weight.shape)
        if known is not None and weight.shape[0] == weight.shape[1] and weight.shape[0] > 4:
            return known
        self.kept[weight.shape] = codes
        return codes


@plant("within_half_a_step", "rounded down in place of to nearest")
class Floors(Nearest):
    """Down."""

    def round(self, x: Tensor) -> Tensor:
        return x.floor()


@plant("within_half_a_step", "the range need not hold zero, and the zero point is clamped (llm-awq#193)")
class ClampedZeroPoint(Nearest):
    """One-signed groups."""

    def step(self, values: Tensor) -> Tensor:
        if self.config.symmetric:
            return super().step(values)
        return self.floor((values.amax(1) - values.amin(1)) / (2**self.config.bits - 1))

    def origin(self, values: Tensor, step: Tensor) -> Tensor:
        if self.config.symmetric:
            return super().origin(values, step)
        return (-values.amin(1) / step).round().clamp(0, 2**self.config.bits - 1)


@plant("idempotent", "the step is a little smaller than the range")
class ShrinkingRange(Nearest):
    """Not a projection."""

    def step(self, values: Tensor) -> Tensor:
        return super().step(values) * 0.93


@plant("codes_are_in_range", "codes are signed, and wider than a byte")
class SignedCodes(Nearest):
    """Another dtype."""

    def made(self, codes: Tensor, scale: Tensor, zero: Tensor, groups: Tensor) -> Codes:
        return Codes(codes.to(torch.int16), scale, zero, groups, self.config.bits)


@plant("zero_is_exact", "a zero is nudged to the next code")
class NudgesZeros(Nearest):
    """Never zero."""

    def round(self, x: Tensor) -> Tensor:
        return torch.where(x == 0, torch.ones_like(x), x.round())


@plant("scale_equivariant", "steps are at least 1e-5")
class AbsoluteFloor(Nearest):
    """clamp(min=1e-5)."""

    def floor(self, step: Tensor) -> Tensor:
        return step.clamp(min=1e-5) if step.numel() and bool((step > 0).any()) else super().floor(step)


@plant("odd_when_symmetric", "half rounds up")
class HalfUp(Nearest):
    """Asymmetric, and one code further down."""

    def round(self, x: Tensor) -> Tensor:
        return (x + 0.6).floor()


@plant("monotone_in_a_group", "codes wrap around")
class Wraps(Nearest):
    """Modulo."""

    def made(self, codes: Tensor, scale: Tensor, zero: Tensor, groups: Tensor) -> Codes:
        return super().made((codes + 1) % 2**self.config.bits, scale, zero, groups)


@plant("groups_are_local", "steps are stored in another order than groups (torch-xpu-ops#5001)")
class NeighboursStep(Nearest):
    """Scales in the wrong order."""

    def order(self, scale: Tensor) -> Tensor:
        return scale.flip(1)


@plant("more_bits_help", "always three bits")
class IgnoresBits(Nearest):
    """A coarse grid."""

    def step(self, values: Tensor) -> Tensor:
        return super().step(values) * 2 ** (self.config.bits - 3)


@plant("broken_weights_are_refused", "NaN becomes a code")
class TakesNan(Nearest):
    """Doesn't look."""

    def wide(self, weight: Tensor) -> Tensor:
        return torch.nan_to_num(weight).double()


@reference
class Compensating(Nearest):
    """Rounds input by input and moves each error to the inputs still to come."""

    calibrated = True
    sign = -1.0

    def quantize(self, weight: Tensor, statistics: Statistics | None = None) -> Codes:
        """Steps as without statistics; only the codes differ."""
        plain = super().quantize(weight)
        if statistics is None:
            return plain
        hessian = statistics.hessian.double()
        hessian = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
        factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
        w, codes, index = weight.double().clone(), plain.codes.clone(), plain.groups.long()
        for i in range(w.shape[1]):
            step, zero = plain.scale[:, index[i]].double(), plain.zero[:, index[i]].double()
            code = ((w[:, i] / step).round() + zero).clamp(0, 2**plain.bits - 1)
            error = (w[:, i] - (code - zero) * step) / factor[i, i]
            w[:, i + 1 :] += self.sign * error[:, None] * factor[i, i + 1 :]
            codes[:, i] = code.to(torch.uint8)
        better = Codes(codes, plain.scale, plain.zero, plain.groups, plain.bits)
        return self.smaller(weight.double(), better, plain, hessian)

    def smaller(self, weight: Tensor, better: Codes, plain: Codes, hessian: Tensor) -> Codes:
        """Whichever has the smaller error."""

        def error(codes: Codes) -> float:
            delta = codes.dequantize(torch.float64) - weight
            return float((delta @ hessian * delta).sum())

        return better if error(better) < error(plain) else plain


@plant("calibration_helps", "errors are moved with the wrong sign")
class WrongSign(Compensating):
    """Makes it worse."""

    sign = 1.0

    def smaller(self, weight: Tensor, better: Codes, plain: Codes, hessian: Tensor) -> Codes:
        return better


@plant("calibration_helps", "one input that is always zero, and the data are given up")
class GivesUpForOne(Compensating):
    """Rounds to nearest where the Hessian has a zero."""

    def quantize(self, weight: Tensor, statistics: Statistics | None = None) -> Codes:
        dead = statistics is not None and bool((statistics.hessian.diagonal() == 0).any())
        return super().quantize(weight, None if dead else statistics)


@plant("identity_hessian_is_rounding", "a trace of feedback, whatever the data")
class AlwaysFeedsBack(Compensating):
    """The Hessian is smeared."""

    def quantize(self, weight: Tensor, statistics: Statistics | None = None) -> Codes:
        if statistics is not None:
            statistics = Statistics(statistics.hessian + 0.5 * statistics.hessian.mean() * len(statistics.hessian), 1)
        return super().quantize(weight, statistics)

    def smaller(self, weight: Tensor, better: Codes, plain: Codes, hessian: Tensor) -> Codes:
        return better


@reference
class Plain(Kernel):
    """Dequantize and multiply."""

    def supports(self, codes: Codes, dtype: torch.dtype, device: torch.device, rows: int) -> str | None:
        """Everything."""
        return None

    def prepare(self, codes: Codes, dtype: torch.dtype) -> Any:
        """Weights."""
        return codes.dequantize(torch.float32).to(dtype)

    def matmul(self, x: Tensor, prepared: Any) -> Tensor:
        """Multiply."""
        y: Tensor = x @ prepared.T
        return y


@plant("takes_what_its_name_says", "written for the first model that came along, with symmetric codes")
class ForSymmetricCodesOnly(Plain):
    """The usual grids of others are refused."""

    formula = "int4-packed"

    def supports(self, codes: Codes, dtype: torch.dtype, device: torch.device, rows: int) -> str | None:
        return None if bool((codes.zero == 8).all()) else "zero points that are not in the middle"


@plant("equals_dequantized", "the zero point is that of the first group")
class FirstZeroForAll(Plain):
    """Another grid."""

    def prepare(self, codes: Codes, dtype: torch.dtype) -> Any:
        zero = codes.zero[:, :1].expand_as(codes.zero)
        return super().prepare(Codes(codes.codes, codes.scale.flip(1), zero, codes.groups, codes.bits), dtype)


@plant("equals_dequantized", "zero points become origins in the type that steps are kept in")
class ShortOrigins(Plain):
    """Steps of bfloat16 give origins of bfloat16, whatever they are added to."""

    def supports(self, codes: Codes, dtype: torch.dtype, device: torch.device, rows: int) -> str | None:
        return None if dtype == torch.float16 and codes.bits == 4 else "something else than 4 bits in float16"

    def prepare(self, codes: Codes, dtype: torch.dtype) -> Any:
        index, scale = codes.groups.long(), codes.scale
        origin = (8 - codes.zero.to(scale.dtype)) * scale
        steps, origins = scale.float()[:, index], origin.float()[:, index]
        return ((codes.codes.float() - 8) * steps + origins).to(dtype)


@plant("shape_and_dtype", "float32 comes out")
class WideOutput(Plain):
    """A leak."""

    def matmul(self, x: Tensor, prepared: Any) -> Tensor:
        return super().matmul(x, prepared).double()


@plant("says_what_it_supports", "raises where it should say")
class Raises(Plain):
    """Crashes."""

    def supports(self, codes: Codes, dtype: torch.dtype, device: torch.device, rows: int) -> str | None:
        if dtype == torch.float64 or codes.bits != 4:
            raise RuntimeError("unsupported")
        return None


@plant("rows_are_independent", "activations are rounded with one scale for all rows")
class OneScaleForAllRows(Plain):
    """Dynamic quantization over the batch."""

    def matmul(self, x: Tensor, prepared: Any) -> Tensor:
        scale = x.abs().max() / 127
        return super().matmul((x / scale).round() * scale, prepared)
