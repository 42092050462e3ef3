"""Full disks, Ctrl-C, two runs at once: one clear message, and nothing is lost."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from corelm.cli import main
from corelm.pipeline.runner import run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "base" / "model.safetensors")


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def on_a_full_disk(most: int, *command: str) -> tuple[int, str]:
    """Run a command in a process that can't write files larger than this; its exit code and what it says."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        sys.stdout = sys.stderr = os.fdopen(writing, "w")
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        code = main(command)
        sys.stdout.flush()
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def test_wherever_the_disk_is_full_the_message_is_clear_and_the_next_run_goes_on(project, tmp_path):
    recipe = str(project.write(seconds=0.01))
    run(recipe, tmp_path / "whole")
    stopped = set()
    for most in (300, 1000, 3000, 5000, 8000, 12000, 16000, 20000, 24000):
        code, said = on_a_full_disk(most, "run", recipe, "--out", str(project.out))
        if code == 0:
            break
        assert code == 2 and said.count("can't be written: File too large") == 1, said
        assert "Traceback" not in said and "mistake of ours" not in said
        made = sorted(path.parent.name for path in project.run_folder.glob("*/stage.json"))
        stopped.add(next((name for name in ("corpus", "tokens", "base", "scores") if name not in made), None))
    assert {"corpus", "base"} <= stopped, stopped
    result = run(recipe, project.out)
    assert same(weights(result.folder), weights(tmp_path / "whole" / "tiny"))


@pytest.mark.parametrize(
    ("stage", "place"),
    [
        ("corpus", "report.json"),
        ("tokenizer", "part.json"),
        ("tokens", "tokens.json"),
        ("base", "manifest.json"),
        ("base", "model.json"),
        ("base", "stage.json"),
        ("scores", "stage.json"),
    ],
)
def test_a_write_that_fails_leaves_nothing_half_made(project, monkeypatch, capsys, stage, place):
    real = Path.replace

    def replace(self, target):
        if Path(target).name == place and f"/{stage}/" in str(target):
            raise OSError(28, "No space left on device")
        return real(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace)
        assert main(["run", str(project.recipe), "--out", str(project.out)]) == 2
    said = capsys.readouterr().err
    assert place in said and "No space left on device" in said
    assert not (project.run_folder / stage).exists()
    result = run(project.recipe, project.out)
    assert all(status in ("done", "resumed", "up to date") for status in (s.status for s in result.stages))


def test_a_page_that_can_not_be_written_stops_no_run(project, monkeypatch, capsys):
    real = Path.replace

    def replace(self, target):
        if Path(target).name == "report.html" and Path(target).parent.name == "tiny":
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    run(project.recipe, project.out, overrides=["trackers=[html]"])
    said = capsys.readouterr().err
    assert said.count("No space left on device") == 1 and "is dropped" in said


def test_a_source_that_can_not_be_read_is_not_called_a_full_disk(project, monkeypatch, capsys):
    from corelm_data.text_files import TextFiles

    def broken(self, start=0):
        raise OSError(5, "Input/output error")
        yield

    monkeypatch.setattr(TextFiles, "records", broken)
    assert main(["run", str(project.recipe), "--out", str(project.out)]) == 2
    said = capsys.readouterr().err
    assert "source text-files: can't be read" in said and "can't be written" not in said


def wait_for_steps(process: subprocess.Popen[str], events: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if events.exists() and '"step": 20,' in events.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"the run never came to step 20: {process.communicate()}")


def test_ctrl_c_stops_cleanly_and_the_next_run_goes_on_while_a_second_run_is_kept_out(project, tmp_path, capsys):
    recipe = project.write(tokens=16_000)
    command = [sys.executable, "-m", "corelm.cli", "run", str(recipe), "--out", str(project.out)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for_steps(first, project.run_folder / "events.jsonl")
        assert main(command[3:]) == 2
        assert "another run is at work here" in capsys.readouterr().err
        first.send_signal(signal.SIGINT)
        _, said = first.communicate(timeout=60)
    finally:
        first.kill()
    assert first.returncode == 130
    assert "stopping after this step" in said and "again to go on" in said and "Traceback" not in said
    assert not (project.run_folder / "base").exists()
    result = run(recipe, project.out)
    assert result["base"].status == "resumed"
    assert same(weights(result.folder), weights(run(recipe, tmp_path / "whole").folder))


def test_a_stop_between_two_stages_starts_no_other(project, monkeypatch, capsys):
    from corelm.pipeline import corpus

    real = corpus.train_tokenizer

    def asked(context, choice, template):
        made = real(context, choice, template)
        context.watch._stop.requested = True
        return made

    with monkeypatch.context() as patched:
        patched.setattr(corpus, "train_tokenizer", asked)
        assert main(["run", str(project.recipe), "--out", str(project.out)]) == 130
    assert "stopped before tokens" in capsys.readouterr().err
    assert (project.run_folder / "tokenizer").exists() and not (project.run_folder / "tokens").exists()
