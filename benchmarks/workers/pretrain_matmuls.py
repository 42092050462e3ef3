"""The bare matrix products of one training step: each linear map forward, and backward to inputs and weights."""

from __future__ import annotations

import time
from typing import Any

from protocol import serve


class Products:
    """The products of one step, one after the other, on matrices that are there already."""

    def setup(self, size: dict[str, Any], precision: str, compiled: bool, threads: int) -> dict[str, Any]:
        """Draw the matrices."""
        import torch

        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("medium")
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        dim, tokens = size["dim"], size["batch"] * size["context"]
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        if size["shape"] == "gpt2":
            layer = [(dim, 3 * dim), (dim, dim), (dim, 4 * dim), (4 * dim, dim)]
        else:
            layer = [(dim, 3 * dim), (dim, dim), (dim, size["width"]), (dim, size["width"]), (size["width"], dim)]
        shapes = layer * size["layers"] + [(dim, size["vocabulary"])]
        self.maps = [
            [
                torch.randn(rows, columns, device=self.device).to(dtype)
                for rows, columns in ((tokens, inner), (inner, outer), (tokens, outer))
            ]
            for inner, outer in shapes
        ]
        return {"parameters": sum(weight.numel() for _, weight, _ in self.maps)}

    def steps(self, count: int) -> dict[str, list[float]]:
        """Multiply; seconds of every step."""
        import torch

        seconds = []
        for _ in range(count):
            begun = time.perf_counter()
            for x, weight, slope in self.maps:
                x @ weight
                slope @ weight.T
                x.T @ slope
            if self.device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begun)
        return {"seconds": seconds, "losses": []}


if __name__ == "__main__":
    products = Products()
    serve({"setup": products.setup, "steps": products.steps})
