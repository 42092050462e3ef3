"""Keeps what the tests of the families found, where ``CORELM_ARCHITECTURES`` names a file."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOUND: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))


def pytest_runtest_logreport(report):
    named = re.search(r"test_architectures\.py::test_(\w+)\[(\w+)/", report.nodeid)
    if named and report.when == "call":
        FOUND[named[2]][named[1]].append({"failed": report.failed, **dict(report.user_properties)})


def pytest_sessionfinish(session):
    path = os.environ.get("CORELM_ARCHITECTURES")
    if not path or not FOUND:
        return
    families = {
        family: {check: _summary(found) for check, found in sorted(checks.items())}
        for family, checks in sorted(FOUND.items())
    }
    results = {"transformers": version("transformers"), "families": families}
    Path(path).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _summary(found):
    worst = max(one.get("difference", 0.0) for one in found)
    summary = {"configs": len(found), "failed": sum(one["failed"] for one in found), "worst": f"{worst:.0e}"}
    ties = sum(one.get("ties", 0) for one in found)
    return {**summary, "ties": ties} if ties else summary
