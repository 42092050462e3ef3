"""The feedback loop: a model's own answers, ranked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, ClassVar

import torch
from pydantic import Field

from corelm.errors import Interrupted, UserError
from corelm.kinds import (
    ArtifactType,
    Conversation,
    Count,
    DataConfig,
    LanguageModel,
    Message,
    Preference,
    Problem,
    RunContext,
    Sampler,
    SectionUse,
    Spec,
    Stage,
    pad_rows,
    use,
)
from corelm_stages.training import of_type


class SamplePreferences(Stage):
    """Lets a model answer prompts, and a reward model rank the answers into preferences.

    Of each prompt's answers the best is chosen and the worst rejected; prompts whose answers are all alike give no
    pair.
    """

    output: ClassVar[ArtifactType] = "preferences"

    class Config(Stage.Config):
        """Options."""

        data: DataConfig = Field(description="Conversations; their last answers are not used.")
        prompts: Count = Field(256, ge=1, description="Use at most this many prompts.")
        answers: int = Field(4, ge=2, description="Answers for each prompt.")
        answer_tokens: Count = Field(64, ge=1, description="Longest answer, in tokens.")
        sampler: list[Spec[Sampler]] = Field(
            [use("temperature", value=0.8)], description="Filters of the answers' tokens, in order."
        )
        batch: int = Field(8, ge=1, description="Prompts answered at once.")

    @classmethod
    def reads_template(cls, config: Any) -> SectionUse:
        """Always."""
        return "always"

    @classmethod
    def inputs(cls, config: Any) -> Mapping[str, ArtifactType]:
        """Who answers, and who judges."""
        return {"policy": "model", "reward": "reward-model"}

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """The data are conversations."""
        yield from of_type(config.data, "conversation")

    def run(self, context: RunContext, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Answer, score, rank, write."""
        policy, judge = context.open_model(inputs["policy"]), context.open_model(inputs["reward"])
        gaps: list[float] = []
        written = context.write_records(self._pairs(context, policy, judge, gaps))
        if not written:
            raise UserError("no prompt got two different answers", remedy="Raise the temperature.", code="data-empty")
        return {"pairs": float(written), "reward_gap": sum(gaps) / len(gaps)}

    def _pairs(
        self, context: RunContext, policy: LanguageModel, judge: LanguageModel, gaps: list[float]
    ) -> Iterator[Preference]:
        config, done = self.config, 0
        prompts = islice(_prompts(context, config.data), config.prompts)
        while chunk := list(islice(prompts, config.batch)):
            answers = self._answer(context, policy, chunk, done)
            rewards = _rewards(context, judge, chunk, answers)
            for prompt, texts, scores in zip(chunk, answers, rewards, strict=True):
                best, worst = (choose(range(len(texts)), key=scores.__getitem__) for choose in (max, min))
                if texts[best] != texts[worst] and scores[best] > scores[worst]:
                    gaps.append(scores[best] - scores[worst])
                    yield Preference(prompt, texts[best], texts[worst], f"{context.name}:{done}")
                done += 1
            context.watch.step(done, config.prompts, {})
            if context.watch.stopping:
                raise Interrupted(f"stopped in {context.name}", remedy="Run the same command again.", code="stopped")

    def _answer(
        self, context: RunContext, policy: LanguageModel, prompts: list[tuple[Message, ...]], first: int
    ) -> list[list[str]]:
        config, template, tokenizer = self.config, context.template(), policy.tokenizer
        rows = [list(template.prompt(p, tokenizer)) for p in prompts for _ in range(config.answers)]
        room = policy.context - config.answer_tokens
        ids, valid = pad_rows([row[-room:] for row in rows], left=True)
        seeds = [_seed(context.seed, first * config.answers + number) for number in range(len(rows))]
        stop = template.stop(tokenizer)
        with torch.no_grad():
            new = policy.generate_ids(
                ids,
                valid=valid,
                max_new_tokens=config.answer_tokens,
                samplers=[sampler.build() for sampler in config.sampler],
                seeds=seeds,
                stop=stop,
            )
        texts = [_text(row, stop, tokenizer) for row in new.tolist()]
        return [texts[at : at + config.answers] for at in range(0, len(texts), config.answers)]


def _prompts(context: RunContext, data: DataConfig) -> Iterator[tuple[Message, ...]]:
    for record in context.records(data):
        if not isinstance(record, Conversation):
            raise UserError("sample-preferences takes conversations", remedy="Set `yields: conversation`.")
        yield record.prompt


def _text(row: list[int], stop: tuple[int, ...], tokenizer: Any) -> str:
    ends = [at for at, token in enumerate(row) if token in stop]
    text: str = tokenizer.decode(row[: ends[0]] if ends else row)
    return text.strip()


def _rewards(
    context: RunContext, judge: LanguageModel, prompts: list[tuple[Message, ...]], answers: list[list[str]]
) -> list[list[float]]:
    template = context.template()
    rows = [
        list(template.render([*prompt, Message("assistant", text)], judge.tokenizer).ids)[-judge.context :]
        for prompt, texts in zip(prompts, answers, strict=True)
        for text in texts
    ]
    ids, valid = pad_rows(rows)
    with torch.no_grad():
        scores = judge.scores(ids, valid)[:, 0].tolist()
    each = len(answers[0])
    return [scores[at : at + each] for at in range(0, len(scores), each)]


def _seed(seed: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:8], "big") >> 1
