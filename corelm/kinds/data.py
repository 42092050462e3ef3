"""Where a stage's records come from, as a recipe says it."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from corelm.kinds.cleaner import Cleaner
from corelm.kinds.component import ComponentConfig, Count, Spec
from corelm.kinds.source import Source


class DataConfig(ComponentConfig):
    """A source of records and what is done to them."""

    source: Spec[Source] = Field(description="Where the records come from.")
    clean: list[Spec[Cleaner]] = Field(default_factory=list, description="Cleaners, in order (text only).")
    holdout: float = Field(0.0, ge=0, lt=1, description="Share kept out of training, by hash of the record.")
    limit: Count | None = Field(None, gt=0, description="Take at most this many records.")

    @model_validator(mode="after")
    def _texts_are_cleaned(self) -> Self:
        yields = self.source.part.yields(self.source.config)
        if self.clean and yields != "text":
            raise ValueError(
                f"cleaners read texts, but {self.source.name} yields {yields} here; "
                "leave `clean` out, or take a source of texts"
            )
        return self
