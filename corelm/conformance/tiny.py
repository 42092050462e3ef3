"""A model of a few hundred parameters, and what surrounds a training, for the kinds that need one."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from corelm.conformance.bench import initialise
from corelm.conformance.framework import PartUnderTest
from corelm.errors import UserError
from corelm.kinds.batch import IGNORE, Batch
from corelm.kinds.component import ComponentConfig, Spec
from corelm.kinds.optimizer import Optimizer
from corelm.kinds.parameters import ParameterInfo
from corelm.kinds.template import Template
from corelm.kinds.tokenizer import END_OF_TEXT, Tokenizer
from corelm.model.assemble import assemble
from corelm.model.config import ModelConfig
from corelm.model.language_model import LanguageModel
from corelm.registration import Record

MODEL: dict[str, Any] = {
    "dim": 8,
    "layers": 1,
    "context": 64,
    "position": "rope",
    "attention": {"use": "gqa", "heads": 2},
    "feedforward": {"use": "mlp", "width": 8},
}
VOCAB = 258


def tokenizer() -> Tokenizer:
    """Bytes, end of text, and one more special token."""
    from corelm.conformance.bugs.tokenizer import Pairs

    made = Pairs(Pairs.Config(vocab_size=VOCAB))
    made.train((), (END_OF_TEXT, "<|padding|>"))
    return made


def template() -> Template:
    """Turns between ends of text."""
    from corelm.conformance.bugs.data import Turns

    return Turns(ComponentConfig())


def tiny(seed: int, *, dtype: torch.dtype = torch.float64, vocab: int = VOCAB, head: str = "", **changes: Any) -> Any:
    """A tiny model with drawn parameters, in evaluation mode."""
    section = ModelConfig.model_validate({**MODEL, **changes})
    model: Any = assemble(section, vocab, dtype=dtype)
    initialise(model, seed, generic=True)
    if vocab == VOCAB:
        model.attach(tokenizer(), template())
    if head:
        model = model.with_head(Spec.read("head", head), seed)
        for parameter in model.head.parameters():
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(seed % 2**62))
    return model.to(dtype).eval()


def weights(model: LanguageModel | nn.Module) -> list[torch.Tensor]:
    """Copies of all parameters."""
    return [parameter.detach().clone() for parameter in model.parameters()]


class Silent:
    """A watch that remembers, and asks to stop after a step."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.steps: list[dict[str, float]] = []
        self.numbers: list[tuple[int, int]] = []
        self.notes: list[str] = []
        self.stop_after = stop_after

    def step(self, step: int, total: int, figures: Mapping[str, float]) -> None:
        """Remember."""
        self.steps.append(dict(figures))
        self.numbers.append((step, total))

    def note(self, message: str) -> None:
        """Remember."""
        self.notes.append(message)

    @property
    def stopping(self) -> bool:
        """After the wanted step; the trainer asks once its step is told."""
        return self.stop_after is not None and len(self.steps) >= self.stop_after


class Memory:
    """Checkpoints in memory."""

    keep_at: int | None = None

    def __init__(self) -> None:
        self.kept: tuple[int, dict[str, Any]] | None = None

    def due(self, step: int) -> bool:
        """Only when asked."""
        return False

    def save(self, step: int, members: Mapping[str, Any]) -> None:
        """Copy."""
        self.kept = step, {name: copy.deepcopy(member.state_dict()) for name, member in members.items()}

    def restore(self, members: Mapping[str, Any]) -> int:
        """Copy back."""
        if self.kept is None:
            return 0
        step, states = self.kept
        for name, member in members.items():
            member.load_state_dict(copy.deepcopy(states[name]))
        return step


class Loop:
    """The same batches over and over, with a position."""

    def __init__(self, batches: Sequence[Batch], rank: int = 0, world: int = 1) -> None:
        self.batches, self.position, self.rank, self.world = batches, 0, rank, world

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        index = self.position * self.world + self.rank
        self.position += 1
        return self.batches[index % len(self.batches)]

    def state_dict(self) -> dict[str, Any]:
        """The position."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The position."""
        self.position = state["position"]


def rows(lengths: Sequence[int], generator: torch.Generator, vocab: int) -> list[Batch]:
    """One batch per length, of one row of random tokens."""
    found = []
    for number, length in enumerate(lengths):
        ids = torch.randint(vocab, (1, length), generator=generator)
        targets = torch.cat([ids[:, 1:], torch.full((1, 1), IGNORE)], 1)
        found.append(Batch(ids, targets, names=[f"document {number}"]))
    return found


def joined(batches: Sequence[Batch], *, extra: int = 0) -> Batch:
    """Rows of several batches in one, padded on the right by ``extra`` columns more than needed."""
    width = max(batch.ids.shape[1] for batch in batches) + extra
    count = sum(len(batch.ids) for batch in batches)
    ids, valid = torch.zeros(count, width, dtype=torch.long), torch.zeros(count, width, dtype=torch.bool)
    targets = torch.full((count, width), IGNORE)
    at = 0
    for batch in batches:
        size, length = batch.ids.shape
        ids[at : at + size, :length], targets[at : at + size, :length] = batch.ids, batch.targets
        valid[at : at + size, :length] = True
        at += size
    names = [name for batch in batches for name in batch.names]
    return Batch(ids, targets, valid=None if bool(valid.all()) else valid, names=names)


class Descent(Optimizer):
    """Plain gradient descent that remembers the gradients that it was given."""

    class Config(ComponentConfig):
        """Options."""

        learning_rate: float = 0.1
        breaks_at: int = -1

    def __init__(self, config: Any, parameters: list[tuple[str, nn.Parameter, ParameterInfo]]) -> None:
        super().__init__(config, parameters)
        self.count = 0
        SEEN.clear()

    @property
    def learning_rate(self) -> float:
        """Rate."""
        return float(self.config.learning_rate)

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """Descend."""
        SEEN.append({name: p.grad.clone() for name, p, _ in self.parameters if p.grad is not None})
        for _, p, _ in self.parameters:
            if p.grad is not None:
                p.sub_(p.grad, alpha=self.learning_rate * scale)
        self.count += 1

    def state_dict(self) -> dict[str, Any]:
        """Steps."""
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Steps."""
        self.count = state["count"]


SEEN: list[dict[str, torch.Tensor]] = []
"""Gradients of each step of the newest ``Descent``."""


def own(kind: str, part: type[Any], **options: Any) -> Spec[Any]:
    """A spec of one of the kit's own parts, which nobody registered."""
    record = Record(
        kind, part.__name__.lower(), f"{part.__module__}:{part.__qualname__}", "", 1, "corelm", "0", "kit"
    )
    return Spec(record, part.Config(**options))


def spec_of(part: PartUnderTest, config: Any) -> Spec[Any]:
    """The part under test under a config, as a recipe would have chosen it."""
    if part.record is not None:
        return Spec(part.record, config)
    return own(part.kind, part.cls, **config.model_dump(exclude_unset=True))


def refused(action: Any) -> UserError | None:
    """The user error that an action raises, or None."""
    try:
        action()
    except UserError as error:
        return error
    return None
