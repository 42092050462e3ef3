"""``QuantizedLinear``: a linear map that holds codes instead of weights, saved as small as it is declared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Self, TypedDict

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from corelm import registration
from corelm.errors import UserError
from corelm.kinds.cost import Cost, Work
from corelm.kinds.parameters import ParameterInfo, declare
from corelm.kinds.quantizer import Codes, Kernel, consecutive

ScaleType = Literal["float64", "float32", "float16", "bfloat16"]


class QuantizedFacts(TypedDict):
    """What must be known of a quantized map, besides its sizes, to rebuild it before its tensors are loaded.

    ``group`` is the number of inputs that share a step (0: all); ``regular`` says whether groups are inputs in a
    row; ``symmetric`` whether all zero points are in the middle. What follows from these is not stored.
    """

    bits: int
    group: int
    symmetric: bool
    regular: bool
    scale_dtype: ScaleType
    bias: bool


def pack(codes: UInt8[Tensor, " n"], bits: int) -> UInt8[Tensor, " bytes"]:
    """Put ``n`` codes into ``⌈n · bits / 8⌉`` bytes: a stream of bits, the lowest of the first code first."""
    n = codes.numel()
    padded = torch.zeros(-(-n // 8) * 8, dtype=torch.uint8, device=codes.device)
    padded[:n] = codes
    octets = padded.view(-1, 8)
    words = torch.zeros(len(octets), dtype=torch.int64, device=codes.device)
    for place in range(8):  # eight codes fill exactly `bits` bytes
        words |= octets[:, place].to(torch.int64) << (place * bits)
    shifts = range(0, 8 * bits, 8)
    stream = torch.stack([((words >> shift) & 255).to(torch.uint8) for shift in shifts], dim=1)
    return stream.flatten()[: packed_size(n, bits)].contiguous()


def unpack(packed: UInt8[Tensor, " bytes"], bits: int, n: int) -> UInt8[Tensor, " n"]:
    """The first ``n`` codes of what ``pack`` made."""
    padded = torch.zeros(-(-n // 8) * bits, dtype=torch.uint8, device=packed.device)
    padded[: packed.numel()] = packed
    stream = padded.view(-1, bits)
    words = torch.zeros(len(stream), dtype=torch.int64, device=packed.device)
    for place in range(bits):
        words |= stream[:, place].to(torch.int64) << (8 * place)
    codes = torch.stack([((words >> (place * bits)) & (2**bits - 1)).to(torch.uint8) for place in range(8)], dim=1)
    return codes.flatten()[:n]


def packed_size(n: int, bits: int) -> int:
    """Bytes that ``n`` codes take."""
    return -(-n * bits // 8)


class Chosen(NamedTuple):
    """A kernel, and why those with a higher priority were passed over."""

    name: str
    kernel: Kernel
    refused: dict[str, str]


class QuantizedLinear(nn.Module):
    """``y = x Ŵᵀ + b``, with Ŵ held as codes.

    Its state is the canonical codes and nothing else: ``codes`` (packed, one flat stream of rows), ``scale``
    ``(outputs, groups)``, ``zero`` (packed; asymmetric grids only), ``groups`` (irregular ones only) and ``bias``. A
    kernel's own layout is derived from them when it is first needed, per dtype and device, and never saved.
    The kernel is chosen anew for each dtype, device and number of rows among all installed ones.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor | None
    groups: Tensor | None
    bias: nn.Parameter | None

    def __init__(self, outputs: int, inputs: int, facts: QuantizedFacts) -> None:
        super().__init__()
        self.outputs, self.inputs, self.facts = outputs, inputs, facts
        self.steps = -(-inputs // (facts["group"] or max(inputs, 1)))
        bits, count = facts["bits"], outputs * self.steps
        self.register_buffer("codes", torch.empty(packed_size(outputs * inputs, bits), dtype=torch.uint8))
        self.register_buffer("scale", torch.empty(outputs, self.steps, dtype=getattr(torch, facts["scale_dtype"])))
        zero = None if facts["symmetric"] else torch.empty(packed_size(count, bits), dtype=torch.uint8)
        self.register_buffer("zero", zero)
        self.register_buffer("groups", None if facts["regular"] else torch.empty(inputs, dtype=torch.int32))
        if facts["bias"]:
            declare(self, "bias", (outputs,), ParameterInfo("bias", constant=0.0))
        else:
            self.register_parameter("bias", None)
        self._forget()

    @classmethod
    def from_codes(cls, codes: Codes, bias: Tensor | None = None) -> Self:
        """Hold these codes, scales in the dtype that they have."""
        outputs, inputs = codes.codes.shape
        group = int((codes.groups == codes.groups[0]).sum())
        facts: QuantizedFacts = {
            "bits": codes.bits,
            "group": 0 if group == inputs else group,
            "symmetric": bool((codes.zero == 2 ** (codes.bits - 1)).all()),
            "regular": torch.equal(codes.groups, consecutive(inputs, group, codes.groups.device)),
            "scale_dtype": _name(codes.scale.dtype),
            "bias": bias is not None,
        }
        if not facts["regular"]:  # the number of groups can't be told from the first one's size
            facts["group"] = -(-inputs // codes.scale.shape[1])
        with torch.device(codes.codes.device):
            linear = cls(outputs, inputs, facts)
        if linear.steps != codes.scale.shape[1]:
            raise ValueError(f"{codes.scale.shape[1]} groups of {inputs} inputs can't be of equal size")
        linear.codes = pack(codes.codes.flatten(), codes.bits)
        linear.scale = codes.scale.contiguous()
        if not facts["symmetric"]:
            linear.zero = pack(codes.zero.flatten(), codes.bits)
        if not facts["regular"]:
            linear.groups = codes.groups.to(torch.int32)
        if bias is not None and linear.bias is not None:
            linear.bias.data = bias.detach().clone()
        return linear

    def canonical(self) -> Codes:
        """The codes, unpacked."""
        bits = self.facts["bits"]
        flat = unpack(self.codes, bits, self.outputs * self.inputs)
        return Codes(flat.view(self.outputs, self.inputs), self.scale, self._zero(), self._groups(), bits)

    def _zero(self) -> Tensor:
        bits, shape = self.facts["bits"], (self.outputs, self.steps)
        if self.zero is None:
            return torch.full(shape, 2 ** (bits - 1), dtype=torch.uint8, device=self.scale.device)
        return unpack(self.zero, bits, shape[0] * shape[1]).view(shape)

    def _groups(self) -> Tensor:
        if self.groups is not None:
            return self.groups
        return consecutive(self.inputs, self.facts["group"], self.scale.device)

    @property
    def bits_per_weight(self) -> float:
        """Bits of everything that is saved of the matrix, per weight; without the bias."""
        held = [t for t in (self.codes, self.scale, self.zero, self.groups) if t is not None]
        return 8 * sum(t.numel() * t.element_size() for t in held) / max(self.outputs * self.inputs, 1)

    def cost(self, work: Work) -> Cost:
        """What the map would take with weights, and the bytes of what is saved of it."""
        saved = sum(tensor.nbytes for tensor in self.state_dict().values())
        return Cost(2 * self.inputs * self.outputs * work.tokens, saved)

    def forward(self, x: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
        """Apply the map to the last axis, with the best kernel for these activations."""
        rows = x.reshape(-1, self.inputs)
        chosen = self.kernel(x.dtype, x.device, len(rows), gradient=torch.is_grad_enabled() and x.requires_grad)
        key = (chosen.name, x.dtype, x.device)
        if key not in self._prepared:
            with torch.no_grad():
                self._prepared[key] = chosen.kernel.prepare(self.canonical(), x.dtype)
        y = chosen.kernel.matmul(rows, self._prepared[key]).view(*x.shape[:-1], self.outputs)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def kernel(self, dtype: torch.dtype, device: torch.device, rows: int, *, gradient: bool = False) -> Chosen:
        """The kernel that multiplies this many rows, and why others don't.

        Raises:
            UserError: no installed kernel does.
        """
        key = (dtype, device, rows, gradient)
        if key not in self._chosen:
            self._chosen[key] = self._choose(dtype, device, rows, gradient)
        return self._chosen[key]

    def _choose(self, dtype: torch.dtype, device: torch.device, rows: int, gradient: bool) -> Chosen:
        shape = torch.empty(self.outputs, self.inputs, dtype=torch.uint8, device="meta")
        outline = Codes(shape, self.scale, self._zero(), self._groups(), self.facts["bits"])
        refused: dict[str, str] = {}
        installed = [(record.qualified, record.load()) for record in registration.active().parts("kernel")]
        for name, part in sorted(installed, key=lambda item: (-item[1].priority, item[0])):
            kernel: Kernel = part(part.Config())
            reason = kernel.supports(outline, dtype, device, rows)
            if reason is None and gradient and "gradient" not in part.offers(kernel.config):
                reason = "gradients don't flow through it"
            if reason is None:
                return Chosen(name, kernel, refused)
            refused[name] = reason
        raise UserError(
            f"no installed kernel multiplies {rows} rows of {dtype} on {device} with these codes",
            remedy="; ".join(f"{name}: {reason}" for name, reason in refused.items()) or "No kernel is installed.",
            code="no-kernel",
        )

    def _forget(self) -> None:
        """Drop everything that was derived from the codes."""
        self._prepared: dict[tuple[str, torch.dtype, torch.device], Any] = {}
        self._chosen: dict[tuple[torch.dtype, torch.device, int, bool], Chosen] = {}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move with the model; the dtype of scales is part of the codes and stays."""
        before = self.scale
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.scale.dtype != before.dtype:
            self.scale = before.to(self.scale.device)
        self._forget()
        return self

    def _load_from_state_dict(self, *args: Any, **more: Any) -> None:
        super()._load_from_state_dict(*args, **more)
        self._forget()

    def extra_repr(self) -> str:
        """Sizes, for ``print(model)``."""
        facts = self.facts
        return f"{self.inputs} -> {self.outputs}, bits={facts['bits']}, group={facts['group']}, bias={facts['bias']}"


def _name(dtype: torch.dtype) -> ScaleType:
    names: dict[torch.dtype, ScaleType] = {
        torch.float64: "float64",
        torch.float32: "float32",
        torch.float16: "float16",
        torch.bfloat16: "bfloat16",
    }
    return names[dtype]
