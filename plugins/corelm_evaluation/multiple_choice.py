"""Multiple-choice questions by likelihood."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from pydantic import Field

from corelm.errors import UserError
from corelm.kinds import (
    Choice,
    ComponentConfig,
    Count,
    DataConfig,
    Evaluator,
    LanguageModel,
    Metrics,
    Record,
    RecordName,
    Request,
    Scorer,
    Watch,
)
from corelm_evaluation.measuring import chosen, in_batches, mean, standard_error

QUESTIONS = 32


class MultipleChoice(Evaluator):
    """Which of several endings a model finds likeliest (Zellers et al., 2019, arXiv:1905.07830, and its kin).

    ``accuracy`` takes the ending with the highest log-likelihood, ``accuracy_norm`` the highest per character of the
    ending (without the delimiter), the first of equals; ``gold_logprob`` is the mean log-likelihood of the right
    ending, ``chance`` the accuracy of guessing. Where each ending has a context of its own (Winogrande) the
    contexts compete and the ending is what is scored.

    With ``neutral`` there is ``accuracy_pmi`` as well, and it is the headline: the ending whose log-likelihood gains
    most over that after the neutral context, which is the pointwise mutual information of context and ending. It
    doesn't mind that some endings are common in themselves (Brown et al., 2020, arXiv:2005.14165, section 2.4).
    """

    headline = "accuracy_norm"

    class Config(ComponentConfig):
        """Options."""

        data: DataConfig | None = Field(None, description="Questions; a task of its own has to name them.")
        limit: Count | None = Field(None, gt=0, description="Most questions; a sample by hash.")
        delimiter: str = Field(" ", description="Written between context and ending.")
        neutral: str | None = Field(
            None, description="A context that says nothing, such as `Answer:`; none by default."
        )
        wikihow: bool = Field(
            False,
            description="Remove the bracketed marks of HellaSwag's WikiHow part; needed for its original files.",
        )

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if config.neutral is not None:
            self.headline = "accuracy_pmi"

    @classmethod
    def reads(cls, config: Config) -> RecordName:
        """Questions with their endings."""
        return "choice"

    def evaluate(
        self,
        model: Scorer | LanguageModel,
        records: Iterable[Record],
        watch: Watch,
        *,
        judge: LanguageModel | None = None,
    ) -> Metrics:
        """Measure all questions."""
        config: Any = self.config
        questions = [checked(record) for record in chosen(records, Choice, config.limit)]
        if config.wikihow:
            questions = [without_marks(question) for question in questions]

        def answer(some: Sequence[Choice]) -> list[list[float]]:
            asked = [r for question in some for r in requests(question, config.delimiter)]
            if config.neutral is not None:
                asked += [replace(request, context=config.neutral) for request in asked]
            found = iter([likelihood.logprob for likelihood in model.loglikelihood(asked)])
            given = [list(islice(found, len(question.endings))) for question in some]
            neutral = [list(islice(found, len(question.endings))) for question in some]
            return [[*with_context, *without] for with_context, without in zip(given, neutral, strict=True)]

        answers = in_batches(questions, QUESTIONS, answer, watch)
        rights: dict[str, list[float]] = {"accuracy": [], "accuracy_norm": []}
        gold = []
        for question, found in zip(questions, answers, strict=True):
            number = len(question.endings)
            logprobs, neutral = found[:number], found[number:]
            values = {
                "accuracy": logprobs,
                "accuracy_norm": [
                    logprob / max(len(ending), 1) for logprob, ending in zip(logprobs, question.endings, strict=True)
                ],
            }
            if neutral:
                values["accuracy_pmi"] = [one - other for one, other in zip(logprobs, neutral, strict=True)]
            for name, some in values.items():
                rights.setdefault(name, []).append(float(first_best(some) == question.gold))
            gold.append(logprobs[question.gold])
        figures = {name: mean(right) for name, right in rights.items()}
        errors = {f"{name}_stderr": standard_error(right) for name, right in rights.items()}
        chance = mean([1 / len(question.endings) for question in questions])
        return {
            **figures,
            **errors,
            "gold_logprob": mean(gold),
            "chance": chance,
            "questions": float(len(questions)),
        }


def requests(question: Choice, delimiter: str) -> list[Request]:
    """One request per ending."""
    contexts = question.contexts if len(question.contexts) > 1 else question.contexts * len(question.endings)
    return [Request(context, delimiter + ending) for context, ending in zip(contexts, question.endings, strict=True)]


def first_best(values: Sequence[float]) -> int:
    """Place of the highest value, the first of equals."""
    return max(range(len(values)), key=values.__getitem__)


def without_marks(question: Choice) -> Choice:
    """The question without ``[title]``, ``[step]`` and the like."""

    def clean(text: str) -> str:
        text = text.strip().replace(" [title]", ". ")
        return re.sub(r"\[.*?\]", "", text).replace("  ", " ")

    return replace(
        question, contexts=tuple(map(clean, question.contexts)), endings=tuple(map(clean, question.endings))
    )


def checked(question: Choice) -> Choice:
    """The question, if it can be answered.

    Raises:
        UserError: contexts and endings do not match, or no ending is the right one.
    """
    fits = len(question.contexts) in (1, len(question.endings))
    if not (question.endings and fits and 0 <= question.gold < len(question.endings)):
        raise UserError(
            f"{question.name or 'a question'} has {len(question.contexts)} contexts, {len(question.endings)} endings "
            f"and says that number {question.gold} is right",
            remedy="There must be one context, or one per ending; the right ending is counted from 0.",
            code="broken-question",
        )
    return question
