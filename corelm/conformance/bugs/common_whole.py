"""Mistakes that are made again and again in evaluators, interchange, stages, trackers, quantizers, kernels, samplers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bugs.quantizer import Nearest, Plain
from corelm.conformance.bugs.sampler import Cooler, Largest, Nucleus
from corelm.conformance.bugs.whole import Bits, Copy, Counter, Folder
from corelm.conformance.planted import plant
from corelm.kinds.evaluator import Metrics
from corelm.kinds.language_model import Likelihood
from corelm.kinds.quantizer import Codes
from corelm.kinds.stage import ArtifactType, SectionUse
from corelm.kinds.tracker import StageSummary


@plant("means_are_means", "the last, smaller batch is dropped")
class DropsTheRest(Bits):
    """Floor."""

    def score(self, model: Any, texts: Sequence[str]) -> list[Likelihood]:
        return super().score(model, texts[: len(texts) // 4 * 4])


@plant("metrics_are_floats", "a tensor is reported, and with it a graph")
class ReportsATensor(Bits):
    """Not a float."""

    def finish(self, bits: float) -> Metrics:
        return {"bits_per_byte": torch.tensor(bits)}  # type: ignore[dict-item]


@plant("model_is_only_read", "gradients are left behind")
class LeavesGradients(Bits):
    """No no_grad, and a backward pass for a figure."""

    def score(self, model: Any, texts: Sequence[str]) -> list[Likelihood]:
        with torch.enable_grad():
            ids = torch.tensor([model.tokenizer.encode(texts[0])])
            model.logprobs(ids[:, :-1], ids[:, 1:]).sum().backward()
        return super().score(model, texts)


@plant("round_trip", "options of the norm are not written, and come back as defaults (keras-hub#1472 and its kin)")
class LosesOptions(Folder):
    """eps is another one."""

    def write(self, model: Any, folder: Path, watch: Any) -> None:
        super().write(model, folder, watch)
        section = json.loads((folder / "section.json").read_text())
        (folder / "section.json").write_text(json.dumps({**section, "norm": {"use": "rmsnorm", "eps": 1e-2}}))


@plant("round_trip", "square maps are transposed on the way out and not on the way in")
class Transposes(Folder):
    """Where shapes don't show it."""

    def tensors(self, model: Any) -> dict[str, Any]:
        found = super().tensors(model).items()
        return {n: t.T.contiguous() if t.dim() == 2 and t.shape[0] == t.shape[1] else t for n, t in found}


@plant("refuses_by_name", "what can't be said is found out when half of it is written")
class RefusesTooLate(Folder):
    """Files are left behind."""

    def write(self, model: Any, folder: Path, watch: Any) -> None:
        (folder / "section.json").write_text(json.dumps(model.section))
        super().write(model, folder, watch)


@plant("inputs_and_output_are_typed", "a role is called by a sentence")
class RoleIsASentence(Copy):
    """Nobody can write it in a recipe."""

    @classmethod
    def inputs(cls, config: Any) -> Mapping[str, ArtifactType]:
        return {"the model, please": "model"}


@plant("needs_are_declared", "the answer depends on how often one has asked")
class ChangesItsMind(Copy):
    """Once is never."""

    asked = 0

    @classmethod
    def reads_corpus(cls, config: Any) -> SectionUse:
        cls.asked += 1
        return "always" if cls.asked % 2 else "never"


@plant("survives_a_run", "figures are written as strict JSON, which knows no NaN")
class StrictJson(Counter):
    """Breaks when it would be needed most."""

    def stage_end(self, stage: StageSummary) -> None:
        json.dumps({"reason": stage.reason, **{k: float("nan") for k in stage.figures}}, allow_nan=False)


@plant("closes_anywhere", "figures are written as numbers that NaN is none of")
class WholeNumbers(Counter):
    """int(nan)."""

    def step(self, stage: StageSummary, step: int, total: int, figures: Mapping[str, float]) -> None:
        super().step(stage, step, total, figures)
        self.last = int(figures["loss"])


@plant("cheap_per_step", "the whole history is written again at each step")
class WritesHistory(Counter):
    """Quadratic."""

    def step(self, stage: StageSummary, step: int, total: int, figures: Mapping[str, float]) -> None:
        super().step(stage, step, total, figures)
        self.__dict__.setdefault("history", []).extend([figures["loss"]] * 50)
        (self.folder / "history.json").write_text(json.dumps(self.__dict__["history"]))


@plant("stays_in_its_folder", "a folder must not be there when a run begins")
class WantsANewFolder(Counter):
    """A second run fails."""

    def place(self, folder: Path) -> Path:
        (folder / "tracked").mkdir()
        return folder / "tracked"


@plant("within_half_a_step", "the last, shorter group is given the step of the group before (bitsandbytes#1884)")
class NoStepForTheRest(Nearest):
    """Garbage at the edge."""

    def order(self, scale: Tensor) -> Tensor:
        return torch.cat([scale[:, :-1], scale[:, -2:-1]], 1) if scale.shape[1] > 1 else scale


@plant("within_half_a_step", "the zero point is stored less one and read as it is, as in early files of GPTQ")
class ZeroLessOne(Nearest):
    """One code off."""

    def made(self, codes: Tensor, scale: Tensor, zero: Tensor, groups: Tensor) -> Codes:
        return super().made(codes, scale, (zero.int() - 1).clamp(min=0), groups)


@plant("codes_are_in_range", "the largest code is one too many: the grid has 2ᵇ + 1 points")
class OneCodeTooMany(Nearest):
    """Overflows when packed (nntrainer#4164 and its kin)."""

    def made(self, codes: Tensor, scale: Tensor, zero: Tensor, groups: Tensor) -> Codes:
        return super().made(torch.where(codes == codes.max(), codes.max() + 1, codes), scale, zero, groups)


@plant("equals_dequantized", "the scale of a group is looked up by rows in place of columns (torch-xpu-ops#5001)")
class NeighboursScale(Plain):
    """Rolled by one."""

    def prepare(self, codes: Codes, dtype: torch.dtype) -> Any:
        return super().prepare(
            Codes(codes.codes, codes.scale.roll(1, 0), codes.zero, codes.groups, codes.bits), dtype
        )


@plant("equals_dequantized", "products are added up in half precision")
class AddsInHalf(Plain):
    """One rounding per term."""

    def matmul(self, x: Tensor, prepared: Any) -> Tensor:
        total = torch.zeros(len(x), len(prepared), dtype=x.dtype)
        for column in range(x.shape[1]):
            total = (total + x[:, column, None] * prepared[:, column]).bfloat16().to(x.dtype)
        return total


@plant("shape_and_dtype", "a single row comes out without its axis")
class DropsTheRow(Plain):
    """squeeze()."""

    def matmul(self, x: Tensor, prepared: Any) -> Tensor:
        return super().matmul(x, prepared).squeeze(0)


@plant("says_what_it_supports", "no is said by False")
class SaysFalse(Plain):
    """Not a sentence."""

    def supports(self, codes: Codes, dtype: torch.dtype, device: torch.device, rows: int) -> str | None:
        return None if codes.bits == 4 else False  # type: ignore[return-value]


@plant("a_distribution", "where the likeliest token alone reaches p, it is dropped with all others")
class NothingLeft(Nucleus):
    """The mass with the token itself, from the first on."""

    def dropped(self, ordered: Tensor) -> Tensor:
        return ordered.cumsum(-1) > self.config.p


@plant("rows_are_independent", "k is that of the row with the fewest candidates")
class SharedCount(Largest):
    """One k for all."""

    def threshold(self, logits: Tensor) -> Tensor:
        return super().threshold(logits).amax(0, keepdim=True).expand(len(logits), 1)


@plant("temperature_divides", "the temperature is added under the fraction, lest it be zero")
class SofterThanAsked(Cooler):
    """T + 0.01."""

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        return logits / (self.config.value + 1e-2)
