"""What each of several processes does in ``test_training_processes.py``: scenarios, one after the other.

Started with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT in the environment; writes what came out, by rank.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from training_models import Parts, Recorder, Stream, TinyModel, fit, job, on_disk, padded, rows, values

from corelm.errors import UserError
from corelm.kinds import Spec, Tokens


class Sparse(TinyModel):
    """Its second layer is used only for batches whose first token is even, as an expert would be."""

    def hidden(self, ids: torch.Tensor, **more: Any) -> torch.Tensor:
        layers = self.mix
        if int(ids[0, 0]) % 2:
            self.mix = layers[:1]
        hidden = super().hidden(ids, **more)
        self.mix = layers
        return hidden


def batches() -> list[Any]:
    """Of unequal numbers of targets, some of them not using the second layer."""
    documents = rows(12, 4)
    for i, document in enumerate(documents):
        document[0] = i % 2
    return [padded(documents[i : i + 1 + i % 3]) for i in range(8)]


def packed(packer: str, rank: int, world: int) -> Any:
    """A packer's stream over documents of unequal length."""
    store = [Tokens(np.array(document), name=f"document-{i}") for i, document in enumerate(rows(40, 1))]
    return (
        Spec.read("packer", packer)
        .build()
        .stream(store, batch=2, time=8, seed=5, end_of_text=0, rank=rank, world=world)
    )


PACKERS = ("blocks", "best-fit", "padded")


def half(folder: Path, trainer: str, packer: str, name: str) -> None:
    """Two of five steps; the checkpoint stays."""
    more = {"accumulate": 4, "steps": 5, "seed": 3, "checkpoints": on_disk(folder / f"{name}-{packer}")}
    with contextlib.suppress(UserError):
        model, watch = TinyModel(dropout=0.2), Recorder(stop_after=2)
        if int(os.environ.get("RANK", "0")):
            watch.steps = []
        fit(trainer, job(model, lambda r, w: packed(packer, r, w), watch=watch, **more))


def scenarios(folder: Path, trainer: str, stopped: bool) -> dict[str, Any]:
    """Models and what was told, by scenario."""
    rank = int(os.environ.get("RANK", "0"))
    found: dict[str, Any] = {}

    def run(name: str, model: TinyModel, streams: Any, **more: Any) -> None:
        watch = more.pop("watch", Recorder())
        try:
            fit(trainer, job(model, streams, watch=watch, seed=3, **more))
            found[name] = {
                "trace": watch.trace(),
                "tokens": watch.trace("tokens"),
                "norm": watch.trace("gradient_norm"),
            }
        except UserError as error:
            found[name] = {"error": error.code, "message": error.message, "steps": len(watch.steps)}
        save_file(values(model), folder / f"{name}-{rank}.safetensors")

    documents = rows(24, 0)
    run("dense", TinyModel(dropout=0.2), lambda r, w: Stream(documents, 2, 0, r, w), accumulate=4, steps=4)
    run("sparse", Sparse(), lambda r, w: Parts(batches(), r, w), accumulate=2, steps=4)
    # With gradients None everywhere at first (both micro-batches odd), weight decay must not move the layer.
    run("missing", Sparse(), lambda r, w: Parts([batches()[1]] * 2, r, w), accumulate=2, steps=2)
    if trainer == "accelerate" and stopped:
        watch = Recorder(stop_after=2 if rank == 1 else None)
        watch.steps = [{"step": 2}] if rank == 1 else []  # only the second process is asked to stop, at once
        more = {"accumulate": 4, "steps": 4, "checkpoints": on_disk(folder / "checkpoints")}
        run("stopped", TinyModel(dropout=0.2), lambda r, w: Stream(documents, 2, 0, r, w), watch=watch, **more)
        more["checkpoints"] = on_disk(folder / "checkpoints")
        run("resumed", TinyModel(9, dropout=0.2), lambda r, w: Stream(documents, 2, 0, r, w), **more)
        run("odd", TinyModel(), lambda r, w: Stream(documents, 2, 0, r, w), accumulate=3)

        class Poisoned(TinyModel):
            def hidden(self, ids: torch.Tensor, **more: Any) -> torch.Tensor:
                return super().hidden(ids, **more) * (math.nan if rank == 1 else 1.0)

        run("broken", Poisoned(), lambda r, w: Stream(documents, 2, 0, r, w), accumulate=2)
        for packer in PACKERS:
            half(folder, trainer, packer, "shrunk")
            more["checkpoints"], more["steps"] = on_disk(folder / f"grown-{packer}"), 5
            run(f"grown-{packer}", TinyModel(9, dropout=0.2), lambda r, w, p=packer: packed(p, r, w), **more)
        # Of five micro-batches the second process has two: it is the only one without data for the third step.
        run("ended", TinyModel(), lambda r, w: Stream(documents, 2, 0, r, w, limit=5), accumulate=2, steps=9)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    where = Path(sys.argv[1])
    result = scenarios(where, "accelerate", stopped=True)
    (where / f"result-{os.environ['RANK']}.json").write_text(json.dumps(result))
    torch.distributed.destroy_process_group()
