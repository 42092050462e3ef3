"""How often a reward model prefers the better answer."""

from __future__ import annotations

from collections.abc import Sequence

from corelm.kinds import LanguageModel, Message, Metrics, Preference, RecordName
from corelm_evaluation.judged import JudgesRecords
from corelm_evaluation.measuring import check_judge, mean, reward_scores, standard_error


class PairAccuracy(JudgesRecords):
    """How often a reward model scores the chosen answer above the rejected one.

    Equal scores count as wrong. ``margin`` is the mean difference of the scores. Conversations longer than the
    model's context lose their beginning: the answers are what is judged.
    """

    model_kind = "reward-model"
    headline = "accuracy"
    record = Preference

    @classmethod
    def reads(cls, config: JudgesRecords.Config) -> RecordName:
        """Preferences."""
        return "preference"

    def accept(self, model: LanguageModel) -> None:
        """It scores conversations."""
        check_judge(model)

    def numbers(self, model: LanguageModel, some: Sequence[Preference]) -> list[float]:
        """How much higher the chosen answer of each pair is scored."""
        scores = reward_scores(model, [row for pair in some for row in both(pair, model)])
        return [scores[i] - scores[i + 1] for i in range(0, len(scores), 2)]

    def metrics(self, found: Sequence[float]) -> Metrics:
        """The share of pairs in the right order, and the mean margin."""
        right = [float(margin > 0) for margin in found]
        return {
            "accuracy": mean(right),
            "accuracy_stderr": standard_error(right),
            "margin": mean(found),
            "margin_stderr": standard_error(found),
            "pairs": float(len(found)),
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
