"""What a finished run says about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corelm.files import read_json
from corelm.kinds.tracker import StageSummary

LEDGER = "stage.json"
"""In each stage's folder: what it is, what it depends on, what came out."""


def read_run(folder: Path) -> tuple[dict[str, Any], list[StageSummary], dict[str, Any]]:
    """The recipe, a summary per stage in order, and the metrics of the stages that measured something."""
    recipe = read_json(folder / "recipe.json")
    implicit = [name for name in ("corpus", "tokenizer", "tokens", "model") if (folder / name).is_dir()]
    names = implicit + list(recipe["stages"])
    stages, metrics = [], {}
    for name in names:
        path = folder / name / LEDGER
        if not path.exists():
            stages.append(StageSummary(name, recipe["stages"].get(name, {}).get("use", name), "not made yet"))
            continue
        ledger = read_json(path)
        summary = StageSummary(name, ledger["use"], "done", "", ledger["seconds"], ledger["figures"])
        summary.folder, summary.notes = str(folder / name), ledger["notes"]
        stages.append(summary)
        if (folder / name / "metrics.json").exists():
            metrics[name] = read_json(folder / name / "metrics.json")
    return recipe, stages, metrics
