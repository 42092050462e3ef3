"""litgpt's GPT, in the shape of Llama or of GPT-2."""

from __future__ import annotations

from typing import Any

from protocol import Training


def build(size: dict[str, Any]) -> tuple[Any, Any]:
    """The model and its mean loss."""
    import torch.nn.functional as F
    from litgpt import GPT, Config

    llama = {"bias": False, "norm_class_name": "RMSNorm", "mlp_class_name": "LLaMAMLP", "rotary_percentage": 1.0}
    gpt2 = {"bias": True, "norm_class_name": "LayerNorm", "mlp_class_name": "GptNeoxMLP", "rotary_percentage": 1.0}
    config = Config(
        block_size=size["context"],
        vocab_size=size["vocabulary"],
        padded_vocab_size=size["vocabulary"],
        n_layer=size["layers"],
        n_head=size["heads"],
        n_embd=size["dim"],
        intermediate_size=size["width"] if size["shape"] == "llama" else 4 * size["dim"],
        parallel_residual=False,
        **(llama if size["shape"] == "llama" else gpt2),
    )
    model = GPT(config)
    model.apply(model._init_weights)
    model.lm_head.weight = model.transformer.wte.weight

    def loss(ids: Any, targets: Any) -> Any:
        return F.cross_entropy(model(ids).flatten(0, 1), targets.flatten())

    return model, loss


if __name__ == "__main__":
    Training(build).serve()
