"""Properties of stages: what they read of it all, and what they say that they read."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from corelm.conformance.bench import recipe
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.stage.bench import World, ran, reads_data, world, write_corpus, yielded
from corelm.conformance.laws.stage.runs import other_record
from corelm.conformance.tiny import MODEL, Memory
from corelm.errors import UserError
from corelm.kinds.component import Spec
from corelm.kinds.records import Conversation, Labelled, Message, Preference, Record, Text
from corelm.model import loading


def _fields(part: PartUnderTest, *names: str) -> str | None:
    """Why a law about these options says nothing about a part; None where it has all of them."""
    lacking = [name for name in names if name not in part.cls.Config.model_fields]
    return f"it has no option {lacking[0]}" if lacking else None


@property_of(
    "stage",
    statement="What it says it never reads, it does without; what it always reads, it can't do without.",
    formula="reads = never ⇒ run without = run; reads = always ⇒ run without ≠ run; optional ⇒ run without is done",
    catches="never and always exchanged, a template that is asked for and not needed, an option that brings a need",
    tier="bit",
    examples=2,
)
def reads_what_it_says(part: PartUnderTest, draw: Draw) -> None:
    """Without the template, and without the corpus."""
    subject, seed = part.bench.short(part, draw), draw.seed()
    for name, reads in (("template", part.cls.reads_template), ("corpus", part.cls.reads_corpus)):
        says, then, why = reads(subject.config), None, ""
        with world(part, subject, seed) as made:
            first = ran(made, draw)
            made.checkpoints = Memory()
            if name == "template":
                made.template = False
            else:
                made.without_corpus()
            try:
                then = made.outcome()
            except Exception as error:
                why = f"; without, it raises {error!r}"
        if says == "always":
            assert then != first, f"it says that it always reads the {name}, but without it gives the same"
        else:
            assert then is not None, f"it says that it reads the {name}: {says}{why}"
            assert says == "optional" or then == first, (
                f"it says that it never reads the {name}, but it changes what it makes"
            )


@property_of(
    "stage",
    statement="Every record counts: however many micro-batches a step has, an epoch goes over all of them.",
    formula="epochs = 1: run(data with another xᵢ) ≠ run(data), ∀ i",
    catches="steps that are rounded down, the last batch dropped, a record that is read and thrown away",
    tier="bit",
    examples=2,
    excuse=lambda part: _fields(part, "data", "epochs"),
)
def every_record_counts(part: PartUnderTest, draw: Draw) -> None:
    """Each of three records says something else in turn; two make a batch."""
    subject = part.bench.short(part, draw, steps=None, accumulate=draw.choice("micro-batches", [2, 1]))
    if subject.config.data is None:
        raise NotApplicable("under this config it has no data of its own")
    type_ = yielded(subject.config.data)
    with world(part, subject, draw.seed(), optional=False) as made:
        given = made.records[type_][:3]
        made.records = {**made.records, type_: given}
        first = ran(made, draw)
        for number, record in enumerate(given):
            changed = [*given[:number], other_record(record), *given[number + 1 :]]
            made.records, made.checkpoints = {**made.records, type_: changed}, Memory()
            assert ran(made, draw) != first, f"record {number + 1} of {len(given)} makes no difference"


@property_of(
    "stage",
    statement="A record that just fits the model is read: as many tokens as its context, and one more where each is predicted "
    "from those before.",
    formula="|x| ≤ context (+ 1: that many inputs have their targets): run({x}) is done",
    catches="a bound that is off by one, so that full rows are left out",
    tier="io",
    examples=4,
    excuse=lambda part: _fields(part, "data", "packer", "objective"),
)
def what_fits_is_read(part: PartUnderTest, draw: Draw) -> None:
    """One record alone: were it left out, nothing would be left."""
    subject = part.bench.short(part, draw)
    longest = MODEL["context"] + (subject.config.objective.part.reads == "logprobs")
    with world(part, subject, draw.seed(), optional=False) as made:
        type_ = yielded(subject.config.data)
        made.records = {type_: [_as_long_as(longest, made.records[type_][0], made)]}
        try:
            made.run()
        except UserError as refusal:
            raise AssertionError(f"one {type_} of {longest} tokens is refused: {refusal.message}") from refusal


def _as_long_as(tokens: int, record: Record, made: World) -> Record:
    """The record with so many letters more that it has this many tokens, with all that is put around it."""
    tokenizer, template = loading.load_tokenizer(made.folder / "tokenizer"), Spec.read("template", "plain").build()

    def rendered(messages: tuple[Message, ...]) -> int:
        return len(template.render(messages, tokenizer).ids)

    if isinstance(record, Text | Labelled):
        return replace(record, text="x" * (tokens - 1))
    if isinstance(record, Conversation):
        more = "x" * (tokens - rendered(record.messages))
        return replace(record, messages=(Message("user", more + record.messages[0].content), *record.messages[1:]))
    assert isinstance(record, Preference)
    answer = max((record.chosen, record.rejected), key=len)
    more = "x" * (tokens - rendered((*record.prompt, Message("assistant", answer))))
    return replace(record, prompt=(Message("user", more + record.prompt[0].content), *record.prompt[1:]))


@property_of(
    "stage",
    statement="Where there is not a single record to read, it refuses in words.",
    formula="run(∅) → UserError",
    catches="a model of nothing that looks like one that was trained, a division by zero",
    tier="io",
    examples=2,
)
def nothing_is_refused(part: PartUnderTest, draw: Draw) -> None:
    """No records, or an empty corpus."""
    subject = part.bench.short(part, draw)
    if not reads_data(part, subject.config):
        raise NotApplicable("under this config it reads no data")
    with world(part, subject, draw.seed(), optional=False) as made:
        ran(made, draw)
        made.checkpoints = Memory()
        if getattr(subject.config, "data", None) is not None:
            made.records = {name: [] for name in made.records}
        else:
            write_corpus(made.folder, [])
        try:
            made.run()
        except UserError:
            return
    raise AssertionError("it makes something of nothing")


@property_of(
    "stage",
    statement="It is checked in any recipe: one with a model section, one that loads a model, one that says nothing of it.",
    formula="check(c, recipe without model, or with {load}) ⊆ check(c, recipe with that model)",
    catches="a crash where the model section isn't spelt out, a refusal of what is loaded because it is loaded",
    tier="io",
    examples=5,
)
def any_recipe_can_be_checked(part: PartUnderTest, draw: Draw) -> None:
    """The kit's recipe, its model in a folder, a folder that isn't ours, and no model at all."""
    config, whole = part.bench.subject(part, draw).config, recipe()
    wanted = _codes(part, config, whole)
    with tempfile.TemporaryDirectory(prefix="corelm-stage-") as name:
        folder = Path(name)
        (folder / "model.json").write_text(json.dumps({"format": 1, "model": whole["model"]}), encoding="utf-8")
        places: dict[str, Any] = {
            "that loads its model": {"load": name},
            "that loads a model of others": {"load": str(folder / "elsewhere")},
            "without a model": None,
        }
        for place, section in places.items():
            more = _codes(part, config, {**whole, "model": section}) - wanted
            assert not more, f"in a recipe {place} it complains of {', '.join(sorted(more))}"


def _codes(part: PartUnderTest, config: Any, place: dict[str, Any]) -> set[str]:
    return {problem.code for problem in part.cls.check(config, place)}
