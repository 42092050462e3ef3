"""Kinds ``optimizer`` and ``schedule``: the update rule by parameter role, the learning rate over steps."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from corelm.kinds.component import Component
from corelm.kinds.parameters import ParameterInfo


class Optimizer(Component):
    """Updates parameters from their gradients.

    Built as ``Part(config, parameters: list[tuple[name, parameter, ParameterInfo]])``, in the order given, so
    that state is kept by *name*.

    Contract:
        * ``step(scale)`` updates every parameter that has a gradient with learning rate ``scale`` × the
          config's; a parameter whose gradient is None stays bit-identical, state included.
        * Decoupled weight decay acts on the roles that the part declares, by default ``matrix``,
          ``embedding`` and ``head``.
        * ``state_dict`` is tensors and plain data by parameter name; loading copies, it never aliases.
        * Parameters are updated in place. An option ``kernel``, where there is one, names ways to compute the same.
    """

    kind: ClassVar[str] = "optimizer"

    def __init__(self, config: Any, parameters: list[tuple[str, nn.Parameter, ParameterInfo]]) -> None:
        self.config = config
        self.parameters = parameters

    @abstractmethod
    def step(self, scale: float) -> None:
        """Update all parameters once."""

    @property
    @abstractmethod
    def learning_rate(self) -> float:
        """The config's learning rate, which the schedule scales."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Moments and counters by parameter name."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""

    @classmethod
    def state_bytes(cls, config: Any, parameter: Tensor, info: ParameterInfo) -> int | None:
        """Bytes of the tensors that it keeps for a parameter once that was stepped; None where it doesn't say."""
        return None

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for _, parameter, _ in self.parameters:
            parameter.grad = None


class Schedule(Component):
    """The learning rate over optimizer steps, as a factor.

    Built as ``Part(config)``.

    Contract:
        * ``factor(step, total)`` is a pure function into [0, 1] for all ``step ≥ 0``, ``total ≥ 1``; step
          ``total`` and beyond give the final value.
        * ``extends`` says whether training to ``total`` and then on to a larger total follows the very path of
          the larger total from the start, up to ``stable_until(total)``.
    """

    kind: ClassVar[str] = "schedule"

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def factor(self, step: int, total: int) -> float:
        """What the learning rate is multiplied by at this step (from 0)."""

    def stable_until(self, total: int) -> int:
        """Up to which step the factor does not depend on ``total``; 0 where it always does."""
        return 0
