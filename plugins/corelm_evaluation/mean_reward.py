"""What a reward model thinks of a model's answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from pydantic import Field

from corelm.errors import UserError
from corelm.kinds import (
    ComponentConfig,
    Conversation,
    Count,
    DataConfig,
    Evaluator,
    LanguageModel,
    Message,
    Metrics,
    Problem,
    Record,
    RecordName,
    Sampler,
    Scorer,
    Spec,
    Watch,
    pad_rows,
)
from corelm_evaluation.measuring import (
    check_judge,
    chosen,
    digest,
    in_batches,
    mean,
    measuring,
    require_template,
    reward_scores,
    standard_error,
)
from corelm_evaluation.pair_accuracy import conversation_ids


class MeanReward(Evaluator):
    """How a reward model scores the answers that a model gives.

    The model answers every prompt; the answer's text, with the reward model's own template and tokenizer, is what is
    scored, so that the two may differ in both. ``stopped`` is the share of answers that came to an end by
    themselves. Sampling is seeded by the record's content: neither order nor batch mates matter.
    """

    judged = True
    headline = "reward"

    class Config(ComponentConfig):
        """Options."""

        data: DataConfig | None = Field(None, description="Conversations, whose last answers are not used.")
        limit: Count | None = Field(None, gt=0, description="Most prompts; a sample by hash.")
        answer_tokens: Count = Field(64, ge=1, description="Longest answer, in tokens.")
        sampler: list[Spec[Sampler]] = Field(
            default_factory=list, description="Filters of the answers, in order; none: the likeliest token."
        )
        seed: int = Field(0, ge=0, description="Of the sampling.")
        batch: int = Field(16, ge=1, description="Answers written at once.")

    @classmethod
    def check(cls, config: Config, context: Any) -> Iterator[Problem]:
        """Answers must leave room for a prompt, where the recipe says how long the context is."""
        section = context.get("model") if isinstance(context, Mapping) else None
        longest = section.get("context") if isinstance(section, Mapping) else None
        if isinstance(longest, int) and config.answer_tokens >= longest:
            yield Problem(
                ("answer_tokens",),
                f"answers of {config.answer_tokens} tokens leave no room for a prompt in a context of {longest}",
                f"Use answer_tokens below {longest}, or a longer model.context.",
                "answer-fills-context",
            )

    @classmethod
    def reads(cls, config: Config) -> RecordName:
        """Conversations."""
        return "conversation"

    def evaluate(
        self,
        model: Scorer | LanguageModel,
        records: Iterable[Record],
        watch: Watch,
        *,
        judge: LanguageModel | None = None,
    ) -> Metrics:
        """Let the model answer and the judge score."""
        config: Any = self.config
        if judge is None:
            raise UserError(
                "mean-reward needs a reward model to judge the answers",
                remedy="Name one, e.g. from: {model: tuned, judge: judge}.",
                code="no-judge",
            )
        check_judge(judge)
        writer = cast(LanguageModel, model)
        prompts = chosen(records, Conversation, config.limit)
        with measuring(writer, judge):
            answers = in_batches(prompts, config.batch, lambda some: self.answers(writer, judge, some), watch)
        rewards = [reward for reward, _, _ in answers]
        return {
            "reward": mean(rewards),
            "reward_stderr": standard_error(rewards),
            "answer_tokens": mean([float(length) for _, length, _ in answers]),
            "stopped": mean([float(stopped) for _, _, stopped in answers]),
            "prompts": float(len(prompts)),
        }

    def answers(
        self, writer: LanguageModel, judge: LanguageModel, some: Sequence[Conversation]
    ) -> list[tuple[float, int, bool]]:
        """Reward, length and whether it ended, of the answer to each conversation."""
        config: Any = self.config
        template = require_template(writer)
        stop = template.stop(writer.tokenizer)
        room = writer.context - config.answer_tokens
        if room < 1:
            raise UserError(
                f"answer_tokens {config.answer_tokens} leaves no room for a prompt in a context of {writer.context}",
                remedy=f"Use answer_tokens of at most {writer.context - 1}.",
                code="answer-fills-context",
            )
        ids, valid = pad_rows(
            [template.prompt(record.prompt, writer.tokenizer)[-room:] for record in some], left=True
        )
        written = writer.generate_ids(
            ids.to(writer.device),
            valid=valid.to(writer.device),
            max_new_tokens=config.answer_tokens,
            samplers=[spec.build() for spec in config.sampler],
            seeds=[seed_of(config.seed, record) for record in some],
            stop=stop,
        ).tolist()
        ends = [next((place for place, token in enumerate(row) if token in stop), len(row)) for row in written]
        texts = [writer.tokenizer.decode(row[:end]) for row, end in zip(written, ends, strict=True)]
        rewards = reward_scores(
            judge,
            [
                conversation_ids([*record.prompt, Message("assistant", text)], judge)
                for record, text in zip(some, texts, strict=True)
            ],
        )
        return [(r, end, end < len(row)) for r, end, row in zip(rewards, ends, written, strict=True)]


def seed_of(seed: int, record: Conversation) -> int:
    """Seed of one answer's sampling."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{digest(record)}".encode()).digest()[:7], "big")
