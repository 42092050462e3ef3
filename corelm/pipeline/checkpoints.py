"""Checkpoints: members' states on disk, whole or not at all, verified when they are read.

A state is nested dicts and lists of tensors and plain data. Tensors go to safetensors, the rest to JSON in which
``{"$tensor": name}`` marks a tensor's place. A manifest with the digests of both is written last; a folder without a
valid manifest is never taken for a checkpoint.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from corelm.errors import UserError
from corelm.files import publish, read_json, sha256, sync, write_json, writing
from corelm.kinds.batch import Stateful


def flatten(state: Any, tensors: dict[str, torch.Tensor], path: str = "") -> Any:
    """Replace every tensor in ``state`` by a marker and collect the tensors under their paths."""
    if isinstance(state, torch.Tensor):
        name = path or "tensor"
        # Contiguous copies of their own: safetensors refuses tensors that share memory.
        tensors[name] = state.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"$tensor": name}
    if isinstance(state, Mapping):
        if not all(isinstance(key, str) for key in state):
            raise TypeError(f"state at {path or 'top'}: keys must be strings")
        return {key: flatten(value, tensors, f"{path}/{key}") for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [flatten(value, tensors, f"{path}/{index}") for index, value in enumerate(state)]
    if state is None or isinstance(state, bool | int | float | str):
        return state
    raise TypeError(f"state at {path or 'top'}: {type(state).__name__} is neither a tensor nor plain data")


def unflatten(state: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Put the tensors back."""
    if isinstance(state, dict):
        if set(state) == {"$tensor"}:
            return tensors[state["$tensor"]]
        return {key: unflatten(value, tensors) for key, value in state.items()}
    if isinstance(state, list):
        return [unflatten(value, tensors) for value in state]
    return state


def write_state(folder: Path, step: int, states: Mapping[str, Any]) -> None:
    """Write members' states into an existing, empty folder, manifest last."""
    tensors: dict[str, torch.Tensor] = {}
    plain = flatten(dict(states), tensors)
    with writing(folder):
        save_file(tensors, folder / "tensors.safetensors")
        sync(folder / "tensors.safetensors")
        with (folder / "state.json").open("w", encoding="utf-8") as file:
            json.dump(plain, file)
        sync(folder / "state.json")
    files = {name: sha256(folder / name) for name in ("tensors.safetensors", "state.json")}
    write_json(folder / "manifest.json", {"step": step, "files": files})


def read_state(folder: Path) -> tuple[int, dict[str, Any]]:
    """Read what ``write_state`` wrote.

    Raises:
        UserError: a file is missing, cut off or altered.
    """
    manifest = read_json(folder / "manifest.json")
    for name, expected in manifest["files"].items():
        if not (folder / name).is_file() or sha256(folder / name) != expected:
            raise _damaged(folder / name)
    try:
        # Copies of their own: mapped tensors lie unaligned in the file, and matrix products round differently there.
        tensors = {name: tensor.clone() for name, tensor in load_file(folder / "tensors.safetensors").items()}
        plain = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (SafetensorError, ValueError) as error:
        raise _damaged(folder) from error
    return int(manifest["step"]), unflatten(plain, tensors)


def _damaged(path: Path) -> UserError:
    return UserError(
        f"{path}: the checkpoint was truncated or altered (its digest does not match)",
        remedy="Remove that checkpoint's folder to go on from the one before, or the stage's to start it again.",
        code="checkpoint-damaged",
    )


class StageCheckpoints:
    """Checkpoints of one stage: by the clock, the two newest kept, and one kept for good at ``keep_at``.

    Args:
        folder: where they are; made when the first is saved.
        seconds: between two checkpoints.
        saved: told the step of each.
    """

    def __init__(self, folder: Path, seconds: float, saved: Callable[[int], None] = lambda step: None) -> None:
        self.folder = folder
        self.seconds = seconds
        self.keep_at: int | None = None
        self._saved = saved
        self._last = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether a checkpoint should be saved now."""
        return step == self.keep_at or time.monotonic() - self._last >= self.seconds

    def save(self, step: int, members: Mapping[str, Stateful]) -> None:
        """Save all members' states."""
        made, final = self.folder / ".new", self.folder / f"{step:010d}"
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
        try:
            write_state(made, step, {name: member.state_dict() for name, member in members.items()})
            with writing(final):
                publish(made, final)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        for old in self._found()[:-2]:
            if int(old.name) != self.keep_at:
                shutil.rmtree(old)
        self._last = time.monotonic()
        self._saved(step)

    def restore(self, members: Mapping[str, Stateful]) -> int:
        """Load the newest checkpoint into the members and return its step; 0 without one."""
        found = self._found()
        if not found:
            return 0
        step, states = read_state(found[-1])
        missing = sorted(set(members) ^ set(states))
        if missing:
            raise UserError(
                f"{found[-1]}: members of the checkpoint differ: {', '.join(missing)}", code="checkpoint-other"
            )
        for name, member in members.items():
            member.load_state_dict(states[name])
        return step

    def latest(self) -> int:
        """Step of the newest checkpoint; 0 without one."""
        found = self._found()
        return int(found[-1].name) if found else 0

    def kept(self) -> Path | None:
        """The checkpoint at ``keep_at``, where there is one."""
        path = self.folder / f"{self.keep_at:010d}" if self.keep_at is not None else None
        return path if path is not None and (path / "manifest.json").exists() else None

    def _found(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(p for p in self.folder.iterdir() if p.name.isdigit() and (p / "manifest.json").exists())
