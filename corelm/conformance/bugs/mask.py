"""Masks that are wrong in one way."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from corelm.conformance.planted import plant, reference
from corelm.kinds.component import ComponentConfig
from corelm.kinds.mask import Mask, MaskFacts


@reference
class Band(Mask):
    """The last few tokens of the same document."""

    causal = True

    class Config(ComponentConfig):
        """Options."""

        size: int = Field(3, gt=0, description="How many.")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.window = config.size

    def allows(self, query: Tensor, key: Tensor, facts: MaskFacts) -> Tensor:
        """Near, and of the same document."""
        distance = query[:, None] - key
        near = self.near(distance)[None]
        if facts.documents is None:
            return near
        return near & (facts.documents[:, query, None] == facts.documents[:, None, key])

    def near(self, distance: Tensor) -> Tensor:
        """Inside the band."""
        return (distance >= 0) & (distance < self.config.size)

    def trivial(self, facts: MaskFacts) -> bool:
        """In short rows of one document."""
        return facts.documents is None and facts.total is not None and facts.total <= self.config.size


@plant("slices_agree", "the triangle is drawn from the shape")
class FromTheShape(Band):
    """Ignores absolute indices."""

    def allows(self, query: Tensor, key: Tensor, facts: MaskFacts) -> Tensor:
        return super().allows(torch.arange(len(query)), torch.arange(len(key)), MaskFacts())


@plant("answers_in_booleans", "zeros and minus infinities")
class Additive(Band):
    """A float mask."""

    def allows(self, query: Tensor, key: Tensor, facts: MaskFacts) -> Tensor:
        return torch.zeros(()).masked_fill(~super().allows(query, key, facts), -torch.inf)


@plant("causal_as_declared", "a flag that isn't true")
class NotCausal(Band):
    """Looks ahead by one."""

    def near(self, distance: Tensor) -> Tensor:
        return (distance >= -1) & (distance < self.config.size)


@plant("window_as_declared", "the window is one wider than declared")
class WiderThanDeclared(Band):
    """Off by one."""

    def near(self, distance: Tensor) -> Tensor:
        return (distance >= 0) & (distance <= self.config.size)


@plant("trivial_is_true", "says trivial without documents, although the window binds")
class TrivialWithoutDocuments(Band):
    """A wrong fast path."""

    def trivial(self, facts: MaskFacts) -> bool:
        return facts.documents is None


@plant("trivial_where_it_can_be", "never says that it is trivial")
class NeverTrivial(Band):
    """Always the slow path."""

    def trivial(self, facts: MaskFacts) -> bool:
        return False


@plant("trivial_where_it_can_be", "takes rows of unknown length to be short")
class TakesThemToBeShort(Band):
    """Nobody said how long."""

    def trivial(self, facts: MaskFacts) -> bool:
        return facts.documents is None and (facts.total or 0) <= self.config.size


@plant("views_join_their_rules", "answers for the whole square, whoever is asked about")
class WholeSquare(Band):
    """Broadcasts where it shouldn't: another shape than the question's."""

    def allows(self, query: Tensor, key: Tensor, facts: MaskFacts) -> Tensor:
        return super().allows(key, key, facts)


@plant("sees_itself", "strictly causal: a token doesn't see itself")
class Strict(Band):
    """Without the diagonal."""

    def near(self, distance: Tensor) -> Tensor:
        return (distance > 0) & (distance < self.config.size + 1)


@plant("the_future_changes_nothing", "only tokens near the end of the document are seen")
class CountsFromTheEnd(Band):
    """Depends on what comes later."""

    def allows(self, query: Tensor, key: Tensor, facts: MaskFacts) -> Tensor:
        allowed = super().allows(query, key, facts)
        if facts.documents is None:
            return allowed
        last = facts.documents[:, -1:, None] == facts.documents[:, None, key]
        return allowed & (last | (query[:, None] == key))


@plant("documents_stand_alone", "chunks are counted from the beginning of the row")
class ChunksOfTheRow(Band):
    """Which documents before it decide."""

    def allows(self, query: Tensor, key: Tensor, facts: MaskFacts) -> Tensor:
        same = query[:, None] // self.config.size == key // self.config.size
        return super().allows(query, key, facts) & same
