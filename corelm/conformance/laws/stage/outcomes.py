"""Properties of stages: what their results must have to do with their options and their inputs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import ValidationError

from corelm.conformance.bench import Subject, recipe
from corelm.conformance.chance import Chance
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.stage.bench import World, world, yielded
from corelm.conformance.laws.stage.runs import HEADS
from corelm.conformance.strategies import Undrawable, draw_value, problems_of
from corelm.conformance.tiny import Memory
from corelm.errors import UserError
from corelm.kinds.component import Spec
from corelm.kinds.records import Message, Preference
from corelm.model import loading
from corelm.pipeline.records import read_records

ROUNDS: Final = 8
"""Configs of which one option after the other is changed, before an option is said to do nothing."""

VALUES: Final[dict[str, tuple[Any, ...]]] = {
    "batch": (1, 3),
    "accumulate": (3,),
    "optimizer": ({"use": "adamw", "learning_rate": 0.05},),
    "schedule": ({"use": "cosine", "warmup": 0},),
    "trainer": ({"use": "plain", "precision": "fp32", "clip": 1e-3},),
    "epochs": (2,),
    "steps": (2,),
    "limit": (2,),
    "tokens": (3,),
    "time": (16, 8),
    "prompts": (["Twice"], 2),
    "answers": (3,),
    "answer_tokens": (3,),
    "targets": (["*.attention.*"], ["*.feedforward.*"]),
    "skip": (["*.attention.*"], ["*.feedforward.*"]),
    "calibration": ({"batch": 1, "batches": 1},),
    "sampler": ([{"use": "greedy"}], [{"use": "temperature", "value": 3.0}]),
}
"""Other values than those of a short run, which keep it short; options of other names are drawn."""

HELD_BY_OTHERS: Final = {"objective"}
"""Objectives rightly agree on data that leave nothing out; they have properties of their own."""


@property_of(
    "stage",
    statement="Every option changes something: the files, the figures, the progress that is told, or what is refused.",
    formula="∀ option o ∃ configs c, c′ that differ in o alone: run(c) ≠ run(c′)",
    catches="an option that is accepted and never used, or used only beside another one",
    tier="bit",
    tolerance="the same inputs, the same seed: nothing but the option can change a bit",
    examples=1,
)
def options_are_used(part: PartUnderTest, draw: Draw) -> None:
    """Short runs, and each of them again under one other option."""
    chance, tried = Chance(draw.seed()), set()
    waiting = [name for name in part.cls.Config.model_fields if name not in part.cls.only_speed | HELD_BY_OTHERS]
    for _ in range(ROUNDS):
        try:
            base = part.bench.short(part, chance)
        except Undrawable:
            continue
        with world(part, base, chance.seed()) as made:
            first = _shown(made)
            if isinstance(first, str):
                continue
            for name in list(waiting):
                changed = _changed(part, base, name, chance)
                if changed is None:
                    continue
                made.subject = changed
                tried.add(name)
                if _shown(made) != first:
                    waiting.remove(name)
        if not waiting:
            return
    idle = [name for name in waiting if name in tried]
    assert not idle, f"in up to {ROUNDS} short runs nothing came of another value of {', '.join(idle)}"


def _shown(made: World) -> Any:
    """What a run leaves and tells, or why it is refused."""
    made.checkpoints = Memory()
    try:
        files, figures = made.outcome()
    except UserError as refusal:
        return refusal.message
    return files, figures, len(made.watch.steps)


def _changed(part: PartUnderTest, base: Subject, name: str, chance: Chance) -> Subject | None:
    """The stage under one other option, with inputs of the same types; None where that can't be."""
    options = base.config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    key, value = part.cls.Config.model_fields[name].alias or name, getattr(base.config, name)
    try:
        if name == "data" and value is not None:
            other: Any = {**options["data"], "limit": 2}
        elif isinstance(value, bool):
            other = not value
        else:
            other = chance.pick(VALUES[name]) if name in VALUES else draw_value(part.cls.Config, name, chance)
        config = part.cls.Config.model_validate({**options, key: other})
    except (Undrawable, UserError, ValidationError):
        return None
    if config == base.config or list(problems_of(part.cls, config, recipe())):
        return None
    if part.cls.inputs(config) != part.cls.inputs(base.config):
        return None
    return replace(base, part=part.bench.make(part, config, base.arguments), config=config)


@property_of(
    "stage",
    statement="A model that is made of a model has its maps, unless the stage says which it chooses to replace.",
    formula="chooses(config) = None ⇒ names(model out) = names(model in)",
    catches="maps that are wrapped and not merged again, so that a later stage's patterns find nothing",
    tier="io",
    examples=6,
    excuse=lambda part: None if part.cls.output in HEADS else "it makes no model",
)
def maps_keep_their_names(part: PartUnderTest, draw: Draw) -> None:
    """Names of parameters, those of the head left out; each option that is yes or no both ways."""
    base, seed = part.bench.short(part, draw), draw.seed()
    flags = [name for name, value in base.config if isinstance(value, bool)]
    subjects = [base, *filter(None, (_changed(part, base, name, Chance(seed)) for name in flags))]
    roles = [role.rstrip("?*") for role, type_ in part.cls.inputs(base.config).items() if type_ in HEADS]
    held = [subject for subject in subjects if roles and part.cls.chooses(subject.config) is None]
    if not held:
        raise NotApplicable("under this config it takes no model, or says which maps it replaces")
    with world(part, base, seed) as made:
        before = _names(made.inputs[roles[0]].folder)
        for made.subject in held:
            made.checkpoints = Memory()
            try:
                folder, _ = made.run()
            except UserError as refusal:
                draw.note("rejected", refusal.message)
                draw.reject()
            after = _names(folder)
            assert after == before, (
                f"it says that it replaces no maps, but other ones are there: {sorted(before ^ after)[:4]}"
            )


def _names(folder: Path) -> set[str]:
    """Of the parameters of a model's body."""
    return {name for name, _ in loading.load(folder).named_parameters() if not name.startswith("head.")}


@property_of(
    "stage",
    statement="Metrics are of every model that it is given, by every evaluator that its config names, each named twice or not.",
    formula="metrics: models × evaluators → figures",
    catches="two evaluators of one name of which the second overwrites the first, a model that is left out",
    tier="io",
    examples=4,
    excuse=lambda part: None if part.cls.output == "metrics" else "it makes no metrics",
)
def measures_everything(part: PartUnderTest, draw: Draw) -> None:
    """Each evaluator on the corpus and, a second time, on records of its own."""
    subject = part.bench.short(part, draw)
    found = {name: _doubled(value, part) for name, value in subject.config if _of_evaluators(value)}
    if not found:
        raise NotApplicable("its config names no evaluators")
    config = subject.config.model_validate({**subject.config.model_dump(mode="json", by_alias=True), **found})
    subject = replace(subject, part=part.bench.make(part, config, subject.arguments), config=config)
    with world(part, subject, draw.seed()) as made:
        try:
            folder, _ = made.run()
        except UserError as refusal:
            draw.note("rejected", refusal.message)
            draw.reject()
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        models = {a.stage for some in made.inputs.values() if isinstance(some, list) for a in some}
    wanted = sum(map(len, found.values()))
    assert metrics.keys() == models, f"metrics of {sorted(metrics)}, measured were to be {sorted(models)}"
    for name, told in metrics.items():
        assert len(told) == wanted, f"{wanted} evaluators, metrics of {len(told)} for {name}: {', '.join(told)}"


def _of_evaluators(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(v, Spec) and v.kind == "evaluator" for v in value)
    )


def _doubled(specs: Sequence[Spec[Any]], part: PartUnderTest) -> list[dict[str, Any]]:
    """The evaluators as they are, and each again with data of its own, where the bench has some that it reads."""
    made: list[dict[str, Any]] = []
    for spec in specs:
        made.append(spec.dump())
        own = [data for data in part.bench.hints["data"] if _yields(data) == spec.part.reads(spec.config)]
        made += [{**spec.dump(), "data": data} for data in own[:1] if "data" in spec.part.Config.model_fields]
    return made


def _yields(data: dict[str, Any]) -> str:
    source = Spec.read("source", data["source"])
    return str(source.part.yields(source.config))


@property_of(
    "stage",
    statement="Pairs that a reward model ranks are ranked as it does, and are text: answers to the prompts of the data.",
    formula="r(prompt, chosen) > r(prompt, rejected)",
    catches="the worst answer for the best, rewards of other rows, an end of text that is left in an answer",
    tier="num",
    tolerance="rewards of rows of other lengths beside: 10⁻⁴ of their size",
    examples=3,
    excuse=lambda part: None if part.cls.output == "preferences" else "it makes no preferences",
)
def pairs_follow_the_judge(part: PartUnderTest, draw: Draw) -> None:
    """A model that ends half of its answers early; the rewards once more, one answer at a time."""
    subject = part.bench.short(part, draw)
    roles = part.cls.inputs(subject.config)
    judges = [role for role, type_ in roles.items() if type_ == "reward-model"]
    if not judges:
        raise NotApplicable("it takes no reward model")
    with world(part, subject, draw.seed()) as made:
        for role in (role for role, type_ in roles.items() if type_ == "model"):
            _end_often(made.inputs[role].folder)
        try:
            folder, _ = made.run()
        except UserError as refusal:
            draw.note("rejected", refusal.message)
            draw.reject()
        pairs, judge = list(read_records(folder / "records.jsonl")), loading.load(made.inputs[judges[0]].folder)
        prompts = {
            record.prompt for record in made.records[yielded(subject.config.data)] if hasattr(record, "prompt")
        }
    template = Spec.read("template", "plain").build()
    for pair in pairs:
        assert isinstance(pair, Preference) and pair.prompt in prompts, f"{pair.name} is of no prompt in the data"
        rewards = []
        for answer in (pair.chosen, pair.rejected):
            special = [name for name in judge.tokenizer.specials if name in answer]
            assert not special, f"{pair.name}: the answer {answer!r} has {special[0]} in it"
            ids = template.render([*pair.prompt, Message("assistant", answer)], judge.tokenizer).ids
            with torch.no_grad():
                rewards.append(float(judge.scores(torch.tensor([ids[-judge.context :]]))[0, 0]))
        least = rewards[1] - 1e-4 * max(1.0, *map(abs, rewards))
        assert rewards[0] > least, f"{pair.name}: chosen has a reward of {rewards[0]:.4g}, rejected {rewards[1]:.4g}"


def _end_often(folder: Path) -> None:
    """Make the end of text very likely or very unlikely to the model, whatever the direction of its hidden state says."""
    model: Any = loading.load(folder)
    tables = [p for p in (*model.head.parameters(), model.embedding.table) if len(p) == model.vocab_size]
    with torch.no_grad():
        tables[0][model.tokenizer.end_of_text] *= 30
    template = model.template
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    loading.save(model, folder, template=template)
