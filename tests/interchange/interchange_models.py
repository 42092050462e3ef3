"""What the tests of interchange share: small models of ours and of theirs, drawn, and how they are compared."""

import pytest
import torch

from corelm.model.assemble import assemble
from corelm.model.config import ModelConfig

transformers = pytest.importorskip("transformers")


class Notes:
    """Keeps what an export tells."""

    stopping = False

    def __init__(self):
        self.notes = []

    def note(self, message):
        self.notes.append(message)

    def step(self, step, total, figures):
        pass


def section(**changes):
    """A recipe's model, of Llama's shape unless it is changed."""
    base = {
        "dim": 32,
        "layers": 2,
        "context": 64,
        "vocab_size": 99,
        "norm": {"use": "rmsnorm", "eps": 1e-5},
        "position": [{"use": "rope", "theta": 5000.0}],
        "attention": {"use": "gqa", "heads": 4, "kv_heads": 2},
        "feedforward": {"use": "glu", "width": 48},
        "head": {"use": "language-model", "tied": False},
    }
    return {**base, **changes}


def drawn(module, seed=0):
    """Redraw every parameter, norms too: a gain of one hides that it was forgotten."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        size = 0.5 if parameter.dim() > 1 else 1.0
        parameter.data = (torch.randn(parameter.shape, generator=generator) * size).to(parameter.dtype)
    return module.eval()


def model_of(**changes):
    return drawn(assemble(ModelConfig.model_validate(section(**changes)), 99))


def llama_of(seed=0, **changes):
    sizes = {
        "vocab_size": 99,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
    }
    return drawn(transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**sizes, **changes})), seed)


def ids(rows=3, time=20):
    return torch.randint(0, 99, (rows, time), generator=torch.Generator().manual_seed(7))


def assert_same_logits(ours, theirs):
    with torch.no_grad():
        expected = theirs(ids()).logits.float()
    spread = float(expected.max() - expected.min())
    for cached in (False, True):
        assert float((ours.logits(ids(), cached=cached) - expected).abs().max()) <= 1e-4 * spread
