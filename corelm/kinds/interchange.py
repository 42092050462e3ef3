"""Kind ``interchange``: models to and from other formats."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from corelm.kinds.component import Component
from corelm.kinds.language_model import LanguageModel
from corelm.kinds.tokenizer import Tokenizer
from corelm.kinds.trainer import Watch


@dataclass
class Imported:
    """A model read from a foreign format.

    Attributes:
        model: the ``model`` section of a recipe, as plain data.
        tensors: canonical parameter name → tensor. A mapping may read each tensor when it is asked for; it then has
            a method ``meta(name)`` that gives the shape and type without reading.
        tokenizer: None where the folder has none.
        notes: fields that were not understood, and other things to tell.
    """

    model: dict[str, Any]
    tensors: Mapping[str, Tensor]
    tokenizer: Tokenizer | None
    notes: list[str]


class Interchange(Component):
    """One foreign format.

    Built as ``Part(config)``.

    Contract:
        * Export, then import gives every tensor back bit for bit, and the same logits.
        * ``write`` re-reads what it wrote and raises ``UserError`` on mismatch, leaving nothing behind; it
          reports through ``watch.note`` which reader proved it.
        * What can't be said in the format is refused by name; of what is read, every field that was not understood
          is noted.
        * Reading and writing hold no more than one file's tensors in memory besides the model.
    """

    kind: ClassVar[str] = "interchange"

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def recognises(self, source: Path) -> bool:
        """Whether this looks like the format."""

    @abstractmethod
    def read(self, source: Path) -> Imported:
        """Read a model."""

    @abstractmethod
    def write(self, model: LanguageModel, folder: Path, watch: Watch) -> None:
        """Write a model into an existing, empty folder."""

    @abstractmethod
    def refuses(self, recipe_model: dict[str, Any]) -> str | None:
        """Why a model of this recipe can't be written in the format; None: it can."""
