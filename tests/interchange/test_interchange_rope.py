"""Rotary positions: every spelling of their fields is read, and written so that it reads back."""

from __future__ import annotations

import pytest
from corelm_interchange.rope import SCALINGS, RopeFields

OLD_ROPE = [
    ({}, (1e4, 1.0, None)),
    ({"rope_theta": 5e5}, (5e5, 1.0, None)),
    ({"rotary_emb_base": 5e3, "rotary_pct": 0.25}, (5e3, 0.25, None)),
    (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 7.0, "partial_rotary_factor": 0.5}},
        (7.0, 0.5, None),
    ),
    ({"rope_theta": 9.0, "rope_parameters": {"rope_type": "default"}}, (9.0, 1.0, None)),
    ({"rope_scaling": {"type": "linear", "factor": 4.0}}, (1e4, 1.0, {"use": "linear", "factor": 4.0})),
    (
        {"rope_scaling": {"type": "su", "short_factor": [1.0], "long_factor": [2.0]}, "max_position_embeddings": 64},
        (1e4, 1.0, {"use": "longrope", "short_factor": [1.0], "long_factor": [2.0], "original_context": 64}),
    ),
    (
        {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}, "original_max_position_embeddings": 8},
        (1e4, 1.0, {"use": "yarn", "factor": 2.0, "original_context": 8}),
    ),
]


@pytest.mark.parametrize(("config", "expected"), OLD_ROPE, ids=str)
def test_every_spelling_of_rotary_positions_is_read(config, expected):
    fields = RopeFields().read(config, "config.json")
    assert tuple(fields[f"rope.{key}"] for key in ("theta", "fraction", "scaling")) == expected
    again = RopeFields().read({**config, **RopeFields().write(fields)}, "config.json")
    assert again == fields


def test_rotary_positions_of_types_of_layers():
    labels = {"full": {}, "near": {"theta": 10.0, "theta_fields": ["rope_local_base_freq"], "scaled": False}}
    rope = RopeFields.model_validate({"theta": 1e6, "labels": labels})
    old = rope.read({"rope_local_base_freq": 20.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, "config")
    assert old["rope.full.theta"] == 1e6 and old["rope.near.theta"] == 20.0
    assert old["rope.full.scaling"] == {"use": "linear", "factor": 8.0} and old["rope.near.scaling"] is None
    assert rope.read(rope.write(old), "config") == old
    assert rope.read({}, "config")["rope.near.theta"] == 10.0
    assert set(SCALINGS) == set(RopeFields().scalings)
