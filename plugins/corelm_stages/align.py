"""Alignment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from pydantic import Field

from corelm.errors import UserError
from corelm.kinds import (
    Aligner,
    AlignmentJob,
    ArtifactType,
    Conversation,
    Count,
    DataConfig,
    Problem,
    RunContext,
    SectionUse,
    Spec,
    Stage,
)
from corelm_stages.reward_model import preferences
from corelm_stages.training import EpochsConfig, of_type, steps_of, train


class Align(Stage):
    """Aligns a model to preferences or rewards.

    ``with`` names the method. Offline methods read preferences: the ``data`` and those that earlier stages made
    (role ``preferences``). Online ones read conversations, whose prompts they let the policy answer.
    """

    class Config(EpochsConfig):
        """Options."""

        method: Spec[Aligner] = Field(alias="with", description="How to align.")
        data: DataConfig | None = Field(None, description="Preferences, or conversations for online methods.")
        limit: Count | None = Field(None, gt=0, description="Use at most this many records.")

    @classmethod
    def reads_template(cls, config: Any) -> SectionUse:
        """Always."""
        return "always"

    @classmethod
    def inputs(cls, config: Any) -> Mapping[str, ArtifactType]:
        """The models that the method needs, by role; preferences where it reads them."""
        roles = config.method.part.roles(config.method.config)
        needed: dict[str, ArtifactType] = {"policy": "model"}
        if "reference" in roles:
            needed["reference"] = "model"
        if "reward" in roles:
            needed["reward"] = "reward-model"
        if config.method.part.reads(config.method.config) == "preference":
            needed["preferences?*"] = "preferences"
        return needed

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """Online methods have nothing but ``data`` to take prompts from."""
        if config.data is None and config.method.part.reads(config.method.config) == "conversation":
            yield Problem((), f"{config.method.name} needs prompts", "Add `data` with conversations.", "data-missing")
        yield from of_type(config.data, config.method.part.reads(config.method.config))

    def run(self, context: RunContext, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Let the aligner prepare, then train."""
        config, template = self.config, context.template()
        models = {role: context.open_model(inputs[role]) for role in ("reference", "reward") if inputs.get(role)}
        policy = context.open_model(inputs["policy"], trainable=True)
        records = context.shared(islice(self._records(context, inputs), config.limit), "records")
        if not records:
            raise UserError(f"stage {context.name} has no records to align with", code="data-empty")
        steps = steps_of(config, len(records) * config.method.part.passes(config.method.config))
        job = AlignmentJob(
            models={"policy": policy, **models},
            template=template,
            records=records,
            batch=config.batch,
            steps=steps * config.accumulate,
            seed=context.seed,
            watch=context.watch,
        )
        prepared = config.method.build().prepare(job)
        figures = train(
            context,
            config,
            prepared.trained,
            prepared.objective,
            prepared.streams,
            steps,
            prepared.members,
        )
        context.save_model(prepared.policy, template=template)
        return {"records": float(len(records)), **figures}

    def _records(self, context: RunContext, inputs: Mapping[str, Any]) -> Iterator[Any]:
        config = self.config
        if config.method.part.reads(config.method.config) == "preference":
            yield from preferences(context, config.data, inputs.get("preferences") or [])
            return
        for record in context.records(config.data):
            if not isinstance(record, Conversation):
                raise UserError("this method takes conversations", remedy="Set `yields: conversation` on the source.")
            yield record
