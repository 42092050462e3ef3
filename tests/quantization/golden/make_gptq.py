"""Writes ``gptq.safetensors``: what GPTQModel makes of random weights.

Run in an environment of its own that has gptqmodel 7.5.0 (and ``GPTQMODEL_CPU_WORKERS=2`` on two cores):
``python make_gptq.py``. Its block size is the group's size here: GPTQModel takes steps from weights that the
current block has not updated yet, so with smaller groups its result depends on the block size.
"""

from pathlib import Path

import torch
from gptqmodel.quantization import QuantizeConfig
from gptqmodel.quantization.gptq import GPTQ
from safetensors.torch import save_file

OUTPUTS, INPUTS, TOKENS = 24, 64, 200


def problem(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(OUTPUTS, INPUTS, generator=generator)
    mix = torch.eye(INPUTS) + 0.3 * torch.randn(INPUTS, INPUTS, generator=generator)
    return weight, torch.randn(TOKENS, INPUTS, generator=generator) @ mix


def solve(bits: int, group: int, act_order: bool, static: bool, seed: int) -> dict[str, torch.Tensor]:
    weight, x = problem(seed)
    linear = torch.nn.Linear(INPUTS, OUTPUTS, bias=False)
    linear.weight.data = weight.clone()
    config = QuantizeConfig(
        bits=bits,
        group_size=group or -1,
        sym=False,
        desc_act=act_order,
        act_group_aware=False,
        static_groups=static,
        damp_percent=0.01,
    )
    task = GPTQ(linear, config)
    task.quantizer.configure(perchannel=True)
    task.add_batch(x[None], None, batch_index=0)
    solved, scale, zero, groups = task.quantize(blocksize=group or 128)[:4]
    return {"weight": weight, "x": x, "solved": solved, "scale": scale, "zero": zero, "groups": groups}


if __name__ == "__main__":
    tensors = {}
    for seed, (bits, group, act_order, static) in enumerate(
        [(4, 0, False, False), (4, 32, False, False), (3, 16, False, True), (4, 32, True, True), (4, 32, True, False)]
    ):
        for name, tensor in solve(bits, group, act_order, static, seed).items():
            key = f"{bits}.{group}.{int(act_order)}.{int(static)}.{name}"
            tensors[key] = tensor.detach().clone().contiguous()
    made_with = {"gptqmodel": "7.5.0", "torch": torch.__version__}
    save_file(tensors, Path(__file__).with_name("gptq.safetensors"), metadata=made_with)
