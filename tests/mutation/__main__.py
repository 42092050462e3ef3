"""Mutants of first-party parts against the conformance kit: ``python tests/mutation [KIND ...]``.

Each kind's figures are kept in ``docs/mutation.json``, from which ``python docs/make.py`` writes a page.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

for name, value in (("OMP_NUM_THREADS", "1"), ("TOKENIZERS_PARALLELISM", "false"), ("HF_HUB_OFFLINE", "1")):
    os.environ.setdefault(name, value)
sys.path.insert(0, str(Path(__file__).parent))

import torch
import yaml
from drawing import ROOT, first_party
from judging import Court, Key, Verdicts, key_of, relative
from mutating import Mutant
from warm import Ran

from corelm.conformance.running import PROFILES

EQUIVALENT = Path(__file__).with_name("equivalent.yaml")


def equivalents() -> dict[Key, str]:
    """Mutants that do what the original does, each with the reason."""
    written = yaml.safe_load(EQUIVALENT.read_text(encoding="utf-8")) or []
    return {(e["file"], e["function"], e["original"], e["mutated"]): e["reason"] for e in written}


def main(arguments: list[str] | None = None) -> int:
    """Judge, kind by kind; 1 where some survived."""
    parser = argparse.ArgumentParser(prog="python tests/mutation", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="kinds of parts; none means all")
    parser.add_argument("--mutants", type=int, default=30, help="so many of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each kind at most")
    parser.add_argument("--survivors", action="store_true", help="only those that survived the last time")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "mutation.json", help="where figures are kept")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    survived = 0
    for kind in given.kinds or first_party():
        before = _read(given.out).get(kind, {})
        survived += len(_kind(kind, given, before)["survivors"])
    return 1 if survived else 0


def _kind(kind: str, given: argparse.Namespace, before: dict[str, Any]) -> dict[str, Any]:
    """Judge one kind and keep what came out."""
    court, known = Court(kind, Counter(before.get("killed", {}))), equivalents()
    only = [
        tuple(s[name] for name in ("file", "function", "original", "mutated")) for s in before.get("survivors", [])
    ]
    found = court.verdicts(
        number=given.mutants,
        seed=given.seed,
        equivalent=known,
        seconds=given.seconds,
        factors=_factors(given.survivors),
        only=only if given.survivors else None,
        watch=lambda mutant, ran: print(_line(kind, mutant, ran), flush=True),
    )
    figures = _figures(found, given)
    if given.survivors and before:
        figures = _added(before, figures)
    kept = {**_read(given.out), kind: figures}
    given.out.write_text(
        json.dumps(dict(sorted(kept.items())), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    total = sum(figures["killed"].values()) + figures["hung"]
    print(
        f"{kind}: {total} killed, {len(figures['survivors'])} survived, {figures['equivalent']} equivalent",
        flush=True,
    )
    return figures


def _factors(again: bool) -> list[float]:
    """Few examples first, the usual number for what survives; ``CORELM_KIT=dev`` leaves it at few."""
    few, usual = PROFILES["dev"], PROFILES["ci"]
    if os.environ.get("CORELM_KIT") == "dev":
        return [few]
    return [usual] if again else [few, usual]


def _figures(found: Verdicts, given: argparse.Namespace) -> dict[str, Any]:
    return {
        "available": found.available,
        "seed": given.seed,
        "killed": dict(found.killed.most_common()),
        "hung": found.hung,
        "equivalent": found.equivalent,
        "survivors": [_entry(mutant) for mutant in found.survivors],
        "unheld": sorted(set(found.unheld)),
        "seconds": round(found.seconds),
    }


def _added(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The figures of a sample after its survivors were judged again."""
    killed = Counter(before["killed"]) + Counter(now["killed"])
    sums = {name: before[name] + now[name] for name in ("hung", "equivalent", "seconds")}
    return {**now, **sums, "seed": before["seed"], "killed": dict(killed.most_common())}


def _entry(mutant: Mutant) -> dict[str, Any]:
    file, function, original, changed = key_of(mutant)
    place = {"file": file, "line": mutant.line, "function": function, "operator": mutant.operator}
    return {**place, "original": original, "mutated": changed}


def _line(kind: str, mutant: Mutant, ran: Ran) -> str:
    by = f" by {ran.by}" if ran.by else ""
    place = f"{relative(mutant.file)}:{mutant.line} {mutant.function}"
    return f"{kind} {ran.status}{by} · {place} · {mutant.operator} · {mutant.original} → {mutant.mutated}"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


if __name__ == "__main__":
    sys.exit(main())
