"""Properties of stages that are run: on tiny models, with everything that a run gives them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.evaluator.bench import TEXTS
from corelm.conformance.laws.stage.bench import digests, finite, ran, reads_data, world, write_corpus
from corelm.conformance.tiny import Memory
from corelm.errors import Interrupted, UserError
from corelm.kinds.records import Choice, Conversation, Labelled, Message, Preference, Record, Text
from corelm.model import loading
from corelm.pipeline.records import read_records

HEADS = {"model": "vocabulary", "reward-model": "scalar", "classifier": "classes"}


def _left(type_: str, folder: Path) -> str:
    """What is wrong with what a stage left as an artifact of this type; or ''."""
    if type_ in HEADS:
        model = loading.load(folder)
        return "" if model.head.reads == HEADS[type_] else f"a model whose head reads {model.head.reads}"
    if type_ == "metrics":
        found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        flat = [v for tasks in found.values() for metrics in tasks.values() for v in metrics.values()]
        return "" if flat and all(isinstance(value, float) for value in flat) else f"metrics {found}"
    if type_ == "preferences":
        pairs = list(read_records(folder / "records.jsonl"))
        return "" if pairs and all(isinstance(pair, Preference) for pair in pairs) else f"records {pairs[:2]}"
    return "" if digests(folder) else "nothing"


@property_of(
    "stage",
    statement="What its check takes is run: it leaves what it says in its folder, tells figures and progress that are numbers, "
    "and touches nothing else.",
    formula="run: inputs × folder → artifact of the type output; inputs after = before; figures: name ↦ float",
    catches="a refusal that comes after an hour of work, a model saved with another head, a folder that is empty, an input "
    "that is changed in place",
    tier="io",
    examples=4,
)
def leaves_what_it_says(part: PartUnderTest, draw: Draw) -> None:
    """With all its inputs, and without those that may be left out."""
    subject = part.bench.short(part, draw, sampler=[{"use": "temperature", "value": 2.0}])
    with world(part, subject, draw.seed(), optional=draw.choice("optional inputs", [True, False])) as made:
        before = digests(made.folder)
        try:
            folder, figures = made.run()
        except UserError as refusal:
            raise AssertionError(f"what its check takes, its run refuses: {refusal.message}") from refusal
        assert finite(figures), f"figures {figures}"
        strange = [told for told in made.watch.numbers if not 0 <= told[0] <= told[1]]
        assert not strange, f"it tells of step {strange[0][0]} of {strange[0][1]}"
        assert not (wrong := _left(part.cls.output, folder)), f"it makes a {part.cls.output} and left {wrong}"
        after = {name: digest for name, digest in digests(made.folder).items() if name in before}
        assert after == before, f"changed: {sorted(name for name in before if after.get(name) != before[name])}"
        some = folder.glob("*.safetensors") if part.cls.output in HEADS else folder.rglob("*")
        size = sum(path.stat().st_size for path in some if path.is_file()) / 1e6
        told = figures.get("megabytes", size)
        assert abs(told - size) < 1e-9, f"it tells {told} megabytes, what it leaves takes {size}"


@property_of(
    "stage",
    statement="The same inputs and the same seed give the same bytes; where anything is drawn, another seed gives others.",
    formula="run(x, s) = run(x, s); draws ⇒ ∃ s′: run(x, s′) ≠ run(x, s)",
    catches="a clock in a file, an order of sets, a seed that is not passed on",
    tier="bit",
    examples=2,
)
def function_of_inputs_and_seed(part: PartUnderTest, draw: Draw) -> None:
    """Twice, and with up to four other seeds."""
    subject = part.bench.short(part, draw, sampler=[{"use": "temperature", "value": 2.0}])
    fields = part.cls.Config.model_fields
    with world(part, subject, draw.seed()) as made:
        first = ran(made, draw)
        made.checkpoints = Memory()
        assert ran(made, draw) == first, "run again, it gives something else"
        if not fields.keys() & {"packer", "trainer", "sampler"}:
            return
        for seed in range(1, 5):
            made.seed, made.checkpoints = seed, Memory()
            if ran(made, draw) != first:
                return
    raise AssertionError("five seeds give the same, though it draws")


@property_of(
    "stage",
    statement="Another model in gives another result, and an input that may be left out makes a difference where it is given.",
    formula="∃ role, x′: run(x′) ≠ run(x); ∀ optional role: run(x ∪ {role}) ≠ run(x)",
    catches="a fresh model in place of the one that was named, preferences of an earlier stage that are never read",
    tier="bit",
    examples=2,
)
def inputs_matter(part: PartUnderTest, draw: Draw) -> None:
    """Models of two seeds; optional roles one by one."""
    subject, seed = part.bench.short(part, draw), draw.seed()
    roles = part.cls.inputs(subject.config)
    with world(part, subject, seed) as made, world(part, subject, seed + 1) as other:
        first = ran(made, draw)
        if any(type_ in HEADS for type_ in roles.values()):
            other.seed = made.seed
            assert ran(other, draw) != first, "models with other parameters give the same"
        for role in (role.rstrip("?*") for role in roles if "?" in role):
            given = made.inputs.pop(role)
            made.checkpoints = Memory()
            assert ran(made, draw) != first, f"{role} makes no difference"
            made.inputs[role] = given


def other_record(record: Record) -> Record:
    """A record of the same type that says something else."""
    if isinstance(record, Text):
        return Text(record.text[::-1], record.name)
    if isinstance(record, Labelled):
        return Labelled(record.text[::-1], record.label, record.name)
    if isinstance(record, Choice):
        return Choice(record.contexts, record.endings, (record.gold + 1) % len(record.endings), record.name)
    if isinstance(record, Preference):
        return Preference(record.prompt, record.rejected, record.chosen, record.name)
    assert isinstance(record, Conversation)
    return Conversation(tuple(Message(m.role, m.content[::-1]) for m in record.messages), record.name)


@property_of(
    "stage",
    statement="What it reads matters: other data, or another corpus, give another result.",
    formula="run(data′) ≠ run(data)",
    catches="data that are named and never read, the held-out part for the training part",
    tier="bit",
    examples=3,
)
def data_matter(part: PartUnderTest, draw: Draw) -> None:
    """Records that say something else."""
    subject = part.bench.short(part, draw)
    if not reads_data(part, subject.config):
        raise NotApplicable("under this config it reads no data")
    with world(part, subject, draw.seed(), optional=False) as made:
        first = ran(made, draw)
        made.checkpoints = Memory()
        if getattr(subject.config, "data", None) is not None:
            made.records = {name: [other_record(record) for record in found] for name, found in made.records.items()}
        else:
            write_corpus(made.folder, [text[::-1] for text in TEXTS])
        if ran(made, draw) != first:
            return
    raise AssertionError("other data give the same")


@property_of(
    "stage",
    statement="Killed after any step and run again, it goes on from its checkpoint to the same result.",
    formula="run ∘ kill(k) = run, ∀ k",
    catches="a stream that begins again, figures of the second half only, a fresh adapter beside the old optimizer",
    tier="bit",
    examples=2,
    excuse=lambda part: None if "trainer" in part.cls.Config.model_fields else "it trains nothing",
)
def goes_on_after_a_kill(part: PartUnderTest, draw: Draw) -> None:
    """Stopped at the first step or the second; its checkpoint outlives it."""
    subject, seed = part.bench.short(part, draw), draw.seed()
    with world(part, subject, seed) as made, world(part, subject, seed) as whole:
        wanted = ran(whole, draw)
        with contextlib.suppress(Interrupted):
            made.run(stop_after=draw.choice("stopped after", [1, 2]))
        files, figures = made.outcome()
    assert files == wanted[0], "what it made differs from that of a run in one piece"
    assert figures.keys() == wanted[1].keys(), f"figures {sorted(figures)}, in one piece {sorted(wanted[1])}"
    assert figures.get("steps") == wanted[1].get("steps"), "it tells another number of steps"


@property_of(
    "stage",
    statement="Records and prompts of any length go through, cut or left out with a note.",
    formula="∀ n: run(records of n tokens) is done, or refuses because none is left; run(x, long) = run(x) ⇒ a note",
    catches="a row longer than the positions, an answer without room, text that is cut to nothing, or left out in silence",
    tier="io",
    examples=3,
    excuse=lambda part: None if "data" in part.cls.Config.model_fields else "it has no data of its own",
)
def long_records_go_through(part: PartUnderTest, draw: Draw) -> None:
    """One record of each type is several contexts long, another one is a few characters."""
    from corelm.conformance.laws.evaluator.figures import lengthened

    subject = part.bench.short(part, draw)
    with world(part, subject, draw.seed(), optional=False) as made:
        given = made.records
        made.records = {n: [lengthened(found[0]), *found[1:]] for n, found in given.items()}
        first, notes = ran(made, draw), set(made.watch.notes)
        assert finite(first[1]), f"figures {first[1]}"
        made.records, made.checkpoints = {n: found[1:] for n, found in given.items()}, Memory()
        if ran(made, draw) == first:
            assert notes - set(made.watch.notes), "the long record is left out, and no note says so"
