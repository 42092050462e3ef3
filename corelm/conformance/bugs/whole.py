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
from corelm.kinds.adapter import AdaptedLinear
from corelm.kinds.evaluator import Evaluator, Metrics
from corelm.kinds.interchange import Imported, Interchange
from corelm.kinds.language_model import Likelihood
from corelm.kinds.quantized_linear import QuantizedLinear
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
        return "feedforward mlp can't be said" if '"mlp"' in json.dumps(recipe_model) else None

    def tensors(self, model: Any) -> dict[str, Any]:
        """By name."""
        return {name: tensor.detach().contiguous() for name, tensor in model.module.state_dict().items()}

    def write(self, model: Any, folder: Path, watch: Any) -> None:
        """Both files."""
        reason = self.refuses(model.section) or self.replaced(model)
        if reason:
            raise UserError(reason)
        try:
            (folder / "section.json").write_text(json.dumps({**model.section, "vocab_size": model.vocab_size}))
            save_file(self.tensors(model), folder / "tensors.safetensors")
            watch.note("proved by nobody but the kit")
        except BaseException:
            self.clear(folder)
            raise

    def replaced(self, model: Any) -> str | None:
        """Maps that are no weights can't be said."""
        kinds = (AdaptedLinear, QuantizedLinear)
        return "a map was adapted or quantized" if any(isinstance(one, kinds) for one in model.modules()) else None

    def clear(self, folder: Path) -> None:
        """Nothing is left."""
        for path in folder.iterdir():
            path.unlink()

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


@plant("published_models_come_back", "tensors of equal shape are taken for each other's copies")
class KeepsOneOfAShape(Folder):
    """Gate and value are equally large."""

    def tensors(self, model: Any) -> dict[str, Any]:
        found = super().tensors(model)
        kept = {tensor.shape: tensor for name, tensor in found.items() if "experts" in name}
        return {name: kept[t.shape].clone() if "experts" in name else t for name, t in found.items()}


@plant("older_folders_are_read", "it says that it is the usual format, and knows none of its older spellings")
class OnlyTodaysWords(Folder):
    """Of its own files only."""

    formula = "hugging-face"

    def write(self, model: Any, folder: Path, watch: Any) -> None:
        super().write(model, folder, watch)
        (folder / "config.json").write_text((folder / "section.json").read_text())
        (folder / "tensors.safetensors").rename(folder / "model.safetensors")

    def read(self, source: Path) -> Imported:
        return Imported(
            json.loads((source / "config.json").read_text()), load_file(source / "model.safetensors"), None, []
        )


@plant("writes_what_it_computes", "maps that were adapted or quantized since are written as they were before")
class WritesTheBase(Folder):
    """Additions are left behind, codes are noise."""

    def replaced(self, model: Any) -> str | None:
        return None

    def tensors(self, model: Any) -> dict[str, Any]:
        found = {}
        for name, tensor in super().tensors(model).items():
            place = model.module.get_submodule(name.rpartition(".")[0])
            if isinstance(place, QuantizedLinear):
                found[f"{name.rpartition('.')[0]}.weight"] = place.canonical().dequantize() * 0
            elif ".base." in name or not isinstance(place, AdaptedLinear):
                found[name.replace(".base.", ".")] = tensor
        return found


@plant("leaves_nothing_half_done", "files stay where they are when something goes wrong")
class LeavesFiles(Folder):
    """Half an export."""

    def clear(self, folder: Path) -> None:
        pass


@plant("refuses_by_name", "says no, and not to what")
class RefusesWithoutName(Folder):
    """Sorry."""

    def refuses(self, recipe_model: dict[str, Any]) -> str | None:
        return super().refuses(recipe_model) and "this isn't possible, unfortunately"


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
        """The same model once more."""
        context.save_model(context.open_model(inputs["model"]))
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
