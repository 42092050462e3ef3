"""GPTQ: rounds column by column and lets the columns still to come make up for the error."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from corelm.errors import UserError
from corelm.kinds import Codes, ComponentConfig, Quantizer, Statistics, consecutive
from corelm_quantization.grid import Grid, ScaleType, working
from corelm_quantization.round_to_nearest import nearest


class GPTQ(Quantizer):
    """GPTQ: second-order rounding with error feedback (Frantar et al., 2022, arXiv:2210.17323).

    Minimises ``‖(W − Ŵ) X‖²`` over the calibration inputs X, known through the Hessian ``H = 2 X Xᵀ / n``. Columns
    are rounded one after the other. The error of column i, divided by the diagonal of the upper Cholesky factor
    of ``H⁻¹``, times row i of the factor, is subtracted from the columns still to come.

    Inputs that were always zero get weight zero. Steps are taken from the *updated* weights when their group
    begins, unless ``static_groups``. Where the Hessian can't be factorised damping is raised tenfold, up to
    the mean of the diagonal; where that doesn't help, or where rounding to nearest has the smaller error, the
    result is that of rounding to nearest and its ``note`` says so.
    """

    calibrated = True
    only_speed: ClassVar[frozenset[str]] = frozenset({"block"})

    class Config(ComponentConfig):
        """Options of ``gptq``."""

        bits: int = Field(4, ge=2, le=8, description="Bits of one code.")
        group: int = Field(64, ge=0, description="Inputs that share a step; 0: all inputs of an output channel.")
        symmetric: bool = Field(True, description="Whether the grid is the same on both sides of zero.")
        scale_dtype: ScaleType = Field("float32", description="Type that steps are kept in.")
        act_order: bool = Field(False, description="Round the inputs with the largest activations first.")
        static_groups: bool = Field(False, description="Take the steps from the weights as they were.")
        damp: float = Field(0.01, gt=0, le=1, description="Added to the Hessian's diagonal, in parts of its mean.")
        block: int = Field(128, ge=1, description="Columns whose updates are applied together; only speed.")

    def refuses(self, outputs: int, inputs: int) -> str | None:
        """Every shape will do."""
        return None

    def quantize(self, weight: Float[Tensor, "outputs inputs"], statistics: Statistics | None = None) -> Codes:
        """Choose the codes; without statistics they are those of rounding to nearest."""
        grid = Grid(self.config.bits, self.config.symmetric, self.config.scale_dtype)
        if statistics is None or statistics.tokens == 0:
            return nearest(weight, grid, self.config.group, "rounded to nearest: no calibration data reached it")
        plain = nearest(weight, grid, self.config.group)
        original, hessian = working(weight), self._hessian(statistics, weight)
        order = torch.arange(weight.shape[1], device=weight.device)
        if self.config.act_order:
            order = torch.argsort(hessian.diagonal(), descending=True, stable=True)
        factor, note = _inverse_factor(hessian[order][:, order], self.config.damp)
        if factor is None:
            return replace(plain, note=f"rounded to nearest: {note}")
        live = torch.where(hessian.diagonal() == 0, torch.zeros_like(original), original)
        codes = self._solve(live, factor.to(live.dtype), order, grid)
        if quadratic(original, codes, hessian) > quadratic(original, plain, hessian):
            return replace(plain, note="rounded to nearest: its error on the calibration data was smaller")
        return replace(codes, note=note)

    def reference(self, weight: Float[Tensor, "outputs inputs"], statistics: Statistics | None = None) -> Codes:
        """The definition: what a column leaves is made up for, as well as can be, by all that are still to come.

        The inverse is that of the Hessian over those columns; each that is done is taken out of it (section 3.1).
        """
        config, inputs = self.config, weight.shape[1]
        grid, size = Grid(config.bits, config.symmetric, config.scale_dtype), config.group or inputs
        plain = nearest(weight, grid, config.group)
        if statistics is None:
            return plain
        hessian, w, codes = statistics.hessian.double(), weight.double().clone(), torch.zeros_like(weight)
        diagonal = hessian.diagonal()
        w[:, diagonal == 0] = 0
        inverse = torch.linalg.inv(hessian + torch.diag((diagonal == 0) + config.damp * diagonal.mean()))
        order = sorted(range(inputs), key=lambda i: -float(diagonal[i]) if config.act_order else i)
        groups = torch.empty(inputs, dtype=torch.int32)
        for place, column in enumerate(order):
            groups[column] = (column if config.static_groups else place) // size
        scale, zero = grid.steps(w, groups)
        for place, column in enumerate(order):
            group, rest = int(groups[column]), order[place + 1 :]
            if place % size == 0 and not config.static_groups:
                fresh = grid.steps(
                    w[:, order[place : place + size]], groups.new_zeros(len(order[place : place + size]))
                )
                scale[:, group], zero[:, group] = fresh[0][:, 0], fresh[1][:, 0]
            codes[:, column] = grid.round(w[:, column], scale[:, group], zero[:, group])
            left = w[:, column] - (codes[:, column] - zero[:, group]) * scale[:, group]
            w[:, rest] -= torch.outer(left, inverse[column, rest]) / inverse[column, column]
            inverse = inverse - torch.outer(inverse[:, column], inverse[column]) / inverse[column, column]
        found = grid.finish(codes, scale, zero, groups)
        return plain if quadratic(weight, found, hessian) > quadratic(weight, plain, hessian) else found

    def _hessian(self, statistics: Statistics, weight: Tensor) -> Tensor:
        hessian = statistics.hessian.to(weight.device, torch.float64)
        if hessian.shape != (weight.shape[1], weight.shape[1]):
            raise ValueError(f"Hessian of shape {tuple(hessian.shape)} for {weight.shape[1]} inputs")
        if not torch.isfinite(hessian).all():
            raise UserError(
                "the activations seen in calibration are not finite",
                remedy="Look at the model: its layers yield NaN or infinity on the calibration data.",
                code="activations-not-finite",
            )
        return hessian

    def _solve(self, weight: Tensor, factor: Tensor, order: Tensor, grid: Grid) -> Codes:
        """Round the columns in ``order``; ``factor`` is in that order, ``weight`` and the result are not."""
        inputs = weight.shape[1]
        size, static = self.config.group or inputs, self.config.static_groups
        w = weight[:, order].clone()
        places = consecutive(inputs, size, weight.device)
        groups = places if static else torch.empty_like(places).scatter(0, order, places)
        scale, zero = grid.steps(weight, groups)
        codes = torch.empty_like(w)
        begin = 0
        while begin < inputs:
            # Steps must see every update of the columns before their group, so a block ends where a group does.
            end = min(begin + self.config.block, inputs)
            if not static:
                end = min(end, (begin // size + 1) * size)
                if begin % size == 0:
                    group, columns = begin // size, w[:, begin : begin + size]
                    fresh = grid.steps(columns, torch.zeros(columns.shape[1], dtype=torch.int32, device=w.device))
                    scale[:, group], zero[:, group] = fresh[0][:, 0], fresh[1][:, 0]
            errors = torch.empty_like(w[:, begin:end])
            for column in range(begin, end):
                group = int(groups[order[column]])
                step, origin = scale[:, group], zero[:, group]
                code = grid.round(w[:, column], step, origin)
                error = (w[:, column] - (code - origin) * step) / factor[column, column]
                w[:, column + 1 : end] -= error[:, None] * factor[column, column + 1 : end]
                codes[:, column], errors[:, column - begin] = code, error
            w[:, end:] -= errors @ factor[begin:end, end:]
            begin = end
        canonical = torch.empty_like(codes)
        canonical[:, order] = codes
        return grid.finish(canonical, scale, zero, groups)


def _inverse_factor(hessian: Tensor, damp: float) -> tuple[Tensor | None, str]:
    """Upper Cholesky factor of the inverse of the damped Hessian (None where there is none), and what to tell."""
    diagonal = hessian.diagonal()
    if not (diagonal > 0).any():
        return None, "all its inputs were zero"
    mean, tried = diagonal.mean(), damp
    filled = hessian + torch.diag((diagonal == 0).to(hessian.dtype))
    while True:
        damped = filled + torch.eye(len(filled), dtype=filled.dtype, device=filled.device) * (tried * mean)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            factor, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not failed and torch.isfinite(factor).all():
            return factor, "" if tried == damp else f"damping raised from {damp:g} to {tried:g}"
        if tried >= 1:
            return None, f"the Hessian can't be factorised, even with damping {tried:g}"
        tried = min(tried * 10, 1.0)


def quadratic(
    weight: Float[Tensor, "outputs inputs"], codes: Codes, hessian: Float[Tensor, "inputs inputs"]
) -> float:
    """``Σ (Δw)ᵀ H Δw`` over the output channels: the squared error on the calibration data, up to a factor."""
    error = (codes.dequantize(weight.dtype) - weight).to(hessian.dtype)
    return float(((error @ hessian) * error).sum())
