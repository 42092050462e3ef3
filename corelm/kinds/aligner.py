"""Kind ``aligner``: supplies experience and an objective; the trainer does the rest."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from corelm.kinds.batch import BatchStream, Stateful
from corelm.kinds.component import Component
from corelm.kinds.language_model import LanguageModel
from corelm.kinds.objective import Objective
from corelm.kinds.records import Conversation, Preference, RecordName
from corelm.kinds.template import Template
from corelm.kinds.trainer import Processes, Watch

ModelRole = Literal["policy", "reference", "reward"]


@dataclass
class AlignmentJob:
    """What an aligner works with.

    Attributes:
        models: by role; ``policy`` is trained, the others are frozen and in evaluation mode.
        template: how conversations are rendered.
        records: preferences for offline aligners, conversations (whose prompts are used) for online ones.
        batch: records per micro-batch.
        steps: micro-batches that will be drawn in all.
        seed: of order and sampling.
        watch: for progress and notes while experience is collected.
    """

    models: Mapping[ModelRole, LanguageModel]
    template: Template
    records: Sequence[Preference] | Sequence[Conversation]
    batch: int
    steps: int
    seed: int
    watch: Watch


@dataclass
class Alignment:
    """What the trainer is given.

    Attributes:
        trained: the model to train: the policy, possibly with more parameters (a value head).
        streams: ``streams(processes)`` makes the stream of micro-batches of one process: r of n has the micro-batches
            r, r + n, … of one that is alone. It may generate and score with the models as they are *now*, and share
            that work through ``processes.gather``. Its state holds whatever experience is still to be used.
        objective: reads what the stream put into ``Batch.extra``.
        policy: the model to save at the end.
        members: further stateful members of the checkpoint (adaptive coefficients, running statistics).
    """

    trained: LanguageModel
    streams: Callable[[Processes], BatchStream]
    objective: Objective
    policy: LanguageModel
    members: dict[str, Stateful]


class Aligner(Component):
    """Aligns a policy to preferences or rewards.

    Built as ``Part(config)``.

    Contract:
        * Offline losses are antisymmetric as their paper says; the reference never changes and has no gradient.
        * What is longer than the models have room for loses the beginning of its prompt, and no more of it than must
          be; an answer that doesn't fit even so is left out. Each is counted in a note.
        * A policy answers when its answers are needed, as it is then.
        * As many batches as hold ``passes`` times the records reach each of them.
        * Online experience is a function of (seed, models, records), and of the number of processes only by rounding:
          the stream resumes bit-exactly.
        * Log-probabilities are ``token_logprobs`` (raw logits, no temperature); which are summed and which
          averaged is said by the name of the argument that holds them.
    """

    kind: ClassVar[str] = "aligner"

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    @abstractmethod
    def reads(cls, config: Any) -> RecordName:
        """``preference`` or ``conversation``."""

    @classmethod
    @abstractmethod
    def roles(cls, config: Any) -> frozenset[ModelRole]:
        """Which models are needed."""

    @classmethod
    def passes(cls, config: Any) -> int:
        """How often each record is gone through in one epoch: an experience that took long is learnt from again."""
        return 1

    @abstractmethod
    def prepare(self, job: AlignmentJob) -> Alignment:
        """Build what the trainer needs."""
