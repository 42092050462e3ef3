"""Kind ``stage``: one step of a pipeline, with typed inputs and outputs; and what a stage sees of the run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from corelm.kinds.component import Component
from corelm.kinds.data import DataConfig
from corelm.kinds.language_model import LanguageModel
from corelm.kinds.packer import Tokens, TokenStore
from corelm.kinds.records import Record
from corelm.kinds.template import Template
from corelm.kinds.tokenizer import Tokenizer
from corelm.kinds.trainer import Checkpoints, Watch

ArtifactType = Literal[
    "corpus", "tokenizer", "model", "reward-model", "classifier", "metrics", "preferences", "folder"
]
SectionUse = Literal["never", "optional", "always"]
"""Whether a stage reads a section of the recipe; ``optional``: where the recipe has it."""


@dataclass(frozen=True)
class Artifact:
    """What a stage made.

    Attributes:
        type: what it is.
        stage: which stage made it.
        folder: where it is; complete and never changed once it exists.
        digest: of its contents.
    """

    type: ArtifactType
    stage: str
    folder: Path
    digest: str


class RunContext(Protocol):
    """A stage's view of the run."""

    name: str
    """The stage's name."""
    folder: Path
    """Write results here; it becomes visible under its final name when the stage is done."""
    seed: int
    """Derived from the recipe's seed and the stage's name."""
    watch: Watch
    checkpoints: Checkpoints
    recipe: Mapping[str, Any]
    """The resolved recipe, plain data."""

    def new_model(self) -> LanguageModel:
        """The recipe's model, freshly drawn from the seed (or loaded, where the recipe says so)."""
        ...

    def open_model(self, artifact: Artifact, *, trainable: bool = False) -> LanguageModel:
        """A model that an earlier stage made, in evaluation mode unless ``trainable``."""
        ...

    def save_model(self, model: LanguageModel, *, template: Template | None = None) -> None:
        """Write a self-describing model folder into ``folder``."""
        ...

    def tokenizer(self) -> Tokenizer:
        """The recipe's tokenizer."""
        ...

    def template(self) -> Template:
        """The recipe's template.

        Raises:
            UserError: the recipe names none.
        """
        ...

    def corpus_tokens(self, split: Literal["train", "holdout"] = "train") -> TokenStore:
        """The corpus, tokenized."""
        ...

    def corpus_texts(self, split: Literal["train", "holdout"] = "train") -> Iterator[Record]:
        """The corpus, cleaned."""
        ...

    def records(self, data: DataConfig, split: Literal["train", "holdout", "all"] = "train") -> Iterator[Record]:
        """A stage's own records, cleaned and split."""
        ...

    def store(self, tokens: Iterator[Tokens] | Sequence[Tokens], name: str) -> TokenStore:
        """Put tokenized documents on disk, so that they can be read in any order at constant memory.

        Of several processes only the first goes through ``tokens``; the others wait, and open what it wrote.
        """
        ...

    def shared(self, records: Iterator[Record], name: str) -> list[Record]:
        """Records as a list, the same in every process: the first one reads them, the others what it wrote down."""
        ...

    def read_preferences(self, artifact: Artifact) -> Iterator[Record]:
        """Records of a ``preferences`` artifact."""
        ...

    def write_records(self, records: Iterator[Record], name: str = "records.jsonl") -> int:
        """Write typed records as JSON lines into ``folder``; returns how many."""
        ...


class Stage(Component):
    """One step of a pipeline.

    Built as ``Part(config)``.

    Contract:
        * ``inputs(config)`` names its roles and the type each takes; a role ending in ``?`` is optional, one
          ending in ``*`` takes a list. ``output`` is the type of what it makes.
        * ``run`` is a function of its config, its inputs and the seed; it writes into ``context.folder`` only and
          returns figures for the table of stages.
        * Killed and run again, it goes on from its checkpoint to the same result.
        * A stage whose trainer is ``distributed`` is run in every process of the run, each with a context of its own;
          any other in the first one only. What the others write into ``folder`` is thrown away.
    """

    kind: ClassVar[str] = "stage"
    output: ClassVar[ArtifactType] = "model"
    uses_model: ClassVar[bool] = False
    """Whether it assembles the recipe's ``model`` section."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    @abstractmethod
    def inputs(cls, config: Any) -> Mapping[str, ArtifactType]:
        """Roles and types of the earlier stages that ``from`` names."""

    @classmethod
    def reads_corpus(cls, config: Any) -> SectionUse:
        """Whether it reads the recipe's corpus under ``config``."""
        return "never"

    @classmethod
    def reads_template(cls, config: Any) -> SectionUse:
        """Whether it reads the recipe's template under ``config``; models that have none of their own then get it."""
        return "never"

    @classmethod
    def chooses(cls, config: Any) -> Mapping[str, Sequence[str]] | None:
        """Options that hold patterns of linear maps, of which each must match one in the model of the role ``model``.

        None: it replaces no maps, so the model that it makes has maps of the same names.
        """
        return None

    @abstractmethod
    def run(self, context: RunContext, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Do the work; ``inputs`` maps each role to an ``Artifact``, or to a list of them."""
