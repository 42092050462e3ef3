"""The gated linear unit of Llama and its kin."""

from __future__ import annotations

from corelm.kinds import Activation
from corelm_feedforward.activations import SiLU
from corelm_feedforward.glu import GatedConfig, GatedLinearUnit


class SwiGLU(GatedLinearUnit):
    """The gated linear unit with SiLU: down(silu(gate(x)) · up(x)) (Shazeer, 2020, arXiv:2002.05202)."""

    class Config(GatedConfig):
        """Options."""

    def build_activation(self) -> Activation:
        """SiLU."""
        return SiLU(SiLU.Config())
