"""Random recipes: what validates must work, what doesn't must be refused by name, and every pair of parts must meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from corelm.conformance.assembled import exercise
from corelm.conformance.chance import Chance
from corelm.conformance.covering import Pair, allowed, covering, meeting, recipe, validated
from corelm.conformance.strategies import draw_options, draw_spec
from corelm.model.config import LayerConfig, ModelConfig
from corelm.recipe.checks import vocab_size

SIZES: Final = {
    "dim": (8, 16, 24, 32),
    "layers": (0, 1, 1, 2, 2, 3),
    "context": (8, 12, 16),
    "vocab_size": (None, None, 64, 260, 300),
}
NOT_ASSEMBLED: Final = "model-does-not-assemble"
"""Code of the net below all checks: what lands there, a part's own ``check`` has missed."""


def draw(seed: int, number: int) -> dict[str, Any]:
    """Recipe ``number`` of a seed as plain data, from the schemas of all installed parts; no validator is asked."""
    chance = Chance(seed, number)
    mixers = {kind: draw_spec(kind, chance, 1) for kind in ("attention", "feedforward") if chance.whole(0, 7)}
    model = draw_options(ModelConfig, chance, SIZES, 0, given={"attention": None, "feedforward": None, **mixers})
    if chance.whole(0, 2) == 0:
        model |= _blocks(chance, model["layers"])
    trained = {
        kind: draw_spec(kind, chance, 1) for kind in ("optimizer", "schedule", "objective") if chance.whole(0, 2)
    }
    stages = {"base": {"use": "pretrain", "tokens": "1k", **trained}} if chance.whole(0, 2) else {}
    return recipe(model, stages)


def _blocks(chance: Chance, layers: int) -> dict[str, Any]:
    """Kinds of layers that differ in one or two parts, and a pattern or two of any form."""
    blocks: dict[str, Any] = {}
    for name in ("odd", "even")[: chance.whole(1, 2)]:
        drawn = draw_options(LayerConfig, chance, {}, 0)
        blocks[name] = {key: drawn[key] for key in sorted(drawn)[: chance.whole(0, 2)]}
    if chance.whole(0, 3):
        return {"blocks": blocks, "pattern": _pattern(chance, list(blocks), layers)}
    axes = {axis: _pattern(chance, list(blocks), layers) for axis in ("first", "second")}
    return {"blocks": blocks, "patterns": axes}


def _pattern(chance: Chance, blocks: list[str], layers: int) -> Any:
    names = [*blocks, *blocks, "default", "default"] + ["unheard-of"] * (chance.whole(0, 9) == 0)
    two = {"use": chance.pick(names), "otherwise": chance.pick(names)}
    forms: list[Any] = [
        chance.pick(names),
        [chance.pick(names) for _ in range(chance.whole(0, 3))],
        {"every": chance.whole(0, 3), "offset": chance.whole(0, 2), **two},
        {"first": chance.whole(0, 3), **two},
        {"at": [chance.whole(-layers - 1, layers) for _ in range(chance.whole(0, 2))], **two},
        {"runs": [{chance.pick(names): chance.whole(0, 2)} for _ in range(chance.whole(1, 2))]},
        {"letters": chance.pick(["ab", "aab", "b", "abc"]), "names": {"a": chance.pick(names), "b": "default"}},
    ]
    return chance.pick(forms)


@dataclass(frozen=True)
class Outcome:
    """What became of one recipe.

    Attributes:
        accepted: whether it validates.
        codes: why not.
        error: what went wrong that must not: an accepted recipe that fails, a refusal without a name.
        pairs: parts that share a layer of the accepted model, by two.
    """

    accepted: bool
    codes: tuple[str, ...] = ()
    error: str = ""
    pairs: frozenset[Pair] = frozenset()


def check_one(data: dict[str, Any]) -> Outcome:
    """Validate a recipe, and put one that is accepted to work."""
    try:
        config, found = validated(data)
    except Exception as error:
        return Outcome(False, error=f"the validator raised {type(error).__name__}: {error}")
    if config is None or found:
        missed = next((message for code, message in found if code == NOT_ASSEMBLED), "")
        why = f"no check of its parts refused it, yet {missed}" if missed else ""
        return Outcome(False, tuple(sorted({code for code, _ in found})), why)
    pairs = frozenset(meeting(config))
    try:
        exercise(config, vocab_size(config))
    except Exception as error:
        return Outcome(True, error=f"accepted, yet {type(error).__name__}: {error}", pairs=pairs)
    return Outcome(True, pairs=pairs)


@dataclass
class MixingReport:
    """What came of many recipes.

    Attributes:
        seed: of the draws.
        drawn, accepted: number of random recipes, and of those that validate.
        built: number of recipes of the covering array.
        codes: why recipes were refused, and how often.
        failures: name of the recipe, what went wrong, the recipe.
        uncovered: pairs that no rule forbids and that no accepted recipe has.
    """

    seed: int
    drawn: int = 0
    accepted: int = 0
    built: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    uncovered: set[Pair] = field(default_factory=set)

    @property
    def rate(self) -> float:
        """Share of the random recipes that validate."""
        return self.accepted / self.drawn if self.drawn else 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing failed and every allowed pair occurred."""
        return not self.failures and not self.uncovered

    def add(self, name: str, data: dict[str, Any], outcome: Outcome) -> None:
        """Count one recipe."""
        self.codes.update(outcome.codes)
        self.uncovered -= outcome.pairs
        if outcome.error:
            self.failures.append((name, outcome.error, data))

    def data(self) -> dict[str, Any]:
        """Plain data for scripts."""
        failures = [{"recipe": name, "error": error, "data": data} for name, error, data in self.failures]
        facts = {"seed": self.seed, "drawn": self.drawn, "accepted": self.accepted, "rate": self.rate}
        codes = dict(self.codes.most_common())
        uncovered = [f"{'/'.join(a)} with {'/'.join(b)}" for a, b in sorted(self.uncovered)]
        return {**facts, "covering": self.built, "codes": codes, "failures": failures, "uncovered": uncovered}

    def text(self) -> str:
        """For people."""
        facts = self.data()
        lines = [
            f"{self.drawn} random recipes (seed {self.seed}): {self.accepted} accepted ({self.rate:.0%}); "
            f"{self.built} more to bring all pairs of parts together; {len(self.failures)} failed",
            *(f"  refused {count:5} × {code}" for code, count in facts["codes"].items()),
            *(f"never accepted: {two}" for two in facts["uncovered"]),
            *(f"FAILED {name}: {error}\n  {data}" for name, error, data in self.failures),
        ]
        return "\n".join(lines)


def mix(count: int, seed: int = 0, watch: Callable[[int, int], None] | None = None) -> MixingReport:
    """Put the covering array and ``count`` random recipes to work.

    Args:
        count: random recipes.
        seed: of the draws; recipe n is ``draw(seed, n)``.
        watch: told how many random recipes are done, and how many of these were accepted.
    """
    report = MixingReport(seed, uncovered=set(allowed()))
    for data in covering(seed):
        outcome = check_one(data)
        error = "" if outcome.accepted else f"refused ({', '.join(outcome.codes)}), though no rule forbids it"
        report.built += 1
        report.add(f"covering {report.built}", data, Outcome(True, (), outcome.error or error, outcome.pairs))
    for number in range(count):
        data = draw(seed, number)
        outcome = check_one(data)
        report.drawn, report.accepted = report.drawn + 1, report.accepted + outcome.accepted
        report.add(f"draw({seed}, {number})", data, outcome)
        if watch is not None:
            watch(report.drawn, report.accepted)
    return report
