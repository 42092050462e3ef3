"""Stages with a run around them: models of a few hundred parameters, a corpus of twelve lines, records of every type."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import torch

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, PartUnderTest
from corelm.conformance.laws.evaluator.bench import TEXTS, records
from corelm.conformance.laws.source import files
from corelm.conformance.tiny import MODEL, Memory, Silent, tiny
from corelm.errors import UserError
from corelm.kinds.component import Spec
from corelm.kinds.data import DataConfig
from corelm.kinds.packer import Tokens
from corelm.kinds.records import Conversation, Message, Preference, Record, Text
from corelm.kinds.stage import Artifact
from corelm.kinds.tokenizer import END_OF_TEXT
from corelm.model import loading
from corelm.model.config import ModelConfig
from corelm.pipeline.context import StageContext
from corelm.pipeline.processes import ALONE
from corelm.pipeline.records import write_records
from corelm.pipeline.tokens import write_tokens

FEEDFORWARD = {"use": "swiglu", "width": 8}
"""Of a model that other formats have words for."""
TIMES = ("second", "time", "memory")
"""What the name of a figure that another run need not repeat has in it."""


class StageBench(Bench):
    """Configs are drawn for a short run."""

    kind = "stage"

    def subject(self, part: PartUnderTest, draw: Draw, **pins: Any) -> Subject:
        """Stages are given data of a type that some of them take."""
        docstrings = (
            {"use": "stdlib-docstrings", "yields": y} for y in ("preference", "conversation", "text", "choice")
        )
        labelled = {"use": "jsonl", "path": files()["path"][0], "yields": "labelled"}
        self.hints = {
            "prompts": (["Once upon a time"],),
            "targets": (["*"],),
            "data": tuple({"source": source} for source in (*docstrings, labelled)),
            "answer_tokens": (4, 8),
            "merge": (False, True),
        }
        return super().subject(part, draw, **pins)

    def short(self, part: PartUnderTest, draw: Draw, **pins: Any) -> Subject:
        """A subject whose run takes a few steps."""
        trains = "packer" in part.cls.Config.model_fields or "trainer" in part.cls.Config.model_fields
        steps = draw.choice("steps", [None, 3])
        short = {
            "batch": 2,
            "accumulate": draw.choice("accumulate", [1, 2]),
            "optimizer": {"use": "adamw", "learning_rate": 0.01},
            "schedule": "constant",
            "trainer": {"use": "plain", "precision": "fp32"},
            "epochs": 1,
            "steps": steps,
            "limit": None,
            "tokens": 400 if trains else 6,
        }
        if draw.choice("nothing added", [False, True]):
            short |= {"adapter": None, "merge": True, "targets": []}
        known = {name: value for name, value in {**short, **pins}.items() if name in part.cls.Config.model_fields}
        return self.subject(part, draw, **known)


@dataclass
class World:
    """What surrounds one stage, in a folder of its own.

    Attributes:
        folder: holds everything.
        subject: the stage.
        inputs: its artifacts by role.
        records: what any data yield, by type.
        checkpoints: where it saves.
        seed: of the stage.
        template, corpus: whether the recipe has these sections.
        runs: how often it was run.
        watch: what the last run reported to.
    """

    folder: Path
    subject: Subject
    inputs: dict[str, Any]
    records: dict[str, list[Record]]
    checkpoints: Memory = field(default_factory=Memory)
    seed: int = 0
    template: bool = True
    corpus: bool = True
    runs: int = 0
    watch: Silent = field(default_factory=Silent)

    def without_corpus(self) -> None:
        """From now on the recipe has no corpus."""
        self.corpus = False
        for name in ("corpus", "tokens"):
            shutil.rmtree(self.folder / name)

    def run(self, *, stop_after: int | None = None) -> tuple[Path, dict[str, float]]:
        """Run the stage; where its results are, and its figures."""
        self.runs += 1
        made = self.folder / f"made{self.runs}"
        made.mkdir()
        self.watch = Silent(stop_after)
        context = _Context(
            name="stage",
            run_folder=self.folder,
            folder=made,
            scratch=self.folder / f"scratch{self.runs}",
            seed=self.seed,
            watch=self.watch,
            checkpoints=self.checkpoints,
            recipe={"seed": 0, "corpus": {} if self.corpus else None, "model": dict(MODEL)},
            model_config=ModelConfig.model_validate(MODEL),
            loaded=False,
            template_spec=Spec.read("template", "plain") if self.template else None,
            group=ALONE,
            given=self.records,
        )
        return made, self.subject.part.run(context, self.inputs)

    def outcome(self) -> tuple[dict[str, str], dict[str, float]]:
        """Digests of the files that a run makes, and its figures, without those that tell of time."""
        made, figures = self.run()
        return digests(made), {n: v for n, v in figures.items() if not any(word in n for word in TIMES)}


@dataclass
class _Context(StageContext):
    """A run's context whose data are records made up here."""

    given: Mapping[str, list[Record]]

    def records(self, data: DataConfig, split: Literal["train", "holdout", "all"] = "train") -> Iterator[Record]:
        """Of the type that the source yields, those on the split's side."""
        assert split != "holdout" or data.holdout, "it asks for the held-out part of data of which none is held out"
        found = self.given[yielded(data)][: data.limit]
        if split != "all" and data.holdout and len(found) > 1:  # a record at least on either side
            cut = min(math.ceil(data.holdout * len(found)), len(found) - 1)
            found = found[:cut] if split == "holdout" else found[cut:]
        yield from found


def yielded(data: DataConfig) -> str:
    """Of which type the records of a section are."""
    return data.source.part.yields(data.source.config)


def digests(folder: Path) -> dict[str, str]:
    """Every file below a folder, with the digest of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextlib.contextmanager
def world(part: PartUnderTest, subject: Subject, seed: int, *, optional: bool = True) -> Iterator[World]:
    """Everything that a stage reads, made of a seed; ``optional``: whether roles that may be left out are filled."""
    fast = mock.patch.object(os, "fsync", lambda file: None)  # what is here need not outlive the process
    with fast, tempfile.TemporaryDirectory(prefix="corelm-stage-") as name:
        folder = Path(name)
        template = Spec.read("template", "plain").build()
        tokenizer = Spec.read("tokenizer", "bytes").build()
        tokenizer.train((), (END_OF_TEXT,))
        (folder / "tokenizer").mkdir()
        loading.save_tokenizer(tokenizer, folder / "tokenizer")
        write_corpus(folder, TEXTS)

        def artifact(role: str, type_: str, number: int) -> Artifact:
            made = folder / f"{role}{number}"
            if type_ == "preferences":
                made.mkdir()
                write_records(made / "records.jsonl", records("preference"))
            else:
                head = {"reward-model": "scalar", "classifier": "classifier"}.get(type_, "")
                drawn = seed + number + len(role)
                model = tiny(drawn, dtype=torch.float32, vocab=tokenizer.vocab_size, feedforward=FEEDFORWARD)
                model.attach(tokenizer, template)
                if head:
                    model = model.with_head(Spec.read("head", head), seed)
                    for parameter in model.head.parameters():
                        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(seed % 2**62))
                loading.save(model, made, template=template)
            return Artifact(type_, f"{role}{number}", made, f"{seed}")  # type: ignore[arg-type]

        inputs: dict[str, Any] = {}
        for role, type_ in part.cls.inputs(subject.config).items():
            plain = role.rstrip("?*")
            if "?" in role and not optional:
                continue
            inputs[plain] = [artifact(plain, type_, n) for n in (0, 1)] if "*" in role else artifact(plain, type_, 0)
        given = {
            type_: _short(records(type_)) for type_ in ("text", "conversation", "preference", "labelled", "choice")
        }
        yield World(folder, subject, inputs, given, seed=seed % 2**31)


def write_corpus(folder: Path, texts: Sequence[str]) -> None:
    """Texts as a run's corpus, four times over; the first three are held out as well."""
    tokenizer = loading.load_tokenizer(folder / "tokenizer")
    for name in ("corpus", "tokens"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()
    for split, some in (("train", [*texts] * 4), ("holdout", [*texts][:3])):
        write_records(folder / "corpus" / f"{split}.jsonl", (Text(t, f"{n}") for n, t in enumerate(some)))
        encoded = (Tokens(np.array(tokenizer.encode(t), dtype=np.int64), name=f"{n}") for n, t in enumerate(some))
        write_tokens(folder / "tokens" / split, encoded, tokenizer.vocab_size)


def _short(found: list[Record]) -> list[Record]:
    """Records that fit into the context of the tiny model when a template has dressed them."""

    def cut(record: Record) -> Record:
        if isinstance(record, Conversation):
            return replace(record, messages=tuple(Message(m.role, m.content[:12]) for m in record.messages))
        if isinstance(record, Preference):
            return replace(record, prompt=tuple(Message(m.role, m.content[:12]) for m in record.prompt))
        return record

    return [cut(record) for record in found]


def ran(made: World, draw: Draw) -> tuple[dict[str, str], dict[str, float]]:
    """The outcome; the example is given up where the stage refuses what was drawn."""
    try:
        return made.outcome()
    except UserError as refusal:
        draw.note("rejected", refusal.message)
        draw.reject()


def reads_data(part: PartUnderTest, config: Any) -> bool:
    """Whether under this config it reads records of its own, or the corpus."""
    return getattr(config, "data", None) is not None or part.cls.reads_corpus(config) != "never"


def finite(figures: Mapping[str, float]) -> bool:
    """Whether all figures are numbers."""
    return all(type(value) in (int, float) and math.isfinite(value) for value in figures.values())
