"""Evaluators that are wrong about chance, knowledge or nothing; formats, stages and trackers that are careless."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file

from corelm.conformance.bugs.whole import Bits, Copy, Counter, Folder
from corelm.conformance.planted import plant, reference
from corelm.errors import UserError
from corelm.kinds.component import ComponentConfig
from corelm.kinds.evaluator import Evaluator, Metrics
from corelm.kinds.interchange import Imported
from corelm.kinds.language_model import Request
from corelm.kinds.records import Choice, Record, RecordName
from corelm.kinds.tracker import StageSummary


@reference
class Choices(Evaluator):
    """Which ending is likeliest."""

    headline = "accuracy"

    class Config(ComponentConfig):
        """Options."""

        batch: int = Field(2, ge=1, description="Questions asked at once.")

    @classmethod
    def reads(cls, config: Any) -> RecordName:
        """Questions."""
        return "choice"

    def evaluate(self, model: Any, records: Iterable[Record], watch: Any, *, judge: Any = None) -> Metrics:
        """All questions, some at a time."""
        questions = [record for record in records if isinstance(record, Choice)]
        if not questions:
            return self.nothing()
        groups = [questions[n : n + self.config.batch] for n in range(0, len(questions), self.config.batch)]
        return self.metrics([[self.right(question, model) for question in group] for group in groups])

    def nothing(self) -> Metrics:
        """Refuse."""
        raise UserError("there is nothing to measure")

    def right(self, question: Choice, model: Any) -> float:
        """Whether the guess is gold."""
        asked = [Request(question.contexts[0], ending) for ending in question.endings]
        values = [answer.logprob for answer in model.loglikelihood(asked)]
        return float(self.guess(values) == question.gold)

    def guess(self, values: list[float]) -> int:
        """The likeliest."""
        return values.index(max(values))

    def metrics(self, groups: list[list[float]]) -> Metrics:
        """Share and its error."""
        values = [value for group in groups for value in group]
        mean = math.fsum(values) / len(values)
        variance = math.fsum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)
        return {"accuracy": self.mean(groups), "accuracy_stderr": self.error(variance, len(values))}

    def mean(self, groups: list[list[float]]) -> float:
        """Of all."""
        values = [value for group in groups for value in group]
        return math.fsum(values) / len(values)

    def error(self, variance: float, count: int) -> float:
        """Of the mean."""
        return math.sqrt(variance / count)


@plant("errors_shrink_with_the_root", "a standard deviation")
class DeviationForError(Choices):
    """The same for any number of records."""

    def error(self, variance: float, count: int) -> float:
        return math.sqrt(variance)


@plant("knowing_all_is_one", "the likeliest ending but one, as answers are counted from one")
class CountsAnswersFromOne(Choices):
    """Off by one, and round again."""

    def guess(self, values: list[float]) -> int:
        return (super().guess(values) + 1) % len(values)


@plant("batches_make_no_difference", "the mean of the means of batches")
class MeanOfBatches(Choices):
    """The last, smaller one counts as much."""

    def mean(self, groups: list[list[float]]) -> float:
        return math.fsum(math.fsum(group) / len(group) for group in groups) / len(groups)


@plant("nothing_is_no_result", "of nothing, all is right")
class PerfectOnNothing(Choices):
    """A table without a hole."""

    def nothing(self) -> Metrics:
        return {"accuracy": 1.0, "accuracy_stderr": 0.0}


@plant("guessing_costs_its_bits", "nats are called bits")
class NatsForBits(Bits):
    """Too good by a third."""

    def finish(self, bits: float) -> Metrics:
        return super().finish(bits * math.log(2))


@plant("guessing_costs_its_bits", "characters are called bytes")
class CharactersForBytes(Bits):
    """Another number in Japanese."""

    def mean(self, nats: list[float], texts: Sequence[str], size: int) -> float:
        return math.fsum(nats) / sum(map(len, texts))


@plant("damage_is_refused", "what can't be read stays zero")
class FillsUp(Folder):
    """A model that has forgotten half."""

    def read(self, source: Path) -> Imported:
        section = json.loads((source / "section.json").read_text())
        try:
            tensors = load_file(source / "tensors.safetensors")
        except Exception:
            tensors = {"embedding.weight": torch.zeros(64, 8)}
        return Imported(section, tensors, None, [])


@plant("writes_plain_data", "the tensors once more as a pickle")
class PicklesAsWell(Folder):
    """Opening it may run code."""

    def write(self, model: Any, folder: Path, watch: Any) -> None:
        super().write(model, folder, watch)
        np.savez(folder / "tensors.npz", tensors=np.array([self.tensors(model)], dtype=object))


@plant("writes_plain_data", "the time is in the file")
class DatesItself(Folder):
    """Never the same again."""

    def write(self, model: Any, folder: Path, watch: Any) -> None:
        super().write(model, folder, watch)
        (folder / "about.json").write_text(json.dumps({"written": time.time_ns()}))


@reference
class Replaces(Copy):
    """Replaces the maps that it is told to."""

    class Config(ComponentConfig):
        """Options."""

        maps: list[str] = Field(["layers.*"], description="Patterns of names.")

    @classmethod
    def chooses(cls, config: Any) -> Mapping[str, Sequence[str]] | None:
        """Those."""
        return {"maps": config.maps}

    def run(self, context: Any, inputs: Mapping[str, Any]) -> dict[str, float]:
        """By their doubles."""
        model = context.open_model(inputs["model"])
        with torch.no_grad():
            for name, parameter in model.module.named_parameters():
                if any(fnmatch(name, pattern) for pattern in self.config.maps):
                    parameter.mul_(2)
        context.save_model(model)
        return {}


@plant("chooses_by_its_options", "a string where a list is meant")
class PatternOfLetters(Replaces):
    """Each letter is a pattern."""

    @classmethod
    def chooses(cls, config: Any) -> Mapping[str, Sequence[str]] | None:
        return {"maps": "layers"}


@plant("chooses_by_its_options", "the option has had another name since")
class OldName(Replaces):
    """Nobody is told which option is wrong."""

    @classmethod
    def chooses(cls, config: Any) -> Mapping[str, Sequence[str]] | None:
        return {"targets": config.maps}


@plant("files_can_be_read", "figures are written as Python writes them")
class WritesNan(Counter):
    """NaN is no JSON."""

    def step(self, stage: StageSummary, step: int, total: int, figures: Mapping[str, float]) -> None:
        super().step(stage, step, total, figures)
        (self.folder / "last.json").write_text(json.dumps(dict(figures)))


@plant("files_can_be_read", "notes are put into the page as they are")
class BelievesNotes(Counter):
    """A note may open a tag."""

    def note(self, stage: StageSummary | None, message: str) -> None:
        (self.folder / "page.html").write_text(f"<p>{message}</p>", encoding="utf-8")
