"""The page about families is what the results, the files and the recipes say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from corelm_interchange.family import families

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("architectures_page", DOCS / "architectures_page.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_page_is_up_to_date(maker):
    assert (DOCS / "architectures.md").read_text(encoding="utf-8") == maker.page(), "run: python docs/make.py"


def test_every_family_was_measured_and_nothing_failed(maker):
    results = json.loads(maker.RESULTS.read_text(encoding="utf-8"))["families"]
    assert set(results) == set(families()), "run: python docs/make.py --measure"
    for name, checks in results.items():
        assert set(maker.CHECKS) - set(checks) <= {"padding"}, name
        assert all(found["failed"] == 0 for found in checks.values()), name


def test_the_drawing_has_every_layout(maker):
    for layout in ("pre", "post", "branch-post", "sandwich", "parallel", "parallel-norms"):
        lines = list(maker._sub_layer(layout, "norm", ["gqa", "mlp"] if layout.startswith("parallel") else ["gqa"]))
        plus = lines[0].index("(+)") + 1
        assert {line[plus] for line in lines[1:-1]} <= {"┤"} and lines[-1][plus] == "┘"
        assert {line[3] for line in lines} <= {"┬", "│", "└"}
