"""What a stage sees of the run: earlier artifacts, the corpus, a place to write, someone to report to."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from corelm.errors import Interrupted, UserError
from corelm.kinds.component import Spec
from corelm.kinds.data import DataConfig
from corelm.kinds.language_model import LanguageModel
from corelm.kinds.packer import Tokens, TokenStore
from corelm.kinds.records import Record
from corelm.kinds.stage import Artifact
from corelm.kinds.template import Template
from corelm.kinds.tokenizer import Tokenizer
from corelm.kinds.trainer import Checkpoints, Watch
from corelm.model import assemble as assembling
from corelm.model import loading
from corelm.model.config import ModelConfig
from corelm.model.language_model import LanguageModel as Assembled
from corelm.pipeline import cleaning, records
from corelm.pipeline.processes import RunGroup
from corelm.pipeline.tokens import DiskTokens, write_tokens


@dataclass
class StageContext:
    """The run as one stage sees it; implements ``corelm.kinds.stage.RunContext``."""

    name: str
    run_folder: Path
    folder: Path
    scratch: Path
    seed: int
    watch: Watch
    checkpoints: Checkpoints
    recipe: Mapping[str, Any]
    model_config: ModelConfig | None
    loaded: bool
    template_spec: Spec[Template] | None
    group: RunGroup
    """The processes that run this stage."""

    def new_model(self) -> LanguageModel:
        """The recipe's model, drawn from the recipe's seed, or loaded."""
        if self.loaded:
            return loading.load(self.run_folder / "model").train()
        if self.model_config is None:
            raise UserError(f"stage {self.name} needs a model, but the recipe has no model section", code="no-model")
        tokenizer = self.tokenizer()
        built = assembling.assemble(self.model_config, tokenizer.vocab_size)
        assembling.initialise(built, int(self.recipe["seed"]))
        built.attach(tokenizer)
        return built

    def open_model(self, artifact: Artifact, *, trainable: bool = False) -> LanguageModel:
        """A model that an earlier stage made."""
        model = loading.load(artifact.folder)
        if model.template is None and self.template_spec is not None and model.has_tokenizer:
            model.attach(model.tokenizer, self.template_spec.build())
        model.requires_grad_(trainable)
        model.train(trainable)
        return model

    def save_model(self, model: LanguageModel, *, template: Template | None = None) -> None:
        """Write the model's folder; the first process does."""
        if self.group.leads:
            loading.save(cast(Assembled, model), self.folder, template=template or model.template)

    def tokenizer(self) -> Tokenizer:
        """The recipe's tokenizer."""
        return loading.load_tokenizer(self.run_folder / "tokenizer")

    def template(self) -> Template:
        """The recipe's template."""
        if self.template_spec is None:
            raise UserError(
                f"stage {self.name} needs a template", remedy="Add `template: chatml`.", code="no-template"
            )
        return self.template_spec.build()

    def corpus_tokens(self, split: Literal["train", "holdout"] = "train") -> TokenStore:
        """The corpus, tokenized."""
        return DiskTokens(self.run_folder / "tokens" / split)

    def corpus_texts(self, split: Literal["train", "holdout"] = "train") -> Iterator[Record]:
        """The corpus, cleaned."""
        return self._stoppable(records.read_records(self.run_folder / "corpus" / f"{split}.jsonl"))

    def records(self, data: DataConfig, split: Literal["train", "holdout", "all"] = "train") -> Iterator[Record]:
        """A stage's own records."""
        return self._stoppable(cleaning.stream(data, split, self.watch.note))

    def store(self, tokens: Iterable[Tokens], name: str) -> TokenStore:
        """Put tokenized documents on disk, for this stage only; the first process does, the others wait."""
        folder = self.scratch / name
        if self.group.leads:
            shutil.rmtree(folder, ignore_errors=True)
            write_tokens(folder, tokens, self.tokenizer().vocab_size)
        self._first_is_ready(name)
        return DiskTokens(folder)

    def shared(self, found: Iterator[Record], name: str) -> list[Record]:
        """Records as a list; of several processes the first one reads them, the others what it wrote down."""
        if self.group.world == 1:
            return list(found)
        path = self.scratch / f"{name}.jsonl"
        if self.group.leads:
            self.scratch.mkdir(parents=True, exist_ok=True)
            records.write_records(path, found)
        self._first_is_ready(name)
        return list(records.read_records(path))

    def _first_is_ready(self, name: str) -> None:
        """Come here when the first process has written what ``name`` stands for."""
        if self.group.leads:
            self.group.announce(f"ready/{self.name}/{name}")
        else:
            self.group.hear(f"ready/{self.name}/{name}", lambda: self.watch.stopping)

    def read_preferences(self, artifact: Artifact) -> Iterator[Record]:
        """Records that an earlier stage wrote."""
        return self._stoppable(records.read_records(artifact.folder / "records.jsonl"))

    def write_records(self, made: Iterable[Record], name: str = "records.jsonl") -> int:
        """Write typed records into the stage's folder."""
        return records.write_records(self.folder / name, made)

    def _stoppable(self, found: Iterator[Record]) -> Iterator[Record]:
        for record in found:
            self.stop_if_asked()
            yield record

    def stop_if_asked(self) -> None:
        """Raise ``Interrupted`` when the user asked to stop."""
        if self.watch.stopping:
            raise Interrupted(
                f"stopped in {self.name}", remedy="Run the same command again to go on.", code="stopped"
            )
