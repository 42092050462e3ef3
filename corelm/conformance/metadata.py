"""The laws of what parts say of themselves: papers, parameters, what a pass costs, what a state takes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from corelm.conformance.bench import Subject, initialise, leaves
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.general import excuse_module_call, floating
from corelm.conformance.harness import causal_rules, layer_step
from corelm.kinds.component import Component, Spec
from corelm.kinds.cost import Costed, Work, cost_of, parameter_count, state_bytes
from corelm.kinds.feedforward import Router
from corelm.kinds.papers import Paper
from corelm.kinds.parameters import Linear, ParameterInfo, declare
from corelm.model.state import State

LATER: Final = 3
"""Years after its submission in which a paper appears elsewhere and is cited by that year."""

PASTS: Final = (8, 1, 3, 12)
"""Tokens that are stored before a call."""

_aten: Final = torch.ops.aten
_LOOKUPS: Final = (_aten.embedding.default, _aten.index.Tensor, _aten.index_select.default, _aten.gather.default)


@property_of(
    "*",
    statement="Papers that the docstring cites have well-formed identifiers, and years that fit them.",
    formula="arXiv:YYMM.NNNNN: 1 ≤ MM ≤ 12, 20YY − 1 ≤ year ≤ 20YY + 3",
    catches="a mistyped arXiv id or DOI, the id of another paper, an id that isn't written as `arXiv:…`",
    tolerance="a paper of the last days of December has the number of January; journals take up to three years",
    tier="io",
    examples=1,
)
def papers_are_well_formed(part: PartUnderTest, draw: Draw) -> None:
    """Look at each of them, and for those that can't be read."""
    papers = part.cls.papers()
    for paper in papers:
        fault = _fault(paper)
        assert not fault, f"the docstring cites {paper.citation or 'somebody'}, {paper.identifier}: {fault}"
    for number in re.findall(r"(?i)arxiv[^\d\s]*\s?(?:[a-z]+/)?(\d{4}\.\d{3,})", part.cls.__doc__ or ""):
        known = any(number in paper.identifier for paper in papers)
        assert known, f"the docstring names {number}, but not as `arXiv:{number}`"


def _fault(paper: Paper) -> str:
    """What is wrong with an identifier; '' if nothing is."""
    scheme, _, name = paper.identifier.partition(":")
    if scheme == "doi":
        return "" if re.fullmatch(r"10\.\d{4,9}/\S+", name) else "no DOI"
    if scheme != "arXiv":
        return "" if re.fullmatch(r"//[\w-]+(\.[\w-]+)+(/\S*)?", name) else "no address"
    if re.fullmatch(r"[a-z-]+(\.[A-Z]{2})?/\d{7}(v\d+)?", name):
        return ""
    found = re.fullmatch(r"(\d\d)(0[1-9]|1[0-2])\.(\d{4,5})(v\d+)?", name)
    if found is None or (len(found[3]) == 5) != (int(found[1]) >= 15):
        return "no arXiv id"
    submitted, year = 2000 + int(found[1]), paper.citation[-4:]
    fits = not year or submitted - 1 <= int(year) <= submitted + LATER
    return "" if fits else f"that one was submitted in {submitted}"


def _silent(part: PartUnderTest) -> str | None:
    return None if hasattr(part.cls, "parameter_count") else "it leaves it to be counted"


@property_of(
    "*",
    statement="The part has as many parameters as it says, for every config.",
    formula="Part.parameter_count(config, …) = Σ numel(Part(config, …).parameters())",
    catches="a bias too many, a map of another width than the paper's, an option that adds parameters unseen",
    tier="bit",
    examples=10,
    excuse=_silent,
)
def parameters_are_as_many_as_declared(part: PartUnderTest, draw: Draw) -> None:
    """Say, build on the meta device, count."""
    subject = part.bench.subject(part, draw)
    said = part.cls.parameter_count(subject.config, *subject.arguments)
    with torch.device("meta"):
        built = part.bench.make(part, subject.config, subject.arguments)
    counted = sum(parameter.numel() for parameter in built.parameters())
    assert said == counted, f"it says {said:,} parameters, and has {counted:,}"


class _Heavier(Spec[Any]):
    """The same choice of a part, which has three parameters more, and says so."""

    __slots__ = ("heavier",)

    def __init__(self, spec: Spec[Any]) -> None:
        super().__init__(spec.record, spec.config)
        part: Any = spec.part

        class Heavier(part):  # type: ignore[misc]
            def __init__(self, *args: Any, **more: Any) -> None:
                super().__init__(*args, **more)
                declare(self, "ballast", (3,), ParameterInfo("vector"))

            @classmethod
            def parameter_count(cls, config: Any, *place: Any) -> int:
                return parameter_count(spec, *place) + 3

        self.heavier = Heavier

    @property
    def part(self) -> type[Any]:
        """The part's class."""
        return self.heavier

    def build(self, *context: Any, **more: Any) -> Any:
        """Build the part."""
        return self.heavier(self.config, *context, **more)


@property_of(
    "*",
    statement="Parameters of a part that an option names count as the part's own, and are said to.",
    formula="parameter_count(c with a heavier option) = Σ numel(part(c with a heavier option).parameters())",
    catches="a learned activation that is taken to have no parameters, an expert that is counted once",
    tier="bit",
    examples=4,
    excuse=_silent,
    needs=("parameters_are_as_many_as_declared",),
)
def options_bring_their_parameters(part: PartUnderTest, draw: Draw) -> None:
    """Say, build and count with three parameters more in each option by turns."""
    subject = part.bench.subject(part, draw)
    slots = {
        name: spec for name, spec in subject.config if isinstance(spec, Spec) and issubclass(spec.part, nn.Module)
    }
    if not slots:
        raise NotApplicable("no option of it names a part that could have parameters")
    for name, spec in slots.items():
        config = subject.config.model_copy(update={name: _Heavier(spec)})
        said = part.cls.parameter_count(config, *subject.arguments)
        with torch.device("meta"):
            built = part.bench.make(part, config, subject.arguments)
        counted = sum(parameter.numel() for parameter in built.parameters())
        assert said == counted, f"where {name} has three more, it says {said:,} parameters, and has {counted:,}"


def _solved(a: Sequence[int], b: Sequence[int], *args: Any, **more: Any) -> int:
    """Operations of a triangular system: half a square for each column, product and addition."""
    return math.prod(b) * a[-1]


def counted_operations(run: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products, convolutions and triangular systems in a call."""
    mapping = {_aten.linalg_solve_triangular: _solved}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        run()
    return int(counter.get_total_flops())


class _Reads(TorchDispatchMode):
    """Adds up the bytes of parameters that a call reads; of tables, the rows that are looked up."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes = {_place(p): p.nbytes for p in parameters if p.numel()}
        self.read = dict.fromkeys(self.sizes, 0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and _place(result) in self.sizes:
            return result  # another view of the same memory
        for given in leaves((args, kwargs or {})):
            if isinstance(given, Tensor) and (place := _place(given)) in self.sizes:
                bytes_read = result.nbytes if func in _LOOKUPS else given.numel() * given.element_size()
                self.read[place] = min(self.sizes[place], self.read[place] + bytes_read)
        return result


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def counted_reads(modules: Sequence[nn.Module], run: Callable[[], Any]) -> int:
    """Bytes of these modules' parameters that a call reads."""
    with torch.no_grad(), _Reads([p for module in modules for p in module.parameters()]) as reads:
        run()
    return sum(reads.read.values())


@property_of(
    "*",
    statement="A pass over several tokens takes as many floating-point operations as the part says.",
    formula="cost(work).operations = Σ 2 · m · n · k over the matrix products that are run",
    catches="a multiply-add counted once, scores forgotten, experts counted that no token goes to",
    tolerance="equal; where there is a sink, up to one more key per query, as which some kernels treat it",
    tier="bit",
    examples=8,
    excuse=excuse_module_call,
)
def operations_are_as_many_as_declared(part: PartUnderTest, draw: Draw) -> None:
    """Say, run, count."""
    subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    counted = counted_operations(lambda: part.bench.call(subject, inputs))
    _agree(part, subject.part, _work(inputs), counted)


@property_of(
    "*",
    statement="For a single token the part reads as many bytes of its parameters as it says.",
    catches="a mixture that reads all its experts, or says so; a whole table read for one row",
    tier="bit",
    examples=6,
    excuse=excuse_module_call,
)
def reads_are_as_many_as_declared(part: PartUnderTest, draw: Draw) -> None:
    """Say, watch what one token reads."""
    subject = part.bench.subject(part, draw)
    inputs = {name: _first(value) for name, value in part.bench.inputs(subject, draw).items()}
    beside = [module for module in subject.arguments if isinstance(module, nn.Module)]
    counted = counted_reads([subject.part, *beside], lambda: part.bench.call(subject, inputs))
    said = cost_of(subject.part, Work(1, 1)).reads
    if said != counted:
        _excuse(part, subject.part)
    assert said == counted, f"it says that one token reads {said:,} bytes of parameters; counted are {counted:,}"


def _work(inputs: Mapping[str, Any]) -> Work:
    """Rows and tokens of what a bench drew: of its ids or positions, else of its first activations."""
    whole = [value for value in inputs.values() if isinstance(value, Tensor)]
    tokens = next((value for value in whole if not floating(value)), None)
    shape = whole[0].shape[:-1] if tokens is None else tokens.shape
    return Work(shape[0], math.prod(shape[1:]))


def _first(value: Any) -> Any:
    """The first token of the first row."""
    if not isinstance(value, Tensor) or not value.dim():
        return value
    axes = min(2, value.dim() - 1 if floating(value) else value.dim())
    return value[(slice(0, 1),) * axes]


def _agree(part: PartUnderTest, module: nn.Module, work: Work, counted: int) -> None:
    said = most = cost_of(module, work).operations
    if isinstance(module, Component) and "sink" in module.offers(module.config):
        wider = None if work.window is None else work.window + 1
        most = cost_of(module, replace(work, past=(work.past or 0) + 1, window=wider)).operations
    if not said <= counted <= most:
        _excuse(part, module)
    assert said <= counted <= most, f"for {work} it says {said:,} operations; counted are {counted:,}"


def _excuse(part: PartUnderTest, module: nn.Module) -> None:
    """Say nothing about what a stranger's part hasn't said; first-party parts say what doesn't follow from their maps."""
    first_party = part.record is not None and part.record.distribution == "corelm"
    if not isinstance(module, Costed) and not first_party:
        raise NotApplicable("it doesn't say what it costs beyond its maps: there is no `cost`")
    if any(router.chosen is None for router in module.modules() if isinstance(router, Router)):
        raise NotApplicable("its router doesn't say how many experts it chooses")


@property_of(
    "attention",
    statement="With a state a call takes as many operations as the part says, whatever the past and the window.",
    catches="a past that isn't counted, one beyond the window that is",
    tolerance="equal; where there is a sink, up to one more key per query",
    tier="bit",
    examples=10,
)
def decoding_costs_what_is_declared(part: PartUnderTest, draw: Draw) -> None:
    """Store a past, count what comes after."""
    subject, continuing = _continued(part, draw, torch.float64)
    past, new = draw.choice("past", PASTS), draw.choice("new", [1, 3])
    continuing(past)
    counted = counted_operations(lambda: continuing(new))
    _agree(part, subject.part, Work(2, new, past, subject.extra["window"]), counted)


@property_of(
    "attention",
    statement="The state takes as many bytes as its slots declare.",
    formula="state_bytes(slots(window), tokens, dtype) · rows = Σ bytes of what is stored",
    catches="keys stored once per query head, a state of another type",
    tier="bit",
    examples=8,
)
def state_takes_what_is_declared(part: PartUnderTest, draw: Draw) -> None:
    """Store a past and one token more, weigh what is stored."""
    dtype = draw.choice("dtype", [torch.float32, torch.bfloat16, torch.float64])
    subject, continuing = _continued(part, draw, dtype)
    past, window = draw.choice("past", PASTS), subject.extra["window"]
    continuing(past)
    continuing(1)
    views = [slot.view() for slot in subject.extra["state"].slots(0).values()]
    stored = [tensor for view in views if view for tensor in view.tensors.values()]
    if not all(floating(tensor) for tensor in stored):
        raise NotApplicable("it stores whole numbers, whose type a slot doesn't declare")
    said = 2 * state_bytes(subject.part.slots(window), past + 1, dtype, "cpu")
    weighed = sum(tensor.numel() * tensor.element_size() for tensor in stored)
    assert weighed == said, f"after {past + 1} tokens the slots declare {said:,} bytes; stored are {weighed:,}"


def _continued(part: PartUnderTest, draw: Draw, dtype: torch.dtype) -> tuple[Subject, Callable[[int], None]]:
    """A part with an empty state of two rows, and what gives it so many tokens more."""
    subject = part.bench.subject(part, draw, dtype=dtype)
    sees = "mask" in part.cls.offers(subject.config)
    window = draw.choice("window", [3, None, 1, 6]) if sees else None
    state: Any = State([subject.part.slots(window)], 2, None, "growing")
    subject.extra |= {"window": window, "state": state}

    def continuing(time: int) -> None:
        x = draw.normal(2, time, subject.context.dim, dtype=dtype)
        with torch.no_grad():
            subject.part(x, layer_step(2, time, rules=causal_rules(window), past=state.length, slots=state.slots(0)))
        state.length += time

    return subject, continuing


@property_of(
    "router",
    statement="Each token goes to as many experts as the router says.",
    catches="a count that is read off another option than the choice",
    tier="bit",
    examples=5,
)
def chooses_as_many_as_it_says(part: PartUnderTest, draw: Draw) -> None:
    """Route a few tokens."""
    subject = part.bench.subject(part, draw)
    if subject.part.chosen is None:
        raise NotApplicable("it doesn't say how many experts it chooses")
    chosen = subject.part(part.bench.inputs(subject, draw)["x"]).experts.shape[1]
    assert chosen == subject.part.chosen, f"it says {subject.part.chosen} experts per token, and chooses {chosen}"


@property_of(
    "adapter",
    statement="A wrapped map takes as many floating-point operations as it says.",
    formula="cost(work).operations of the map, and 2 · rank · (inputs + outputs) per token where the addition is low-rank",
    catches="an addition that is multiplied out for every call",
    tier="bit",
    examples=8,
)
def additions_cost_what_is_declared(part: PartUnderTest, draw: Draw) -> None:
    """Wrap, count."""
    subject = part.bench.subject(part, draw)
    linear = Linear(6, 5, bias=draw.choice("bias", [True, False])).double()
    initialise(linear, draw.seed(), generic=True)
    wrapped = subject.part.wrap(linear, "layers.0.attention.query", draw.generator()).eval()
    time = draw.choice("time", [4, 1, 9])
    x = draw.normal(2, time, 6)
    _agree(part, wrapped, Work(2, time), counted_operations(lambda: wrapped(x)))
