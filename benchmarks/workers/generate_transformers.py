"""transformers' own generate, greedy, one row."""

from __future__ import annotations

import time
from typing import Any

from protocol import Timed


class Decoding(Timed):
    """A model with random weights that continues random ids."""

    def setup(self, size: dict[str, Any], precision: str, threads: int) -> dict[str, Any]:
        """Build the model."""
        import torch
        from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        if size["shape"] == "gpt2":
            model: Any = GPT2LMHeadModel(
                GPT2Config(
                    vocab_size=size["vocabulary"],
                    n_positions=size["context"],
                    n_embd=size["dim"],
                    n_layer=size["layers"],
                    n_head=size["heads"],
                )
            )
        else:
            model = LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=size["vocabulary"],
                    hidden_size=size["dim"],
                    num_hidden_layers=size["layers"],
                    num_attention_heads=size["heads"],
                    num_key_value_heads=size["kv_heads"],
                    intermediate_size=size["width"],
                    max_position_embeddings=size["context"],
                )
            )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = model.to(device, torch.bfloat16 if precision == "bf16" else torch.float32).eval()
        generator = torch.Generator().manual_seed(0)
        self.prompt = torch.randint(size["vocabulary"], (1, size["prompt"]), generator=generator).to(device)
        return {"parameters": sum(parameter.numel() for parameter in self.model.parameters())}

    def timed(self, count: int) -> float:
        """Seconds of so many new tokens."""
        begun = time.perf_counter()
        self.model.generate(
            self.prompt,
            attention_mask=self.prompt.new_ones(self.prompt.shape),
            do_sample=False,
            min_new_tokens=count,
            max_new_tokens=count,
            pad_token_id=0,
        )
        return time.perf_counter() - begun


if __name__ == "__main__":
    Decoding().serve()
