"""How often a classifier names the right class."""

from __future__ import annotations

from collections.abc import Sequence

from corelm.errors import UserError
from corelm.kinds import Labelled, LanguageModel, Metrics, RecordName, pad_rows
from corelm_evaluation.judged import JudgesRecords
from corelm_evaluation.measuring import mean, standard_error


class ClassAccuracy(JudgesRecords):
    """How often a classifier gives a text's own class the largest logit.

    A text is read as a classifier is trained on it: with the end-of-text token, and its end where it is longer than
    the context.
    """

    model_kind = "classifier"
    headline = "accuracy"
    record = Labelled

    @classmethod
    def reads(cls, config: JudgesRecords.Config) -> RecordName:
        """Labelled texts."""
        return "labelled"

    def accept(self, model: LanguageModel) -> None:
        """Its head tells classes apart."""
        if model.head.reads != "classes":
            raise UserError(
                f"the model has a head that reads {model.head.reads}, not classes",
                remedy="Name a stage that trains a classifier.",
                code="not-a-classifier",
            )

    def numbers(self, model: LanguageModel, some: Sequence[Labelled]) -> list[float]:
        """1 for each text whose class is the one that is guessed."""
        ends = [model.tokenizer.end_of_text]
        ids, valid = pad_rows([(model.tokenizer.encode(one.text) + ends)[-model.context :] for one in some])
        guesses = model.scores(ids.to(model.device), valid.to(model.device)).argmax(dim=-1).tolist()
        return [float(guess == one.label) for guess, one in zip(guesses, some, strict=True)]

    def metrics(self, found: Sequence[float]) -> Metrics:
        """The share of right guesses."""
        return {"accuracy": mean(found), "accuracy_stderr": standard_error(found), "texts": float(len(found))}
