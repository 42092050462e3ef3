"""What this package brings; imports neither torch nor the parts."""

from corelm import hookimpl

_PARTS = (
    ("norm", "scaled-rms", "scaled_rms:ScaledRMS", "Divides by the root mean square; one gain for all features."),
    ("activation", "curve-gate", "curves:CurveGate", "x · (1 + curve(x)) / 2; SiLU where the curve is tanh(x / 2)."),
    ("curve", "softsign", "curves:Softsign", "x / (1 + |x|)."),
)


@hookimpl
def corelm_register(registry):
    registry.add_kind("curve", "corelm_sample.curves:Curve", summary="option of curve-gate: odd, between −1 and 1")
    for kind, name, target, summary in _PARTS:
        registry.add(kind, name, f"corelm_sample.{target}", summary=summary)
    registry.add_recipes("sample", "corelm_sample.recipes")
