"""The whole pipeline, killed twenty times, ends with the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def digests(run_folder: Path) -> dict[str, str]:
    return {path.parent.name: json.loads(path.read_text())["digest"] for path in run_folder.glob("*/stage.json")}


def test_twenty_kills_change_no_bit_of_any_stage(tmp_path):
    def start(out: str, kills: int) -> None:
        script = [sys.executable, str(Path(__file__).with_name("killing.py")), str(ROOT / "recipes" / "tiny.yaml")]
        done = subprocess.run([*script, str(tmp_path / out), str(kills), "11"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{kills} kills" in done.stdout

    start("whole", 0)
    start("killed", 20)
    whole, killed = digests(tmp_path / "whole" / "tiny"), digests(tmp_path / "killed" / "tiny")
    assert len(whole) > 8
    assert killed == whole
