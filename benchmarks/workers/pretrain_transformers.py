"""transformers' Llama and GPT-2."""

from __future__ import annotations

from typing import Any

from protocol import Training


def build(size: dict[str, Any]) -> tuple[Any, Any]:
    """The model and its mean loss; its own loss shifts, so the targets are given to a cross-entropy as they are."""
    import torch.nn.functional as F
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    if size["shape"] == "gpt2":
        config = GPT2Config(
            vocab_size=size["vocabulary"],
            n_positions=size["context"],
            n_embd=size["dim"],
            n_layer=size["layers"],
            n_head=size["heads"],
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
            attn_implementation="sdpa",
        )
        model = GPT2LMHeadModel(config)
    else:
        config = LlamaConfig(
            vocab_size=size["vocabulary"],
            hidden_size=size["dim"],
            num_hidden_layers=size["layers"],
            num_attention_heads=size["heads"],
            intermediate_size=size["width"],
            max_position_embeddings=size["context"],
            tie_word_embeddings=True,
            use_cache=False,
            attn_implementation="sdpa",
        )
        model = LlamaForCausalLM(config)

    def loss(ids: Any, targets: Any) -> Any:
        return F.cross_entropy(model(ids).logits.flatten(0, 1), targets.flatten())

    return model, loss


if __name__ == "__main__":
    Training(build).serve()
