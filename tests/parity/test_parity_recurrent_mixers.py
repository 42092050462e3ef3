"""Recurrent mixers against transformers' own, on the same random weights in float32."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corelm.conformance.harness import layer_step
from corelm.kinds import LayerContext, Spec

pytest.importorskip("transformers")
from transformers import Mamba2Config
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer
from transformers.models.qwen3_next.configuration_qwen3_next import Qwen3NextConfig
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

DIM = 24


def redraw(module, seed):
    """Every parameter anew, so that no weight is one and no bias zero; rates and steps stay where they are used."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            last = name.rpartition(".")[2]
            if last == "A_log":
                parameter.copy_(noise * 0.7 + 0.5)
            elif last in ("dt_bias", "bias", "D") or name == "norm.weight":
                parameter.copy_(noise * 0.5 + (0.0 if last == "bias" else 1.0 if last in ("D", "weight") else -1.0))
            else:
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
    return module.eval()


def ours(config, tensors):
    part = Spec.read("attention", config).build(LayerContext(dim=DIM, depth=1, context=64, vocab_size=0))
    part.load_state_dict(tensors)
    return part.eval()


def agree(part, reference, x):
    with torch.no_grad():
        expected, found = reference(x), part(x, layer_step(*x.shape[:2]))
    error = (found - expected).abs().max() / expected.std()
    assert float(error) < 1e-4


def delta_tensors(state, key_heads, per_head, key_dim, value_dim):
    """One matrix per input, out of two in which every key head has a run of rows for each."""
    sizes = (key_dim, key_dim, per_head * value_dim, per_head * value_dim)
    runs = state["in_proj_qkvz.weight"].view(key_heads, sum(sizes), DIM).split(sizes, 1)
    tensors = {
        f"{n}.weight": run.flatten(0, 1) for n, run in zip(("query", "key", "value", "gate"), runs, strict=True)
    }
    runs = state["in_proj_ba.weight"].view(key_heads, 2 * per_head, DIM).split(per_head, 1)
    tensors |= {f"{n}.weight": run.flatten(0, 1) for n, run in zip(("strength", "decay"), runs, strict=True)}
    names = {"conv1d.weight": "convolution.weight", "A_log": "log_rate", "dt_bias": "step_bias"}
    names |= {"norm.weight": "norm.weight", "out_proj.weight": "output.weight"}
    return tensors | {name: state[theirs] for theirs, name in names.items()}


@given(
    seed=st.integers(0, 999),
    key_heads=st.sampled_from([1, 2]),
    per_head=st.sampled_from([1, 3]),
    key_dim=st.sampled_from([4, 6]),
    value_dim=st.sampled_from([4, 5]),
    kernel=st.sampled_from([2, 4]),
    time=st.sampled_from([1, 3, 64, 150]),
)
def test_gated_delta_is_the_mixer_of_qwen3_next(seed, key_heads, per_head, key_dim, value_dim, kernel, time):
    config = Qwen3NextConfig(
        hidden_size=DIM,
        num_hidden_layers=4,
        linear_num_key_heads=key_heads,
        linear_num_value_heads=key_heads * per_head,
        linear_key_head_dim=key_dim,
        linear_value_head_dim=value_dim,
        linear_conv_kernel_dim=kernel,
        rms_norm_eps=1e-3,
    )
    reference = redraw(Qwen3NextGatedDeltaNet(config, 0), seed)
    options = {"heads": key_heads * per_head, "key_heads": key_heads, "key_dim": key_dim, "value_dim": value_dim}
    tensors = delta_tensors(reference.state_dict(), key_heads, per_head, key_dim, value_dim)
    part = ours({"use": "gated-delta", **options, "kernel": kernel, "eps": 1e-3}, tensors)
    agree(part, reference, torch.randn(2, time, DIM, generator=torch.Generator().manual_seed(seed)))


def mamba_tensors(state, width, keys, heads):
    """One matrix per input, out of their concatenation."""
    tensors = {}
    for kind in ("weight", "bias"):
        if f"in_proj.{kind}" in state:
            rows = state[f"in_proj.{kind}"].split((width, width, keys, keys, heads))
            names = ("gate", "value", "key", "query", "time_step")
            tensors |= {f"{name}.{kind}": part for name, part in zip(names, rows, strict=True)}
    names = {"conv1d": "convolution", "out_proj": "output", "norm": "norm"}
    for name, tensor in state.items():
        module, _, kind = name.partition(".")
        if module in names:
            tensors[f"{names[module]}.{kind}"] = tensor
    return tensors | {"log_rate": state["A_log"], "step_bias": state["dt_bias"], "skip": state["D"]}


@given(
    seed=st.integers(0, 999),
    groups=st.sampled_from([1, 2]),
    per_group=st.sampled_from([1, 3]),
    state_size=st.sampled_from([4, 7]),
    kernel=st.sampled_from([2, 4]),
    biases=st.tuples(st.booleans(), st.booleans()),
    limit=st.sampled_from([(0.0, float("inf")), (0.2, 0.5)]),
    time=st.sampled_from([1, 3, 64, 150]),
)
def test_mamba2_is_the_mixer_of_mamba2(seed, groups, per_group, state_size, kernel, biases, limit, time):
    heads = groups * per_group
    config = Mamba2Config(
        hidden_size=DIM,
        num_heads=heads,
        head_dim=2 * DIM // heads,
        state_size=state_size,
        n_groups=groups,
        conv_kernel=kernel,
        use_conv_bias=biases[0],
        use_bias=biases[1],
        time_step_limit=limit,
        layer_norm_epsilon=1e-3,
        num_hidden_layers=1,
        chunk_size=32,
    )
    reference = redraw(Mamba2Mixer(config, 0), seed)
    options = {
        "heads": heads,
        "groups": groups,
        "state_size": state_size,
        "kernel": kernel,
        "convolution_bias": biases[0],
        "bias": biases[1],
        "least_step": limit[0],
        "most_step": None if limit[1] == float("inf") else limit[1],
        "eps": 1e-3,
    }
    tensors = mamba_tensors(reference.state_dict(), 2 * DIM, groups * state_size, heads)
    part = ours({"use": "mamba2", **options}, tensors)
    agree(part, reference, torch.randn(2, time, DIM, generator=torch.Generator().manual_seed(seed)))
