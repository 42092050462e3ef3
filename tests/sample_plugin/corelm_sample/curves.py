"""A kind of its own, a part of it, and an activation with a slot for it."""

from abc import abstractmethod

from pydantic import Field

from corelm.kinds import Activation, Component, ComponentConfig, Spec, use


class Curve(Component):
    """An elementwise function, odd and between −1 and 1. Built as ``Part(config)``."""

    kind = "curve"
    conformance = "corelm_sample.properties"

    def __init__(self, config):
        self.config = config

    @abstractmethod
    def __call__(self, x): ...


class Softsign(Curve):
    """x / (1 + |x|)."""

    def __call__(self, x):
        return x / (1 + x.abs())


class CurveGate(Activation):
    """x · (1 + curve(x)) / 2; SiLU where the curve is tanh(x / 2)."""

    class Config(ComponentConfig):
        curve: Spec[Curve] = Field(use("softsign"), description="How the gate opens.")

    def __init__(self, config):
        super().__init__(config)
        self.curve = config.curve.build()

    def forward(self, x):
        return x * (1 + self.curve(x)) / 2
