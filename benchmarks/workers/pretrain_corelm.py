"""corelm's own training step: models out of a recipe's model section, its objective, and AdamW."""

from __future__ import annotations

from typing import Any

from protocol import Training

NEXT_TOKEN: dict[str, Any] = {"use": "next-token"}


def section(size: dict[str, Any]) -> dict[str, Any]:
    """The model section of a size in the shape of Llama or of GPT-2."""
    common = {
        "dim": size["dim"],
        "layers": size["layers"],
        "context": size["context"],
        "vocab_size": size["vocabulary"],
        "embedding": {"use": "token"},
        "block": {"use": "residual", "layout": "pre"},
        "mask": ["causal"],
        "head": {"use": "language-model", "tied": True},
        "init": {"use": "normal"},
    }
    if size["shape"] == "gpt2":
        return {
            **common,
            "norm": {"use": "layernorm"},
            "position": {"use": "learned"},
            "attention": {"use": "gqa", "heads": size["heads"], "qkv_bias": True, "output_bias": True},
            "feedforward": {"use": "mlp", "activation": {"use": "gelu-tanh"}, "bias": True},
        }
    return {
        **common,
        "norm": {"use": "rmsnorm"},
        "position": {"use": "rope"},
        "attention": {"use": "gqa", "heads": size["heads"], "kv_heads": size["heads"]},
        "feedforward": {"use": "swiglu", "width": size["width"]},
    }


def build(size: dict[str, Any]) -> tuple[Any, Any]:
    """The model and its mean loss."""
    from corelm.kinds import Batch, Spec
    from corelm.model.assemble import assemble, initialise
    from corelm.model.config import ModelConfig

    model = assemble(ModelConfig.model_validate(section(size)), size["vocabulary"])
    initialise(model, 0)
    objective = Spec.read("objective", "next-token").build()

    def loss(ids: Any, targets: Any) -> Any:
        return objective.evaluate(model, Batch(ids=ids, targets=targets)).total / targets.numel()

    return model, loss


if __name__ == "__main__":
    Training(build).serve()
