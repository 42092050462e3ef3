"""Train a tiny model in several processes; the kit starts this once for each of them.

``python -m corelm.conformance.ranks MODULE:CLASS CONFIG SEED FOLDER``, with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT
in the environment.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed

from corelm.conformance.tiny import Descent, Loop, Memory, Silent, own, refused, rows, tiny
from corelm.errors import Interrupted
from corelm.kinds.component import Spec
from corelm.kinds.trainer import TrainingJob
from corelm.pipeline.checkpoints import read_state, write_state

IDS = 7
LENGTHS = (2, 15, 5, 9, 4)
"""Of the documents, one per micro-batch: processes have unequal numbers of terms, and the second step reads others."""
STEPS = 2
SLOWLY = 0.3
"""Seconds that a checkpoint takes to be written: whoever doesn't wait is seen to go ahead."""


class Elastic(Loop):
    """Its position is that of all processes together, so that another number of them can go on from it."""

    elastic = True

    def state_dict(self) -> dict[str, Any]:
        """Batches that all have read."""
        return {"read": self.position * self.world}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """This process's share."""
        self.position = state["read"] // self.world


class OnDisk(Memory):
    """Checkpoints that all processes see; that of the end isn't written, so that one can go on from the first again."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def save(self, step: int, members: Mapping[str, Any]) -> None:
        """Slowly."""
        self.kept = step, {name: member.state_dict() for name, member in members.items()}
        if step < STEPS:
            time.sleep(SLOWLY)
            made = self.path.with_suffix(".new")
            made.mkdir()
            write_state(made, *self.kept)
            made.rename(self.path)

    def restore(self, members: Mapping[str, Any]) -> int:
        """What is on disk."""
        self.kept = read_state(self.path) if self.path.exists() else None
        return super().restore(members)


def train(
    cls: type[Any],
    config: str,
    seed: int,
    checkpoints: Any = None,
    watch: Silent | None = None,
    elastic: bool = False,
) -> dict[str, Tensor]:
    """Two steps of four micro-batches by the part ``cls``; the parameters afterwards."""
    model = tiny(seed, vocab=IDS)
    batches = rows(LENGTHS, torch.Generator().manual_seed(seed), IDS)
    stream = Elastic if elastic else Loop
    cls(cls.Config.model_validate_json(config)).fit(
        TrainingJob(
            model=model,
            streams=lambda processes: stream(batches, processes.rank, processes.world),
            objective=Spec.read("objective", "completion-only").build(),
            optimizer=own("optimizer", Descent, learning_rate=0.5),
            schedule=Spec.read("schedule", "constant"),
            steps=STEPS,
            accumulate=4,
            checkpoints=cast(Any, checkpoints or Memory()),
            watch=watch or Silent(),
            seed=5,
        )
    )
    return {name: parameter.detach().clone() for name, parameter in sorted(model.named_parameters())}


def stop(cls: type[Any], config: str, seed: int, path: Path, elastic: bool, asked: bool = True) -> None:
    """Train until a checkpoint of the first step is at ``path``; ``asked``: whether it is this process that is asked to stop.

    Raises:
        AssertionError: it wasn't stopped, or ended before the checkpoint was there.
    """
    watch = Silent(1 if asked else None)
    error = refused(lambda: train(cls, config, seed, OnDisk(path), watch, elastic))
    assert isinstance(error, Interrupted), f"one process was asked to stop, and another one raised {error!r}"
    assert path.exists(), "a process ended before the first one had written the checkpoint"


def go_on(
    cls: type[Any], config: str, seed: int, path: Path, elastic: bool, other: bool, wanted: Mapping[str, Tensor]
) -> None:
    """Go on from the checkpoint at ``path``; ``other``: whether another number of processes made it.

    Raises:
        AssertionError: it ends elsewhere than at ``wanted``, or isn't refused where it should be.
    """
    found: dict[str, Tensor] = {}
    error = refused(lambda: found.update(train(cls, config, seed, OnDisk(path), elastic=elastic)))
    if other and not elastic:
        assert error is not None, "it goes on from another number of processes, whose stream isn't elastic"
        return
    assert error is None, (
        f"it doesn't go on from the checkpoint of {'another number' if other else 'as many'}: {error}"
    )
    apart = max(float((found[name] - tensor).abs().max()) for name, tensor in wanted.items())
    assert apart < 1e-10, (
        f"gone on with from {'another number' if other else 'as many'}, it ends {apart:.2g} elsewhere"
    )


def together(cls: type[Any], config: str, seed: int, folder: Path, world: int = 2) -> list[dict[str, Tensor]]:
    """What ``train`` gives in each of ``world`` processes, after all that ``drill`` does there.

    Raises:
        AssertionError: one of them failed; with what it said.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(world)}
    command = [sys.executable, "-m", "corelm.conformance.ranks", f"{cls.__module__}:{cls.__qualname__}", config]
    running = [
        subprocess.Popen(
            [*command, str(seed), str(folder)],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        said = [process.communicate(timeout=120)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    for process, complaint in zip(running, said, strict=True):
        assert process.returncode == 0, f"one of {world} processes failed: {complaint.strip()[-400:]}"
    return [dict(sorted(load_file(folder / f"{rank}.safetensors").items())) for rank in range(world)]


def drill(cls: type[Any], config: str, seed: int, folder: Path, rank: int) -> dict[str, Tensor]:
    """What one of the processes does: train, be stopped and go on, go on from what one process alone has left."""
    kept, watch = Memory(), Silent()
    found = train(cls, config, seed, kept, watch)
    saves, reports = kept.kept is not None, bool(watch.steps)
    assert saves == reports == (rank == 0), f"process {rank}: it saves checkpoints: {saves}, reports: {reports}"
    for elastic in (False, True):
        mine, theirs = folder / f"together {elastic}", folder / f"alone {elastic}"
        stop(cls, config, seed, mine, elastic, asked=rank == 0)
        go_on(cls, config, seed, mine, elastic, False, found)
        go_on(cls, config, seed, theirs, elastic, True, found)
    return found


def main(target: str, config: str, seed: str, folder: str) -> None:
    """One of the processes."""
    module, _, name = target.partition(":")
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    found = drill(getattr(importlib.import_module(module), name), config, int(seed), Path(folder), rank)
    save_file(found, Path(folder) / f"{rank}.safetensors")
    with contextlib.suppress(Exception):  # the part may have ended the group itself
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
