"""Which mutants of a kind its properties kill."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import warm
from drawing import ROOT, in_order, modules_of, parts_of, path_of
from mutating import Mutant, mutants

from corelm.conformance.framework import PartUnderTest
from corelm.conformance.running import PROFILES
from corelm.conformance.selection import properties
from corelm.registration import active

LEFT_OUT: Final = {
    "same_in_a_fresh_process": "it compares processes with each other, all of which have the mutant, for seconds",
    "cheap_per_step": "it looks at the clock, which other work on the machine changes",
}

Key = tuple[str, str, str, str]


@dataclass
class Verdicts:
    """What became of a kind's mutants.

    Attributes:
        available: how many there are.
        killed: how many each property killed.
        hung, equivalent: how many.
        survivors: those that no property killed.
        unheld: what parts fail without any mutant, and is therefore not asked.
        seconds: how long it took.
    """

    available: int = 0
    killed: Counter[str] = field(default_factory=Counter)
    hung: int = 0
    equivalent: int = 0
    survivors: list[Mutant] = field(default_factory=list)
    unheld: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Court:
    """Judges the mutants of one kind; everything that they need is imported when it is made, once and for all."""

    def __init__(self, kind: str, tally: Counter[str] | None = None) -> None:
        """Import the kind's parts, read its modules.

        Args:
            kind: whose mutants.
            tally: how many each property has killed before; those that kill most are asked first.
        """
        gc.unfreeze()
        self.kind, self.parts, self.tally = kind, parts_of(kind), Counter(tally or {})
        for part in self.parts:
            _ = part.cls, part.bench
        self.users: dict[str, list[PartUnderTest]] = {}
        for part in self.parts:
            for module in modules_of(part):
                self.users.setdefault(str(path_of(module)), []).append(part)
        names = dict.fromkeys(module for part in self.parts for module in modules_of(part))
        self.sources = warm.Sources([(name, path_of(name)) for name in names])
        self.unheld: list[str] = []
        self._costs: dict[tuple[str, float], list[tuple[warm.Job, float]]] = {}
        gc.collect()
        gc.freeze()  # or every copy would write on every page

    @cached_property
    def all(self) -> list[Mutant]:
        """All mutants that can be planted, so that every beginning is a fair sample."""
        found = [m for path, text in self.sources.text.items() for m in mutants(text, path)]
        return [m for m in found if not self._of_another_kind(m) and self.sources.plantable(m)]

    def _of_another_kind(self, mutant: Mutant) -> bool:
        """Whether it is in an interface's file, but in no code of this kind.

        A kind whose interface stands in another kind's file has its class there and nothing else.
        """
        module, owner = self.sources.module[mutant.file], mutant.function.partition(".")[0]
        targets = {name: kind.target.partition(":") for name, kind in active().kinds.items()}
        others = [name for name, (other, _, interface) in targets.items() if (other, interface) == (module, owner)]
        named = module.rpartition(".")[2]
        return bool(others and self.kind not in others) or (
            module == targets[self.kind][0] and named in targets and named != self.kind and self.kind not in others
        )

    def jobs(self, part: PartUnderTest, factor: float) -> list[tuple[warm.Job, float]]:
        """What the part is held to, with the seconds that each takes without a mutant; what fails then is left out."""
        if (part.name, factor) not in self._costs:
            asked = [(part, prop, factor) for prop in properties(part.kind) if prop.name not in LEFT_OUT]
            ran = warm.run(asked, through=True)
            if len(ran.seconds) < len(asked):
                raise RuntimeError(f"{part.label} breaks the process: {ran.by} {ran.reason}")
            broken = [asked[job][1].name for job in ran.failed if asked[job][1].first]
            if broken:
                raise RuntimeError(f"{part.label} fails {broken[0]} without a mutant: {min(ran.failed.values())}")
            self.unheld += [f"{part.label} {asked[job][1].name}: {reason}" for job, reason in ran.failed.items()]
            held = [(asked[job], cost) for job, cost in ran.seconds.items() if job not in ran.failed]
            self._costs[part.name, factor] = held
        return self._costs[part.name, factor]

    def judge(self, mutant: Mutant, factors: Sequence[float]) -> warm.Ran:
        """Hold every part that uses the module to its properties, with so many times their number of examples."""
        ran = warm.Ran()
        for factor in factors:
            asked = [pair for part in self.users[mutant.file] for pair in self.jobs(part, factor)]
            asked.sort(key=lambda pair: -(self.tally[pair[0][1].name] + 0.3) / (pair[1] + 0.02))
            limits = [10 + 10 * cost for _, cost in asked]
            ran = warm.run([job for job, _ in asked], sources=self.sources, mutant=mutant, limits=limits)
            if ran.status != "survived":
                break
        self.tally[ran.by] += ran.status == "killed"
        return ran

    def verdicts(
        self,
        *,
        number: int,
        seed: int,
        equivalent: Collection[Key] = (),
        seconds: float = float("inf"),
        factors: Sequence[float] = (PROFILES["dev"], PROFILES["ci"]),
        only: Sequence[Key] | None = None,
        watch: Callable[[Mutant, warm.Ran], Any] = lambda mutant, ran: None,
    ) -> Verdicts:
        """Judge a sample.

        Args:
            number: of mutants.
            seed: of the sample.
            equivalent: mutants that do what the original does; they are counted and not run.
            seconds: no mutant is begun later than that.
            factors: on the properties' numbers of examples; what survives one meets the next.
            only: judge these and no sample.
            watch: told each verdict as it comes.
        """
        began = time.monotonic()
        found = Verdicts(len(self.all), unheld=self.unheld)
        for mutant in self._chosen(number, seed, only):
            if time.monotonic() - began > seconds:
                break
            if key_of(mutant) in equivalent:
                found.equivalent += 1
                continue
            ran = self.judge(mutant, factors)
            watch(mutant, ran)
            if ran.status == "survived":
                found.survivors.append(mutant)
            elif ran.status == "hung":
                found.hung += 1
            elif ran.status == "killed":
                found.killed[ran.by or "(the process broke)"] += 1
        found.seconds = time.monotonic() - began
        return found

    def _chosen(self, number: int, seed: int, only: Sequence[Key] | None) -> list[Mutant]:
        if only is None:
            return in_order(self.all, seed)[:number]
        return [mutant for mutant in self.all if key_of(mutant) in only]


def key_of(mutant: Mutant) -> Key:
    """What tells a mutant from others, with the file as seen from the root of the repository."""
    return relative(mutant.file), mutant.function, mutant.original, mutant.mutated


def relative(file: str) -> str:
    """The file as seen from the root of the repository."""
    path = Path(file)
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
