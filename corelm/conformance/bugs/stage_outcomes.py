"""Stages of other sorts that are wrong in one way: ones that go over packed records, that measure, that rank."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field

from corelm.conformance.bugs.stage import Nudge, number
from corelm.conformance.planted import plant, reference
from corelm.errors import UserError
from corelm.kinds.component import ComponentConfig, Problem, Spec, use
from corelm.kinds.data import DataConfig
from corelm.kinds.evaluator import Evaluator
from corelm.kinds.objective import Objective
from corelm.kinds.packer import Packer
from corelm.kinds.records import Conversation, Message, Preference, Record
from corelm.kinds.stage import ArtifactType, SectionUse, Stage


@reference
class Rounds(Nudge):
    """Goes over conversations, packed into rows, a number of times."""

    class Config(Nudge.Config):
        """Options."""

        epochs: int = Field(1, ge=1, description="Times.")
        packer: Spec[Packer] = Field(use("padded"), description="To rows.")
        objective: Spec[Objective] = Field(use("next-token"), description="What is minimised.")

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """Conversations."""
        yield from _conversations(config.data)

    @classmethod
    def reads_template(cls, config: Any) -> SectionUse:
        """Always."""
        return "always"

    def read(self, context: Any, inputs: Mapping[str, Any]) -> float:
        """Those that fit."""
        tokenizer, template = context.tokenizer(), context.template()
        given = list(context.records(self.config.data))
        fitting: list[Record] = []
        for record in given:
            assert isinstance(record, Conversation)
            if len(template.render(record.messages, tokenizer).ids) <= self.longest():
                fitting.append(record)
        if len(fitting) < len(given):
            self.tell(context, len(given) - len(fitting))
        self.require(fitting)
        some = [record for at in range(0, len(fitting), 2) for record in self.row(fitting[at : at + 2])]
        return number(self.taken(some + self.preferences(context, inputs)), self.options())

    def longest(self) -> int:
        """Inputs of the tiny model, each with a target."""
        return 65

    def tell(self, context: Any, left_out: int) -> None:
        """How many are left out."""
        context.watch.note(f"{left_out} conversations are too long")

    def row(self, records: list[Record]) -> Sequence[Record]:
        """Two at a time."""
        return records

    def options(self) -> Any:
        """What else the walk depends on."""
        return super().options(), self.config.epochs, self.config.packer.dump()


def _conversations(data: DataConfig) -> Iterator[Problem]:
    if data.source.part.yields(data.source.config) != "conversation":
        yield Problem(("data",), "this stage reads conversations", "Give it a source that yields them.")


@plant("every_record_counts", "a row that isn't full is dropped")
class DropsTheRest(Rounds):
    """The last records are never seen."""

    def row(self, records: list[Record]) -> Sequence[Record]:
        return records if len(records) == 2 else []


@plant("what_fits_is_read", "a row without its target is counted as too long")
class LeavesFullRowsOut(Rounds):
    """One token too few."""

    def longest(self) -> int:
        return 64


@plant("long_records_go_through", "what is too long is left out in silence")
class SaysNothing(Rounds):
    """Half of the data may be gone."""

    def tell(self, context: Any, left_out: int) -> None:
        pass


@reference
class Meter(Stage):
    """A number for each model and evaluator, of what there is to read."""

    output: ClassVar[ArtifactType] = "metrics"

    class Config(ComponentConfig):
        """Options."""

        tasks: list[Spec[Evaluator]] = Field(min_length=1, description="What is measured.")

    @classmethod
    def inputs(cls, config: Any) -> Mapping[str, ArtifactType]:
        """Models."""
        return {"models*": "model"}

    @classmethod
    def reads_corpus(cls, config: Any) -> SectionUse:
        """Where an evaluator brings no data of its own."""
        return "always" if any(task.config.data is None for task in config.tasks) else "never"

    def run(self, context: Any, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Measure."""
        results: dict[str, dict[str, dict[str, float]]] = {}
        for artifact in inputs["models"]:
            tensors = (artifact.folder / "model.safetensors").read_bytes()
            measured = results.setdefault(artifact.stage, {})
            for at, task in enumerate(self.config.tasks):
                measured[self.name(at, task)] = {"number": number(tensors, task.dump(), self.read(context, task))}
        (context.folder / "metrics.json").write_text(json.dumps(results))
        return {"evaluators": float(len(self.config.tasks))}

    def name(self, at: int, task: Spec[Evaluator]) -> str:
        """Of one of the tasks."""
        return f"{at} {task.name}"

    def read(self, context: Any, task: Spec[Evaluator]) -> list[Record]:
        """The task's data, or what is held out of the corpus."""
        data: Any = task.config
        found = list(context.corpus_texts("holdout") if data.data is None else context.records(data.data, "all"))
        if not found:
            raise UserError(f"{task.name}: there is nothing to measure on")
        return found


@plant("measures_everything", "the second of two evaluators of one name overwrites the first")
class OneOfEachName(Meter):
    """Names are keys."""

    def name(self, at: int, task: Spec[Evaluator]) -> str:
        return task.name


@reference
class Ranker(Stage):
    """Two answers to each prompt, the better one chosen."""

    output: ClassVar[ArtifactType] = "preferences"

    class Config(ComponentConfig):
        """Options."""

        data: DataConfig = Field(description="Conversations.")

    @classmethod
    def inputs(cls, config: Any) -> Mapping[str, ArtifactType]:
        """Who answers, and who judges."""
        return {"policy": "model", "reward": "reward-model"}

    @classmethod
    def reads_template(cls, config: Any) -> SectionUse:
        """Always."""
        return "always"

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """Conversations."""
        yield from _conversations(config.data)

    def run(self, context: Any, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Answer and rank."""
        policy, judge = context.open_model(inputs["policy"]), context.open_model(inputs["reward"])
        template, pairs = context.template(), []
        for at, record in enumerate(context.records(self.config.data)):
            rated = []
            for seed in (2 * at, 2 * at + 1):
                said = self.answer(policy, record.prompt, context.seed + seed)
                ids = template.render([*record.prompt, Message("assistant", said)], judge.tokenizer).ids
                reward = judge.scores(torch.tensor([ids[-judge.context :]]))[0, 0]
                rated.append((float(reward.detach()), said))
            (worst, rejected), (best, chosen) = self.order(rated)
            if best != worst:
                pairs.append(Preference(record.prompt, chosen, rejected, f"{at}"))
        if not pairs:
            raise UserError("no prompt got two answers")
        return {"pairs": float(context.write_records(iter(pairs)))}

    def answer(self, policy: Any, prompt: Sequence[Message], seed: int) -> str:
        """Four tokens at most."""
        short = [Message(turn.role, turn.content[-20:]) for turn in prompt[-1:]]
        return str(policy.answer(short, 4, {"use": "temperature", "value": 2.0}, seed=seed % 2**62))

    def order(self, rated: list[tuple[float, str]]) -> list[tuple[float, str]]:
        """The better one last."""
        return sorted(rated)


@plant("pairs_follow_the_judge", "the worst answer is called chosen")
class RanksUpsideDown(Ranker):
    """A sign."""

    def order(self, rated: list[tuple[float, str]]) -> list[tuple[float, str]]:
        return sorted(rated, reverse=True)
