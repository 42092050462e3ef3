"""The page about planted bugs: which property catches which, and after how many examples."""

from __future__ import annotations

import json
import math
import os
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from corelm.conformance.framework import PartUnderTest, Property
from corelm.conformance.planted import PlantedBug, planted_bugs, references
from corelm.conformance.running import hold
from corelm.conformance.selection import properties

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "docs" / "catches.json", ROOT / "docs" / "catches.md"
SEEDS, FEWEST, SECONDS = 20, 5, 10.0
"""The property meant for a bug is run under so many seeds; under fewer, but not fewer than these, after these seconds."""
FEW = 5
"""Examples, at most, of the properties that are not meant for it."""
FURTHER = 3
"""How many times its number of examples the property that is meant may take here, so that its power can be told."""
MISSED = 1e-3
"""How often a bug may slip through the examples of the property that is meant for it."""
DEAR = frozenset(
    {
        "same_in_a_fresh_process",
        "import_is_quiet",
        "compiled_equals_eager",
        "compiled_step_equals_eager",
        "processes_are_one",
    }
)
"""Laws that start processes or a compiler: they are held against the bugs only that they are meant for."""
OWNERS = {
    "C2C": "thu-nics/C2C",
    "GPTQModel": "ModelCloud/GPTQModel",
    "Liger-Kernel": "linkedin/Liger-Kernel",
    "OpenRLHF": "OpenRLHF/OpenRLHF",
    "accelerate": "huggingface/accelerate",
    "bitsandbytes": "bitsandbytes-foundation/bitsandbytes",
    "candle": "huggingface/candle",
    "datasets": "huggingface/datasets",
    "diffusers": "huggingface/diffusers",
    "esm": "Biohub/esm",
    "fish-speech": "fishaudio/fish-speech",
    "keras": "keras-team/keras",
    "keras-hub": "keras-team/keras-hub",
    "llm-awq": "mit-han-lab/llm-awq",
    "nanoVLM": "huggingface/nanoVLM",
    "nntrainer": "nntrainer/nntrainer",
    "pytorch": "pytorch/pytorch",
    "sglang": "sgl-project/sglang",
    "tokenizers": "huggingface/tokenizers",
    "torch-xpu-ops": "intel/torch-xpu-ops",
    "torchtitan": "pytorch/torchtitan",
    "torchtune": "pytorch/torchtune",
    "transformers": "huggingface/transformers",
    "trl": "huggingface/trl",
    "unsloth": "unslothai/unsloth",
    "vllm": "vllm-project/vllm",
    "x-transformers": "lucidrains/x-transformers",
}
"""Where threads that are named by project and number are."""
BEGINNING = """# What the kit catches

Written by `python docs/make.py` from what `python docs/make.py --measure-kit [KIND …]` found, which holds every planted
bug to all properties of its kind.

A *planted bug* is a small part that is wrong in one way, in a way that was published or is made again and again; nearly all are
two or three lines that override a part that is right. They are in `corelm/conformance/bugs/`. Each names the property that
is meant for it, and the tests of corelm demand that this property catches it within its usual number of examples, and that
the right parts pass everything.

*Examples* are those that the property took until the bug showed, over {seeds} seeds: the median, and the number within which
it showed under 95 % of them. *Shows in* is the share of examples that show the bug (catches by examples taken). *Others* are
further properties that fail within {few} examples; **alone** says that there are none. Laws that start processes or a
compiler are asked only about bugs that are meant for them ({dear}), and
nothing else is asked about a part that fails a law which all others wait for.
"""

Found = Mapping[str, Any]


def measure(kinds: Sequence[str] = ()) -> None:
    """Hold every planted bug to all properties of its kind, and keep what was found."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    bugs = planted_bugs()
    for kind in kinds or sorted({bug.kind for bug in bugs}):
        began = _seconds()
        complaint = _right_parts_fail(kind)
        if complaint:
            print(f"{kind}: not measured; {complaint}", flush=True)
            continue
        found = {bug.name: _measured(bug) for bug in bugs if bug.kind == kind}
        results[kind] = {"seconds": round(_seconds() - began, 1), "bugs": found}
        _keep({name: results[name] for name in sorted(results) if name in {bug.kind for bug in bugs}})
        print(f"{kind}: {len(found)} bugs, {results[kind]['seconds']} s", flush=True)


def _right_parts_fail(kind: str) -> str:
    """A catch says something only where the right parts pass; what is wrong with them, or ''."""
    for part in references(kind):
        for prop in properties(kind):
            if prop.name in DEAR:
                continue
            outcome = hold(part, prop, shrink=False, examples=min(FEW, prop.examples))
            if outcome.status == "failed":
                return f"{part.label} is right, but fails {prop.name}: {outcome.reason}"
    return ""


def _keep(results: Mapping[str, Any]) -> None:
    """Write the results, one bug per line."""
    kinds = []
    for kind, found in results.items():
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(bug)}" for name, bug in found["bugs"].items())
        kinds.append(f' {json.dumps(kind)}: {{"seconds": {found["seconds"]}, "bugs": {{\n{lines}}}}}')
    RESULTS.write_text("{\n" + ",\n".join(kinds) + "}\n", encoding="utf-8")


def _seconds() -> float:
    """Seconds of processor time, those of ended processes included."""
    return sum(os.times()[:4])


def _measured(bug: PlantedBug) -> dict[str, Any]:
    """What catches one bug: the examples needed by the property that is meant, and by which others it fails."""
    part = PartUnderTest(bug.kind, f"bug:{bug.name}", given=bug.part)
    first, began, survived = [], _seconds(), 0
    for seed in range(SEEDS):
        if seed >= FEWEST and _seconds() - began > SECONDS:
            break
        outcome = hold(part, bug.property, seed=seed, shrink=False, examples=FURTHER * bug.property.examples)
        caught = outcome.status == "failed"
        first.append(outcome.first_failure if caught else 0)
        survived += 0 if caught else outcome.ran
    return {"meant": bug.caught_by, "first": first, "survived": survived, "also": dict(_others(bug, part))}


def _others(bug: PlantedBug, part: PartUnderTest) -> Iterator[tuple[str, int]]:
    """Other properties that fail, with the example at which they did."""
    blocked = bug.property.first
    for prop in properties(bug.kind):
        if prop.name in {bug.caught_by, *DEAR} or (blocked and not prop.first):
            continue
        outcome = hold(part, prop, shrink=False, examples=min(FEW, prop.examples))
        if outcome.status == "failed":
            yield prop.name, max(1, outcome.first_failure)
            blocked = blocked or prop.first


def power(found: Found) -> float:
    """Share of examples that show the bug: catches by the examples that they took.

    The first example is the simplest one and always the same, so where it never shows the bug it is no trial.
    """
    caught = [number for number in found["first"] if number]
    trials = sum(max(1, number - 1) for number in caught) + found["survived"]
    return len(caught) / trials if caught else 0.0


def needed(found: Found) -> int:
    """Examples after which the bug is missed less often than MISSED."""
    chance = power(found)
    if chance <= 0:
        return sum(found["first"]) + found["survived"]
    return (min(found["first"]) > 1) + (1 if chance >= 1 else math.ceil(math.log(MISSED) / math.log(1 - chance)))


def missed(found: Found, examples: int) -> float:
    """How often the bug slips through so many examples."""
    return float((1 - power(found)) ** (examples - (min(found["first"]) > 1)))


def weakest(prop: Property, results: Mapping[str, Any]) -> Found | None:
    """What was found of the bug, of those that the property is meant for, that needs most examples; None without any."""
    kinds = list(results) if prop.kind == "*" else [prop.kind]
    every = [bug for kind in kinds for bug in results.get(kind, {"bugs": {}})["bugs"].values()]
    return max((bug for bug in every if bug["meant"] == prop.name), key=needed, default=None)


def caught(prop: Property, results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Kind and name of the planted bugs that fail a property, those that it is meant for first."""
    kinds = list(results) if prop.kind == "*" else [prop.kind]
    every = [(kind, name, bug) for kind in kinds for name, bug in results.get(kind, {"bugs": {}})["bugs"].items()]
    meant = [(kind, name) for kind, name, bug in every if bug["meant"] == prop.name]
    return meant + [(kind, name) for kind, name, bug in every if prop.name in bug["also"]]


def read() -> dict[str, Any]:
    """What was measured."""
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return results


def page() -> str:
    """The page as it should be."""
    results = read()
    bugs = {(bug.kind, bug.name): bug for bug in planted_bugs()}
    dear = ", ".join(f"`{name}`" for name in sorted(DEAR))
    parts = [BEGINNING.format(seeds=SEEDS, few=FEW, dear=dear), _summary(results)]
    for kind, found in results.items():
        rows = [_row(bugs[kind, name], bug) for name, bug in found["bugs"].items() if (kind, name) in bugs]
        title = "| bug | mistake | property | examples | shows in | others |\n| --- | --- | --- | --- | --- | --- |\n"
        parts.append(f"## `{kind}`\n\n{title}" + "".join(rows))
    return "\n".join(parts)


def _summary(results: Mapping[str, Any]) -> str:
    lines = [
        "| kind | bugs | caught | median | 95 % | caught by one property alone | seconds |",
        "| --- |" + " --- |" * 6,
    ]
    for kind, found in results.items():
        lines.append(f"| [`{kind}`](#{kind}) | {_figures(list(found['bugs'].values()))} | {found['seconds']:.0f} |")
    every = [bug for found in results.values() for bug in found["bugs"].values()]
    total = sum(found["seconds"] for found in results.values())
    return "\n".join([*lines, f"| all | {_figures(every)} | {total:.0f} |"]) + "\n"


def _figures(bugs: Sequence[Found]) -> str:
    """Number, caught, median, 95 %, alone."""
    first = sorted(number for bug in bugs for number in bug["first"] if number)
    sure = sum(all(bug["first"]) for bug in bugs)
    return f"{len(bugs)} | {sure} | {_middle(first)} | {_nearly_all(first)} | {sum(not bug['also'] for bug in bugs)}"


def _middle(numbers: Sequence[int]) -> str:
    return f"{statistics.median(numbers):g}" if numbers else "–"


def _nearly_all(numbers: Sequence[int]) -> int:
    return sorted(numbers)[math.ceil(0.95 * len(numbers)) - 1] if numbers else 0


def _row(bug: PlantedBug, found: Found) -> str:
    others = ", ".join(f"`{name}`" for name in found["also"]) or "**alone**"
    first = [number for number in found["first"] if number]
    examples = f"{_middle(first)}, {_nearly_all(first)}" if first else "–"
    missed = len(found["first"]) - len(first)
    told = f"{examples}; missed {missed} of {len(found['first'])}" if missed else examples
    return f"| `{bug.name}` | {said(bug)} | `{found['meant']}` | {told} | {share(power(found))} | {others} |\n"


def said(bug: PlantedBug) -> str:
    """What is wrong, in a cell."""
    return linked(bug.what.strip().splitlines()[0].replace("|", "\\|")) if bug.what else ""


def linked(text: str) -> str:
    """Threads that are named by project and number, as links."""

    def link(match: re.Match[str]) -> str:
        owner = OWNERS.get(match[1])
        return f"[{match[0]}](https://github.com/{owner}/issues/{match[2]})" if owner else match[0]

    return re.sub(r"(?<![\w/])([A-Za-z][\w.-]*)#(\d+)", link, text)


def share(value: float) -> str:
    """A share in words."""
    return "all" if value >= 1 else f"{100 * value:.0f} %" if value >= 0.1 else f"{100 * value:.1f} %"
