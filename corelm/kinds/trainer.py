"""Kind ``trainer``: the only one that steps an optimizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from corelm.kinds.batch import Batch, BatchStream, Stateful
from corelm.kinds.component import Component, Spec
from corelm.kinds.language_model import LanguageModel
from corelm.kinds.objective import Objective
from corelm.kinds.optimizer import Optimizer, Schedule


class Checkpoints(Protocol):
    """Where a trainer keeps what it needs to go on after a kill; the pipeline's."""

    keep_at: int | None
    """A step whose checkpoint is kept for good, so that a longer training can go on from there."""

    def due(self, step: int) -> bool:
        """Whether now is a good time to save (by the clock)."""
        ...

    def save(self, step: int, members: Mapping[str, Stateful]) -> None:
        """Write all members atomically; older checkpoints go."""
        ...

    def restore(self, members: Mapping[str, Stateful]) -> int:
        """Load the newest whole checkpoint into the members and return its step; 0 when there is none.

        Raises:
            UserError: a checkpoint is truncated or was tampered with.
        """
        ...


class Watch(Protocol):
    """What a long job reports to, and asks whether it should stop."""

    def step(self, step: int, total: int, figures: Mapping[str, float]) -> None:
        """Report progress: ``figures`` such as loss, learning rate, tokens, by name."""
        ...

    def note(self, message: str) -> None:
        """Tell the user something worth knowing."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether the user asked to stop; save a checkpoint and raise ``Interrupted``."""
        ...


class Processes:
    """The processes that share a training, as one of them sees them; this one is alone.

    Contract: all of them call ``gather`` at the same points of their work, equally often.
    """

    rank: int = 0
    """This process's number, from 0."""
    world: int = 1
    """How many there are."""

    def gather(self, value: Any) -> list[Any]:
        """Every process's value (nested dicts and lists of tensors and plain data), by rank."""
        return [value]


@dataclass
class TrainingJob:
    """Everything a trainer needs.

    Attributes:
        model: the model to train, parameters in float32.
        streams: ``streams(processes)`` makes the stream of micro-batches of one process: of ``world`` processes,
            that of ``rank`` r yields the micro-batches r, r + world, … of one that is alone.
        objective: what is minimised.
        optimizer, schedule: parts to build.
        steps: optimizer steps in all.
        accumulate: micro-batches of one optimizer step, over all processes together.
        checkpoints, watch: where to save, whom to tell.
        seed: for everything random in the forward pass (dropout): step s uses (seed, s).
        trainable: names of the parameters to train; None: all.
        members: further stateful members of the checkpoint, by name.
    """

    model: LanguageModel
    streams: Callable[[Processes], BatchStream]
    objective: Objective
    optimizer: Spec[Optimizer]
    schedule: Spec[Schedule]
    steps: int
    accumulate: int
    checkpoints: Checkpoints
    watch: Watch
    seed: int = 0
    trainable: Callable[[str], bool] | None = None
    members: dict[str, Stateful] = field(default_factory=dict)


@dataclass
class TrainingResult:
    """What a training did.

    Attributes:
        steps: optimizer steps done in all.
        figures: last and mean figures for the table of stages: loss, tokens, tokens per second …
    """

    steps: int
    figures: dict[str, float]


class NotFinite(Exception):  # noqa: N818
    """A loss or gradient is NaN or infinite; carries the step and the documents of the batch."""

    def __init__(self, step: int, batch: Batch) -> None:
        super().__init__(f"step {step}")
        self.step, self.batch = step, batch


class Trainer(Component):
    """Runs the loop: micro-batches → gradients → clipped → optimizer step, with checkpoints.

    Built as ``Part(config)``.

    Contract:
        * A step's loss is the sum of its micro-batches' totals over *all* processes divided by the number of
          terms of all of them: partitions into micro-batches and processes change nothing.
        * The gradient norm is clipped once per step, after accumulation.
        * Killed anywhere and run again with the same job, it ends with the same bits. The checkpoint holds
          model, optimizer, stream and counters; a checkpoint is saved at the end as well. Another number of processes
          goes on from it where the stream is ``elastic``, and is refused where it isn't. That of another model is
          refused with a ``UserError`` before anything is changed.
        * A loss that isn't finite raises ``UserError`` naming the step and the batch's documents, before
          the optimizer moves; the last checkpoint stays.
        * Where several processes call ``fit`` with the same job, only the first one saves checkpoints and reports; what
          stops one of them stops all, and all end when the checkpoint is written.
        * Random state of the caller is untouched.
    """

    kind: ClassVar[str] = "trainer"
    distributed: ClassVar[bool] = False
    """Whether several processes may call ``fit`` at the same time, and then train one model together."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def fit(self, job: TrainingJob) -> TrainingResult:
        """Train until ``job.steps``; from the newest checkpoint where there is one."""
