"""What other parts see of an assembled language model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from corelm.kinds.component import Spec
from corelm.kinds.embedding import Embedding
from corelm.kinds.head import Head
from corelm.kinds.records import Message
from corelm.kinds.sampler import Sampler
from corelm.kinds.template import Template
from corelm.kinds.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import nn


@runtime_checkable
class State(Protocol):
    """What a model keeps of the sequences so far: one slot list per layer, length tracked once."""

    length: int

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        """Keep, repeat or reorder rows."""
        ...

    def truncate(self, length: int) -> None:
        """Forget all tokens from ``length`` on.

        Raises:
            UserError: a slot has a fixed-size state, which can't go back; take a snapshot instead.
        """
        ...

    def reset(self) -> None:
        """Forget everything."""
        ...

    def snapshot(self) -> State:
        """An independent copy."""
        ...


@dataclass(frozen=True)
class Request:
    """A context and a continuation whose likelihood is asked for, as text."""

    context: str
    continuation: str


@dataclass(frozen=True)
class Likelihood:
    """Answer to a ``Request``.

    Attributes:
        logprob: sum over the continuation's tokens, natural logarithm.
        greedy: whether every token of the continuation was the most likely one.
        tokens: number of tokens in the continuation.
    """

    logprob: float
    greedy: bool
    tokens: int


class Scorer(Protocol):
    """The four methods through which evaluators see a model."""

    def tokenize(self, text: str) -> list[int]:
        """Text to ids, without special tokens."""
        ...

    def loglikelihood(self, requests: Sequence[Request]) -> list[Likelihood]:
        """Log-probability of each continuation after its context."""
        ...

    def rolling_loglikelihood(self, texts: Sequence[str]) -> list[Likelihood]:
        """Log-probability of each whole text, every token given as many tokens before it as fit."""
        ...

    def generate_until(self, prompts: Sequence[str], stops: Sequence[str], *, max_new_tokens: int) -> list[str]:
        """Greedy continuation of each prompt, up to and without the first stop string."""
        ...


class LanguageModel(Scorer, Protocol):
    """An assembled model with its tokenizer; also a ``torch.nn.Module``.

    ``hidden`` runs the stack; the head is applied by whoever needs it, at the tokens where it is needed.
    """

    head: Head
    embedding: Embedding
    context: int
    vocab_size: int
    dim: int
    depth: int
    recurrent: bool
    """Whether some layer's state has a fixed size and can't be truncated."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            UserError: the model came without one.
        """
        ...

    @property
    def template(self) -> Template | None:
        """The template of the conversations it was tuned on."""
        ...

    @property
    def section(self) -> dict[str, Any]:
        """The resolved ``model`` section that it was assembled from, as plain data."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        ...

    @property
    def module(self) -> nn.Module:
        """The model itself, as the ``torch.nn.Module`` that it is."""
        ...

    def hidden(
        self,
        ids: Int[Tensor, "batch time"],
        *,
        valid: Bool[Tensor, "batch time"] | None = None,
        documents: Int[Tensor, "batch time"] | None = None,
        state: State | None = None,
        auxiliary: dict[str, list[Tensor]] | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        """Final hidden states (after the final norm). ``valid`` is False at padding.

        With a ``state`` the call continues its sequences and the state grows. ``auxiliary`` collects the losses
        that parts report.
        """
        ...

    def logits(
        self,
        ids: Int[Tensor, "batch time"],
        attention_mask: Int[Tensor, "batch time"] | Bool[Tensor, "batch time"] | None = None,
        cached: bool = False,
    ) -> Float[Tensor, "batch time vocab"]:
        """Logits of every position; ``cached`` computes the same token by token through the state."""
        ...

    def logprobs(
        self,
        ids: Int[Tensor, "batch time"],
        targets: Int[Tensor, "batch time"],
        *,
        valid: Bool[Tensor, "batch time"] | None = None,
        documents: Int[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time"]:
        """``token_logprobs`` of the hidden states."""
        ...

    def scores(
        self, ids: Int[Tensor, "batch time"], valid: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch outputs"]:
        """The head's outputs at each row's last real token: a reward, or class logits."""
        ...

    def new_state(self, batch: int, capacity: int | None = None, storage: str = "growing") -> State:
        """An empty state for this many rows; ``storage`` is ``growing`` or ``static`` (needs ``capacity``)."""
        ...

    def generate_ids(
        self,
        ids: Int[Tensor, "batch time"],
        *,
        valid: Bool[Tensor, "batch time"] | None = None,
        max_new_tokens: int,
        samplers: Sequence[Sampler] = (),
        seeds: Sequence[int] | None = None,
        stop: Sequence[int] = (),
    ) -> Int[Tensor, "batch new"]:
        """Continue every (left-padded) row; columns after a row's stop token hold the stop token.

        One random generator per row, seeded by ``seeds``: batch mates never change a row's choices given the
        same logits. No samplers: greedy.
        """
        ...

    @overload
    def generate(
        self,
        prompt: str,
        max_new_tokens: int = ...,
        sampler: Any = ...,
        *,
        seed: int = ...,
        stream: Literal[False] = ...,
    ) -> str: ...

    @overload
    def generate(
        self,
        prompt: str,
        max_new_tokens: int = ...,
        sampler: Any = ...,
        *,
        seed: int = ...,
        stream: Literal[True],
    ) -> Iterator[str]: ...

    def generate(
        self,
        prompt: str,
        max_new_tokens: int = 64,
        sampler: Any = None,
        *,
        seed: int = 0,
        stream: bool = False,
    ) -> Any:
        """Continue a text; ``sampler`` is a list of samplers or specs (None: greedy)."""
        ...

    def answer(
        self,
        messages: Sequence[Message],
        max_new_tokens: int = 64,
        sampler: Sequence[Sampler] = (),
        *,
        seed: int = 0,
    ) -> str:
        """Answer a conversation through the model's template, up to its stop token.

        Raises:
            UserError: the model has no template.
        """
        ...

    def record_transform(self, record: dict[str, Any]) -> None:
        """Remember that modules were replaced (quantized, adapted), so that saving and loading know."""
        ...

    def with_head(self, head: Spec[Head], seed: int = 0) -> LanguageModel:
        """A model that shares this one's body and has a freshly drawn head (reward models, classifiers)."""
        ...
