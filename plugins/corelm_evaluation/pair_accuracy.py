"""How often a reward model prefers the better answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from pydantic import Field

from corelm.kinds import (
    ComponentConfig,
    Count,
    DataConfig,
    Evaluator,
    LanguageModel,
    Message,
    Metrics,
    Preference,
    Record,
    RecordName,
    Scorer,
    Watch,
)
from corelm_evaluation.measuring import (
    check_judge,
    chosen,
    in_batches,
    mean,
    measuring,
    reward_scores,
    standard_error,
)


class PairAccuracy(Evaluator):
    """How often a reward model scores the chosen answer above the rejected one.

    Equal scores count as wrong. ``margin`` is the mean difference of the scores. Conversations longer than the
    model's context lose their beginning: the answers are what is judged.
    """

    model_kind = "reward-model"
    headline = "accuracy"

    class Config(ComponentConfig):
        """Options."""

        data: DataConfig | None = Field(None, description="Preferences; a task of its own has to name them.")
        limit: Count | None = Field(None, gt=0, description="Most pairs; a sample by hash.")
        batch: int = Field(16, ge=1, description="Pairs scored at once.")

    @classmethod
    def reads(cls, config: Config) -> RecordName:
        """Preferences."""
        return "preference"

    def evaluate(
        self,
        model: Scorer | LanguageModel,
        records: Iterable[Record],
        watch: Watch,
        *,
        judge: LanguageModel | None = None,
    ) -> Metrics:
        """Score both answers of every pair."""
        config: Any = self.config
        rewarder = cast(LanguageModel, model)
        check_judge(rewarder)

        def difference(pairs: Sequence[Preference]) -> list[float]:
            scores = reward_scores(rewarder, [row for pair in pairs for row in both(pair, rewarder)])
            return [scores[i] - scores[i + 1] for i in range(0, len(scores), 2)]

        with measuring(rewarder):
            margins = in_batches(chosen(records, Preference, config.limit), config.batch, difference, watch)
        right = [float(margin > 0) for margin in margins]
        return {
            "accuracy": mean(right),
            "accuracy_stderr": standard_error(right),
            "margin": mean(margins),
            "margin_stderr": standard_error(margins),
            "pairs": float(len(margins)),
        }


def both(pair: Preference, model: LanguageModel) -> list[tuple[int, ...]]:
    """Tokens of the conversation with the chosen and with the rejected answer."""
    return [
        conversation_ids([*pair.prompt, Message("assistant", answer)], model)
        for answer in (pair.chosen, pair.rejected)
    ]


def conversation_ids(messages: Sequence[Message], model: LanguageModel) -> tuple[int, ...]:
    """A conversation as the reward model was trained to see it, its end where it is too long."""
    assert model.template is not None
    return model.template.render(messages, model.tokenizer).ids[-model.context :]
