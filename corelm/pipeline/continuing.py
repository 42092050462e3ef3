"""Training on from a finished stage whose length was raised.

A finished training keeps the checkpoint up to which its schedule did not depend on its length. When nothing but
the length changed, and to more, the new training starts from there: the path is the very one that it would have
taken from the start.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corelm.files import read_json
from corelm.pipeline import identity
from corelm.pipeline.checkpoints import StageCheckpoints
from corelm.pipeline.plan import Unit

KEPT = "resume"
"""Folder of the kept checkpoint inside the stage's own."""

LENGTHS = ("tokens", "epochs", "steps")


def keep(checkpoints: StageCheckpoints, output: Path) -> None:
    """Move the checkpoint to go on from into the stage's results."""
    kept = checkpoints.kept()
    if kept is not None:
        shutil.copytree(kept, output / KEPT)


def carry_over(
    unit: Unit, ledger: Mapping[str, Any], payload: Mapping[str, Any], final: Path, work: Path
) -> str | None:
    """Put the kept checkpoint where the stage will find it; say so, or why not. None: nothing to say."""
    length = _raised(ledger["payload"], payload)
    if length is None or (work / "checkpoints").exists():
        return None
    if not (final / KEPT / "manifest.json").exists():
        return (
            f"{length} was raised, but the finished training can't go on: its schedule depends on the total length "
            "from the start (use warmup-stable-decay or constant, with the warm-up in steps)"
        )
    step = int(read_json(final / KEPT / "manifest.json")["step"])
    (work / "checkpoints").mkdir(parents=True)
    shutil.copytree(final / KEPT, work / "checkpoints" / f"{step:010d}")
    return f"{length} was raised: goes on from step {step} of the finished training"


def _raised(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Name of the length that is the only difference, where it was raised."""
    changed = identity.differences(old, new)
    if len(changed) != 1:
        return None
    for name in LENGTHS:
        if changed[0].startswith(f"config.stage.{name}: "):
            before, after = old["config"]["stage"][name], new["config"]["stage"][name]
            if isinstance(before, int) and isinstance(after, int) and after > before:
                return name
    return None
