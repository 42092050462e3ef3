"""A stranger's package, built as a wheel and installed beside corelm, is as good as one of ours."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parents[1] / "sample_plugin"

RECIPE = """\
corelm: 1
name: mine
seed: 1
corpus:
  source: {use: text-files, paths: [text.txt]}
tokenizer: bytes
model:
  dim: 16
  layers: 1
  context: 16
  norm: {use: scaled-rms}
  position: rope
  attention: {use: gqa, heads: 2}
  feedforward: {use: glu, width: 16, activation: {use: curve-gate, curve: softsign}}
trackers: []
stages:
  base:
    use: pretrain
    tokens: 64
    batch: 2
    optimizer: {use: adamw, learning_rate: 1e-2}
    trainer: {use: plain, precision: fp32}
"""

SEVERAL = """
import contextlib, io, json, sys
from corelm.cli import main
told = []
for command in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(command)
    told.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(told))
"""


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class Environment:
    """An environment of its own that also sees what is installed in ours, with the wheel installed by pip."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        self.python = folder / "venv" / "bin" / "python"
        (self.packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
        ours = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
        # addsitedir also follows the .pth files in there, by which editable packages are found.
        (self.packages / "ours.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in ours))
        self.pip("install", "--no-deps", "--no-index", wheel)
        (folder / "text.txt").write_text("The cat sat on the mat. " * 40)
        (folder / "mine.yaml").write_text(RECIPE)

    def pip(self, *arguments: str | Path) -> None:
        pip("--python", self.python, *arguments)

    def run(self, arguments: Sequence[str], code: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if k not in ("CORELM_DISABLE", "PYTEST_ADDOPTS")}
        environment["OMP_NUM_THREADS"] = "1"
        command = [str(self.python), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=self.folder, env=environment, timeout=120
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def corelm(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self.run(["-m", "corelm.cli", *arguments], code)

    def several(self, *commands: str) -> list[tuple[int, str, str]]:
        """Exit code, output and complaints of each command line, all in one process."""
        given = json.dumps([command.split() for command in commands])
        return [tuple(told) for told in json.loads(self.run(["-c", SEVERAL, given]).stdout)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = shutil.copytree(SAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder / "dist", source)
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    """For tests that change nothing in it but their own runs."""
    return Environment(tmp_path_factory.mktemp("installed"), wheel)


def test_it_is_listed_with_its_origin_and_importing_neither_torch_nor_its_parts(installed):
    code = (
        "import sys; from corelm.cli import main; main(['list', '--json']);"
        "print([m for m in ('torch', 'corelm_sample.scaled_rms', 'corelm_sample.curves') if m in sys.modules],"
        " file=sys.stderr)"
    )
    done = installed.run(["-c", code])
    mine = {r["qualified"]: r for r in json.loads(done.stdout) if r["distribution"] == "corelm-sample"}
    assert set(mine) == {f"corelm-sample:{name}" for name in ("scaled-rms", "curve-gate", "softsign")}
    norm = mine["corelm-sample:scaled-rms"]
    assert (norm["kind"], norm["name"], norm["version"]) == ("norm", "scaled-rms", "0.3.0")
    assert norm["summary"] == "Divides by the root mean square; one gain for all features"
    assert done.stderr.strip() == "[]"


def test_it_is_not_seen_from_where_it_is_not_installed(installed):
    done = subprocess.run([sys.executable, "-m", "corelm.cli", "plugins"], capture_output=True, text=True, check=True)
    assert "corelm-sample" not in done.stdout
    assert "corelm-sample 0.3.0" in installed.corelm("plugins").stdout


def test_its_parts_and_its_kind_are_described_like_ours_and_editors_are_told_of_them(installed):
    told = installed.several(
        "describe norm/scaled-rms --json",
        "describe norm/corelm-sample:scaled-rms --json",
        "describe activation/curve-gate --json",
        "describe curve --json",
        "schema",
    )
    assert [(code, said) for code, _, said in told] == [(0, "")] * 5
    plain, qualified, gate, kind = (json.loads(out) for _, out, _ in told[:4])
    assert plain == qualified
    assert (plain["distribution"], plain["version"]) == ("corelm-sample", "0.3.0")
    assert Path(plain["location"]) == installed.packages / "corelm_sample" / "scaled_rms.py"
    assert [(option["name"], option["default"]) for option in plain["options"]] == [("eps", 1e-6)]
    assert [(option["name"], option["default"]) for option in gate["options"]] == [("curve", {"use": "softsign"})]
    assert kind["parts"] == ["corelm-sample:softsign"]
    assert "odd and between" in kind["contract"]
    assert '"scaled-rms"' in told[4][1]
    assert '"curve-gate"' in told[4][1]


def test_a_recipe_names_its_parts_plainly_or_with_the_distribution_and_trains_the_same_model(installed):
    first = json.loads(installed.corelm("run", "mine.yaml", "--json").stdout.splitlines()[-1])
    base = first["stages"][-1]
    assert (base["name"], base["status"], base["figures"]["steps"]) == ("base", "done", 2)
    again = installed.corelm("run", "mine.yaml", "model.norm.use=corelm-sample:scaled-rms", "--json")
    stages = json.loads(again.stdout.splitlines()[-1])["stages"]
    assert {stage["status"] for stage in stages} == {"up to date"}, "the same part by its other name"
    assert "corelm-sample:scaled-rms" in (installed.folder / "runs" / "mine" / "base" / "model.json").read_text()


def test_it_is_held_to_the_properties_of_its_kinds_and_those_that_it_brings(installed):
    told = json.loads(installed.corelm("verify", "--plugin", "corelm-sample", "--examples", "5", "--json").stdout)
    held = {(o["part"], o["property"]) for o in told["outcomes"] if o["status"] == "passed"}
    assert told["counts"]["failed"] == told["counts"]["expected-failed"] == told["counts"]["blocked"] == 0
    assert {
        ("norm/scaled-rms", "second_moment"),
        ("norm/scaled-rms", "homogeneous_in_gain"),
        ("activation/curve-gate", "derivative"),
        ("curve/softsign", "odd_and_bounded"),
        ("curve/softsign", "config_round_trips"),
    } <= held
    assert {part for part, _ in held} == {"norm/scaled-rms", "activation/curve-gate", "curve/softsign"}


def test_its_author_can_collect_the_same_properties_with_pytest(installed):
    arguments = ["--corelm", "--corelm-plugin", "corelm-sample", "--collect-only", "-q", "-p", "no:xdist"]
    collected = installed.run(["-m", "pytest", *arguments]).stdout
    assert "norm/scaled-rms::second_moment" in collected
    assert "curve/softsign::odd_and_bounded" in collected
    assert "norm/rmsnorm" not in collected


def test_the_recipe_that_it_ships_is_checked_and_extended_by_name(installed):
    (installed.folder / "extended.yaml").write_text("extends: sample:demo\nname: extended\n")
    valid, explained, misspelt = installed.several(
        "validate sample:demo", "explain extended.yaml model.norm.use", "validate sample:dmeo"
    )
    assert valid[0] == 0
    assert "sample:demo is valid" in valid[1]
    assert explained[1].startswith("model.norm.use: corelm-sample:scaled-rms")
    assert "sample:demo:4:" in explained[1]
    assert misspelt[0] == 2
    assert "did you mean sample:demo?" in misspelt[2]


def test_a_defect_in_it_is_found_by_its_own_property_and_an_uninstalled_part_is_named(tmp_path, wheel):
    environment = Environment(tmp_path, wheel)
    environment.corelm("run", "mine.yaml")
    curves = environment.packages / "corelm_sample" / "curves.py"
    curves.write_text(curves.read_text().replace("return x / (1 + x.abs())", "return x / (2 + x.abs()) + 0.25"))
    said = environment.corelm("verify", "curve", "--examples", "2", code=1).stdout
    assert "curve/softsign (corelm-sample 0.3.0) fails odd_and_bounded" in said
    assert "a shifted or unbounded function" in said

    environment.pip("uninstall", "--yes", "corelm-sample")
    recipe, shipped, model = environment.several(
        "validate mine.yaml", "validate sample:demo", "generate runs/mine/base --prompt The"
    )
    assert (recipe[0], shipped[0], model[0]) == (2, 2, 2)
    assert "mine.yaml:11:15: model.norm: unknown norm 'scaled-rms'" in recipe[2]
    assert "mine.yaml:14:56: model.feedforward.activation: unknown activation 'curve-gate'" in recipe[2]
    assert "nobody ships recipes as 'sample'" in shipped[2]
    assert "unknown norm 'corelm-sample:scaled-rms'" in model[2]
