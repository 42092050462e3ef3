"""Kind ``mask``: which tokens a token may look at, as a description and not as a tensor."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from corelm.kinds.component import Component


@dataclass(frozen=True)
class MaskFacts:
    """What a forward knows of its tokens, by absolute index; None where it makes no difference.

    Attributes:
        documents: document of each token, ``(batch, total)``.
        valid: False at padding, ``(batch, total)``.
        positions: real tokens before each one in its document, ``(batch, total)``; None where that is its index.
        total: number of tokens so far, padding included; None where it is not known.
    """

    documents: Int[Tensor, "batch total"] | None = None
    valid: Bool[Tensor, "batch total"] | None = None
    positions: Int[Tensor, "batch total"] | None = None
    total: int | None = None


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
    memo: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    addends: list[tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor | None]] = field(default_factory=list)

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
        """The mask as a tensor over these absolute indices.

        Kept for other layers of the same forward, which ask with the very same tensors of indices.
        """
        # Known by identity: to look at their values would wait for the device, and break compiled graphs.
        for asked, told, kept in self.memo:
            if asked is query and told is key:
                return kept
        allowed = torch.ones(1, len(query), len(key), dtype=torch.bool, device=query.device)
        for rule in self.rules:
            allowed = allowed & rule.allows(query, key, self.facts)
        if self.facts.valid is not None:
            allowed = allowed & self.facts.valid[:, None, key]
        self.memo.append((query, key, allowed[:, None]))
        return self.memo[-1][2]

    def addend(
        self,
        query: Int[Tensor, " time"],
        key: Int[Tensor, " keys"],
        dtype: torch.dtype,
        bias: Float[Tensor, "rows heads time keys"] | None = None,
    ) -> tuple[Float[Tensor, "rows heads time keys"], Bool[Tensor, "rows 1 time 1"] | None]:
        """What is added to scores: the bias, and −∞ where the mask forbids; and which queries may look at nothing.

        A softmax over nothing is 0/0: such queries may look at everything here, and their result is to be wiped. None:
        there are none of them. Kept for other layers like ``dense``.
        """
        for asked, told, added, kept, wiped in self.addends:
            if asked is query and told is key and added is bias and kept.dtype == dtype:
                return kept, wiped
        mask = self.dense(query, key)
        none = ~mask.any(-1, keepdim=True)
        # A look at the values would wait for other devices, and break compiled graphs.
        look = query.device.type == "cpu" and not torch.compiler.is_compiling()
        blind = None if look and not none.any() else none
        mask = mask if blind is None else mask | none
        allowed = torch.zeros((), dtype=dtype, device=mask.device) if bias is None else bias.to(dtype)
        made = torch.where(mask, allowed, -torch.inf)
        if bias is None or not bias.requires_grad:
            self.addends.append((query, key, bias, made, blind))
        return made, blind
