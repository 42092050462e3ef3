"""corelm's own greedy decoding of one row."""

from __future__ import annotations

import time
from typing import Any

from pretrain_corelm import section
from protocol import Timed


class Decoding(Timed):
    """A model with random weights that continues random ids."""

    def setup(self, size: dict[str, Any], precision: str, threads: int) -> dict[str, Any]:
        """Build the model."""
        import torch

        from corelm.model.assemble import assemble, initialise
        from corelm.model.config import ModelConfig

        torch.set_num_threads(threads)
        model_section = section(size)
        if size["shape"] == "llama":
            model_section["attention"]["kv_heads"] = size["kv_heads"]
            model_section["head"]["tied"] = False
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = assemble(ModelConfig.model_validate(model_section), size["vocabulary"], device=device)
        initialise(model, 0)
        self.model = model.to(torch.bfloat16 if precision == "bf16" else torch.float32).eval()
        generator = torch.Generator().manual_seed(0)
        self.prompt = torch.randint(size["vocabulary"], (1, size["prompt"]), generator=generator).to(device)
        return {"parameters": sum(parameter.numel() for parameter in self.model.parameters())}

    def timed(self, count: int) -> float:
        """Seconds of so many new tokens."""
        begun = time.perf_counter()
        self.model.generate_ids(self.prompt, max_new_tokens=count)
        return time.perf_counter() - begun


if __name__ == "__main__":
    Decoding().serve()
