"""Stages that are wrong in one way when they run."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field

from corelm.conformance.planted import plant, reference
from corelm.errors import Interrupted
from corelm.kinds.component import ComponentConfig, Spec, use
from corelm.kinds.data import DataConfig
from corelm.kinds.records import Record
from corelm.kinds.stage import ArtifactType, Stage
from corelm.kinds.trainer import Trainer

STEPS = 4


@reference
class Nudge(Stage):
    """Moves all parameters, step by step, by what it reads and draws."""

    class Config(ComponentConfig):
        """Options."""

        data: DataConfig = Field(description="Any records.")
        trainer: Spec[Trainer] = Field(use("plain"), description="Not used: the steps are its own.")

    @classmethod
    def inputs(cls, config: Any) -> Mapping[str, ArtifactType]:
        """A model, and preferences where there are some."""
        return {"model": "model", "preferences?*": "preferences"}

    def run(self, context: Any, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Four steps, each saved."""
        model, read = self.opened(context, inputs), self.read(context, inputs)
        self.first, self.moved = 0, 0.0
        self.first = context.checkpoints.restore({"walk": self})
        for step in range(self.first, STEPS):
            generator = torch.Generator().manual_seed(self.seed(context) + 1000 * step)
            self.moved += 0.01 * float(torch.rand((), generator=generator)) + 0.001 * read
            context.checkpoints.save(self.saved(step + 1), {"walk": self})
            context.watch.step(step + 1, STEPS, {})
            if context.watch.stopping and step + 1 < STEPS:
                raise Interrupted("stopped")
        with torch.no_grad():
            for parameter in model.module.parameters():
                parameter.add_(self.moved)
        self.finish(context, inputs, model)
        return {"steps": float(STEPS)}

    def state_dict(self) -> dict[str, Any]:
        """How far it has moved."""
        return {"moved": self.moved}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.moved = state["moved"]

    def opened(self, context: Any, inputs: Mapping[str, Any]) -> Any:
        """The model."""
        return context.open_model(inputs["model"])

    def read(self, context: Any, inputs: Mapping[str, Any]) -> float:
        """A number between 0 and 1 for everything that is read."""
        found = [*context.records(self.config.data), *self.preferences(context, inputs)]
        return hashlib.sha256(repr(self.taken(found)).encode()).digest()[0] / 256

    def taken(self, found: list[Record]) -> list[Record]:
        """All of it."""
        return found

    def preferences(self, context: Any, inputs: Mapping[str, Any]) -> list[Record]:
        """Of earlier stages."""
        return [
            record for artifact in inputs.get("preferences") or [] for record in context.read_preferences(artifact)
        ]

    def seed(self, context: Any) -> int:
        """The stage's."""
        return int(context.seed)

    def saved(self, step: int) -> int:
        """Under which number."""
        return step

    def finish(self, context: Any, inputs: Mapping[str, Any], model: Any) -> None:
        """Save it."""
        context.save_model(model)


@plant("leaves_what_it_says", "nothing is saved")
class SavesNothing(Nudge):
    """An empty folder."""

    def finish(self, context: Any, inputs: Mapping[str, Any], model: Any) -> None:
        (context.folder / "done").touch()


@plant("leaves_what_it_says", "a note is left in the folder of its input")
class WritesIntoItsInput(Nudge):
    """A folder that was complete has one more file."""

    def finish(self, context: Any, inputs: Mapping[str, Any], model: Any) -> None:
        super().finish(context, inputs, model)
        (inputs["model"].folder / "model.json").write_text('{"used": true}')


@plant("function_of_inputs_and_seed", "the time is in a file that has a digest")
class TellsTheTime(Nudge):
    """Never the same twice."""

    def finish(self, context: Any, inputs: Mapping[str, Any], model: Any) -> None:
        super().finish(context, inputs, model)
        (context.folder / "when").write_text(str(time.time_ns()))


@plant("function_of_inputs_and_seed", "always the same seed")
class OneSeed(Nudge):
    """Whatever the recipe says."""

    def seed(self, context: Any) -> int:
        return 0


@plant("inputs_matter", "the recipe's model in place of the one that is named")
class BeginsAnew(Nudge):
    """All that was trained before is lost."""

    def opened(self, context: Any, inputs: Mapping[str, Any]) -> Any:
        return context.new_model()


@plant("inputs_matter", "preferences that earlier stages made are not read")
class ForgetsPreferences(Nudge):
    """Only the recipe's own data."""

    def preferences(self, context: Any, inputs: Mapping[str, Any]) -> list[Record]:
        return []


@plant("data_matter", "data are counted, not read")
class CountsRecords(Nudge):
    """As many say the same."""

    def taken(self, found: list[Record]) -> list[Record]:
        return found[:0] * len(found)


@plant("goes_on_after_a_kill", "the state is kept, the step is not")
class BeginsOver(Nudge):
    """Walks further than one that wasn't killed."""

    def saved(self, step: int) -> int:
        return 0


@plant("long_records_go_through", "records have at most a hundred characters")
class ShortRecordsOnly(Nudge):
    """A crash at the long one."""

    def taken(self, found: list[Record]) -> list[Record]:
        assert all(len(repr(record)) < 150 for record in found), "too long"
        return found
