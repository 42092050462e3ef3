"""Every pair of parts: which rule keeps two apart, and recipes in which all others meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any, Final, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from corelm.conformance.chance import Chance
from corelm.conformance.strategies import draw_options
from corelm.kinds.component import Spec, nested_specs
from corelm.kinds.mask import MaskFacts
from corelm.model.config import LayerConfig, ModelConfig
from corelm.recipe.checks import problems
from corelm.recipe.schema import RecipeConfig
from corelm.registration import Record, active

KINDS: Final = (
    "attention",
    "position",
    "scaling",
    "mask",
    "feedforward",
    "activation",
    "router",
    "norm",
    "block",
    "connection",
    "embedding",
    "head",
    "init",
    "stage",
)
"""Kinds whose parts must meet in pairs; of the stages those that train the recipe's own model."""

LISTED: Final = frozenset({"mask", "position"})
"""Kinds of which a layer has several parts."""

TRIES: Final = 40
DEEPEST: Final = 3
T = TypeVar("T")
Part = tuple[str, str]
Pair = tuple[Part, Part]


def recipe(model: dict[str, Any], stages: dict[str, Any]) -> dict[str, Any]:
    """The least recipe around a model."""
    corpus = {"source": {"use": "python-stdlib"}}
    return {"corelm": 1, "name": "mixed", "corpus": corpus, "tokenizer": "bytes", "model": model, "stages": stages}


def validated(data: dict[str, Any]) -> tuple[RecipeConfig | None, list[tuple[str, str]]]:
    """The recipe, and code and message of everything against it."""
    try:
        config = RecipeConfig.model_validate(data)
    except ValidationError as error:
        return None, [(_code(str(detail["type"])), detail["msg"]) for detail in error.errors(include_url=False)]
    resolved = config.model_dump(mode="json")
    return config, [(problem.code, problem.message) for _, problem in problems(config, resolved)]


def refused(data: dict[str, Any]) -> list[str]:
    """Codes of everything against a recipe; none where it is accepted."""
    return sorted({code for code, _ in validated(data)[1]})


def met(data: dict[str, Any]) -> frozenset[Pair]:
    """The pairs that an accepted recipe brings together; none of one that is refused."""
    config, found = validated(data)
    return frozenset() if config is None or found else frozenset(meeting(config))


def _code(kind: str) -> str:
    """The reader's name for what pydantic found."""
    named = {"extra_forbidden": "unknown-key", "missing": "missing-key"}
    return named.get(kind, kind.removeprefix("part_").replace("_", "-"))


def meeting(config: RecipeConfig) -> Iterator[Pair]:
    """Pairs of parts of different kinds that one layer of the recipe's model brings together."""
    model = config.model
    assert isinstance(model, ModelConfig)
    last = (model.final_norm or model.norm) if model.normed else None
    around = _parts(model.embedding, last, model.head, model.init)
    around |= {("stage", node.spec.name) for node in config.stages.values() if node.spec.part.uses_model}
    for layer in model.resolved():
        idle = ("position", "mask") if layer.attention is None else ()
        inside = around | _parts(*(getattr(layer, name) for name in LayerConfig.model_fields if name not in idle))
        yield from (pair(a, b) for a, b in combinations(sorted(inside), 2) if a[0] != b[0])


def _parts(*chosen: Any) -> set[Part]:
    found: set[Part] = set()
    for item in chosen:
        for spec in item if isinstance(item, list) else [item]:
            if spec is not None:
                found |= {(s.kind, s.name) for s in (spec, *(inner for _, inner in nested_specs(spec.config)))}
    return found


def pair(a: Part, b: Part) -> Pair:
    """The two in the order of ``KINDS``."""
    return (a, b) if KINDS.index(a[0]) < KINDS.index(b[0]) else (b, a)


@dataclass(frozen=True)
class Rule:
    """A named reason why two parts can't meet.

    Attributes:
        code: of the refusal.
        kinds: of the two parts.
        reason: in words.
        forbids: decides for two parts, with options that their schemas take.
    """

    code: str
    kinds: tuple[str, str]
    reason: str
    forbids: Callable[[Spec[Any], Spec[Any]], bool]


def _position_needs(capability: str, why: str) -> Rule:
    def forbids(attention: Spec[Any], position: Spec[Any]) -> bool:
        return f"attention:{capability}" in position.needs() and capability not in attention.offers()

    return Rule(f"position-needs-{capability}", ("attention", "position"), why, forbids)


FORBIDDEN: Final = (
    _position_needs("rotation", "a rotation needs queries and keys to turn"),
    _position_needs("query", "a scheme that scales queries needs queries"),
    _position_needs("scores", "a bias per pair of tokens needs scores; a recurrent mixer has none"),
    Rule(
        "position-needs-rotation",
        ("attention", "scaling"),
        "frequencies are those of a rotation, which needs queries and keys to turn",
        lambda attention, scaling: "rotation" not in attention.offers(),
    ),
    Rule(
        "mask-needs-mask",
        ("attention", "mask"),
        "a rule that forbids more than causality and documents needs a mixer that can leave out any pair",
        lambda attention, mask: "mask" not in attention.offers() and not mask.build().trivial(MaskFacts()),
    ),
    Rule(
        "head-not-vocabulary",
        ("head", "stage"),
        "next tokens can only be learnt by a head that gives logits of the vocabulary",
        lambda head, stage: head.part.reads != "vocabulary",
    ),
)


@cache
def rule(two: Pair) -> Rule | None:
    """The rule that keeps two parts apart, if there is one."""
    kinds = (two[0][0], two[1][0])
    for candidate in FORBIDDEN:
        if candidate.kinds == kinds and candidate.forbids(_simple(two[0]), _simple(two[1])):
            return candidate
    return None


def _simple(part: Part) -> Spec[Any]:
    tree = _tree(part[0], frozenset([part]), Chance(*part), 1)
    return Spec.read(part[0], tree)


def _records(kind: str) -> list[Record]:
    found = active().parts(kind)
    return [record for record in found if record.load().uses_model] if kind == "stage" else found


def all_pairs() -> list[Pair]:
    """Every pair of installed parts of different kinds, also those that a rule forbids."""
    known = [(kind, record.name) for kind in KINDS for record in _records(kind)]
    return [(a, b) for a, b in combinations(known, 2) if a[0] != b[0]]


def allowed() -> list[Pair]:
    """The pairs that no rule forbids."""
    return [two for two in all_pairs() if rule(two) is None]


def covering(seed: int = 0) -> Iterator[dict[str, Any]]:
    """Recipes in which together every allowed pair occurs; a pair that no recipe takes is in one that is refused."""
    missing = dict.fromkeys(allowed())
    while missing:
        first = next(iter(missing))
        for chosen in (_row(first, missing), dict(first)):
            data = containing(chosen, seed)
            if data is not None and not refused(data):
                break
        missing.pop(first)
        if data is not None:
            for two in met(data):
                missing.pop(two, None)
            yield data


def _row(first: Pair, missing: dict[Pair, None]) -> dict[str, str]:
    """One part of every kind: these two, and of each other kind the one with which most pairs are new."""
    chosen = dict(first)
    for kind in KINDS:
        fitting = [
            record.name
            for record in _records(kind)
            if all(rule(pair((kind, record.name), item)) is None for item in chosen.items())
        ]
        if kind not in chosen and fitting:
            new = {name: sum(pair((kind, name), item) in missing for item in chosen.items()) for name in fitting}
            chosen[kind] = max(fitting, key=lambda name: new[name])
    return chosen


def containing(chosen: dict[str, str], seed: int = 0) -> dict[str, Any] | None:
    """A recipe with these parts (kind → name), of some tries one with the fewest errors; None: nowhere to put them."""
    fewest: tuple[int, dict[str, Any]] | None = None
    for attempt in range(TRIES):
        data = _placed(chosen, Chance(seed, *chosen.values(), attempt))
        if data is None:
            return None
        errors = len(refused(data))
        if fewest is None or errors < fewest[0]:
            fewest = errors, data
        if errors == 0:
            break
    return None if fewest is None else fewest[1]


def _placed(chosen: dict[str, str], chance: Chance) -> dict[str, Any] | None:
    slots = {kind: name for name, kind in reversed(list(_slots(ModelConfig)))}
    options = frozenset(item for item in chosen.items() if item[0] not in slots and item[0] != "stage")
    stages = {"base": _tree("stage", frozenset([("stage", chosen["stage"])]), chance, 1)} if "stage" in chosen else {}
    model: dict[str, Any] = {"dim": 16, "layers": 2, "context": 16, "feedforward": "mlp"}
    model["attention"] = {"use": "gqa", "heads": 2}
    for kind, slot in slots.items():
        own: frozenset[Part] = frozenset([(kind, chosen[kind])]) if kind in chosen else frozenset()
        trees, held = _holding(kind, own, options, chance)
        options -= held
        if trees:
            causal = ["causal"] if kind == "mask" and chosen[kind] != "causal" else []
            model[slot] = [*causal, *trees] if kind in LISTED else trees[0]
    return None if options else recipe(model, stages)


def _holding(
    kind: str, own: frozenset[Part], options: frozenset[Part], chance: Chance
) -> tuple[list[dict[str, Any]], frozenset[Part]]:
    """The wanted part of a kind with as many options inside as it can hold, or with another part beside it that can.

    Returns:
        What stands in the slot, and which options are in there.
    """
    for size in range(len(options), 0, -1):
        for some in map(frozenset, combinations(sorted(options), size)):
            together = _tree(kind, own | some, chance, DEEPEST)
            if together is not None:
                return [together], some
            beside = _tree(kind, some, chance, DEEPEST) if own and kind in LISTED else None
            first = _tree(kind, own, chance, 1) if beside is not None else None
            if beside is not None and first is not None:
                return [first, beside], some
    alone = _tree(kind, own, chance, 1) if own else None
    return [] if alone is None else [alone], frozenset()


def _slots(config: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Fields of a config that hold parts, and of which kind."""
    for name, info in config.model_fields.items():
        kind = _slot_kind(info.annotation)
        if kind:
            yield name, kind


def _slot_kind(annotation: Any) -> str:
    if get_origin(annotation) is Spec:
        return str(get_args(annotation)[0].kind)
    return next((kind for kind in map(_slot_kind, get_args(annotation)) if kind), "")


def _tree(kind: str, wanted: frozenset[Part], chance: Chance, depth: int) -> dict[str, Any] | None:
    """A part of this kind that is or contains all the wanted ones, with drawn required options; None: there is none."""
    if depth == 0:
        return None
    for record in sorted(_records(kind), key=lambda record: (kind, record.name) not in wanted):
        inside = _filled(record.load().Config, wanted - {(kind, record.name)}, chance, depth - 1)
        if inside is not None:
            options = draw_options(record.load().Config, chance, {}, 0, sparse=True, given=inside)
            return {"use": record.qualified, **options}
    return None


def _filled(
    config: type[BaseModel], wanted: frozenset[Part], chance: Chance, depth: int, taken: frozenset[str] = frozenset()
) -> dict[str, Any] | None:
    """Options of a config that bring in all the wanted parts, few of them in each slot."""
    if not wanted:
        return {}
    first, *others = sorted(wanted)
    for size in range(len(wanted)):
        for companions in combinations(others, size):
            for slot, kind in _slots(config):
                if slot in taken:
                    continue
                inside = _tree(kind, frozenset([first, *companions]), chance, depth)
                rest = wanted - {first, *companions}
                outside = _filled(config, rest, chance, depth, taken | {slot}) if inside else None
                if outside is not None:
                    return {slot: inside, **outside}
    return None
