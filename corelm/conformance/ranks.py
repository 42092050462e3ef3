"""Train a tiny model in several processes; the kit starts this once for each of them.

``python -m corelm.conformance.ranks MODULE:CLASS CONFIG SEED FILE``, with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT in
the environment.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed

from corelm.conformance.tiny import Descent, Loop, Memory, Silent, own, rows, tiny
from corelm.kinds.component import Spec
from corelm.kinds.trainer import TrainingJob

IDS = 7
LENGTHS = (2, 15, 5, 9)
"""Of the documents, one per micro-batch: processes have unequal numbers of terms."""


def train(cls: type[Any], config: str, seed: int) -> dict[str, Tensor]:
    """Two steps of four micro-batches by the part ``cls``; the parameters afterwards."""
    model = tiny(seed, vocab=IDS)
    batches = rows(LENGTHS, torch.Generator().manual_seed(seed), IDS)
    cls(cls.Config.model_validate_json(config)).fit(
        TrainingJob(
            model=model,
            streams=lambda processes: Loop(batches, processes.rank, processes.world),
            objective=Spec.read("objective", "completion-only").build(),
            optimizer=own("optimizer", Descent, learning_rate=0.5),
            schedule=Spec.read("schedule", "constant"),
            steps=2,
            accumulate=4,
            checkpoints=cast(Any, Memory()),
            watch=Silent(),
            seed=5,
        )
    )
    return {name: parameter.detach().clone() for name, parameter in sorted(model.named_parameters())}


def together(cls: type[Any], config: str, seed: int, folder: Path, world: int = 2) -> list[dict[str, Tensor]]:
    """What ``train`` gives in each of ``world`` processes.

    Raises:
        AssertionError: one of them failed; with what it said.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(world)}
    files = [folder / f"{rank}.safetensors" for rank in range(world)]
    command = [sys.executable, "-m", "corelm.conformance.ranks", f"{cls.__module__}:{cls.__qualname__}", config]
    running = [
        subprocess.Popen(
            [*command, str(seed), str(file)],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, file in enumerate(files)
    ]
    try:
        said = [process.communicate(timeout=120)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    for process, complaint in zip(running, said, strict=True):
        assert process.returncode == 0, f"one of {world} processes failed: {complaint.strip()[-400:]}"
    return [dict(sorted(load_file(file).items())) for file in files]


def main(target: str, config: str, seed: str, file: str) -> None:
    """One of the processes."""
    module, _, name = target.partition(":")
    torch.set_num_threads(1)
    save_file(train(getattr(importlib.import_module(module), name), config, int(seed)), file)
    with contextlib.suppress(Exception):  # the part may have ended the group itself
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
