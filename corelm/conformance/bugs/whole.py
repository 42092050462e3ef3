"""Evaluators, interchange formats, stages and trackers that are wrong in one way."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from corelm.conformance.planted import plant, reference
from corelm.errors import UserError
from corelm.kinds.evaluator import Evaluator, Metrics
from corelm.kinds.interchange import Imported, Interchange
from corelm.kinds.language_model import Likelihood
from corelm.kinds.records import Record, RecordName, Text
from corelm.kinds.stage import ArtifactType, SectionUse, Stage
from corelm.kinds.tracker import StageSummary, Tracker


@reference
class Bits(Evaluator):
    """Bits per byte of whole texts."""

    headline = "bits_per_byte"

    @classmethod
    def reads(cls, config: Any) -> RecordName:
        """Text."""
        return "text"

    def evaluate(self, model: Any, records: Iterable[Record], watch: Any, *, judge: Any = None) -> Metrics:
        """All texts together."""
        texts = [record.text for record in records if isinstance(record, Text)]
        if not texts:
            raise UserError("there is nothing to measure")
        found = self.score(model, texts)
        size = sum(len(text.encode()) for text in texts)
        return self.finish(self.mean([-each.logprob for each in found], texts, size) / math.log(2))

    def score(self, model: Any, texts: Sequence[str]) -> list[Likelihood]:
        """Log-likelihoods."""
        likelihoods: list[Likelihood] = model.rolling_loglikelihood(texts)
        return likelihoods

    def mean(self, nats: list[float], texts: Sequence[str], size: int) -> float:
        """Per byte."""
        return math.fsum(nats) / size

    def finish(self, bits: float) -> Metrics:
        """Name it."""
        return {"bits_per_byte": bits}


@plant("order_is_free", "the first record counts double")
class FirstCountsDouble(Bits):
    """Order matters."""

    def mean(self, nats: list[float], texts: Sequence[str], size: int) -> float:
        return super().mean(nats, texts, size) + nats[0] / size


@plant("model_is_only_read", "the model is left in evaluation mode")
class LeavesEvaluationMode(Bits):
    """Another mode."""

    def score(self, model: Any, texts: Sequence[str]) -> list[Likelihood]:
        return super().score(model.eval(), texts)


@plant("metrics_are_floats", "an accuracy without a standard error, above one")
class NoStandardError(Bits):
    """Hundreds."""

    def finish(self, bits: float) -> Metrics:
        return {**super().finish(bits), "accuracy": 100.0}


@plant("means_are_means", "a sum under the name of a mean")
class SumOfBits(Bits):
    """Grows with the records."""

    def mean(self, nats: list[float], texts: Sequence[str], size: int) -> float:
        return math.fsum(nats)


@plant("fitting_helps", "the sign: better models have the worse figure")
class WrongSign(Bits):
    """Likelihood in place of its negative."""

    def mean(self, nats: list[float], texts: Sequence[str], size: int) -> float:
        return 100.0 - super().mean(nats, texts, size)


@reference
class Folder(Interchange):
    """The section as JSON, the tensors as safetensors; no MLPs."""

    def recognises(self, source: Path) -> bool:
        """By its file."""
        return (source / "section.json").is_file()

    def refuses(self, recipe_model: dict[str, Any]) -> str | None:
        """One feed-forward."""
        return "feedforward mlp can't be said" if recipe_model["feedforward"]["use"] == "mlp" else None

    def tensors(self, model: Any) -> dict[str, Any]:
        """By name."""
        return {name: p.detach().contiguous() for name, p in model.named_parameters()}

    def write(self, model: Any, folder: Path, watch: Any) -> None:
        """Both files."""
        reason = self.refuses(model.section)
        if reason:
            raise UserError(reason)
        (folder / "section.json").write_text(json.dumps({**model.section, "vocab_size": model.vocab_size}))
        save_file(self.tensors(model), folder / "tensors.safetensors")
        watch.note("proved by nobody but the kit")

    def read(self, source: Path) -> Imported:
        """Both files."""
        section = json.loads((source / "section.json").read_text())
        try:
            tensors = load_file(source / "tensors.safetensors")
        except SafetensorError as error:
            raise UserError(f"{source}: {error}") from error
        return Imported(section, tensors, None, [])


@plant("round_trip", "halves on the way")
class SavesHalves(Folder):
    """bfloat16."""

    def tensors(self, model: Any) -> dict[str, Any]:
        return {name: tensor.bfloat16() for name, tensor in super().tensors(model).items()}


@plant("announces_what_it_reads", "announces half the rows")
class AnnouncesOthers(Folder):
    """Tensors are as they should be."""

    def read(self, source: Path) -> Imported:
        imported = super().read(source)
        return Imported(imported.model, Announcing(imported.tensors), None, [])


class Announcing(dict[str, Any]):
    """Tensors with a wrong announcement."""

    def meta(self, name: str) -> Any:
        """Half of it."""
        return self[name][: len(self[name]) // 2].to("meta")


@plant("knows_its_own", "claims every folder")
class ClaimsEveryFolder(Folder):
    """Exists."""

    def recognises(self, source: Path) -> bool:
        return source.is_dir()


@plant("refuses_by_name", "refuses, but writes all the same")
class WritesWhatItRefuses(Folder):
    """Another model comes out."""

    def write(self, model: Any, folder: Path, watch: Any) -> None:
        (folder / "section.json").write_text(json.dumps(model.section))


@reference
class Copy(Stage):
    """Takes a model, makes a model."""

    @classmethod
    def inputs(cls, config: Any) -> Mapping[str, ArtifactType]:
        """A model."""
        return {"model": "model"}

    def run(self, context: Any, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Not run here."""
        return {}


@plant("inputs_and_output_are_typed", "an input of a type that nobody makes")
class UnknownType(Copy):
    """A brain."""

    @classmethod
    def inputs(cls, config: Any) -> Mapping[str, Any]:
        return {"model": "brain"}


@plant("needs_are_declared", "yes in place of the contract's words")
class SaysYes(Copy):
    """True."""

    @classmethod
    def reads_corpus(cls, config: Any) -> SectionUse:
        return True  # type: ignore[return-value]


@plant("depends_on_something", "it takes no input and reads nothing")
class OutOfNothing(Copy):
    """No inputs."""

    @classmethod
    def inputs(cls, config: Any) -> Mapping[str, ArtifactType]:
        return {}


@reference
class Counter(Tracker):
    """Counts steps in a file."""

    def open(self, folder: Path, recipe: Mapping[str, Any], stages: list[StageSummary]) -> None:
        """Begin."""
        self.folder, self.count = self.place(folder), 0

    def place(self, folder: Path) -> Path:
        """Where it writes."""
        return folder

    def step(self, stage: StageSummary, step: int, total: int, figures: Mapping[str, float]) -> None:
        """Count."""
        self.count += 1

    def close(self, stages: list[StageSummary]) -> None:
        """Write."""
        (self.folder / "count.txt").write_text(str(self.count))


@plant("survives_a_run", "a note always belongs to a stage")
class NotesNeedAStage(Counter):
    """stage.name of None."""

    def note(self, stage: StageSummary | None, message: str) -> None:
        assert stage is not None, "no stage"


@plant("only_reads", "figures are rounded where they are")
class RoundsInPlace(Counter):
    """Changes what it was given."""

    def step(self, stage: StageSummary, step: int, total: int, figures: Mapping[str, float]) -> None:
        figures["loss"] = round(figures["loss"])  # type: ignore[index]


@plant("cheap_per_step", "works at every step")
class SlowStep(Counter):
    """Two milliseconds."""

    def step(self, stage: StageSummary, step: int, total: int, figures: Mapping[str, float]) -> None:
        until = time.process_time() + 2e-3
        while time.process_time() < until:
            pass


@plant("closes_anywhere", "a file that the first stage opens")
class ClosesWhatIsNotOpen(Counter):
    """Never begun."""

    def open(self, folder: Path, recipe: Mapping[str, Any], stages: list[StageSummary]) -> None:
        self.folder = folder

    def stage_start(self, stage: StageSummary, resumed_from: int = 0) -> None:
        self.count = 0


@plant("stays_in_its_folder", "writes into the working directory")
class WritesElsewhere(Counter):
    """A relative path."""

    def place(self, folder: Path) -> Path:
        return Path()
