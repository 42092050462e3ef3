"""Fifty steps of training from the same weights on the same batches: the curves of the losses are the reference's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import transformers
from corelm_interchange.hugging_face import HuggingFace

from corelm.kinds import Batch, Spec
from corelm.model.loading import from_imported

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

DIM, LAYERS, HEADS, VOCABULARY, CONTEXT, ROWS, STEPS = 256, 4, 8, 4096, 256, 4, 50


def reference(shape):
    torch.manual_seed(0)
    if shape == "gpt2":
        off = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        config = transformers.GPT2Config(
            vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=DIM, n_layer=LAYERS, n_head=HEADS, **off
        )
    else:
        config = transformers.LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=DIM,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=704,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
        )
    return transformers.AutoModelForCausalLM.from_config(config)


def curve(module, loss, bf16):
    """The loss of every step; rows are drawn with frequencies like those of words, so that there is something to learn."""
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    weights = 1.0 / torch.arange(1, VOCABULARY + 1).double()
    losses = []
    for _ in range(STEPS):
        rows = torch.multinomial(weights, ROWS * (CONTEXT + 1), True, generator=generator).view(ROWS, -1)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            value = loss(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(value.detach()))
    return torch.tensor(losses)


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_losses_of_fifty_steps(shape, precision, tmp_path):
    theirs = reference(shape)
    theirs.save_pretrained(tmp_path)
    ours = from_imported(HuggingFace(HuggingFace.Config()).read(tmp_path))
    objective = Spec.read("objective", "next-token").build()

    def our_loss(ids, targets):
        return objective.evaluate(ours, Batch(ids=ids, targets=targets)).total / targets.numel()

    def their_loss(ids, targets):
        return F.cross_entropy(theirs(ids).logits.flatten(0, 1).float(), targets.flatten())

    bf16 = precision == "bf16"
    found, expected = curve(ours, our_loss, bf16), curve(theirs, their_loss, bf16)
    assert expected[-1] < expected[0] - 1, "nothing was learnt"
    apart = (found - expected).abs().max()
    print(f"{shape} {precision}: from {expected[0]:.4f} to {expected[-1]:.4f}; at most {apart:.2g} apart")
    assert apart < (2e-2 if bf16 else 1e-4)
