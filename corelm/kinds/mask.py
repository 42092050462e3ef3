"""Kind ``mask``: which tokens a token may look at, as a description and not as a tensor."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from corelm.kinds.component import Component


@dataclass(frozen=True)
class MaskFacts:
    """What a forward knows of its tokens, by absolute index; None where it makes no difference.

    Attributes:
        documents: document of each token, ``(batch, total)``.
        valid: False at padding, ``(batch, total)``.
    """

    documents: Int[Tensor, "batch total"] | None = None
    valid: Bool[Tensor, "batch total"] | None = None


class Mask(Component):
    """A rule about (query, key) pairs. A recipe gives one or a list; all of them must allow a pair.

    Built as ``Part(config)``. Stateless.

    Contract:
        * ``allows`` is a pure function of absolute indices and facts, the same for any slice of queries and keys.
        * ``causal`` says that no key after the query is ever allowed. Padding is taken care of by the view.
        * ``window`` says how far back a query can look, itself included; None: any distance. State may forget
          what lies further back.
        * ``trivial(facts)`` says that the rule forbids nothing beyond causality under these facts, so
          that kernels may take their causal fast path.
    Capability needed: ``attention:mask``, unless the mask is trivial for recurrent mixers (``causal``,
    ``documents``: every mixer honours these two).
    """

    kind: ClassVar[str] = "mask"
    causal: bool = False
    window: int | None = None

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def allows(
        self, query: Int[Tensor, " time"], key: Int[Tensor, " keys"], facts: MaskFacts
    ) -> Bool[Tensor, "rows time keys"]:
        """True where the query may look at the key; ``rows`` is the batch size, or 1 when rows are alike."""

    @abstractmethod
    def trivial(self, facts: MaskFacts) -> bool:
        """Whether the rule allows everything that a causal mask allows, under these facts."""


@dataclass
class MaskView:
    """One layer's masks with this forward's facts; derives what the layer's kernel can use.

    Attributes:
        rules: all must allow a pair.
        facts: of this forward.
    """

    rules: list[Mask]
    facts: MaskFacts = field(default_factory=MaskFacts)
    memo: dict[tuple[int, int, int, int], Tensor] = field(default_factory=dict)

    @property
    def causal(self) -> bool:
        """Whether no token sees the future."""
        return any(rule.causal for rule in self.rules)

    @property
    def plain(self) -> bool:
        """Whether the mask is exactly the causal triangle: no padding, documents or windows that bind."""
        return self.causal and self.facts.valid is None and all(rule.trivial(self.facts) for rule in self.rules)

    @property
    def window(self) -> int | None:
        """The tightest window of all rules."""
        return min((rule.window for rule in self.rules if rule.window is not None), default=None)

    def dense(self, query: Int[Tensor, " time"], key: Int[Tensor, " keys"]) -> Bool[Tensor, "rows 1 time keys"]:
        """The mask as a tensor over these absolute indices, kept for other layers of the same forward."""
        memo = (int(query[0]), len(query), int(key[0]), len(key))
        if memo not in self.memo:
            allowed = torch.ones(1, len(query), len(key), dtype=torch.bool, device=query.device)
            for rule in self.rules:
                allowed = allowed & rule.allows(query, key, self.facts)
            if self.facts.valid is not None:
                allowed = allowed & self.facts.valid[:, None, key]
            self.memo[memo] = allowed[:, None]
        return self.memo[memo]
