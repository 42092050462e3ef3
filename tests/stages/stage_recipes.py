"""Small recipes with data of every type."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from corelm.pipeline.runner import RunResult, run

FP32 = {"use": "plain", "precision": "fp32"}
QUESTIONS = [("What is two and two?", "four"), ("Say hello.", "hello"), ("Which way is north?", "up"), ("Why?", "so")]


def rows(path: Path, made: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


class Workshop:
    """A folder with data of every type, in which recipes are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        words = [" ".join(f"word{(n * 7 + at * 3) % 11}" for at in range(20)) for n in range(24)]
        rows(folder / "texts.jsonl", [{"text": f"Document {n}: {line}."} for n, line in enumerate(words)])
        rows(folder / "talks.jsonl", [{"prompt": question, "response": answer} for question, answer in QUESTIONS * 2])
        pairs = [{"prompt": question, "chosen": answer, "rejected": "no " * 3} for question, answer in QUESTIONS * 2]
        rows(folder / "pairs.jsonl", pairs)
        labelled = [
            {"text": "good " * (n % 3 + 1) if n % 2 else "bad " * (n % 3 + 1), "label": n % 2} for n in range(32)
        ]
        rows(folder / "labelled.jsonl", labelled)

    def data(self, yields: str, **more: Any) -> dict[str, Any]:
        """A ``data`` section that reads records of this type."""
        files = {"text": "texts", "conversation": "talks", "preference": "pairs", "labelled": "labelled"}
        source = {"use": "jsonl", "path": str(self.folder / f"{files[yields]}.jsonl"), "yields": yields}
        return {"source": source, **more}

    def recipe(self, name: str, stages: Mapping[str, Any], **sections: Any) -> Path:
        """Write a recipe (JSON is YAML as well)."""
        whole = {"corelm": 1, "name": name, "seed": 7, "trackers": [], **sections, "stages": stages}
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(whole, indent=1))
        return path

    def run(self, name: str, stages: Mapping[str, Any], **sections: Any) -> RunResult:
        """Write a recipe and run it."""
        return run(self.recipe(name, stages, **sections), self.folder / "runs")

    def training(self, use: str, learning_rate: float = 1e-2, **options: Any) -> dict[str, Any]:
        """A stage that trains."""
        optimizer = {"use": "adamw", "learning_rate": learning_rate}
        return {"use": use, "batch": 4, "optimizer": optimizer, "trainer": FP32, **options}


MODEL = {
    "dim": 16,
    "layers": 1,
    "context": 64,
    "position": "rope",
    "attention": {"use": "gqa", "heads": 2},
    "feedforward": {"use": "swiglu", "width": 32},
}


def statuses(result: RunResult) -> dict[str, str]:
    return {stage.name: stage.status for stage in result.stages}
