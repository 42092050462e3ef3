"""Tiny recipes that train in a second."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corelm.pipeline.watch import StageWatch

TINY = """\
corelm: 1
name: tiny
seed: 7
corpus:
  source: {{use: text-files, paths: [text]}}
  holdout: 0.2
tokenizer: {{use: bytes}}
template: {{use: chatml}}
model:
  dim: 16
  layers: 1
  context: 16
  position: rope
  attention: {{use: gqa, heads: 2}}
  feedforward: {{use: swiglu, width: 32}}
trackers: [jsonl]
checkpoint_seconds: {seconds}
stages:
  base:
    use: pretrain
    tokens: {tokens}
    batch: 2
    optimizer: {{use: adamw, learning_rate: 1e-2}}
    schedule: {schedule}
    trainer: {{use: plain, precision: fp32}}
  scores:
    use: evaluate
    from: base
    tasks: [perplexity]
"""


class Project:
    """A folder with a recipe and its text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "text").mkdir()
        for number in range(20):
            words = " ".join(f"word{(number * 7 + at * 3) % 11}" for at in range(30))
            (folder / "text" / f"{number:02}.txt").write_text(f"Document {number}: {words}.\n")
        self.write()

    @property
    def recipe(self) -> Path:
        return self.folder / "tiny.yaml"

    @property
    def out(self) -> Path:
        return self.folder / "runs"

    @property
    def run_folder(self) -> Path:
        return self.out / "tiny"

    def write(self, tokens: int = 640, schedule: str = "{use: cosine}", seconds: float = 300) -> Path:
        self.recipe.write_text(TINY.format(tokens=tokens, schedule=schedule, seconds=seconds))
        return self.recipe


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def stopping_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], contextlib.AbstractContextManager[None]]:
    """``with stopping_at(stage, step)``: the user asks to stop at that step of that stage."""

    @contextlib.contextmanager
    def asked(stage: str, at: int) -> Iterator[None]:
        real = StageWatch.step

        def step(self, step, total, figures):
            real(self, step, total, figures)
            if self._summary.name == stage and step >= at:
                self._stop.requested = True

        with monkeypatch.context() as patched:
            patched.setattr(StageWatch, "step", step)
            yield

    return asked
