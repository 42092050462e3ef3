"""Properties of interchange formats on models as they are published: small ones of each make."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

from corelm.conformance.bench import close, initialise
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.tiny import MODEL, Silent, refused, tiny
from corelm.errors import UserError
from corelm.kinds.parameters import Linear
from corelm.kinds.quantized_linear import QuantizedLinear
from corelm.kinds.quantizer import Codes, consecutive
from corelm.model.loading import from_imported

_NORM: Final = {"use": "rmsnorm", "eps": 1e-5}
_FROM_ONE: Final = {"use": "rmsnorm", "eps": 1e-5, "offset": True}
_CENTRED: Final = {"use": "layernorm", "eps": 1e-5}
_WIDE: Final = {"use": "gqa", "heads": 4, "kv_heads": 2, "head_dim": 8}
_BIASED: Final = {"use": "gqa", "heads": 4, "qkv_bias": True, "output_bias": True}
_TIED, _UNTIED = ({"use": "language-model", "tied": tied} for tied in (True, False))
_GLU: Final = {"use": "glu", "width": 12}

PUBLISHED: Final[Mapping[str, dict[str, Any]]] = {
    "GPT-2": {
        "layers": 2,
        "norm": _CENTRED,
        "position": "learned",
        "attention": _BIASED,
        "feedforward": {"use": "mlp", "activation": "gelu-tanh"},
        "head": _TIED,
    },
    "OPT": {
        "norm": _CENTRED,
        "position": {"use": "learned", "offset": 2},
        "attention": _BIASED,
        "feedforward": {"use": "mlp", "activation": "relu", "width": 20},
        "head": _TIED,
    },
    "Falcon": {
        "block": {"use": "residual", "layout": "parallel-norms"},
        "norm": _CENTRED,
        "attention": {"use": "gqa", "heads": 2, "kv_heads": 1},
        "feedforward": {"use": "mlp", "bias": False, "width": 20},
        "head": _TIED,
    },
    "Llama 3": {
        "context": 16,
        "norm": _NORM,
        "position": {
            "use": "rope",
            "theta": 1e3,
            "scaling": {
                "use": "llama3",
                "factor": 8.0,
                "low_factor": 1.0,
                "high_factor": 4.0,
                "original_context": 16,
            },
        },
        "attention": _WIDE,
        "feedforward": _GLU,
        "head": _UNTIED,
    },
    "Gemma 3": {
        "layers": 3,
        "embedding": {"use": "token", "scale": "sqrt-dim"},
        "block": {"use": "residual", "layout": "sandwich"},
        "norm": _FROM_ONE,
        "attention": {**_WIDE, "qk_norm": _FROM_ONE, "scale": 0.25},
        "feedforward": {**_GLU, "activation": "gelu-tanh"},
        "head": _TIED,
        "blocks": {
            "sliding_attention": {
                "mask": ["causal", "documents", {"use": "window", "size": 5}],
                "position": {"use": "rope", "theta": 50.0},
            },
            "full_attention": {
                "position": {"use": "rope", "theta": 1e3, "scaling": {"use": "linear", "factor": 4.0}}
            },
        },
        "pattern": ["sliding_attention", "sliding_attention", "full_attention"],
    },
    "gpt-oss": {
        "layers": 2,
        "norm": _NORM,
        "position": {
            "use": "rope",
            "theta": 1e3,
            "scaling": {"use": "yarn", "factor": 4.0, "original_context": 16, "truncate": False},
        },
        "attention": {**_WIDE, "qkv_bias": True, "output_bias": True, "sinks": True},
        "feedforward": {
            "use": "moe",
            "experts": 4,
            "expert": {
                "use": "glu",
                "activation": {"use": "clamped-swiglu", "limit": 7.0, "slope": 1.702},
                "width": 8,
                "bias": True,
            },
            "router": {"use": "top-k", "chosen": 2, "order": "top-k-then-score", "bias": True},
        },
        "head": _UNTIED,
        "blocks": {
            "sliding_attention": {"mask": ["causal", "documents", {"use": "window", "size": 5}]},
            "full_attention": {},
        },
        "pattern": ["sliding_attention", "full_attention"],
    },
    "DeepSeek-V3": {
        "layers": 3,
        "norm": _NORM,
        "position": {"use": "rope", "pairing": "interleaved"},
        "attention": {
            "use": "latent",
            "heads": 2,
            "q_lora_rank": 6,
            "kv_lora_rank": 8,
            "qk_nope_head_dim": 6,
            "qk_rope_head_dim": 4,
            "v_head_dim": 5,
            "norm": {"use": "rmsnorm", "eps": 1e-6},
        },
        "head": _UNTIED,
        "blocks": {
            "dense": {"feedforward": {"use": "glu", "width": 12}},
            "sparse": {
                "feedforward": {
                    "use": "moe",
                    "experts": 4,
                    "expert": {"use": "glu", "width": 8},
                    "shared": {"use": "glu", "width": 8},
                    "router": {
                        "use": "top-k",
                        "chosen": 2,
                        "score": "sigmoid",
                        "selection_bias": True,
                        "groups": 2,
                        "scale": 2.5,
                    },
                }
            },
        },
        "pattern": {"first": 2, "use": "dense", "otherwise": "sparse"},
    },
    "Qwen3-Next": {
        "layers": 4,
        "position": "none",
        "norm": _FROM_ONE,
        "head": _UNTIED,
        "blocks": {
            "linear": {"attention": {"use": "gated-delta", "heads": 2, "key_dim": 4, "value_dim": 3, "eps": 1e-5}},
            "full": {
                "position": {"use": "rope", "fraction": 0.5},
                "attention": {**_WIDE, "output_gate": True, "qk_norm": _FROM_ONE},
            },
            "dense": {"feedforward": _GLU},
            "sparse": {
                "feedforward": {
                    "use": "moe",
                    "experts": 4,
                    "expert": {"use": "glu", "width": 8},
                    "shared": {"use": "glu", "width": 8},
                    "shared_gate": True,
                    "router": {"use": "top-k", "chosen": 2},
                }
            },
        },
        "patterns": {
            "mixers": ["linear", "linear", "linear", "full"],
            "experts": {"at": [1, 3], "use": "sparse", "otherwise": "dense"},
        },
    },
    "Mamba-2": {
        "layers": 2,
        "context": 1_048_576,
        "norm": _NORM,
        "position": "none",
        "attention": {"use": "mamba2", "heads": 4, "head_dim": 8, "state_size": 6, "groups": 2, "chunk": 8},
        "feedforward": None,
        "head": _UNTIED,
    },
}
"""Models of these makes, two or three layers of a few features; none of a format's business, all of the world's."""


SAY_ALL: Final = frozenset({"hugging-face"})
"""Formats, by their names of the field, that have words for all of these makes."""


def name_of(part: PartUnderTest) -> str:
    """The name of the field that a part takes."""
    return str(getattr(part.cls, "formula", part.name))


@property_of(
    "interchange",
    statement="Of the makes of model that are published, those that it can say come back as they were: tensors to the bit, "
    "and the same logits. The format of Hugging Face can say all of them.",
    formula="refuses(m) = None ⇒ read(write(m)) = m, for each m that is published; hugging-face: refuses(m) = None",
    catches="joined maps that are cut elsewhere, a scaling that is lost, layers in another order, a table of words that is "
    "read the wrong way round",
    tier="bit",
    tolerance="tensors are equal; another order of sums may be chosen for logits",
    examples=2,
    needs=("round_trip",),
)
def published_models_come_back(part: PartUnderTest, draw: Draw) -> None:
    """Each of them through a folder, in one file or in several."""
    exchange = part.bench.subject(part, draw, compared=10**9).part
    said = []
    for make, changes in PUBLISHED.items():
        model = tiny(draw.seed(), dtype=torch.float32, vocab=64, **changes)
        reason = exchange.refuses(model.section)
        if reason is not None:
            assert name_of(part) not in SAY_ALL, f"its name promises {make}, which it refuses: {reason}"
            continue
        said.append(make)
        with tempfile.TemporaryDirectory() as name:
            exchange.write(model, Path(name), Silent())
            again = from_imported(exchange.read(Path(name))).eval()
        mine, theirs = dict(model.module.named_parameters()), dict(again.module.named_parameters())
        assert mine.keys() == theirs.keys(), f"{make}: {sorted(mine.keys() ^ theirs.keys())[:3]} on one side only"
        wrong = [tensor for tensor in mine if not torch.equal(mine[tensor], theirs[tensor])]
        assert not wrong, f"{make}: {', '.join(wrong[:3])} came back with other bits"
        ids = draw.ids(2, 12, 64)
        close(again.logits(ids), model.logits(ids), f"logits of {make} before and after", 1e-5)
    draw.note("said", said)
    if not said:
        raise NotApplicable("it can say none of the makes that the kit knows")


@property_of(
    "interchange",
    statement="Folders of Hugging Face are read as older versions wrote them: a base beside the config's other fields, and "
    "tables of angles among the tensors; but no tensor that nobody knows.",
    formula="read(older spelling of m) = m; a stray tensor ⇒ UserError",
    catches="a default where a field has another name, weights of another model that are left unread",
    tier="bit",
    examples=1,
    excuse=lambda part: None if name_of(part) in SAY_ALL else "nothing is known of its older spellings",
    needs=("round_trip",),
)
def older_folders_are_read(part: PartUnderTest, draw: Draw) -> None:
    """A Llama of 2023, then one with a tensor too many."""
    exchange = part.bench.subject(part, draw, compared=0, shard=10**9).part
    model = tiny(draw.seed(), dtype=torch.float32, vocab=64, **{**PUBLISHED["Llama 3"], "position": "rope"})
    with tempfile.TemporaryDirectory() as name:
        folder, table = Path(name), {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}
        exchange.write(model, folder, Silent())
        section = exchange.read(folder).model
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        older = {key: value for key, value in config.items() if key != "rope_parameters"}
        (folder / "config.json").write_text(json.dumps(older), encoding="utf-8")
        tensors = load_file(folder / "model.safetensors")
        save_file({**tensors, **table}, folder / "model.safetensors")
        again = exchange.read(folder)
        assert again.model == section, f"in older words it is read as {again.model}"
        assert set(again.tensors) == set(dict(model.module.named_parameters())), "other tensors than the model has"
        save_file({**tensors, "model.layers.0.surprise": torch.ones(2)}, folder / "model.safetensors")
        error = refused(lambda: exchange.read(folder))
        assert error is not None and "surprise" in str(error), f"a tensor that nobody knows is passed over: {error}"


@property_of(
    "interchange",
    statement="A model with quantized and adapted maps is written as what it computes, or refused for them.",
    formula="logits(read(write(m))) = logits(m), or write(m) raises UserError(… adapted, quantized …)",
    catches="an addition that is left behind, codes that are written as if they were weights",
    tier="num",
    tolerance="Float32: products with weights that were merged and with both summands, some units in the last place.",
    examples=1,
    needs=("round_trip",),
)
def writes_what_it_computes(part: PartUnderTest, draw: Draw) -> None:
    """One map adapted, the next quantized."""
    from corelm.conformance.bugs.learning import LowRank

    exchange = part.bench.subject(part, draw, compared=0).part
    model = tiny(draw.seed(), dtype=torch.float32, vocab=64, **{**PUBLISHED["Llama 3"], "context": 64})
    if exchange.refuses(model.section) is not None:
        raise NotApplicable("it can't say the kit's model")
    maps = [name for name, one in model.module.named_modules() if isinstance(one, Linear) and "layers.0" in name]
    adapter = LowRank(LowRank.Config())
    wrapped = adapter.wrap(model.module.get_submodule(maps[0]), maps[0], draw.generator())
    initialise(wrapped, draw.seed(), generic=True)
    model.module.set_submodule(maps[0], wrapped)
    model.module.set_submodule(maps[1], _quantized(model.module.get_submodule(maps[1]), draw))
    ids = draw.ids(2, 8, 64)
    with tempfile.TemporaryDirectory() as name, torch.no_grad():
        expected = model.logits(ids)
        error = refused(lambda: exchange.write(model, Path(name), Silent()))
        if error is not None:
            why = str(error)
            assert "quantiz" in why or "adapt" in why, f"it is refused without a word of what was done to it: {why}"
        else:
            again = from_imported(exchange.read(Path(name))).eval()
            close(again.logits(ids), expected, "logits before and after", 1e-4)


def _quantized(linear: Linear, draw: Draw) -> QuantizedLinear:
    """A map of codes in the place of one of weights."""
    shape = (linear.outputs, linear.inputs)
    codes = torch.randint(16, shape, generator=draw.generator()).to(torch.uint8)
    scale = torch.rand(shape[0], 1, generator=draw.generator()) * 0.1 + 0.01
    middle = torch.full((shape[0], 1), 8, dtype=torch.uint8)
    groups = consecutive(linear.inputs, 0, torch.device("cpu"))
    return QuantizedLinear.from_codes(Codes(codes, scale, middle, groups, 4), linear.bias)


class _Stops(Silent):
    """A watch that has enough at the first word."""

    def note(self, message: str) -> None:
        """Stop."""
        raise UserError("stopped by the kit")


@property_of(
    "interchange",
    statement="An export that is broken off leaves nothing behind.",
    formula="write raises ⇒ folder = ∅",
    catches="half of a model that looks like a whole one",
    tier="io",
    examples=1,
    needs=("round_trip",),
)
def leaves_nothing_half_done(part: PartUnderTest, draw: Draw) -> None:
    """The watch raises as soon as it is told something."""
    exchange = part.bench.subject(part, draw).part
    for changes in ({"head": _TIED, "feedforward": _GLU}, *PUBLISHED.values()):
        model = tiny(draw.seed(), dtype=torch.float32, vocab=64, **{**MODEL, **changes})
        if exchange.refuses(model.section) is not None:
            continue
        with tempfile.TemporaryDirectory() as name:
            error = refused(lambda model=model, name=name: exchange.write(model, Path(name), _Stops()))
            assert error is not None, "what the watch raises is swallowed"
            left = sorted(path.name for path in Path(name).rglob("*"))
            assert not left, f"it was broken off, and left {', '.join(left)}"
        return
    raise NotApplicable("it can say none of the kit's models")
