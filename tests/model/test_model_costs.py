"""What a model costs: derived by hand for published sizes, and counted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_helpers import VOCABULARY, config_of, configs, model_of, tokens

from corelm.conformance.metadata import counted_operations
from corelm.kinds import Cost, Spec, Work
from corelm.kinds.adapting import adapt_model
from corelm.kinds.quantized_linear import QuantizedLinear
from corelm.model.assemble import assemble
from corelm.model.costs import costs, operations, state_size
from corelm.recipe.reader import Recipe

ARCHITECTURES = Path(__file__).parents[2] / "recipes" / "architectures"
ROWS, TIME = 2, 9


def published(name: str):
    return assemble(Recipe.read(ARCHITECTURES / f"{name}.yaml").config.model, 0, device="meta")


def total(model, work: Work) -> Cost:
    return sum(costs(model, work).values(), Cost())


def test_gpt2_takes_285_million_operations_per_token_at_its_context():
    model = published("gpt2")
    # Per layer and token: maps of 4 · 768² and 2 · 768 · 3072 weights; 1,024 scores and as many values mixed, of 768.
    layers = 12 * (2 * (4 * 768**2 + 2 * 768 * 3072) + 2 * 2 * 1024 * 768)
    head = 2 * 50_257 * 768
    assert operations(model, 1024) == {"layers": 1024 * layers, "head": 1024 * head}
    assert layers + head == 284_812_800
    # 2 · N and the quadratic term (Chowdhery et al., 2022, arXiv:2204.02311, appendix B): N has gains and biases as well.
    no_maps = sum(p.numel() for p in model.parameters() if p.dim() == 1)
    others = 124_439_808 - 1024 * 768
    assert layers + head == 2 * (others - no_maps) + 4 * 12 * 768 * 1024


def test_llama_2_7b_keeps_two_gibibytes_for_4096_tokens_in_16_bits():
    model = published("llama-2-7b")
    layers = 32 * (2 * (4 * 4096**2 + 3 * 4096 * 11_008) + 2 * 2 * 4096 * 4096)
    assert operations(model, 4096) == {"layers": 4096 * layers, "head": 4096 * 2 * 32_000 * 4096}
    assert state_size(model, 4096, torch.bfloat16, "cuda") == 2 * 2**30
    assert state_size(model, 4096, torch.bfloat16, "cpu") == 4 * 2**30, "stored as float32"
    # A token that is decoded meets all others, and reads every weight but the embeddings of other tokens.
    last = total(model, Work(1, 1, 4095))
    assert last.operations == layers + 2 * 32_000 * 4096
    assert last.reads == 4 * (6_738_415_616 - 31_999 * 4096)


def test_a_mixture_of_eight_costs_what_the_two_chosen_do():
    # The sizes of Mixtral 8x7B (Jiang et al., 2024, arXiv:2401.04088): 46.7 billion parameters, 12.9 billion in use.
    experts = {"use": "moe", "experts": 8, "expert": {"use": "swiglu", "width": 14_336}}
    attention = {"use": "gqa", "heads": 32, "kv_heads": 8}
    sizes = {"dim": 4096, "layers": 32, "context": 4096, "head": {"use": "language-model", "tied": False}}
    config = config_of(**sizes, attention=attention, feedforward={**experts, "router": {"use": "top-k", "chosen": 2}})
    model = assemble(config, 32_000, device="meta")
    assert sum(p.numel() for p in model.parameters()) == 46_702_792_704

    attending, router = 4096 * (2 * 4096 + 2 * 1024), 8 * 4096
    maps = 32 * (attending + router + 2 * 3 * 4096 * 14_336) + 32_000 * 4096
    norms, row = 65 * 4096, 4096
    last = total(model, Work(1, 1, 999))
    assert last.operations == 2 * maps + 32 * 4 * 4096 * 1000
    assert last.reads == 4 * (maps + norms + row)
    assert round((maps + norms + 32_000 * 4096) / 1e9, 1) == 12.9
    # Nine tokens need all eight experts once, and twice nine times the arithmetic of one.
    assert total(model, Work(1, 9)).reads - 9 * 4 * row == 4 * (46_702_792_704 - 32_000 * 4096)


@pytest.mark.parametrize("path", sorted(ARCHITECTURES.glob("*-tiny.yaml")), ids=lambda path: path.stem)
def test_published_architectures_cost_what_is_counted(path):
    config = Recipe.read(path).config.model
    holds_as_counted(model_of(config, vocabulary=97))


@given(configs())
@settings(max_examples=15, deadline=None)
def test_any_model_costs_what_is_counted(config):
    holds_as_counted(model_of(config))


def holds_as_counted(model) -> None:
    """The pass over a few rows, the next token of each, and the state after it."""
    ids = tokens(ROWS, TIME) % model.vocab_size
    # A sink is a key of its own to some kernels; here it is one more value in passes over several tokens.
    sinks = sum(
        ROWS * TIME * 2 * m.heads * m.head_dim for m in model.modules() if getattr(m, "sinks", None) is not None
    )
    counted = counted_operations(lambda: model.head(model.hidden(ids)))
    assert counted - sinks == total(model, Work(ROWS, TIME)).operations

    state = model.new_state(ROWS)
    with torch.no_grad():
        model.hidden(ids, state=state)
    counted = counted_operations(lambda: model.head(model.hidden(ids[:, :1], state=state)))
    assert counted == total(model, Work(ROWS, 1, TIME)).operations
    slots = [slot.view().tensors for layer in range(model.depth) for slot in state.slots(layer).values()]
    stored = sum(tensor.numel() * tensor.itemsize for tensors in slots for tensor in tensors.values())
    assert stored == ROWS * state_size(model, TIME + 1, torch.float64, "cpu")


@given(st.integers(1, 4))
@settings(max_examples=3, deadline=None)
def test_additions_to_maps_cost_their_two_products(rank):
    model = model_of(vocabulary=VOCABULARY)
    before = total(model, Work(ROWS, TIME))
    record = adapt_model(model, Spec.read("adapter", {"use": "lora", "rank": rank}), seed=0)
    after = total(model, Work(ROWS, TIME))
    wrapped = [model.get_submodule(name) for name in record["modules"]]
    added = sum(rank * (linear.inputs + linear.outputs) for linear in wrapped)
    assert after.operations - before.operations == 2 * added * ROWS * TIME
    assert after.reads - before.reads == 8 * added
    assert counted_operations(lambda: model.head(model.hidden(tokens(ROWS, TIME)))) == after.operations


@pytest.mark.parametrize("options", [{"bits": 8}, {"bits": 4, "group": 16, "symmetric": False}])
def test_a_quantized_map_reads_what_it_saves(options):
    codes = Spec.read("quantizer", {"use": "round-to-nearest", **options}).build().quantize(torch.randn(24, 48))
    linear = QuantizedLinear.from_codes(codes, torch.zeros(24))
    saved = sum(tensor.nbytes for tensor in linear.state_dict().values())
    assert linear.cost(Work(1, 5)) == Cost(2 * 24 * 48 * 5, saved)
