"""Properties of aligners, on tiny models."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from corelm.conformance.bench import close, same_bits
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.laws.aligner import policy_gradient, preference, rows
from corelm.conformance.laws.aligner.bench import chosen_rows, job, prepared
from corelm.conformance.tiny import Silent, weights
from corelm.kinds.aligner import AlignmentJob
from corelm.kinds.batch import IGNORE, Batch
from corelm.kinds.records import Conversation, Message, Preference
from corelm.kinds.trainer import Processes

MINIMUM = 6
"""So many of these properties must say something about every part of the kind, and hold."""

__all__ = ["Threads", "policy_gradient", "preference", "rows"]

Made = TypeVar("Made")


def _offline(part: PartUnderTest) -> str | None:
    config = part.cls.Config()
    return None if part.cls.reads(config) == "preference" else "it makes its own experience"


@property_of(
    "aligner",
    statement="The reference and the reward model get no gradient and keep their bits; whatever mode they come in, they are "
    "put into that of evaluation.",
    formula="∇ref = ∅, ref after = ref before",
    catches="a reference that is trained along, or whose dropout is on",
    tier="bit",
    examples=3,
)
def others_stay_frozen(part: PartUnderTest, draw: Draw) -> None:
    """One step of descent on what the aligner gives."""
    subject = part.bench.subject(part, draw)
    given = job(part, subject.config, draw)
    others = {role: model for role, model in given.models.items() if role != "policy"}
    for model in others.values():
        model.module.train()
    alignment = subject.part.prepare(given)
    before = {role: weights(model.module) for role, model in others.items()}
    batch = next(alignment.streams(Processes()))
    alignment.objective.evaluate(alignment.trained, batch).total.backward()
    with torch.no_grad():
        for parameter in alignment.trained.module.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.1 * parameter.grad)
    for role, model in others.items():
        assert all(p.grad is None for p in model.module.parameters()), f"the {role} has a gradient"
        assert same_bits(before[role], weights(model.module)), f"the {role} changed"
        assert not model.module.training, f"the {role} is in training mode"


@property_of(
    "aligner",
    statement="The policy receives a finite gradient, and has a finite loss and detached figures; it is in the mode of what is "
    "trained, and all of its parameters are.",
    formula="0 < |∇policy| < ∞, policy ⊂ trained",
    catches="a detached policy, one whose dropout stays off while a wrapper is in training mode, a wrapper that shows the "
    "trainer nothing but its own head",
    examples=3,
)
def policy_learns(part: PartUnderTest, draw: Draw) -> None:
    """A backward pass."""
    alignment, _, _ = prepared(part, draw)
    for mode in (True, False):
        alignment.trained.module.train(mode)
        assert alignment.policy.module.training == mode, f"training {mode} is set, of the policy {not mode}"
    trained = {id(p) for p in alignment.trained.module.parameters()}
    hidden = [name for name, p in alignment.policy.module.named_parameters() if id(p) not in trained]
    assert not hidden, f"the trainer is not shown {hidden[0]} and {len(hidden) - 1} more of the policy"
    # The first batch of a rollout can have advantages of exactly zero; some batch must not.
    total = torch.zeros((), dtype=torch.float64)
    for batch in itertools.islice(alignment.streams(Processes()), 2):
        terms = alignment.objective.evaluate(alignment.trained, batch)
        assert terms.total.isfinite(), f"the loss is {float(terms.total)}"
        assert all(not figure.requires_grad for figure in terms.sums.values()), "a figure has a graph"
        total = total + terms.total
    total.backward()
    gradients = [p.grad for p in alignment.policy.module.parameters() if p.grad is not None]
    assert any(float(g.abs().sum()) > 0 for g in gradients), "the policy has no gradient"
    assert all(g.isfinite().all() for g in gradients), "a gradient is not finite"


@property_of(
    "aligner",
    statement="The stream's state after k batches, loaded into a fresh one, goes on with batch k.",
    formula="load(state after k) yields batches k, k + 1, …",
    catches="experience that is generated anew, an order that is lost",
    tier="bit",
    examples=3,
)
def experience_resumes(part: PartUnderTest, draw: Draw) -> None:
    """Models unchanged in between; members travel too."""
    subject = part.bench.subject(part, draw)
    given = job(part, subject.config, draw)
    whole = subject.part.prepare(_again(given))
    batches = [_plain(batch) for batch in itertools.islice(whole.streams(Processes()), 4)]
    k = draw.integer("k", 0, 3)
    first = subject.part.prepare(_again(given))
    drawn = first.streams(Processes())
    list(itertools.islice(drawn, k))
    states = copy.deepcopy([drawn.state_dict(), {n: m.state_dict() for n, m in first.members.items()}])
    fresh = subject.part.prepare(_again(given))
    stream = fresh.streams(Processes())
    stream.load_state_dict(states[0])
    for name, member in fresh.members.items():
        member.load_state_dict(states[1][name])
    rest = [_plain(batch) for batch in itertools.islice(stream, 4 - k)]
    assert same_bits(rest, batches[k:]), f"resumed after {k} batches, it goes on otherwise"


class Threads:
    """As many processes as threads, which gather what each of them has."""

    def __init__(self, world: int) -> None:
        self.barrier, self.given = threading.Barrier(world, timeout=60), [None] * world

    def run(self, work: Callable[[Processes], Made]) -> list[Made]:
        """What ``work`` makes in each of them, by rank."""

        def one(rank: int) -> Made:
            try:
                return work(_Thread(self, rank))
            except BaseException:
                self.barrier.abort()  # else the others would wait for this one
                raise

        precision = torch.get_float32_matmul_precision()
        try:
            with ThreadPoolExecutor(len(self.given)) as pool:
                return list(pool.map(one, range(len(self.given))))
        finally:
            # What each thread puts back is what another had set: real processes have a setting of their own.
            torch.set_float32_matmul_precision(precision)


class _Thread(Processes):
    def __init__(self, together: Threads, rank: int) -> None:
        self.together, self.rank, self.world = together, rank, len(together.given)

    def gather(self, value: Any) -> list[Any]:
        self.together.given[self.rank] = value
        self.together.barrier.wait()
        gathered = copy.deepcopy(self.together.given)
        self.together.barrier.wait()
        return gathered


@property_of(
    "aligner",
    statement="The streams of n processes are those of one: process r has its micro-batches r, r + n, and so on.",
    formula="stream(rank r of n) = stream[r::n]",
    catches="every process learning from the same batches, processes that wait for each other forever",
    tolerance="what is generated and scored in other batches is rounded otherwise",
    examples=3,
)
def processes_share_the_work(part: PartUnderTest, draw: Draw) -> None:
    """Processes are threads, each with models of its own; four micro-batches in all."""
    subject = part.bench.subject(part, draw)
    given = job(part, subject.config, draw)
    world = draw.choice("processes", [2, 4])
    alone = subject.part.prepare(_again(given)).streams(Processes())
    wanted = [_plain(batch) for batch in itertools.islice(alone, 4)]

    def work(processes: Processes) -> list[Any]:
        stream = subject.part.prepare(_again(given)).streams(processes)
        return [_plain(batch) for batch in itertools.islice(stream, 4 // world)]

    found = Threads(world).run(work)
    for number, batch in enumerate(wanted):
        for mine, of_one in zip(_tensors(found[number % world][number // world]), _tensors(batch), strict=True):
            close(mine, of_one, f"micro-batch {number} among {world} processes, and alone")


def _tensors(batch: list[Any]) -> list[Tensor]:
    *main, extra = batch
    return [tensor for tensor in [*main, *extra.values()] if tensor is not None]


def _again(given: AlignmentJob) -> AlignmentJob:
    """The same job with copies of the models, which an aligner may extend."""
    return AlignmentJob(
        {role: copy.deepcopy(model) for role, model in given.models.items()},
        given.template,
        given.records,
        given.batch,
        given.steps,
        given.seed,
        Silent(),
    )


def _plain(batch: Batch) -> list[Any]:
    return [batch.ids, batch.targets, batch.valid, dict(sorted(batch.extra.items()))]


@property_of(
    "aligner",
    statement="Learnt are the answer's tokens and its stop token, and nothing else.",
    formula="decode(targets) ∈ {answer ⧺ stop}",
    catches="prompts in the loss, padding, a shift by one",
    seen="OpenRLHF#465, trl#1625",
    tier="bit",
    examples=5,
    excuse=_offline,
)
def answers_are_learnt(part: PartUnderTest, draw: Draw) -> None:
    """Read the targets back."""
    alignment, given, _ = prepared(part, draw)
    tokenizer = given.models["policy"].tokenizer
    found = set()
    for batch in itertools.islice(alignment.streams(Processes()), 2):
        for row in range(len(batch.ids)):
            learnt = [int(t) for t in batch.targets[row] if t != IGNORE]
            found.add(tokenizer.decode(learnt))
            for t, target in enumerate(batch.targets[row, :-1].tolist()):
                if batch.valid is not None and not bool(batch.valid[row, t + 1]):
                    break  # the last target of a row need not be an input
                assert target in (IGNORE, int(batch.ids[row, t + 1])), f"row {row}: a target is not the next token"
    stop = tokenizer.decode(given.template.stop(tokenizer)[:1])
    wanted = {answer + stop for r in given.records for answer in (r.chosen, r.rejected)}  # type: ignore[union-attr]
    assert found == wanted, f"learnt are {sorted(found)}, the answers are {sorted(wanted)}"


@property_of(
    "aligner",
    statement="An epoch reaches every record: as many batches as hold all of them, as often as each is gone through.",
    formula="⌈n · passes / batch⌉ batches of records x ≠ those of x with another xᵢ, ∀ i",
    catches="an epoch over records of which most are never read, since each is learnt from several times",
    tier="bit",
    examples=2,
)
def epochs_reach_every_record(part: PartUnderTest, draw: Draw) -> None:
    """Each record asks and says something else in turn."""
    subject = part.bench.subject(part, draw)
    given = job(part, subject.config, draw)

    def batches(records: Sequence[Any]) -> list[Any]:
        alignment = subject.rebuild().prepare(replace(_again(given), records=records))
        count = -(-len(records) * part.cls.passes(subject.config) // given.batch)
        return [_plain(batch) for batch in itertools.islice(alignment.streams(Processes()), count)]

    first = batches(given.records)
    for number, record in enumerate(given.records):
        changed = [*given.records[:number], _asked_otherwise(record), *given.records[number + 1 :]]
        assert not same_bits(batches(changed), first), (
            f"an epoch of {len(first)} batches doesn't reach record {number + 1} of {len(changed)}"
        )


def _asked_otherwise(record: Any) -> Preference | Conversation:
    question = Message("user", "another question")
    if isinstance(record, Preference):
        return replace(record, prompt=(question,))
    return Conversation((question, *record.messages[1:]), record.name)


@property_of(
    "aligner",
    statement="What is read and which models are needed is said beforehand.",
    formula="policy ∈ roles ⊂ {policy, reference, reward}",
    catches="a role that is asked for when it is too late",
    tier="io",
    examples=4,
)
def needs_are_declared(part: PartUnderTest, draw: Draw) -> None:
    """Roles and records."""
    config = part.bench.subject(part, draw).config
    roles = part.cls.roles(config)
    assert isinstance(roles, frozenset) and "policy" in roles, f"roles {roles!r}: somebody must be trained"
    assert roles <= {"policy", "reference", "reward"}, f"roles {sorted(roles)}"
    assert part.cls.reads(config) in ("preference", "conversation"), f"reads {part.cls.reads(config)!r}"


@property_of(
    "aligner",
    statement="The loss of a batch is the sum of the losses of its pairs of rows, and so are counts and figures.",
    formula="loss(x ∪ y) = loss(x) + loss(y)",
    catches="a mean over the batch, advantages normalised once more within it",
    seen="transformers#24725",
    tolerance="a part may keep log-probabilities in float32, and sum them in another order",
    examples=3,
)
def loss_is_additive(part: PartUnderTest, draw: Draw) -> None:
    """Two rows at a time, after the policy has moved a little."""
    alignment, _, _ = prepared(part, draw)
    batch = next(alignment.streams(Processes()))
    with torch.no_grad():
        for p in alignment.policy.module.parameters():
            p.add_(0.05 * draw.normal(*p.shape).to(p.dtype))
        pieces = [chosen_rows(batch, torch.tensor([n, n + 1])) for n in range(0, len(batch.ids) - 1, 2)]
        if len(pieces) * 2 < len(batch.ids):
            pieces.append(chosen_rows(batch, torch.tensor([len(batch.ids) - 1])))
        whole = alignment.objective.evaluate(alignment.trained, batch)
        parts = [alignment.objective.evaluate(alignment.trained, piece) for piece in pieces]
    close(
        whole.total, torch.stack([terms.total for terms in parts]).sum(), "the loss, and the sum of its parts", 1e-5
    )
    counts = [alignment.objective.count(piece) for piece in pieces]
    assert alignment.objective.count(batch) == sum(counts), (
        f"{alignment.objective.count(batch)} terms, parts {counts}"
    )
    for name, figure in whole.sums.items():
        added = torch.stack([terms.sums[name].double() for terms in parts]).sum()
        close(figure.double(), added, f"figure {name}, and the sum of its parts", 1e-5)


@property_of(
    "aligner",
    statement="Only hidden states before the answers' tokens have a gradient: no prompt's, no padding's, no last one's.",
    formula="∂loss/∂hₜ ≠ 0 ⇒ yₜ ≠ ignore",
    catches="a value or a log-probability that is read one column off, padding in the loss",
    seen="OpenRLHF#465, trl#1625",
    tier="bit",
    examples=3,
)
def only_answers_have_gradients(part: PartUnderTest, draw: Draw) -> None:
    """Differentiate from the loss to the hidden states."""
    alignment, _, _ = prepared(part, draw)
    batch = next(alignment.streams(Processes()))
    hidden = alignment.trained.hidden(batch.ids, valid=batch.valid).detach().requires_grad_()
    answer = alignment.objective.answer(alignment.trained, hidden, batch)
    (gradient,) = torch.autograd.grad(alignment.objective.loss(answer, batch).total, hidden)
    moved = gradient.abs().sum(-1) > 0
    stray = (moved & (batch.targets == IGNORE)).nonzero().tolist()
    assert not stray, f"gradients at places (row, column) without a target: {stray[:4]}"
