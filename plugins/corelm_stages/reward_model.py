"""Reward modelling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from corelm.errors import UserError
from corelm.kinds import (
    ArtifactType,
    DataConfig,
    Head,
    Message,
    Objective,
    Packer,
    Preference,
    Problem,
    Record,
    RunContext,
    SectionUse,
    Spec,
    Stage,
    Template,
    Tokenizer,
    Tokens,
    use,
)
from corelm_stages.training import EpochsConfig, apart, of_type, packed, packed_steps, reads, require, train


class RewardModel(Stage):
    """Trains a model to score answers, from preferences.

    The body is the given model's; its head is replaced by a fresh scalar one, read at the last token of the
    rendered conversation. Each pair's two answers stand side by side in a batch. Pairs of which one answer does not
    fit the context are left out and counted in a note.
    """

    output: ClassVar[ArtifactType] = "reward-model"

    class Config(EpochsConfig):
        """Options."""

        data: DataConfig = Field(description="Preferences.")
        head: Spec[Head] = Field(use("scalar"), description="What reads the hidden state.")
        packer: Spec[Packer] = Field(use("padded"), description="Pairs to batches.")
        objective: Spec[Objective] = Field(use("pairwise-reward"), description="What is minimised.")

    @classmethod
    def reads_template(cls, config: Any) -> SectionUse:
        """Always."""
        return "always"

    @classmethod
    def inputs(cls, config: Any) -> Mapping[str, ArtifactType]:
        """The model whose body is used, and further preferences."""
        return {"model": "model", "preferences?*": "preferences"}

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """The data are preferences."""
        yield from of_type(config.data, "preference")
        yield from reads(config.objective, "rewards", "pairwise-reward")
        yield from apart(config.packer, "the two answers of a pair")
        if config.head.part.reads != "scalar":
            message = f"a reward is one number; the head {config.head.name} gives {config.head.part.reads}"
            yield Problem(("head",), message, "Use scalar here.", "head-not-scalar")

    def run(self, context: RunContext, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Train."""
        config, template = self.config, context.template()
        body = context.open_model(inputs["model"], trainable=True)
        model = body.with_head(config.head, seed=context.seed)
        records = preferences(context, config.data, inputs.get("preferences") or [])
        pairs = _pairs(records, template, model.tokenizer, model.context, context)
        store = context.store(pairs, "pairs")
        require(store, "pair")
        streams = packed(context, config.packer, store, config.batch, model.context, model.tokenizer.end_of_text)
        steps = packed_steps(context, config, config.packer, store, model)
        figures = train(context, config, model, config.objective.build(), streams, steps)
        context.save_model(model, template=template)
        return {"pairs": len(store) / 2, **figures}


def preferences(context: RunContext, data: DataConfig | None, artifacts: list[Any]) -> Iterator[Preference]:
    """Preferences of the recipe's data, then those that earlier stages made."""
    sources: list[Iterator[Record]] = [] if data is None else [context.records(data)]
    sources += [context.read_preferences(artifact) for artifact in artifacts]
    for source in sources:
        for record in source:
            if not isinstance(record, Preference):
                raise UserError(
                    f"expected preferences, got a {type(record).__name__.lower()}",
                    remedy="Set `yields: preference` on the source.",
                    code="records-of-other-type",
                )
            yield record


def _pairs(
    records: Iterator[Preference], template: Template, tokenizer: Tokenizer, time: int, context: RunContext
) -> Iterator[Tokens]:
    left_out = 0
    for group, record in enumerate(records):
        both = [
            template.render([*record.prompt, Message("assistant", answer)], tokenizer)
            for answer in (record.chosen, record.rejected)
        ]
        if max(len(rendered.ids) for rendered in both) > time:
            left_out += 1
            continue
        for rendered in both:
            ids, learn = np.array(rendered.ids, dtype=np.int64), np.array(rendered.learn, dtype=bool)
            yield Tokens(ids, learn, record.name, group)
    if left_out:
        context.watch.note(f"{left_out} pairs are longer than {time} tokens and were left out")
