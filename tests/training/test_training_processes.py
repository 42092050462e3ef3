"""Two processes over gloo do what one does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_models import Recorder, Stream, TinyModel, fit, job, on_disk, rows, values
from two_processes import PACKERS, Sparse, half, packed, scenarios

from corelm.errors import UserError
from corelm.kinds import Spec

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """Run the scenarios in two processes."""
    folder = tmp_path_factory.mktemp("two")
    for packer in PACKERS:
        half(folder, "plain", packer, "grown")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, HERE / "two_processes.py", folder],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    return folder, [json.loads((folder / f"result-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Run them in this one, with the plain trainer."""
    folder = tmp_path_factory.mktemp("one")
    return folder, scenarios(folder, "plain", stopped=False)


@pytest.mark.parametrize("scenario", ["dense", "sparse", "missing"])
def test_two_processes_end_where_one_does_dropout_and_all(both, alone, scenario):
    expected = load_file(alone[0] / f"{scenario}-0.safetensors")
    for rank in range(2):
        found = load_file(both[0] / f"{scenario}-{rank}.safetensors")
        difference = max(float((found[n] - expected[n]).abs().max()) for n in expected if n != "seen")
        assert difference < 1e-10, f"rank {rank}"
    first, one = both[1][0][scenario], alone[1][scenario]
    for name in ("trace", "norm"):
        assert first[name] == pytest.approx(one[name], abs=1e-10)
    assert first["tokens"] == one["tokens"]


def test_a_gradient_that_no_process_has_moves_nothing(both):
    start, end = Sparse().mix[1].weight, load_file(both[0] / "missing-0.safetensors")["mix.1.weight"]
    assert torch.equal(start, end)


def test_only_the_first_process_reports(both):
    assert both[1][1]["dense"]["trace"] == []


def test_both_processes_stop_when_one_is_asked_to(both):
    assert [result["stopped"]["error"] for result in both[1]] == ["interrupted", "interrupted"]
    assert "after step 1 of 4" in both[1][0]["stopped"]["message"]


def test_two_processes_resume_to_the_same_bits(both):
    for rank in range(2):
        whole = load_file(both[0] / f"dense-{rank}.safetensors")
        resumed = load_file(both[0] / f"resumed-{rank}.safetensors")
        assert all(torch.equal(whole[name], resumed[name]) for name in whole if name != "seen")
    assert both[1][0]["resumed"]["trace"] == both[1][0]["dense"]["trace"][1:]


def test_micro_batches_that_cannot_be_shared_evenly_are_refused(both):
    assert [result["odd"]["error"] for result in both[1]] == ["accumulate-not-divisible"] * 2
    assert "3 micro-batches a step can't be shared by 2 processes" in both[1][0]["odd"]["message"]


def test_a_loss_that_breaks_in_one_process_stops_both_before_anything_moves(both):
    assert [result["broken"]["error"] for result in both[1]] == ["not-finite-loss"] * 2
    assert [result["broken"]["steps"] for result in both[1]] == [0, 0]
    start = TinyModel()
    for rank in range(2):
        end = load_file(both[0] / f"broken-{rank}.safetensors")
        assert all(torch.equal(end[name], p) for name, p in start.named_parameters())


def test_the_documents_of_the_process_whose_loss_broke_are_named_by_both(both):
    first, second = (result["broken"]["message"] for result in both[1])
    assert first == second
    mine = Stream(rows(24, 0), 2, 0, rank=1, world=2)
    next(mine)
    assert first.endswith(f"the batch held {', '.join(mine.drawn[0])}")


def test_both_processes_say_so_when_the_data_of_one_end(both):
    assert [result["ended"]["error"] for result in both[1]] == ["data-ended", "data-ended"]
    assert both[1][0]["ended"]["message"] == "the data ended at step 3 of 9"
    assert both[1][0]["ended"]["steps"] == 2


@pytest.mark.parametrize("packer", PACKERS)
def test_packed_documents_are_gone_on_with_in_another_number_of_processes(both, packer):
    """From one to two and from two to one: the very batches, dropout and result of one that was never stopped."""

    def alone(model: TinyModel, watch: Recorder, **more: Any) -> dict[str, torch.Tensor]:
        streams = {"accumulate": 4, "steps": 5, "seed": 3, "watch": watch, **more}
        fit("plain", job(model, lambda r, w: packed(packer, r, w), **streams))
        return values(model)

    whole, shrunk = Recorder(), Recorder()
    expected = alone(TinyModel(dropout=0.2), whole)
    found = {
        "two, then one": alone(TinyModel(9, dropout=0.2), shrunk, checkpoints=on_disk(both[0] / f"shrunk-{packer}")),
        "one, then two": load_file(both[0] / f"grown-{packer}-1.safetensors"),
    }
    for how, end in found.items():
        difference = max(float((end[name] - expected[name]).abs().max()) for name in expected if name != "seen")
        assert difference < 1e-10, how
    assert [step["step"] for step in shrunk.steps] == [3, 4, 5]
    for trace in (shrunk.trace(), both[1][0][f"grown-{packer}"]["trace"]):
        assert trace == pytest.approx(whole.trace()[2:], abs=1e-10)


def test_a_checkpoint_of_two_processes_whose_streams_hold_data_of_their_own_is_not_taken_by_one(both):
    documents = rows(24, 0)
    with pytest.raises(UserError, match="made by 2 processes, this run has 1") as caught:
        fit(
            "plain",
            job(
                TinyModel(),
                lambda r, w: Stream(documents, 2, 0, r, w),
                accumulate=4,
                steps=9,
                checkpoints=on_disk(both[0] / "checkpoints"),
            ),
        )
    assert caught.value.code == "processes-changed"


def test_the_packers_streams_share_batches_as_the_trainer_expects():
    """Rank r of w draws batches r, r + w, …: micro-batch j of a step has the same place in both counts."""
    import numpy as np

    from corelm.kinds import Tokens

    store = [Tokens(np.arange(3 + i % 5), name=f"d{i}") for i in range(20)]
    for name in PACKERS:
        packer = Spec.read("packer", name).build()

        def stream(rank: int, world: int, packer: Any = packer) -> Any:
            return packer.stream(store, batch=2, time=6, seed=0, end_of_text=0, rank=rank, world=world)

        whole, halves = stream(0, 1), [stream(rank, 2) for rank in range(2)]
        for i in range(6):
            assert torch.equal(next(whole).ids, next(halves[i % 2]).ids), f"{name}, batch {i}"
