"""What the evaluators share: which records are measured, in which order, and how their figures are averaged."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

import torch

from corelm.errors import Interrupted, UserError
from corelm.kinds import LanguageModel, Record, Watch, float32_products, pad_rows

RecordT = TypeVar("RecordT", bound=Record)


def digest(record: Record) -> str:
    """Hash of a record's content and name."""
    return hashlib.blake2b(repr(record).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def chosen(records: Iterable[Record], kind: type[RecordT], limit: int | None) -> list[RecordT]:
    """The records in the order of their hashes, at most ``limit`` of them.

    So a limit takes a sample that does not depend on the order of the source, and sums are added up in an order of
    their own: the same records give the same bits.

    Raises:
        UserError: there are no records, or they are of another type.
    """
    ordered = sorted(records, key=digest)[:limit]
    for record in ordered:
        if not isinstance(record, kind):
            raise UserError(
                f"{record.name or 'a record'} is a {type(record).__name__}, the evaluator needs a {kind.__name__}",
                remedy="Name a source that yields these, or the evaluator that reads those.",
                code="wrong-record",
            )
    if not ordered:
        raise UserError(
            f"there is nothing to evaluate on: the data has no {kind.__name__} records",
            remedy="Name a source under data, or keep a share of the corpus out of training (corpus.holdout).",
            code="no-records",
        )
    return cast("list[RecordT]", ordered)


ItemT = TypeVar("ItemT")
AnswerT = TypeVar("AnswerT")


def in_batches(
    items: Sequence[ItemT], size: int, answer: Callable[[Sequence[ItemT]], Sequence[AnswerT]], watch: Watch
) -> list[AnswerT]:
    """``answer`` for all items, some at a time, reporting progress; stops where the user asks to.

    Raises:
        Interrupted: the user asked to stop.
    """
    answers: list[AnswerT] = []
    for start in range(0, len(items), size):
        if watch.stopping:
            raise Interrupted(
                f"stopped after {start} of {len(items)}", remedy="Run again to evaluate from the start."
            )
        answers += answer(items[start : start + size])
        watch.step(len(answers), len(items), {})
    return answers


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean, exactly rounded."""
    return math.fsum(values) / len(values)


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean, from the unbiased variance; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    middle = mean(values)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1) / len(values))


@contextlib.contextmanager
def measuring(*models: LanguageModel) -> Iterator[None]:
    """No gradients, evaluation mode, fast products; the modes are as before afterwards."""
    modules = [module for model in models for module in model.module.modules()]
    modes = [module.training for module in modules]
    for model in models:
        model.module.eval()
    try:
        with torch.no_grad(), float32_products(models[0].device):
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def reward_scores(judge: LanguageModel, rows: Sequence[Sequence[int]]) -> list[float]:
    """The judge's score of each row of tokens, read at its last one."""
    ids, valid = pad_rows(rows)
    found: list[float] = judge.scores(ids.to(judge.device), valid.to(judge.device))[:, 0].tolist()
    return found


def check_judge(judge: LanguageModel | Any) -> None:
    """Make sure that a model scores conversations.

    Raises:
        UserError: its head is no scalar, or it was saved without its template.
    """
    if judge.head.reads != "scalar":
        raise UserError(
            f"the model has a head that reads {judge.head.reads}, not a score",
            remedy="Name a stage that trains a reward model.",
            code="not-a-reward-model",
        )
    require_template(judge)


def require_template(model: LanguageModel | Any) -> Any:
    """The model's template.

    Raises:
        UserError: it has none.
    """
    if model.template is None:
        raise UserError(
            "the model has no template, so conversations can't be shown to it",
            remedy="Name a model that was finetuned on conversations, or give the recipe a template.",
            code="no-template",
        )
    return model.template
