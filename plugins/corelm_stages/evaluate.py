"""Evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic import Field

from corelm.errors import UserError
from corelm.kinds import ArtifactType, Evaluator, Problem, Record, RunContext, SectionUse, Spec, Stage


class Evaluate(Stage):
    """Measures models.

    Every task measures every model. A task without ``data`` of its own reads the held-out part of the corpus.
    Results are in ``metrics.json``: model → task → metric.
    """

    output: ClassVar[ArtifactType] = "metrics"

    class Config(Stage.Config):
        """Options."""

        tasks: list[Spec[Evaluator]] = Field(min_length=1, description="What is measured.")

    @classmethod
    def inputs(cls, config: Any) -> Mapping[str, ArtifactType]:
        """Models (or reward models, where the tasks measure those), and a judge where a task needs one."""
        measured: ArtifactType = config.tasks[0].part.model_kind
        judged = any(task.part.judged for task in config.tasks)
        return {"models*": measured, **({"judge": "reward-model"} if judged else {})}

    @classmethod
    def reads_corpus(cls, config: Any) -> SectionUse:
        """Where a task brings no data of its own."""
        return "always" if any(task.config.data is None for task in config.tasks) else "never"

    @classmethod
    def reads_template(cls, config: Any) -> SectionUse:
        """For models that have none of their own."""
        return "optional"

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """All tasks of one stage measure the same type of model; tasks on the corpus read text."""
        kinds = {task.part.model_kind for task in config.tasks}
        if len(kinds) > 1:
            message = f"the tasks measure different things: {' and '.join(sorted(kinds))}"
            yield Problem(("tasks",), message, "Make two stages of it.", "tasks-of-two-types")
        for number, task in enumerate(config.tasks):
            wanted, data = task.part.reads(task.config), getattr(task.config, "data", None)
            found = "text" if data is None else data.source.part.yields(data.source.config)
            if found != wanted:
                where = "the corpus" if data is None else f"its source {data.source.name}"
                remedy = f"Give it `data` with a source that yields {wanted}."
                message = f"{task.name} reads {wanted} records; {where} yields {found}"
                yield Problem(("tasks", number), message, remedy, "records-of-other-type")

    def run(self, context: RunContext, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Measure every model with every task."""
        judge = context.open_model(inputs["judge"]) if inputs.get("judge") else None
        tasks = _named(self.config.tasks)
        evaluators = {name: task.build() for name, task in tasks.items()}
        results: dict[str, dict[str, dict[str, float]]] = {}
        for artifact in inputs["models"]:
            model, measured = context.open_model(artifact), results.setdefault(artifact.stage, {})
            for name, task in tasks.items():
                more = {"judge": judge} if task.part.judged else {}
                measured[name] = evaluators[name].evaluate(model, _records(context, task), context.watch, **more)
        (context.folder / "metrics.json").write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        headlines = {name: evaluator.headline for name, evaluator in evaluators.items()}
        return _figures(context, headlines, results)


def _named(tasks: list[Spec[Evaluator]]) -> dict[str, Spec[Evaluator]]:
    """The tasks by name; a part that is named again gets a number."""
    named: dict[str, Spec[Evaluator]] = {}
    for task in tasks:
        number = sum(other.name == task.name for other in named.values())
        named[f"{task.name}#{number + 1}" if number else task.name] = task
    return named


def _figures(
    context: RunContext, headlines: Mapping[str, str], results: Mapping[str, Mapping[str, dict[str, float]]]
) -> dict[str, float]:
    """Each task's headline for every model, side by side, with the task's name where two share a headline.

    A note per task sets all its metrics side by side, so that before and after can be compared at a glance.
    """
    figures: dict[str, float] = {}
    for name, headline in headlines.items():
        rows = {stage: measured[name] for stage, measured in results.items()}
        shown = headline or next(iter(next(iter(rows.values()))))
        label = shown if list(headlines.values()).count(headline) == 1 else f"{name}/{shown}"
        figures |= {f"{stage}/{label}": metrics[shown] for stage, metrics in rows.items()}
        if len(rows) > 1:
            sides = ", ".join(f"{stage} {metrics[shown]:.4g}" for stage, metrics in rows.items())
            context.watch.note(f"{name}: {shown.replace('_', ' ')} of {sides}")
    return figures


def _records(context: RunContext, task: Spec[Evaluator]) -> Iterator[Record]:
    config: Any = task.config
    if config.data is not None:
        return context.records(config.data, "holdout" if config.data.holdout else "all")
    records = context.corpus_texts("holdout")
    first = next(records, None)
    if first is None:
        raise UserError(
            f"{task.name}: nothing of the corpus is held out",
            remedy="Set corpus.holdout, or give the task its own data.",
            code="holdout-empty",
        )
    return _again(first, records)


def _again(first: Record, rest: Iterator[Record]) -> Iterator[Record]:
    yield first
    yield from rest
