"""Workers in environments of their own: making the environments, starting workers, asking them in turn."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REQUIREMENTS = {
    "transformers": ["transformers==5.23.0"],
    "litgpt": ["litgpt==0.5.13"],
    "x-transformers": ["x-transformers==2.31.10"],
}
"""What each peer's environment holds beside the torch of this one."""


class PeerError(Exception):
    """A worker failed."""


def python_of(peer: str, environments: Path) -> Path:
    """The interpreter of a peer's environment, which is made when it is first needed."""
    if peer not in REQUIREMENTS:
        return Path(sys.executable)
    python = environments / peer / "bin" / "python"
    if not python.exists():
        import torch

        print(f"making {environments / peer}", file=sys.stderr, flush=True)
        venv.create(environments / peer, with_pip=True)
        wanted = [f"torch=={torch.__version__.partition('+')[0]}", "numpy", *REQUIREMENTS[peer]]
        subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True)
    return python


class Worker:
    """A process that answers commands; idle, it waits for its next line and takes no time from others."""

    def __init__(self, script: str, peer: str, environments: Path) -> None:
        command = [python_of(peer, environments), str(HERE / "workers" / script)]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )

    def ask(self, command: str, **arguments: Any) -> Any:
        """One command and its answer.

        Raises:
            PeerError: the worker reported an error or died.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise PeerError(self.errors.read().strip().rpartition("\n")[2] or "it died without a word")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer["result"]

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def machine(threads: int) -> str:
    """One line about where this ran."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "a processor")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{model}, {threads} threads"
    return f"{device}; Python {platform.python_version()}, torch {torch.__version__}; load {os.getloadavg()[0]:.1f}"
