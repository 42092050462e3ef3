"""What all stages that train have in common: their options, and the job that they hand to a trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import numpy as np
from pydantic import Field

from corelm.errors import UserError
from corelm.kinds import (
    Answered,
    BatchStream,
    ComponentConfig,
    Conversation,
    Count,
    DataConfig,
    LanguageModel,
    Objective,
    Optimizer,
    Packer,
    Problem,
    Processes,
    Record,
    RecordName,
    RunContext,
    Schedule,
    Spec,
    Stateful,
    Template,
    Text,
    Tokenizer,
    Tokens,
    TokenStore,
    Trainer,
    TrainingJob,
    use,
)
from corelm.kinds.adapting import frozen


class TrainingConfig(ComponentConfig):
    """Options of every stage that trains."""

    batch: int = Field(16, ge=1, description="Rows of a micro-batch.")
    accumulate: int = Field(1, ge=1, description="Micro-batches of one optimizer step.")
    optimizer: Spec[Optimizer] = Field(use("adamw"), description="The update rule.")
    schedule: Spec[Schedule] = Field(use("cosine"), description="The learning rate over steps.")
    trainer: Spec[Trainer] = Field(use("plain"), description="The loop.")


class EpochsConfig(TrainingConfig):
    """Options of stages that go over a set of records a number of times."""

    epochs: int = Field(1, ge=1, description="Times that the records are gone over; ignored where steps are given.")
    steps: Count | None = Field(None, ge=1, description="Optimizer steps; default: from epochs.")


def train(
    context: RunContext,
    config: TrainingConfig,
    model: LanguageModel,
    objective: Objective,
    streams: Callable[[Processes], BatchStream],
    steps: int,
    members: Mapping[str, Stateful] | None = None,
    trainable: Container[str] | None = None,
) -> dict[str, float]:
    """Hand a job to the trainer; figures for the table of stages.

    ``trainable`` names the parameters to train; None: all but the maps that an adapter of an earlier stage wraps.
    """
    fixed = frozen(model.module)
    stable = config.schedule.build().stable_until(steps)
    context.checkpoints.keep_at = min(stable, steps) or None
    job = TrainingJob(
        model=model,
        streams=streams,
        objective=objective,
        optimizer=config.optimizer,
        schedule=config.schedule,
        steps=steps,
        accumulate=config.accumulate,
        checkpoints=context.checkpoints,
        watch=context.watch,
        seed=context.seed,
        trainable=lambda name: name not in fixed if trainable is None else name in trainable,
        members=dict(members or {}),
    )
    result = config.trainer.build().fit(job)
    return {"steps": float(result.steps), **result.figures}


def packed(
    context: RunContext, packer: Spec[Packer], store: TokenStore, batch: int, time: int, end_of_text: int
) -> Callable[[Processes], BatchStream]:
    """The maker of one process's endless stream of batches."""
    part = packer.build()

    def streams(processes: Processes) -> BatchStream:
        rank, world = processes.rank, processes.world
        return part.stream(
            store, batch=batch, time=time, seed=context.seed, end_of_text=end_of_text, rank=rank, world=world
        )

    return streams


def steps_of(config: EpochsConfig, rows: int) -> int:
    """Optimizer steps that go over this many rows ``epochs`` times."""
    return config.steps or math.ceil(rows * config.epochs / (config.batch * config.accumulate))


def packed_steps(
    context: RunContext, config: EpochsConfig, packer: Spec[Packer], store: TokenStore, model: LanguageModel
) -> int:
    """Optimizer steps that go over these documents ``epochs`` times, however many of them a packer puts into a row."""
    if config.steps:
        return config.steps
    count = packer.build().batches(
        store,
        batch=config.batch,
        time=model.context,
        seed=context.seed,
        end_of_text=model.tokenizer.end_of_text,
        epochs=config.epochs,
    )
    return math.ceil(count / config.accumulate)


def tokenized(
    records: Iterator[Record], tokenizer: Tokenizer, template: Template | None, time: int, context: RunContext
) -> Iterator[Tokens]:
    """Conversations rendered by the template (the assistant's tokens are learnt), texts as they are.

    What is longer than ``time`` tokens is left out and counted in a note.
    """
    left_out = 0
    for record in records:
        if isinstance(record, Conversation):
            assert template is not None
            rendered = template.render(record.messages, tokenizer)
            tokens = Tokens(np.array(rendered.ids, dtype=np.int64), np.array(rendered.learn, dtype=bool), record.name)
        elif isinstance(record, Text):
            ids = [*tokenizer.encode(record.text), tokenizer.end_of_text]
            tokens = Tokens(np.array(ids, dtype=np.int64), name=record.name)
        else:
            raise UserError(f"finetuning takes conversations or texts, not a {type(record).__name__.lower()}")
        if len(tokens.ids) > time + 1 and isinstance(record, Conversation):
            left_out += 1
            continue
        yield tokens
    if left_out:
        context.watch.note(f"{left_out} conversations are longer than {time} tokens and were left out")


def of_type(data: DataConfig | None, *wanted: RecordName) -> Iterator[Problem]:
    """The problem with a stage's ``data`` where its source yields other records than the stage reads."""
    if data is None:
        return
    found = data.source.part.yields(data.source.config)
    if found not in wanted:
        message = f"this stage reads {' or '.join(wanted)} records; {data.source.name} yields {found} here"
        remedy = f"Set `yields: {wanted[0]}` on the source, where it can, or choose another."
        yield Problem(("data",), message, remedy, "records-of-other-type")


def apart(packer: Spec[Packer], what: str) -> Iterator[Problem]:
    """The problem with a packer that puts several documents into a row where each must have its own."""
    if not packer.part.keeps_apart(packer.config):
        message = f"{packer.name} puts several documents into a row; {what} need rows of their own"
        yield Problem(("packer",), message, "Use padded, without best_fit.", "packer-mixes-documents")


def reads(objective: Spec[Objective], wanted: Answered, fitting: str) -> Iterator[Problem]:
    """The problem with an objective that reads something else than this stage's model says."""
    found = objective.part.reads
    if found != wanted:
        message = f"{objective.name} reads {found}; this stage's model gives {wanted}"
        yield Problem(("objective",), message, f"Use {fitting} here.", f"objective-needs-{found}")


def require(store: TokenStore, what: str) -> None:
    """Refuse to train on nothing."""
    if len(store) == 0:
        raise UserError(
            f"no {what} is left to train on", remedy="Raise the context, or look at the data.", code="data-empty"
        )


def needs_template(context: RunContext, data: Any) -> Template | None:
    """The recipe's template where the data are conversations; None for texts."""
    if data.source.part.yields(data.source.config) == "text":
        return None
    template: Template = context.template()
    return template
