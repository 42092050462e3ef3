"""What every curve must hold."""

from corelm.conformance.framework import property_of


@property_of("curve", statement="curve(−x) = −curve(x), between −1 and 1.", catches="a shifted or unbounded function")
def odd_and_bounded(part, draw):
    curve, x = part.cls(part.cls.Config()), draw.normal(32, scale=draw.scale())
    assert curve(-x).equal(-curve(x)), "not odd"
    assert curve(x).abs().max() <= 1, "beyond one"
