"""Several processes do one run: the same results as one, one message whatever happens, and nothing twice."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from corelm.pipeline.runner import run

QUESTIONS = [("What is two and two?", "four"), ("Say hello.", "hello"), ("Which way is north?", "up"), ("Why?", "so")]
TOGETHER = {"use": "accelerate", "precision": "fp32", "device": "auto"}
ADAMW = {"use": "adamw", "learning_rate": 1e-3}
LOST = "another process of this training has ended"


def write_data(folder: Path) -> None:
    """Little data of every type that the stages read."""
    words = [" ".join(f"word{(n * 7 + at * 3) % 11}" for at in range(30)) for n in range(24)]
    files = {
        "texts": [{"text": f"Document {n}: {line}."} for n, line in enumerate(words)],
        "talks": [{"prompt": question, "response": answer} for question, answer in QUESTIONS * 2],
        "pairs": [
            {"prompt": question, "chosen": answer, "rejected": "no " * 3} for question, answer in QUESTIONS * 2
        ],
    }
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def data_of(folder: Path, name: str, yields: str) -> dict[str, Any]:
    return {"source": {"use": "jsonl", "path": str(folder / f"{name}.jsonl"), "yields": yields}}


def all_stages(folder: Path) -> dict[str, Any]:
    """All kinds of training, in four micro-batches a step, and stages that only one process can do."""
    training = {"batch": 1, "accumulate": 4, "optimizer": ADAMW, "trainer": TOGETHER}
    ppo = {"use": "ppo", "rollout": 3, "epochs": 2, "answer_tokens": 6, "kl_target": 1.0}
    talks, pairs = data_of(folder, "talks", "conversation"), data_of(folder, "pairs", "preference")
    return {
        "base": {"use": "pretrain", "tokens": 20_000, **training},
        "tuned": {"use": "finetune", "data": talks, **training},
        "judge": {
            "use": "reward-model",
            "data": pairs,
            **{**training, "batch": 4, "accumulate": 1, "trainer": {"use": "plain", "precision": "fp32"}},
        },
        "preferred": {
            "use": "align",
            "with": "dpo",
            "from": {"policy": "tuned", "reference": "tuned"},
            "data": pairs,
            "epochs": 2,
            **training,
        },
        "rewarded": {
            "use": "align",
            "with": ppo,
            "from": {"policy": "tuned", "reference": "tuned", "reward": "judge"},
            "data": talks,
            "steps": 5,
            **training,
        },
        "small": {"use": "quantize", "from": "preferred", "with": {"use": "gptq", "bits": 4, "group": 16}},
        "scores": {"use": "evaluate", "from": ["base", "preferred", "rewarded", "small"], "tasks": ["perplexity"]},
    }


def recipe(folder: Path) -> Path:
    """A recipe of all these stages, and their data beside it."""
    write_data(folder)
    model = {
        "dim": 16,
        "layers": 1,
        "context": 64,
        "position": "rope",
        "attention": {"use": "gqa", "heads": 2},
        "feedforward": {"use": "swiglu", "width": 32},
    }
    whole = {
        "corelm": 1,
        "name": "several",
        "seed": 7,
        "corpus": {**data_of(folder, "texts", "text"), "holdout": 0.2},
        "tokenizer": "bytes",
        "template": "chatml",
        "model": model,
        "trackers": ["jsonl"],
        "checkpoint_seconds": 0.1,
        "stages": all_stages(folder),
    }
    (folder / "several.yaml").write_text(json.dumps(whole))
    return folder / "several.yaml"


@dataclass
class Ended:
    """A process that has ended."""

    code: int
    said: str


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def launched(
    command: Sequence[str], meanwhile: Callable[[subprocess.Popen[str]], None] = lambda launcher: None
) -> Ended:
    """What two processes under ``torch.distributed.run`` end with, and say."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    launcher += ["-m", "corelm"]
    process = subprocess.Popen([*launcher, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        meanwhile(process)
        said, _ = process.communicate(timeout=120)
    finally:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
            child.kill()
        process.kill()
    return Ended(process.returncode, said)


def by_hand(*scenarios: Mapping[str, Any]) -> list[list[Ended]]:
    """What each of two processes ends with and says in each scenario of ``ranks.py``."""
    script = [sys.executable, str(Path(__file__).with_name("ranks.py")), json.dumps(scenarios)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [[Ended(**ended) for ended in both] for both in json.loads(done.stdout.splitlines()[-1])]


def wait_for(events: Path, text: str) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if events.exists() and text in events.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"{text} never came")


def kill_second(events: Path) -> Callable[[subprocess.Popen[str]], None]:
    """Kill the second process when the first training has saved a checkpoint."""

    def kill(launcher: subprocess.Popen[str]) -> None:
        wait_for(events, '"event": "checkpoint"')
        for child in psutil.Process(launcher.pid).children():
            if child.environ().get("RANK") == "1":
                child.kill()

    return kill


@dataclass
class Runs:
    """One recipe, run by one process; by two, one of which is killed; by two to the end; by two once more.

    And by two that are to stop, and by two with a mistake.
    """

    one: Path
    two: Path
    killed: Ended
    finished: Ended
    again: list[Ended]
    stopped: list[Ended]
    mistaken: list[Ended]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("several")
    path = recipe(folder)
    one = run(path, folder / "one").folder

    def command(out: str, *more: str) -> list[str]:
        return ["run", str(path), "--out", str(folder / out), *more]

    two = folder / "two" / "several"
    killed = launched(command("two"), kill_second(two / "events.jsonl"))
    finished = launched(command("two", "--json"))
    events = folder / "stopped" / "several" / "events.jsonl"
    again, stopped, mistaken = by_hand(
        {"command": command("two", "--json")},
        {
            "command": command("stopped", "stages.base.tokens=2M"),
            "interrupt": {"rank": 1, "file": str(events), "text": '"step": 5,'},
        },
        {"command": command("mistaken", "stages.base.accumulate=3")},
    )
    return Runs(one, two, killed, finished, again, stopped, mistaken)


def stages_of(ended: Ended) -> Mapping[str, Any]:
    """The summaries, which are told once."""
    found = [json.loads(line) for line in ended.said.splitlines() if line.startswith('{"folder"')]
    assert len(found) == 1, ended.said
    return {stage["name"]: stage for stage in found[0]["stages"]}


def test_a_killed_process_ends_the_run_with_one_message(runs):
    assert runs.killed.code == 1  # torchrun's own
    assert runs.killed.said.count(LOST) == 1, runs.killed.said
    assert "go on from the last checkpoint" in runs.killed.said
    assert "mistake of ours" not in runs.killed.said


def test_run_again_it_goes_on_and_two_processes_end_where_one_does(runs):
    assert runs.finished.code == 0, runs.finished.said
    stages = stages_of(runs.finished)
    assert stages["base"]["status"] == "resumed"
    for stage in ("base", "tuned", "judge", "preferred", "rewarded"):
        alone, together = (load_file(folder / stage / "model.safetensors") for folder in (runs.one, runs.two))
        assert alone.keys() == together.keys()
        difference = max(float((alone[name] - together[name]).abs().max()) for name in alone)
        assert difference < 1e-5, f"{stage}: {difference:.2g}"
    expected = json.loads((runs.one / "scores" / "metrics.json").read_text())
    found = json.loads((runs.two / "scores" / "metrics.json").read_text())
    for model, tasks in expected.items():
        assert found[model]["perplexity"] == pytest.approx(tasks["perplexity"], rel=1e-3)


def test_only_stages_with_a_trainer_for_several_processes_are_shared(runs):
    ledgers = {path.parent.name: json.loads(path.read_text()) for path in runs.two.glob("*/stage.json")}
    shared = {name for name, ledger in ledgers.items() if ledger["provenance"]["processes"] == 2}
    assert shared == {"base", "tuned", "preferred", "rewarded"}
    assert ledgers["judge"]["notes"] == ["trained by one of 2 processes; the trainer plain works alone"]
    alone = json.loads((runs.one / "judge" / "stage.json").read_text())
    assert alone["provenance"]["processes"] == 1 and not alone["notes"]


def test_every_event_is_told_by_one_process(runs):
    events = [json.loads(line) for line in (runs.two / "events.jsonl").read_text().splitlines()]
    assert sum(event["event"] == "run-start" for event in events) == 3
    steps = [event["step"] for event in events if event["event"] == "step" and event["stage"] == "preferred"]
    assert steps == [1, 2, 3, 4]


def test_run_a_third_time_everything_is_up_to_date(runs):
    assert [ended.code for ended in runs.again] == [0, 0], runs.again
    assert {stage["status"] for stage in stages_of(runs.again[0]).values()} == {"up to date"}
    assert not runs.again[1].said
    assert not list((runs.two / ".work").iterdir())


def test_when_one_process_is_asked_to_stop_both_do_with_one_message(runs):
    assert [ended.code for ended in runs.stopped] == [130, 130], runs.stopped
    said = "".join(ended.said for ended in runs.stopped)
    assert said.count("stopped after step") == 1 and said.count("again to go on") == 1, said
    base = runs.two.parents[1] / "stopped" / "several" / ".work" / "base"
    assert list((base / "checkpoints").glob("*/manifest.json"))


def test_a_mistake_is_told_once_and_both_end_with_its_code(runs):
    assert [ended.code for ended in runs.mistaken] == [2, 2], runs.mistaken
    said = "".join(ended.said for ended in runs.mistaken)
    assert said.count("3 micro-batches a step can't be shared by 2 processes evenly") == 1, said
    assert "Make `accumulate` a multiple of 2" in said and "Traceback" not in said
