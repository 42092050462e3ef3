"""litgpt's own generate, greedy, one row."""

from __future__ import annotations

import time
from typing import Any

from protocol import Timed


class Decoding(Timed):
    """A model with random weights that continues random ids."""

    def setup(self, size: dict[str, Any], precision: str, threads: int) -> dict[str, Any]:
        """Build the model and its cache."""
        import torch
        from litgpt import GPT, Config

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        llama = size["shape"] == "llama"
        config = Config(
            block_size=size["context"],
            vocab_size=size["vocabulary"],
            padded_vocab_size=size["vocabulary"],
            n_layer=size["layers"],
            n_head=size["heads"],
            n_query_groups=size["kv_heads"],
            n_embd=size["dim"],
            intermediate_size=size["width"] if llama else 4 * size["dim"],
            bias=not llama,
            norm_class_name="RMSNorm" if llama else "LayerNorm",
            mlp_class_name="LLaMAMLP" if llama else "GptNeoxMLP",
            rotary_percentage=1.0,
            parallel_residual=False,
        )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = GPT(config).to(device, torch.bfloat16 if precision == "bf16" else torch.float32).eval()
        self.model.set_kv_cache(batch_size=1, max_seq_length=size["context"], device=device)
        generator = torch.Generator().manual_seed(0)
        self.prompt = torch.randint(size["vocabulary"], (size["prompt"],), generator=generator).to(device)
        return {"parameters": sum(parameter.numel() for parameter in self.model.parameters())}

    def timed(self, count: int) -> float:
        """Seconds of so many new tokens."""
        import torch
        from litgpt.generate.base import generate

        begun = time.perf_counter()
        with torch.inference_mode():
            generate(self.model, self.prompt, len(self.prompt) + count, temperature=0.0, include_prompt=False)
        return time.perf_counter() - begun


if __name__ == "__main__":
    Decoding().serve()
