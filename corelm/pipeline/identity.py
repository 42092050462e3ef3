"""What a stage's result depends on (identity), and what it was made with (provenance), kept apart.

A change of identity redoes the stage. A change of provenance is printed, and redone when asked for.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

import corelm
from corelm.files import digest, folder_digest, sha256
from corelm.kinds.component import ComponentConfig, Spec, nested_specs, paths_by_name
from corelm.kinds.source import Source
from corelm.registration import Record


def all_specs(specs: Iterable[Spec[Any]]) -> list[Spec[Any]]:
    """The parts and every part named inside their configs."""
    return [inner for spec in specs for inner in [spec, *(nested for _, nested in nested_specs(spec.config))]]


def revisions(specs: Iterable[Spec[Any]]) -> dict[str, int]:
    """``kind/distribution:name`` → revision of every part involved."""
    return {f"{spec.kind}/{spec.record.qualified}": spec.part.revision for spec in all_specs(specs)}


def plain(config: ComponentConfig) -> dict[str, Any]:
    """A config as plain data; where its sources' files are is left out, since ``fingerprints`` says what they hold."""
    data = config.model_dump(mode="json")
    for path, spec in nested_specs(config):
        if issubclass(spec.part, Source):
            *holders, last = path
            place: Any = data
            for key in holders:
                place = place[key]
            with paths_by_name():
                place[last] = spec.dump()
    return data


def fingerprints(specs: Iterable[Spec[Any]], known: dict[Spec[Any], str]) -> dict[str, str]:
    """Digest of the data behind every source among the parts; ``known`` remembers those that were asked before."""
    found: dict[str, str] = {}
    for spec in all_specs(specs):
        if issubclass(spec.part, Source):
            if spec not in known:
                known[spec] = spec.part(spec.config).fingerprint()
            again = sum(name.partition("#")[0] == spec.name for name in found)
            found[f"{spec.name}#{again + 1}" if again else spec.name] = known[spec]
    return found


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """What changed between two identities, one sentence each: ``config.tokens: 1000 → 2000``."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        lines = []
        for key in sorted({*old, *new}):
            below = f"{path}.{key}" if path else str(key)
            if key not in old:
                lines.append(f"{below}: new")
            elif key not in new:
                lines.append(f"{below}: gone")
            else:
                lines += differences(old[key], new[key], below)
        return lines
    if old == new:
        return []
    shown = [repr(value) if len(repr(value)) < 40 else "…" for value in (old, new)]
    return [f"{path}: changed" if shown == ["…", "…"] else f"{path}: {shown[0]} → {shown[1]}"]


def provenance(specs: Iterable[Spec[Any]], processes: int = 1) -> dict[str, Any]:
    """Code and machine that a result is made with, by so many processes."""
    records: list[Record] = [spec.record for spec in all_specs(specs)]
    files = {_short(record.location): sha256(Path(record.location)) for record in records if record.location}
    versions = {record.distribution: record.version for record in records}
    return {
        "files": files,
        "core": _core_digest(),
        "versions": {**versions, "corelm": corelm.__version__, "torch": torch.__version__},
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "device": _device(),
    }


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu {platform.machine()}"


def _short(location: str) -> str:
    return "/".join(Path(location).parts[-2:])


@cache
def _core_digest() -> str:
    root = Path(corelm.__file__).parent
    code = [path for path in sorted(root.rglob("*.py")) if not {"conformance", "cli"} & set(path.parts)]
    return digest([[path.relative_to(root).as_posix(), sha256(path)] for path in code])


def other_code(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What of the provenance changed, as short names."""
    changed = sorted(
        name
        for name in {*old.get("files", {}), *new["files"]}
        if old.get("files", {}).get(name) != new["files"].get(name)
    )
    if old.get("core") != new["core"]:
        changed.append("the core")
    old = {"processes": 1, **old}
    for name in ("versions", "python", "threads", "processes", "device"):
        if old.get(name) != new[name]:
            changed.append(", ".join(differences(old.get(name), new[name], name)))
    return changed


__all__ = [
    "all_specs",
    "differences",
    "digest",
    "fingerprints",
    "folder_digest",
    "other_code",
    "provenance",
    "revisions",
]
