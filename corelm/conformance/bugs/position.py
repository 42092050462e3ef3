"""Position schemes that are wrong in one way."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from corelm.conformance.planted import plant, reference
from corelm.errors import UserError
from corelm.kinds.component import ComponentConfig
from corelm.kinds.parameters import ParameterInfo, declare
from corelm.kinds.position import Position, PositionGeometry


@reference
class Rotary(Position):
    """Turns feature j against feature j + d/2."""

    hooks = frozenset({"rotation"})

    class Config(ComponentConfig):
        """Options."""

        theta: float = Field(10_000.0, gt=1, description="Base of the ladder.")

    def ladder(self) -> Tensor:
        """Angle per position and pair."""
        size = self.geometry.head_dim
        return self.config.theta ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)

    def count(self, positions: Tensor) -> Tensor:
        """Positions as numbers."""
        return positions.double()

    def prepare(self, positions: Tensor, lengths: Tensor | None = None) -> Any:
        """Angles."""
        return self.count(positions)[:, None, :, None] * self.ladder().to(positions.device)

    def turn(self, x: Tensor, angle: Tensor) -> Tensor:
        """Rotate pairs."""
        a, b = x.double().chunk(2, -1)
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1).to(x.dtype)

    def rotate(self, q: Tensor, k: Tensor, prepared: Any) -> tuple[Tensor, Tensor]:
        """Queries and keys alike."""
        return self.turn(q, prepared), self.turn(k, prepared)


@reference
class Distance(Position):
    """Lowers scores by the distance times a slope per head."""

    hooks = frozenset({"score"})

    def __init__(self, config: Any, geometry: PositionGeometry) -> None:
        super().__init__(config, geometry)
        self.slopes = self.ladder(geometry.heads)

    def ladder(self, heads: int) -> list[float]:
        """A slope per head."""
        power = 2 ** (heads.bit_length() - 1)
        own, finer = ([2 ** (-8 * h / n) for h in range(1, n + 1)] for n in (power, 2 * power))
        return own + finer[::2][: heads - power]

    def apart(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Distances."""
        return queries[:, None, :, None] - keys[:, None, None, :]

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor | None:
        """Bias."""
        slopes = torch.tensor(self.slopes, dtype=torch.float32, device=queries.device)
        return -slopes[:, None, None] * self.apart(queries, keys)


@reference
class Table(Position):
    """Adds a learned vector."""

    formula = "learned"
    hooks = frozenset({"embedding"})
    one_graph = False

    def __init__(self, config: Any, geometry: PositionGeometry) -> None:
        super().__init__(config, geometry)
        self.limit = geometry.context
        self.table = declare(self, "table", (geometry.context, geometry.dim), ParameterInfo("embedding"))

    def row(self, positions: Tensor) -> Tensor:
        """Which row."""
        if positions.numel() and int(positions.max()) >= self.table.shape[0]:
            raise UserError("beyond the table")
        return positions

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        """Look up and add."""
        return x + self.table[self.row(positions)].to(x.dtype)


@reference
class Hotter(Position):
    """Multiplies queries by a number that grows with the position."""

    hooks = frozenset({"query"})

    def prepare(self, positions: Tensor, lengths: Tensor | None = None) -> Any:
        """Factors."""
        return 1 + positions[:, None, :, None].double() / 100

    def scale_query(self, q: Tensor, prepared: Any) -> Tensor:
        """Multiply."""
        return (q * prepared).to(q.dtype)


@reference
class SlowerWhenLong(Rotary):
    """Turns slower in long documents."""

    constant_up_to = 16

    def times(self, lengths: Tensor) -> Tensor:
        """How many times longer than usual."""
        return (lengths / 16).clamp(min=1)

    def prepare(self, positions: Tensor, lengths: Tensor | None = None) -> Any:
        """Angles."""
        angles = super().prepare(positions)
        return angles if lengths is None else angles / self.times(lengths)[:, None, :, None]


@plant("hooks_are_declared", "a hook is overridden but not named")
class UnnamedHook(Rotary):
    """Never called."""

    hooks = frozenset()


@plant("relative", "keys are turned the other way")
class OppositeSigns(Rotary):
    """Wrong way round."""

    def rotate(self, q: Tensor, k: Tensor, prepared: Any) -> tuple[Tensor, Tensor]:
        return self.turn(q, prepared), self.turn(k, -prepared)


@plant("relative", "only queries are turned")
class QueriesOnly(Rotary):
    """Half a rotation."""

    def rotate(self, q: Tensor, k: Tensor, prepared: Any) -> tuple[Tensor, Tensor]:
        return self.turn(q, prepared), k


@plant("isometry", "one half has the wrong sign")
class WrongSign(Rotary):
    """A reflection that isn't one."""

    def turn(self, x: Tensor, angle: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() - a * angle.sin()], -1).to(x.dtype)


@plant("identity_at_zero", "positions count from one, as in some of the first decoders")
class FromOne(Rotary):
    """Off by one."""

    def count(self, positions: Tensor) -> Tensor:
        return positions.double() + 1


@plant("composes", "a quadratic angle")
class Quadratic(Rotary):
    """No rotation group."""

    def count(self, positions: Tensor) -> Tensor:
        return positions.double() ** 2 / 100


@plant("linear", "the turned vector is clamped")
class ClampedTurn(Rotary):
    """Not linear."""

    def turn(self, x: Tensor, angle: Tensor) -> Tensor:
        return super().turn(x, angle).clamp(-2, 2)


@plant("no_memory", "frequencies shrink with the longest sequence seen (transformers#25681)")
class RemembersTheLongest(Rotary):
    """Dynamic scaling by history."""

    longest = 64

    def count(self, positions: Tensor) -> Tensor:
        self.longest = max(self.longest, int(positions.max()) + 1)
        return positions.double() * 64 / self.longest


@plant("frequency_ladder", "the exponent is j/d rather than 2j/d")
class HalfTheExponent(Rotary):
    """A ladder that is too flat."""

    def ladder(self) -> Tensor:
        return super().ladder().sqrt()


@plant("injective", "positions are half-precision integers, which collide above 256")
class HalfPrecisionPositions(Rotary):
    """bfloat16."""

    def count(self, positions: Tensor) -> Tensor:
        return positions.bfloat16().double()


@plant("precise_far_away", "angles in the dtype of the activations (transformers#29285, vllm#863)")
class LowPrecisionAngles(Rotary):
    """transformers#29285."""

    def turn(self, x: Tensor, angle: Tensor) -> Tensor:
        return super().turn(x, angle.to(x.dtype).double())


@plant("rows_have_their_own", "the first row's positions are used for all")
class FirstRowForAll(Rotary):
    """Broadcast."""

    def count(self, positions: Tensor) -> Tensor:
        return positions[:1].double().expand(positions.shape)


@plant("bias_is_relative", "distances are counted from the first key's position")
class NotToeplitz(Distance):
    """Absolute."""

    def apart(self, queries: Tensor, keys: Tensor) -> Tensor:
        return super().apart(queries, keys) * (1 + 0.001 * queries[:, None, :, None])


@plant("nearer_is_stronger", "the sign: far keys are preferred")
class FartherIsStronger(Distance):
    """The other way."""

    def apart(self, queries: Tensor, keys: Tensor) -> Tensor:
        return -super().apart(queries, keys)


@plant("bias_of_one_query", "a single query is taken to be the last key's neighbour")
class DecodesFromZero(Distance):
    """Position by count."""

    def apart(self, queries: Tensor, keys: Tensor) -> Tensor:
        return super().apart(queries if queries.shape[1] > 1 else queries * 0, keys)


@plant("slopes_as_declared", "slopes begin at one")
class FromPowerZero(Distance):
    """h from zero."""

    def __init__(self, config: Any, geometry: PositionGeometry) -> None:
        super().__init__(config, geometry)
        self.slopes = [2 ** (-8 * h / geometry.heads) for h in range(geometry.heads)]


@plant("slopes_as_declared", "six heads get a ladder of their own, where the paper mixes those of four and of eight")
class SmoothLadder(Distance):
    """2^(−8h/H) for every H."""

    def ladder(self, heads: int) -> list[float]:
        return [2 ** (-8 * h / heads) for h in range(1, heads + 1)]


@plant("activations_keep_their_type", "the table is added as it is")
class LiftsActivations(Table):
    """bfloat16 + float32 = float32."""

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        return x + self.table[self.row(positions)]


@plant("formula_of_its_name", "what belongs to a position is subtracted")
class SubtractsPositions(Table):
    """x − T[p]."""

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        return 2 * x - super().embed(x, positions)


@plant("tokens_stay_told_apart", "the position replaces the token")
class Replaces(Table):
    """Forgets what came in."""

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        return super().embed(torch.zeros_like(x), positions)


@plant("bias_is_relative", "says that it rounds by position, and doesn't")
class RoundsNothing(Distance):
    """A flag that isn't true."""

    relative = False


@plant("views_apply_every_scheme", "a bias for the first row only, where rows differ")
class BiasOfTheFirstRow(Distance):
    """Broadcasts over the batch."""

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor | None:
        bias = super().scores(queries, keys)
        return None if bias is None or len(queries) > 1 else bias


@plant("limit_is_kept", "positions beyond the table wrap around")
class Wraps(Table):
    """Modulo."""

    def row(self, positions: Tensor) -> Tensor:
        return positions % self.table.shape[0]


@plant("length_as_declared", "frequencies change before the declared length")
class ChangesEarly(SlowerWhenLong):
    """Half as long."""

    def times(self, lengths: Tensor) -> Tensor:
        return (lengths / 8).clamp(min=1)


@plant("query_is_scaled_by_position", "the position is added, not multiplied with")
class Shifted(Hotter):
    """A shift."""

    def scale_query(self, q: Tensor, prepared: Any) -> Tensor:
        return (q + prepared).to(q.dtype)
