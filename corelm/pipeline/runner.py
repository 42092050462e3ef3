"""Runs a recipe: every stage in order, each only if it must be."""

from __future__ import annotations

import contextlib
import copy
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import corelm
from corelm.errors import Interrupted, UserError
from corelm.files import FULL, folder_digest, locked, publish, read_json, write_json, writing
from corelm.kinds.stage import Artifact
from corelm.kinds.tracker import StageSummary
from corelm.pipeline import continuing, identity
from corelm.pipeline.checkpoints import StageCheckpoints
from corelm.pipeline.following import Calls, follow
from corelm.pipeline.ledger import LEDGER
from corelm.pipeline.plan import Unit, context_of, units_of, work_folder
from corelm.pipeline.processes import ALONE, RunGroup, started
from corelm.pipeline.watch import StageWatch, Stop, Watchers
from corelm.recipe.reader import Recipe


@dataclass
class RunResult:
    """What a run did.

    Attributes:
        folder: of the run.
        stages: one summary per stage, in order.
    """

    folder: Path
    stages: list[StageSummary] = field(default_factory=list)

    def __getitem__(self, name: str) -> StageSummary:
        """Summary of one stage."""
        return next(stage for stage in self.stages if stage.name == name)


def run(
    recipe: Recipe | str | Path,
    out: str | Path | None = None,
    *,
    redo: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> RunResult:
    """Run a recipe in ``<out>/<name>/``; what is up to date is skipped, what was cut off goes on.

    Where a launcher has started several processes, all of them call this; the first one does the work, and the others
    take part in the trainings that can be shared. All return the same.

    Args:
        recipe: a recipe, its path, or ``package:name``.
        out: where run folders are; default: the recipe's ``out``, or ``runs``.
        redo: names of stages to redo, or ``changed`` for those made by other code.
        overrides: ``path=value``, laid over the recipe.

    Raises:
        UserError: whatever the user can mend; earlier stages and checkpoints stay.
        Interrupted: the user asked to stop.
        ToldElsewhere: another process of the run failed, or was stopped.
    """
    group = started()
    stop = Stop(group)
    with stop.listening(), group.together():
        if not isinstance(recipe, Recipe):
            recipe = Recipe.read(recipe, overrides=list(overrides))
        folder = Path(out or recipe.config.out or "runs") / recipe.name
        if not group.leads:
            return RunResult(folder, follow(recipe, folder, group, stop))
        with locked(folder):
            return _Run(recipe, folder, set(redo), group, stop).all()


class _Run:
    """One run in one locked folder."""

    def __init__(self, recipe: Recipe, folder: Path, redo: set[str], group: RunGroup, stop: Stop) -> None:
        self.recipe, self.folder, self.redo, self.group, self.stop = recipe, folder, redo, group, stop
        self.resolved = recipe.resolved()
        self.units = units_of(recipe)
        unknown = redo - {unit.name for unit in self.units} - {"changed"}
        if unknown:
            raise UserError(
                f"--redo {', '.join(sorted(unknown))}: no such stage",
                remedy=f"stages: {', '.join(unit.name for unit in self.units)}, or changed",
                code="unknown-stage",
            )
        self.artifacts: dict[str, Artifact] = {}
        self.summaries = {unit.name: StageSummary(unit.name, unit.use) for unit in self.units}
        self.watchers = Watchers([tracker.build() for tracker in recipe.config.trackers])
        self.calls = Calls(group)

    def all(self) -> RunResult:
        summaries = list(self.summaries.values())
        write_json(self.folder / "recipe.json", self.resolved)
        self.watchers.open(self.folder, copy.deepcopy(self.resolved), summaries)
        try:
            for unit in self.units:
                self._one(unit)
            self.calls.end(summaries)
        finally:
            self.watchers.tell("close", summaries)
            self.watchers.event("run-end", folder=str(self.folder))
        return RunResult(self.folder, summaries)

    def _one(self, unit: Unit) -> None:
        summary = self.summaries[unit.name]
        final, work = self.folder / unit.name, work_folder(self.folder, unit)
        summary.folder = str(final)
        payload = unit.identity(self.artifacts)
        wanted = identity.digest(payload)
        made_with = identity.provenance(unit.specs, self.group.world if unit.distributed else 1)
        ledger = read_json(final / LEDGER) if (final / LEDGER).exists() else None
        reason = self._why_redo(unit, ledger, payload, made_with, summary)
        if ledger is not None and reason is None:
            self._verify(final, ledger)
            summary.status, summary.figures, summary.notes = "up to date", ledger["figures"], ledger["notes"]
            self.artifacts[unit.name] = Artifact(unit.output, unit.name, final, ledger["digest"])
            self._ended(summary)
            return
        summary.reason = (reason or "") if ledger is not None else ""
        self._make_room(work, wanted, anew=ledger is None and unit.name in self.redo)
        if ledger is not None:
            note = continuing.carry_over(unit, ledger, payload, final, work)
            if note:
                summary.notes.append(note)
        self._work(unit, summary, work, payload, made_with)

    def _why_redo(
        self,
        unit: Unit,
        ledger: Mapping[str, Any] | None,
        payload: Mapping[str, Any],
        made_with: Mapping[str, Any],
        summary: StageSummary,
    ) -> str | None:
        """Why the stage must be done; None when its result stands."""
        if ledger is None:
            return "not made yet"
        if ledger["identity"] != identity.digest(payload):
            changed = identity.differences(ledger["payload"], payload)
            return "; ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
        other = identity.other_code(ledger["provenance"], made_with)
        if unit.name in self.redo:
            return "asked for by --redo"
        if other and "changed" in self.redo:
            return f"made by other code: {', '.join(other)}"
        if other:
            summary.reason = f"made by other code: {', '.join(other[:3])}{' …' if len(other) > 3 else ''}"
        return None

    def _verify(self, final: Path, ledger: Mapping[str, Any]) -> None:
        sizes = _sizes(final)
        if sizes != ledger["sizes"]:
            wrong = sorted(
                name for name in {*sizes, *ledger["sizes"]} if sizes.get(name) != ledger["sizes"].get(name)
            )
            raise UserError(
                f"{final}: truncated or altered: {', '.join(wrong[:5])}",
                remedy=f"Remove the folder, or run with --redo {final.name}, to have it made again.",
                code="artifact-damaged",
            )

    def _make_room(self, work: Path, wanted: str, anew: bool) -> None:
        """Keep what an interrupted run of the same stage left, unless it shall begin anew; clear anything else."""
        mark = work / "identity"
        with writing(work):
            if anew or not (mark.exists() and mark.read_text() == wanted):
                shutil.rmtree(work, ignore_errors=True)
                work.mkdir(parents=True)
                mark.write_text(wanted)
            shutil.rmtree(work / "output", ignore_errors=True)
            (work / "output").mkdir()

    def _work(
        self, unit: Unit, summary: StageSummary, work: Path, payload: Mapping[str, Any], made_with: Mapping[str, Any]
    ) -> None:
        watch = StageWatch(self.watchers, summary, self.stop)
        checkpoints = StageCheckpoints(work / "checkpoints", self.recipe.config.checkpoint_seconds, watch.checkpoint)
        resumed = checkpoints.latest()
        self.watchers.tell("stage_start", summary, resumed)
        self.watchers.event("stage-start", stage=unit.name, resumed_from=resumed)
        begun = time.monotonic()
        with self._reported(summary, begun), writing(self.folder, FULL):
            if self.stop.asked():
                raise Interrupted(
                    f"stopped before {unit.name}", remedy="Run the same command again to go on.", code="stopped"
                )
            summary.figures = self._do(unit, work, watch, checkpoints)
            summary.status, summary.seconds = "resumed" if resumed else "done", time.monotonic() - begun
            self._finish(unit, summary, work, payload, made_with, checkpoints)
        self._ended(summary)

    def _ended(self, summary: StageSummary) -> None:
        """Tell trackers and plugins, whatever the end was."""
        self.watchers.tell("stage_end", summary)
        self.watchers.event("stage-end", stage=summary.name, status=summary.status, figures=dict(summary.figures))

    @contextlib.contextmanager
    def _reported(self, summary: StageSummary, begun: float) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            stopped = isinstance(error, Interrupted | KeyboardInterrupt)
            summary.status, summary.seconds = "stopped" if stopped else "failed", time.monotonic() - begun
            summary.reason = str(error)
            self._ended(summary)
            raise

    def _do(self, unit: Unit, work: Path, watch: StageWatch, checkpoints: StageCheckpoints) -> dict[str, float]:
        """Run the stage, with the other processes where its trainer can, else in this one."""
        group = self.group if unit.distributed else ALONE
        if unit.trainers and group.world < self.group.world:
            names = ", ".join(trainer.name for trainer in unit.trainers)
            watch.note(f"trained by one of {self.group.world} processes; the trainer {names} works alone")
        if group.world > 1:
            self.calls.stage(unit, self.artifacts)
        context = context_of(
            unit, self.recipe, self.folder, work / "output", watch=watch, checkpoints=checkpoints, group=group
        )
        return unit.run(context, self.artifacts)

    def _finish(
        self,
        unit: Unit,
        summary: StageSummary,
        work: Path,
        payload: Mapping[str, Any],
        made_with: Mapping[str, Any],
        checkpoints: StageCheckpoints,
    ) -> None:
        output, final = work / "output", self.folder / unit.name
        digest = folder_digest(output)
        continuing.keep(checkpoints, output)
        ledger = {
            "corelm": corelm.__version__,
            "stage": unit.name,
            "use": unit.use,
            "type": unit.output,
            "identity": identity.digest(payload),
            "payload": payload,
            "digest": digest,
            "sizes": _sizes(output),
            "figures": summary.figures,
            "seconds": summary.seconds,
            "notes": summary.notes,
            "provenance": made_with,
        }
        write_json(output / LEDGER, ledger)
        with writing(final):
            publish(output, final)
        lock = self.folder / "lock.json"
        write_json(lock, {**(read_json(lock) if lock.exists() else {}), unit.name: made_with})
        shutil.rmtree(work, ignore_errors=True)
        self.artifacts[unit.name] = Artifact(unit.output, unit.name, final, digest)


def _sizes(folder: Path) -> dict[str, int]:
    """Size in bytes of every file below ``folder`` but the ledger."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LEDGER
    }
