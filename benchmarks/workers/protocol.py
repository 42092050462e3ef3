"""How a benchmark talks to its workers: one JSON object per line, over standard input and output.

A worker lives in the environment of the library that it stands for, so this file imports nothing but torch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


def serve(commands: dict[str, Callable[..., Any]]) -> None:
    """Answer commands until the input ends; whatever a library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": commands[request.pop("do")](**request)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


class Training:
    """A training step that is the same for every library: forward, backward, fused AdamW.

    Args:
        build: model, and what gives the mean loss of ``(ids, targets)``, from a size.
    """

    def __init__(self, build: Callable[[dict[str, Any]], tuple[Any, Callable[..., Any]]]) -> None:
        self.build = build

    def setup(self, size: dict[str, Any], precision: str, compiled: bool, threads: int) -> dict[str, Any]:
        """Build the model and its data; parameters are drawn by each library in its own way."""
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        # The same switch for everybody: on processors without AMX it only chooses the faster library.
        torch.set_float32_matmul_precision("medium")
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        module, loss = self.build(size)
        module.to(self.device).train()
        self.bf16 = precision == "bf16"
        self.loss = torch.compile(loss) if compiled else loss
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
        generator = torch.Generator().manual_seed(0)
        # Text-like frequencies, so that losses fall.
        weights = 1.0 / torch.arange(1, size["vocabulary"] + 1).double()
        self.rows = torch.multinomial(weights, size["batch"] * (size["context"] + 1) * 8, True, generator=generator)
        self.rows = self.rows.view(8, size["batch"], -1).to(self.device)
        self.at = 0
        return {"parameters": sum(parameter.numel() for parameter in parameters)}

    def steps(self, count: int) -> dict[str, list[float]]:
        """Train; seconds and loss of every step."""
        import torch

        seconds, losses = [], []
        for _ in range(count):
            rows = self.rows[self.at % len(self.rows)]
            self.at += 1
            ids, targets = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
            if self.device == "cuda":
                torch.cuda.synchronize()
            begun = time.perf_counter()
            with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
                loss = self.loss(ids, targets)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss.detach()))
            seconds.append(time.perf_counter() - begun)
        return {"seconds": seconds, "losses": losses}

    def serve(self) -> None:
        """Answer until the input ends."""
        serve({"setup": self.setup, "steps": self.steps})


class Timed:
    """Decoding of one row; a library says how long it takes for so many tokens."""

    def setup(self, size: dict[str, Any], precision: str, threads: int) -> dict[str, Any]:
        """Build the model and the prompt."""
        raise NotImplementedError

    def timed(self, count: int) -> float:
        """Seconds of the prompt and so many new tokens."""
        raise NotImplementedError

    def generate(self, count: int) -> dict[str, float]:
        """Seconds of the prompt with its first token, and of all tokens after it."""
        first = self.timed(1)
        return {"prompt": first, "seconds": self.timed(count + 1) - first}

    def serve(self) -> None:
        """Answer until the input ends."""
        serve({"setup": self.setup, "generate": self.generate})
