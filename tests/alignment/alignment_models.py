"""A small language model and a template for the tests of this folder; nothing but torch."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from corelm.kinds import (
    ComponentConfig,
    Conversation,
    Linear,
    Message,
    ParameterInfo,
    Preference,
    Processes,
    Rendered,
    declare,
    last_real,
    token_logprobs,
)

STOP, GAP, USER, ASSISTANT = 0, 1, 2, 3
VOCABULARY = 12


class LetterTokenizer:
    """Ids 4 … 11 are the letters a … h."""

    vocab_size = VOCABULARY
    specials = {"stop": STOP, "gap": GAP, "user": USER, "assistant": ASSISTANT}

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        return [ord(letter) - ord("a") + 4 for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(i - 4 + ord("a")) if i >= 4 else "?" for i in ids)


class LetterTemplate:
    """A token for the role, the letters, the stop token and one more after it, as ChatML has."""

    def render(self, messages: Sequence[Message], tokenizer: Any) -> Rendered:
        ids: list[int] = []
        learn: list[bool] = []
        for message in messages:
            said = [*tokenizer.encode(message.content), STOP]
            ids += [ASSISTANT if message.role == "assistant" else USER, *said, GAP]
            learn += [False, *[message.role == "assistant"] * len(said), False]
        return Rendered(tuple(ids), tuple(learn))

    def prompt(self, messages: Sequence[Message], tokenizer: Any) -> tuple[int, ...]:
        return (*self.render(messages, tokenizer).ids, ASSISTANT)

    def stop(self, tokenizer: Any) -> tuple[int, ...]:
        return (STOP,)


class LinearHead(nn.Module):
    def __init__(self, dim: int, outputs: int, reads: str) -> None:
        super().__init__()
        self.map = Linear(dim, outputs, role="head")
        self.reads, self.outputs = reads, outputs

    def forward(self, hidden: Tensor) -> Tensor:
        return self.map(hidden)


class ScalarSpec:
    """Stands in for the spec of a head in ``with_head``."""


class MeanModel(nn.Module):
    """Each hidden state mixes the token with the mean of all before it; causal, rows independent."""

    context = 24
    vocab_size = VOCABULARY
    dim = 8
    depth = 1

    def __init__(self, seed: int, reads: str = "vocabulary", dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Module()
        declare(self.embedding, "weight", (VOCABULARY, self.dim), ParameterInfo("embedding"))
        self.mix = Linear(2 * self.dim, self.dim)
        self.dropout = nn.Dropout(dropout)
        self.head: Any = LinearHead(self.dim, VOCABULARY if reads == "vocabulary" else 1, reads)
        self.draw(seed)
        self.double()
        self.tokenizer = LetterTokenizer()
        self.template = LetterTemplate()
        self.generated: list[list[int]] = []

    def draw(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(0, 0.7, generator=generator)

    @property
    def module(self) -> nn.Module:
        return self

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def hidden(
        self, ids: Tensor, *, valid: Tensor | None = None, documents=None, state=None, auxiliary=None
    ) -> Tensor:
        real = torch.ones_like(ids, dtype=torch.bool) if valid is None else valid
        vectors = self.embedding.weight[ids] * real[..., None]
        count = real.cumsum(1).clamp(min=1)[..., None]
        mean = vectors.cumsum(1) / count
        return self.dropout(torch.tanh(self.mix(torch.cat([vectors, mean], dim=-1))))

    def logprobs(self, ids: Tensor, targets: Tensor, *, valid: Tensor | None = None, documents=None) -> Tensor:
        return token_logprobs(self.hidden(ids, valid=valid), self.head, targets)

    def scores(self, ids: Tensor, valid: Tensor | None = None) -> Tensor:
        return self.head(self.hidden(ids, valid=valid)[range(len(ids)), last_real(valid, ids)])

    def with_head(self, head: Any, seed: int = 0) -> MeanModel:
        other = MeanModel(seed, "scalar")
        other.embedding, other.mix = self.embedding, self.mix
        return other

    @torch.no_grad()
    def generate_ids(
        self, ids: Tensor, *, valid: Tensor | None = None, max_new_tokens: int, samplers=(), seeds=None, stop=()
    ) -> Tensor:
        assert not self.training
        self.generated.append(list(seeds))
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        real = torch.ones_like(ids, dtype=torch.bool) if valid is None else valid
        ended: list[int | None] = [None] * len(ids)
        start = ids.shape[1]
        for _ in range(max_new_tokens):
            probabilities = self.head(self.hidden(ids, valid=real)[:, -1]).softmax(-1)
            new = [
                torch.multinomial(row, 1, generator=g).item() if end is None else end
                for row, g, end in zip(probabilities, generators, ended, strict=True)
            ]
            ended = [token if token in stop else None for token in new]
            ids = torch.cat([ids, torch.tensor(new)[:, None]], dim=1)
            real = torch.cat([real, torch.ones(len(ids), 1, dtype=torch.bool)], dim=1)
            if all(end is not None for end in ended):
                break
        return ids[:, start:]


class Watcher:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.stopping = False

    def step(self, step: int, total: int, figures: Any) -> None: ...

    def note(self, message: str) -> None:
        self.notes.append(message)


def preferences(*pairs: tuple[str, str, str]) -> list[Preference]:
    return [Preference((Message("user", p),), c, r, f"pair {i}") for i, (p, c, r) in enumerate(pairs)]


def conversations(*prompts: str) -> list[Conversation]:
    return [Conversation((Message("user", p), Message("assistant", "h")), f"prompt {p}") for p in prompts]


def a_job(models: dict[str, Any], records: Any, batch: int = 2, seed: int = 3) -> Any:
    return SimpleNamespace(
        models=models, template=LetterTemplate(), records=records, batch=batch, steps=8, seed=seed, watch=Watcher()
    )


def alone(alignment: Any) -> Any:
    """The alignment, and as its ``stream`` that of a process that is alone."""
    alignment.stream = alignment.streams(Processes())
    return alignment


class NoSampler:
    """Stands in for a spec of a sampler that changes nothing."""

    def build(self) -> None:
        return None


def a_config(part: Any, **options: Any) -> Any:
    """The part's config without its specs, which need parts that are installed."""
    if "sampler" not in part.Config.model_fields:
        return part.Config(**options)
    defaults = {name: field.default for name, field in part.Config.model_fields.items()}
    assert issubclass(part.Config, ComponentConfig)
    return SimpleNamespace(**{**defaults, "sampler": [NoSampler()], "value": ScalarSpec(), **options})
