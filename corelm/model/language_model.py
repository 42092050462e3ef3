"""The assembled language model: a stack, a head, and the tokenizer that its ids belong to."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Self, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from corelm.errors import UserError
from corelm.kinds.component import Spec
from corelm.kinds.head import Head
from corelm.kinds.language_model import LanguageModel as LanguageModelProtocol
from corelm.kinds.language_model import Likelihood, Request
from corelm.kinds.logprobs import last_real, token_logprobs
from corelm.kinds.one_row import RowCopies
from corelm.kinds.records import Message
from corelm.kinds.sampler import Sampler
from corelm.kinds.template import Template
from corelm.kinds.tokenizer import END_OF_TEXT, Tokenizer
from corelm.model import generation, scoring
from corelm.model.config import ModelConfig
from corelm.model.initialising import initialise
from corelm.model.modes import evaluating
from corelm.model.stack import Stack
from corelm.model.state import State


class LanguageModel(Stack):
    """See the protocol ``corelm.kinds.language_model.LanguageModel`` for what each method promises.

    Attributes:
        transforms: plain-data records of what was replaced after assembly, in order.
        row_copies: copies of weights for decoding single rows on CPUs, kept from one text to the next until training.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.context, self.vocab_size = self.facts.context, self.facts.vocab_size
        self.dim, self.depth = self.facts.dim, self.facts.depth
        self.head: Head = config.head.build(self.facts, self.embedding)
        self.transforms: list[dict[str, Any]] = []
        self.row_copies = RowCopies()
        self._tokenizer: Tokenizer | None = None
        self._template: Template | None = None

    def train(self, mode: bool = True) -> Self:
        """Set the mode; training lets go of the copies of weights."""
        if mode:
            self.row_copies = RowCopies()
        return super().train(mode)

    def attach(self, tokenizer: Tokenizer | None, template: Template | None = None) -> None:
        """Give the model the tokenizer that its ids belong to, and the template that it was tuned with."""
        if tokenizer is not None and tokenizer.vocab_size > self.vocab_size:
            raise UserError(
                f"the tokenizer has {tokenizer.vocab_size} ids, the model {self.vocab_size}",
                remedy="Leave model.vocab_size out, or raise it.",
                code="vocabulary-larger-than-model",
            )
        self._tokenizer, self._template = tokenizer, template

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""
        if self._tokenizer is None:
            raise UserError(
                "this model came without a tokenizer", remedy="Work with ids, or attach one.", code="no-tokenizer"
            )
        return self._tokenizer

    @property
    def has_tokenizer(self) -> bool:
        """Whether there is a tokenizer."""
        return self._tokenizer is not None

    @property
    def template(self) -> Template | None:
        """The template of the conversations that the model was tuned on."""
        return self._template

    @property
    def section(self) -> dict[str, Any]:
        """The resolved model section, as plain data."""
        return self.config.model_dump(mode="json")

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.embedding.table.device

    @property
    def module(self) -> nn.Module:
        """The model itself."""
        return self

    def hidden(
        self,
        ids: Int[Tensor, "batch time"],
        *,
        valid: Bool[Tensor, "batch time"] | None = None,
        documents: Int[Tensor, "batch time"] | None = None,
        state: Any = None,
        auxiliary: dict[str, list[Tensor]] | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        """Final hidden states."""
        return cast(Tensor, self(ids, valid=valid, documents=documents, state=state, auxiliary=auxiliary))

    def logits(
        self,
        ids: Int[Tensor, "batch time"],
        attention_mask: Int[Tensor, "batch time"] | Bool[Tensor, "batch time"] | None = None,
        cached: bool = False,
    ) -> Float[Tensor, "batch time vocab"]:
        """Logits of every position, in evaluation mode and without gradients."""
        valid = (
            None if attention_mask is None or bool(attention_mask.all()) else attention_mask.to(self.device).bool()
        )
        ids = ids.to(self.device)
        with evaluating(self):
            if not cached:
                return cast(Tensor, self.head(self.hidden(ids, valid=valid)))
            state = self.new_state(len(ids), ids.shape[1])
            columns = [
                self.hidden(ids[:, [t]], valid=None if valid is None else valid[:, [t]], state=state)
                for t in range(ids.shape[1])
            ]
            return cast(Tensor, self.head(torch.cat(columns, dim=1)))

    def logprobs(
        self,
        ids: Int[Tensor, "batch time"],
        targets: Int[Tensor, "batch time"],
        *,
        valid: Bool[Tensor, "batch time"] | None = None,
        documents: Int[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time"]:
        """``token_logprobs`` of the hidden states."""
        return token_logprobs(self.hidden(ids, valid=valid, documents=documents), self.head, targets)

    def scores(
        self, ids: Int[Tensor, "batch time"], valid: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch outputs"]:
        """The head's outputs at each row's last real token."""
        rows = torch.arange(len(ids), device=ids.device)
        return cast(Tensor, self.head(self.hidden(ids, valid=valid)[rows, last_real(valid, ids)]))

    def new_state(self, batch: int, capacity: int | None = None, storage: str = "growing") -> State:
        """An empty state for this many rows; ``storage`` is ``growing`` or ``static``."""
        return State(self.slot_specs, batch, capacity, storage)

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
        """Continue every row."""
        columns = list(generation.steps(self, ids, valid, max_new_tokens, samplers, seeds, stop))
        return torch.stack(columns, dim=1) if columns else ids.new_empty(len(ids), 0)

    def generate(
        self,
        prompt: str,
        max_new_tokens: int = 64,
        sampler: Any = None,
        *,
        seed: int = 0,
        stream: bool = False,
    ) -> Any:
        """Continue a text; stops at the end-of-text token, and where the template ends the assistant's turn."""
        if not isinstance(prompt, str):
            raise TypeError(f"prompt must be a string, not {type(prompt).__name__}")
        ids = self.tokenizer.encode(prompt) or [self.tokenizer.end_of_text]
        pieces = self.pieces(ids, max_new_tokens, sampler, seed)
        return pieces if stream else "".join(pieces)

    def answer(
        self, messages: Sequence[Message], max_new_tokens: int = 64, sampler: Any = None, *, seed: int = 0
    ) -> str:
        """Answer a conversation."""
        if self.template is None:
            raise UserError(
                "this model was not tuned on conversations", remedy="Use generate with a prompt.", code="no-template"
            )
        ids = self.template.prompt(messages, self.tokenizer)
        return "".join(self.pieces(ids, max_new_tokens, sampler, seed)).strip()

    def pieces(self, ids: Sequence[int], max_new_tokens: int, sampler: Any = None, seed: int = 0) -> Iterator[str]:
        """Continue ids and yield text as it comes, whole characters only, up to and without a stop token."""
        samplers = generation.as_samplers(sampler)
        prompt = torch.tensor([list(ids)], device=self.device)
        ends = self.tokenizer.specials.get(END_OF_TEXT)
        stop = [] if ends is None else [ends]
        if self.template is not None:
            stop += self.template.stop(self.tokenizer)

        def tokens() -> Iterator[int]:
            for column in generation.steps(self, prompt, None, max_new_tokens, samplers, [seed], stop):
                if int(column[0]) in stop:
                    return
                yield int(column[0])

        return self.tokenizer.stream(tokens())

    def tokenize(self, text: str) -> list[int]:
        """Text to ids."""
        return self.tokenizer.encode(text)

    def loglikelihood(self, requests: Sequence[Request]) -> list[Likelihood]:
        """Log-probability of each continuation after its context."""
        with evaluating(self):
            return scoring.loglikelihood(self, requests)

    def rolling_loglikelihood(self, texts: Sequence[str]) -> list[Likelihood]:
        """Log-probability of each whole text."""
        with evaluating(self):
            return scoring.rolling(self, texts)

    def generate_until(self, prompts: Sequence[str], stops: Sequence[str], *, max_new_tokens: int) -> list[str]:
        """Greedy continuation of each prompt, up to the first stop string."""
        return [scoring.until(self, prompt, stops, max_new_tokens) for prompt in prompts]

    def record_transform(self, record: dict[str, Any]) -> None:
        """Remember that modules were replaced."""
        self.transforms.append(record)

    def with_head(self, head: Spec[Head], seed: int = 0) -> LanguageModelProtocol:
        """A model that shares this one's body and has a freshly drawn head."""
        other = copy.copy(self)
        other._modules = dict(self._modules)
        other.config = self.config.model_copy(update={"head": head})
        with torch.device(self.device):
            other.head = head.build(self.facts, self.embedding)
        other.head.to(self.embedding.table.dtype)
        initialise(other, seed, only="head.")
        other.head.train(self.training)
        return other
