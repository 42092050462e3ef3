"""Parts that are wrong in a law that all kinds share: options, precision, devices, references, compiling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from corelm.conformance.bugs.norm import RootMeanSquare
from corelm.conformance.planted import plant, reference
from corelm.kinds.component import Problem
from corelm.kinds.parameters import ParameterInfo, declare


@reference
class InPieces(RootMeanSquare):
    """Divides by the root of the mean square, a few tokens at a time; with a bias, a reference and dropout."""

    only_speed: ClassVar[frozenset[str]] = frozenset({"piece"})

    class Config(RootMeanSquare.Config):
        """Options."""

        piece: int = Field(4, gt=0, description="Tokens at once.")
        bias: bool = Field(False, description="Whether there is a bias.")
        dropout: float = Field(0.0, ge=0, le=0.5, description="Probability of dropping a feature.")

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.shift = declare(self, "shift", (dim,), ParameterInfo("bias", constant=0.0)) if config.bias else None

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """Pieces have a limit."""
        if config.piece > 8:
            yield Problem(
                ("piece",), f"pieces of {config.piece} tokens are too large", "Lower piece.", "large-pieces"
            )

    def pieces(self, x: Tensor) -> tuple[Tensor, ...]:
        """Of the tokens."""
        return x.split(self.config.piece)

    def forward(self, x: Tensor) -> Tensor:
        """Piece by piece."""
        flat = x.reshape(-1, self.dim)
        y = torch.cat([super(InPieces, self).forward(piece) for piece in self.pieces(flat)]).view(x.shape)
        y = torch.nn.functional.dropout(y, self.config.dropout, self.training)
        return y if self.shift is None else y + self.shift

    def reference(self, x: Tensor) -> Tensor:
        """Token by token."""
        rows = [t / (t.square().mean() + self.config.eps).sqrt() * self.weight for t in x.reshape(-1, self.dim)]
        y = torch.stack(rows).view(x.shape)
        return y if self.shift is None else y + self.shift


@plant("every_option_matters", "eps is accepted, and a constant is used (keras-hub#1472)")
class EpsNeverUsed(RootMeanSquare):
    """A constant."""

    @property
    def epsilon(self) -> float:
        return 1e-5


@plant("every_option_matters", "dropout is accepted and never applied")
class NeverDrops(InPieces):
    """Only the option is there."""

    def forward(self, x: Tensor) -> Tensor:
        y = RootMeanSquare.forward(self, x)
        return y if self.shift is None else y + self.shift


@plant("speed_changes_no_result", "statistics are those of a piece")
class StatisticOfThePiece(InPieces):
    """A mean over tokens."""

    def statistic(self, x: Tensor) -> Tensor:
        return x.square().mean()


@plant("refusals_say_why", "the refusal points to an option that has another name")
class PointsElsewhere(InPieces):
    """A path to nothing."""

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        if config.piece > 2:
            yield Problem(
                ("pieces",), f"pieces of {config.piece} tokens are too large", "Lower piece.", "large-pieces"
            )


@plant("follows_float64", "the product with the gain is taken in float16, whatever comes in")
class HalfPrecisionGain(RootMeanSquare):
    """Left over from a GPU."""

    def finish(self, normalised: Tensor, x: Tensor) -> Tensor:
        if x.dtype == torch.float64:
            return super().finish(normalised, x)
        return (normalised.half() * self.weight.half()).to(x.dtype)


@plant("equals_its_reference", "the bias is added before the gain")
class BiasBeforeGain(InPieces):
    """Another order."""

    def forward(self, x: Tensor) -> Tensor:
        y = RootMeanSquare.forward(self, x)
        return y if self.shift is None else y + self.shift * self.weight


@plant("compiled_equals_eager", "what is computed where it is compiled isn't the same")
class OtherWhenCompiled(RootMeanSquare):
    """A fast path that nobody has tried."""

    def statistic(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return x.abs().mean(-1, keepdim=True).square()
        return super().statistic(x)


@plant("takes_an_empty_batch", "the largest value of the batch is looked for")
class LargestOfNothing(RootMeanSquare):
    """max() of no elements."""

    def divide(self, x: Tensor) -> Tensor:
        size = x.detach().abs().max().clamp(min=1.0)
        return super().divide(x) if bool(size.isfinite()) else x


@plant("features_are_alike", "features are normalised in two halves")
class InHalves(RootMeanSquare):
    """A group norm."""

    def statistic(self, x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        squares = [part.square().mean(-1, keepdim=True).expand_as(part) for part in (x[..., :half], x[..., half:])]
        return torch.cat(squares, -1)
