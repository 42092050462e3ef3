"""The command line around recipes: what it prints, what it imports, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from corelm import registration
from corelm.cli import main

BAD = "corelm: 1\nname: x\nseed: many\nmodel:\n  dim: 32\n  layers: 1\n  context: 8\n  attention: {use: gqa, headz: 4}\n"


def test_list_imports_neither_torch_nor_a_part():
    code = (
        "import sys; from corelm.cli import main; main(['list']); main(['plugins']);"
        "print([m for m in ('torch', 'pydantic', 'corelm_attention.gqa') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "gqa" in done.stdout
    assert done.stderr.strip() == "[]"


def test_validate_tells_every_problem_with_its_place_and_exits_with_2(tmp_path, capsys):
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    assert main(["validate", str(path)]) == 2
    captured = capsys.readouterr()
    assert f"{path}:3:7: seed" in captured.err
    assert f"{path}:8:25: model.attention.headz" in captured.err
    assert "did you mean 'heads'?" in captured.err
    assert "Traceback" not in captured.err


def test_validate_as_json_prints_the_same_problems_for_machines(tmp_path, capsys):
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    assert main(["validate", str(path), "--json"]) == 2
    found = {(p["code"], p["path"], p["line"], p["suggestion"]) for p in json.loads(capsys.readouterr().out)}
    assert ("unknown-key", "model.attention.headz", 8, "heads") in found
    assert ("int-type", "seed", 3, None) in found


def test_overrides_are_laid_over_the_recipe_and_named_where_they_are_wrong(capsys):
    assert main(["validate", "corelm:tiny", "model.dim=64"]) == 0
    assert main(["validate", "corelm:tiny", "--json", "model.dim=64"]) == 0
    assert main(["validate", "corelm:tiny", "model.dmi=64"]) == 2
    assert "override model.dmi: unknown key" in capsys.readouterr().err


def test_interrupting_ends_with_130_and_no_traceback(monkeypatch, capsys):
    def interrupted(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("corelm.cli.plugins.run", interrupted)
    assert main(["plugins"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_reader_that_stops_reading_is_no_failure():
    read, written = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from corelm.cli import main; sys.exit(main(['schema']))"],
        stdout=written,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(written)
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_plugin_that_failed_is_named_loudly_and_the_others_are_listed(capsys):
    registry = registration.discover()
    registry.failures.append(registration.Failure("acme", "acme-parts", "0.3", "ImportError: no module named acme"))
    with registration.using(registry):
        assert main(["list", "norm"]) == 0
    captured = capsys.readouterr()
    assert "rmsnorm" in captured.out
    assert "acme-parts 0.3" in captured.err
    assert "no module named acme" in captured.err


def test_a_part_that_a_failed_plugin_may_have_brought_is_refused_with_the_reason(tmp_path, capsys):
    path = tmp_path / "r.yaml"
    path.write_text("corelm: 1\nname: x\ntokenizer: acme-pieces\n")
    registry = registration.discover()
    registry.failures.append(registration.Failure("acme", "acme-parts", "0.3", "ImportError: no module named acme"))
    with registration.using(registry):
        assert main(["validate", str(path)]) == 2
    err = capsys.readouterr().err
    assert f"{path}:3:12: tokenizer: unknown tokenizer 'acme-pieces'" in err
    assert "plugin acme (acme-parts" in err
    assert "failed to load: ImportError: no module named acme" in err


@pytest.mark.parametrize("what", ["quickstart", "tiny"])
def test_recipes_that_ship_with_the_package_are_found_by_name(what, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["validate", f"corelm:{what}"]) == 0
    assert list(Path(tmp_path).iterdir()) == []
