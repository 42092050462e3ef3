import subprocess
import sys

import pytest

from corelm import registration

PACKAGES = ["corelm_attention", "corelm_decoding", "corelm_feedforward", "corelm_norms", "corelm_positions"]
PARTS = [record for record in registration.active().records if record.plugin in PACKAGES]

EXPECTED = {
    f"{kind}/{name}"
    for kind, names in {
        "activation": "clamped-swiglu gelu gelu-tanh identity quick-gelu relu relu-squared sigmoid silu",
        "attention": "gated-delta gated-linear gqa latent mamba2",
        "feedforward": "glu mlp moe swiglu",
        "mask": "causal chunk documents window",
        "norm": "layernorm rmsnorm",
        "position": "alibi learned none query-temperature rope",
        "router": "top-k",
        "scaling": "dynamic linear llama3 longrope yarn",
        "sampler": "greedy min-p repetition-penalty temperature top-k top-p",
    }.items()
    for name in names.split()
}


def test_all_parts_are_there():
    found = {f"{record.kind}/{record.name}" for record in PARTS}
    assert found == EXPECTED


@pytest.mark.parametrize("record", PARTS, ids=lambda record: f"{record.kind}-{record.name}")
def test_a_part_is_what_its_record_says(record):
    part = record.load()
    assert issubclass(part, registration.active().kinds[record.kind].load())
    assert part.__doc__.strip().splitlines()[0].removesuffix(".") == record.summary
    for name, field in part.Config.model_fields.items():
        assert field.description, name


def test_announcing_parts_imports_no_torch():
    code = f"import sys, {', '.join(PACKAGES)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
