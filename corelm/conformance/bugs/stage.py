"""Stages that are wrong in one way when they run."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pydantic import Field

from corelm.conformance.planted import plant, reference
from corelm.errors import Interrupted, UserError
from corelm.kinds.adapting import adapt_model
from corelm.kinds.component import ComponentConfig, Problem, Spec, use
from corelm.kinds.data import DataConfig
from corelm.kinds.records import Record
from corelm.kinds.stage import ArtifactType, SectionUse, Stage
from corelm.kinds.trainer import Trainer

STEPS = 4


def number(*things: Any) -> float:
    """Between 0 and 1, another one for other things."""
    return int.from_bytes(hashlib.sha256(repr(things).encode()).digest()[:4], "big") / 2**32


@reference
class Nudge(Stage):
    """Moves all parameters, step by step, by what it reads and draws."""

    class Config(ComponentConfig):
        """Options."""

        data: DataConfig = Field(description="Any records.")
        trainer: Spec[Trainer] = Field(use("plain"), description="Its options say how far a step goes.")

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
        self.require(found)
        return number(self.taken(found), self.options())

    def require(self, found: list[Record]) -> None:
        """Something."""
        if not found:
            raise UserError("there is nothing to read")

    def options(self) -> Any:
        """What else the walk depends on."""
        return self.config.trainer.dump()

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


@plant("nothing_is_refused", "no records are records, too")
class MakesSomethingOfNothing(Nudge):
    """A model that nobody has trained."""

    def require(self, found: list[Record]) -> None:
        pass


@plant("reads_what_it_says", "it says that it reads the template, and doesn't")
class AsksForATemplate(Nudge):
    """Recipes have to name one for nothing."""

    @classmethod
    def reads_template(cls, config: Any) -> SectionUse:
        return "always"


@plant("any_recipe_can_be_checked", "it takes the model section for spelt out")
class ReadsTheModelSection(Nudge):
    """A crash where a model is loaded."""

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        if context["model"]["dim"] < 1:
            yield Problem((), "the model is too narrow")


@plant("options_are_used", "one of its options is never read")
class IgnoresItsTrainer(Nudge):
    """Accepted, and that is all."""

    def options(self) -> Any:
        return None


@plant("maps_keep_their_names", "additions stay beside the maps, though it says that it replaces none")
class LeavesAdditions(Nudge):
    """Patterns of later stages don't match."""

    def finish(self, context: Any, inputs: Mapping[str, Any], model: Any) -> None:
        model.record_transform(adapt_model(model.module, Spec.read("adapter", "lora"), targets=[], seed=0))
        super().finish(context, inputs, model)
