"""x-transformers' decoder, with its options nearest to Llama or to GPT-2."""

from __future__ import annotations

from typing import Any

from protocol import Training


def build(size: dict[str, Any]) -> tuple[Any, Any]:
    """The model and its mean loss."""
    import torch.nn.functional as F
    from x_transformers import Decoder, TransformerWrapper

    llama = {"rotary_pos_emb": True, "use_rmsnorm": True, "ff_glu": True, "ff_swish": True, "ff_no_bias": True}
    layers = Decoder(
        dim=size["dim"],
        depth=size["layers"],
        heads=size["heads"],
        attn_dim_head=size["dim"] // size["heads"],
        attn_flash=True,
        ff_mult=size["width"] / size["dim"] if size["shape"] == "llama" else 4,
        **(llama if size["shape"] == "llama" else {}),
    )
    model = TransformerWrapper(
        num_tokens=size["vocabulary"],
        max_seq_len=size["context"],
        attn_layers=layers,
        tie_embedding=True,
        use_abs_pos_emb=size["shape"] == "gpt2",
    )

    def loss(ids: Any, targets: Any) -> Any:
        return F.cross_entropy(model(ids).flatten(0, 1), targets.flatten())

    return model, loss


if __name__ == "__main__":
    Training(build).serve()
