"""Small random models over many choices of parts, in float64, with parameters that matter."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from corelm.kinds import Spec, declared
from corelm.model.assemble import assemble, initialise
from corelm.model.config import ModelConfig
from corelm.model.language_model import LanguageModel

VOCABULARY = 23
CONTEXT = 12
TOLERANCE = 1e-10

GQA = {"use": "gqa", "heads": 4, "kv_heads": 2}
RECURRENT = {"use": "gated-linear", "heads": 2, "chunk": 3}
GLU = {"use": "glu", "width": 12}
MOE = {"use": "moe", "experts": 3, "expert": {"use": "swiglu", "width": 8}, "router": {"use": "top-k", "chosen": 2}}
LAYOUTS = ["pre", "post", "branch-post", "sandwich", "parallel", "parallel-norms"]

SOFTMAX = [GQA, {**GQA, "kv_heads": 1, "softcap": 5.0}, {**GQA, "kv_heads": 4, "qk_norm": "rmsnorm"}]
YARN = {"use": "rope", "scaling": {"use": "yarn", "factor": 4.0, "original_context": 8}}
HOT = {"use": "query-temperature", "scale": 0.5, "floor": 2}
POSITIONS = [[], ["none"], ["rope"], [{"use": "rope", "fraction": 0.5}], ["learned"], ["alibi"], ["learned", "rope"]]
POSITIONS += [[YARN], [HOT, {"use": "alibi", "rounded": "bfloat16", "scale": 0.5}]]
MASKS = [["causal", "documents"]]
MASKS += [["causal", {"use": rule, "size": 3}, "documents"] for rule in ("window", "chunk")]


def config_of(**options: Any) -> ModelConfig:
    plain = {"dim": 16, "layers": 2, "context": CONTEXT, "position": "rope", "attention": GQA, "feedforward": GLU}
    return ModelConfig.model_validate({**plain, "init": "fan-in", **options})


def model_of(
    config: ModelConfig | None = None, *, vocabulary: int = VOCABULARY, seed: int = 0, **options: Any
) -> Any:
    """A model whose constants are moved, so that a norm or a bias that is lost is missed."""
    model = assemble(config or config_of(**options), vocabulary, dtype=torch.float64)
    initialise(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter, info in declared(model):
            if info.constant is not None or info.role == "embedding":
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model.eval()


def with_bytes(**options: Any) -> LanguageModel:
    """A model over bytes, with its tokenizer."""
    tokenizer = Spec.read("tokenizer", "bytes").build()
    tokenizer.train([])
    model: LanguageModel = model_of(vocabulary=tokenizer.vocab_size, **options)
    model.attach(tokenizer)
    return model


@st.composite
def configs(draw: st.DrawFn, *, recurrent: bool = True, windows: bool = True) -> ModelConfig:
    """Model sections: one kind of layer, or two that alternate."""

    def layer() -> dict[str, Any]:
        common: dict[str, Any] = {
            "block": {"use": "residual", "layout": draw(st.sampled_from(LAYOUTS))},
            "feedforward": draw(st.sampled_from([GLU, {"use": "mlp", "width": 12}, MOE, None])),
        }
        if recurrent and draw(st.integers(0, 2)) == 0:
            return {**common, "attention": RECURRENT, "position": draw(st.sampled_from([[], ["rope"], ["learned"]]))}
        return {
            **common,
            "attention": draw(st.sampled_from(SOFTMAX)),
            "position": draw(st.sampled_from(POSITIONS)),
            "mask": draw(st.sampled_from(MASKS if windows else MASKS[:1])),
        }

    options = {
        "norm": draw(st.sampled_from(["rmsnorm", "layernorm"])),
        "head": {"use": "language-model", "tied": draw(st.booleans())},
        "embedding": draw(st.sampled_from(["token", {"use": "token", "width": 6, "scale": "sqrt-dim"}])),
    }
    if draw(st.booleans()):
        options |= layer()
    else:
        options |= {"blocks": {"one": layer(), "two": layer()}, "pattern": ["one", "two"], "layers": 3}
    return config_of(**options)


def tokens(batch: int, time: int, seed: int = 0) -> Tensor:
    return torch.randint(0, VOCABULARY, (batch, time), generator=torch.Generator().manual_seed(seed))


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=TOLERANCE)


@st.composite
def compositions(draw: st.DrawFn, total: int) -> list[int]:
    """Lengths of calls that add up to ``total``."""
    pieces: list[int] = []
    while sum(pieces) < total:
        pieces.append(draw(st.integers(1, total - sum(pieces))))
    return pieces
