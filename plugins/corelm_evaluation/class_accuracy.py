"""How often a classifier names the right class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from pydantic import Field

from corelm.errors import UserError
from corelm.kinds import (
    ComponentConfig,
    Count,
    DataConfig,
    Evaluator,
    Labelled,
    LanguageModel,
    Metrics,
    Record,
    RecordName,
    Scorer,
    Watch,
    pad_rows,
)
from corelm_evaluation.measuring import chosen, in_batches, mean, measuring, standard_error


class ClassAccuracy(Evaluator):
    """How often a classifier gives a text's own class the largest logit.

    A text is read as a classifier is trained on it: with the end-of-text token, and its end where it is longer than
    the context.
    """

    model_kind = "classifier"
    headline = "accuracy"

    class Config(ComponentConfig):
        """Options."""

        data: DataConfig | None = Field(None, description="Labelled texts; a task of its own has to name them.")
        limit: Count | None = Field(None, gt=0, description="Most texts; a sample by hash.")
        batch: int = Field(16, ge=1, description="Texts read at once.")

    @classmethod
    def reads(cls, config: Config) -> RecordName:
        """Labelled texts."""
        return "labelled"

    def evaluate(
        self,
        model: Scorer | LanguageModel,
        records: Iterable[Record],
        watch: Watch,
        *,
        judge: LanguageModel | None = None,
    ) -> Metrics:
        """Classify every text."""
        config: Any = self.config
        classifier = cast(LanguageModel, model)
        if classifier.head.reads != "classes":
            raise UserError(
                f"the model has a head that reads {classifier.head.reads}, not classes",
                remedy="Name a stage that trains a classifier.",
                code="not-a-classifier",
            )

        def right(some: Sequence[Labelled]) -> list[float]:
            ends = [classifier.tokenizer.end_of_text]
            rows = [(classifier.tokenizer.encode(one.text) + ends)[-classifier.context :] for one in some]
            ids, valid = pad_rows(rows)
            logits = classifier.scores(ids.to(classifier.device), valid.to(classifier.device))
            guesses = logits.argmax(dim=-1).tolist()
            return [float(guess == one.label) for guess, one in zip(guesses, some, strict=True)]

        with measuring(classifier):
            found = in_batches(chosen(records, Labelled, config.limit), config.batch, right, watch)
        return {"accuracy": mean(found), "accuracy_stderr": standard_error(found), "texts": float(len(found))}
