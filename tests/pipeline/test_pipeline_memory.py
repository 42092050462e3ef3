"""A corpus of any size streams at constant memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_large_corpus_takes_no_more_memory_than_a_small_one(tmp_path):
    script = [sys.executable, str(Path(__file__).with_name("measuring_memory.py")), str(tmp_path), "2", "80"]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    small, large = map(float, done.stdout.split())
    assert large < small + 40, f"{small} MB for 2 MB of text, {large} MB for 80 MB"
