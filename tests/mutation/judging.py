"""Which mutants of a kind its properties kill."""

from __future__ import annotations

import gc
import importlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

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

SHARING: Final = {"tokenizer"}
"""Kinds most of whose code serves many parts: asking all of them everything of every mutant would take days."""

NOTED: Final = 0.1
"""So many times the usual examples are run there to see which functions a property calls."""

FEW: Final = 3

Key = tuple[str, str, str, str]


class Held(NamedTuple):
    """What a part is held to: the job, the seconds that it takes without a mutant, places of functions that it calls."""

    job: warm.Job
    seconds: float
    reached: frozenset[str]

    def calls(self, mutant: Mutant) -> bool:
        """Whether it calls the function that is changed; where a constant is, anything of its module."""
        if mutant.outer:
            return warm.place(mutant.file, mutant.outer) in self.reached
        return any(place.startswith(f"{mutant.file}:") for place in self.reached)


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
        for name in names:
            importlib.import_module(name)  # some are only imported when they are needed, and none could be planted in
        self.sources = warm.Sources([(name, path_of(name)) for name in names])
        self.unheld: list[str] = []
        self._held: dict[tuple[str, float], list[Held]] = {}
        self._passes: dict[tuple[str, str, float], bool] = {}
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

    def jobs(self, part: PartUnderTest, factor: float) -> list[Held]:
        """What the part is held to without a mutant; what fails then is left out."""
        if (part.name, factor) not in self._held:
            asked = [(part, prop, factor) for prop in properties(part.kind) if prop.name not in LEFT_OUT]
            ran = warm.run(asked, sources=self.sources, through=True, noting=self.kind in SHARING)
            if len(ran.seconds) < len(asked):
                raise RuntimeError(f"{part.label} breaks the process: {ran.by} {ran.reason}")
            broken = [asked[job][1].name for job in ran.failed if asked[job][1].first]
            if broken:
                raise RuntimeError(f"{part.label} fails {broken[0]} without a mutant: {min(ran.failed.values())}")
            self.unheld += [f"{part.label} {asked[job][1].name}: {reason}" for job, reason in ran.failed.items()]
            self._held[part.name, factor] = [
                Held(asked[job], cost, ran.reached[job]) for job, cost in ran.seconds.items() if job not in ran.failed
            ]
        return self._held[part.name, factor]

    def asked(self, mutant: Mutant, factor: float) -> list[Held]:
        """What may notice a mutant, those first that kill most for their time.

        Where parts share their code, that is what calls the function that is changed: a few examples show what does.
        Where only few properties do, all others of the part are asked as well, since parts keep things for later, too.
        So a mutant may survive that all of the kit would kill, and never the other way.
        """
        if self.kind not in SHARING:
            found = [held for part in self.users[mutant.file] for held in self.jobs(part, factor)]
            return sorted(found, key=self._worth)
        found, more = list[Held](), factor / NOTED
        for part in self.users[mutant.file]:
            calling = [held for held in self.jobs(part, NOTED) if held.calls(mutant)]
            found += calling if not 0 < len(calling) <= FEW else self.jobs(part, NOTED)
        found = [held._replace(job=(*held.job[:2], factor), seconds=more * held.seconds) for held in found]
        return sorted(found, key=lambda held: (not held.calls(mutant), self._worth(held)))

    def _worth(self, held: Held) -> float:
        return -(self.tally[held.job[1].name] + 0.3) / (held.seconds + 0.02)

    def judge(self, mutant: Mutant, factors: Sequence[float]) -> warm.Ran:
        """Hold every part that uses the module to its properties, with so many times their number of examples."""
        ran = warm.Ran()
        for factor in factors:
            asked = self.asked(mutant, factor)
            limits = [10 + 10 * held.seconds for held in asked]
            ran = warm.run([held.job for held in asked], sources=self.sources, mutant=mutant, limits=limits)
            while ran.failed and not self._stands(asked[min(ran.failed)].job):
                del limits[min(ran.failed)], asked[min(ran.failed)]
                ran = warm.run([held.job for held in asked], sources=self.sources, mutant=mutant, limits=limits)
            if ran.status != "survived":
                break
        self.tally[ran.by] += ran.status == "killed"
        return ran

    def _stands(self, job: warm.Job) -> bool:
        """Whether the part passes the property without a mutant, with as many examples."""
        part, prop, factor = job
        if self.kind not in SHARING:
            return True  # seen before
        key = part.name, prop.name, factor
        if key not in self._passes:
            self._passes[key] = not warm.run([job]).failed
        return self._passes[key]

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
