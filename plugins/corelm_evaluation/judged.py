"""What the measures of models that judge texts share: records in batches, one number for each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, cast

from pydantic import Field

from corelm.kinds import (
    ComponentConfig,
    Count,
    DataConfig,
    Evaluator,
    LanguageModel,
    Metrics,
    Record,
    Scorer,
    Watch,
)
from corelm_evaluation.measuring import chosen, in_batches, measuring


class JudgesRecords(Evaluator):
    """Measures a model that reads texts and writes none, by one number per record."""

    record: ClassVar[type[Any]]
    """Type of the records."""

    class Config(ComponentConfig):
        """Options."""

        data: DataConfig | None = Field(None, description="The records; a task of its own has to name them.")
        limit: Count | None = Field(None, gt=0, description="Most records; a sample by hash.")
        batch: int = Field(16, ge=1, description="Records read at once.")

    def evaluate(
        self,
        model: Scorer | LanguageModel,
        records: Iterable[Record],
        watch: Watch,
        *,
        judge: LanguageModel | None = None,
    ) -> Metrics:
        """Let the model judge every record."""
        config: Any = self.config
        judging = cast(LanguageModel, model)
        self.accept(judging)
        with measuring(judging):
            found = in_batches(
                chosen(records, self.record, config.limit),
                config.batch,
                lambda some: self.numbers(judging, some),
                watch,
            )
        return self.metrics(found)

    @abstractmethod
    def accept(self, model: LanguageModel) -> None:
        """Raise ``UserError`` where the model is none that judges."""

    @abstractmethod
    def numbers(self, model: LanguageModel, some: Sequence[Any]) -> list[float]:
        """One number for each of these records."""

    @abstractmethod
    def metrics(self, found: Sequence[float]) -> Metrics:
        """Figures from the numbers of all records."""
