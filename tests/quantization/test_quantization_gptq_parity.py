"""GPTQ against what GPTQModel made of the same weights and activations."""

from pathlib import Path

import pytest
import torch
from corelm_quantization.gptq import GPTQ
from safetensors.torch import load_file

from corelm.kinds.quantizing import update

GOLDEN = load_file(Path(__file__).with_name("golden") / "gptq.safetensors")
CASES = sorted({name.rpartition(".")[0] for name in GOLDEN})


@pytest.mark.parametrize("case", CASES)
def test_codes_equal_those_of_gptqmodel(case):
    expected = {name.rpartition(".")[2]: tensor for name, tensor in GOLDEN.items() if name.startswith(case)}
    bits, group, act_order, static = (int(part) for part in case.split("."))
    config = GPTQ.Config(
        bits=bits, group=group, symmetric=False, act_order=bool(act_order), static_groups=bool(static)
    )
    codes = GPTQ(config).quantize(expected["weight"], update(None, expected["x"]))
    assert codes.note == ""
    assert torch.equal(codes.groups, expected["groups"])
    torch.testing.assert_close(codes.scale, expected["scale"], rtol=1e-4, atol=0)
    assert torch.equal(codes.zero.float(), expected["zero"])
    index = expected["groups"].long()
    theirs = torch.round(expected["solved"] / expected["scale"][:, index]) + expected["zero"][:, index]
    assert (codes.codes != theirs).float().mean() <= 0.001
