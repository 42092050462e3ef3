"""``pytest --corelm``, the suite for a plugin's own tests, and ``corelm verify``."""

import json
import os
import re
import subprocess
import sys

import pytest

from corelm.cli import main

WHISTLE = '''
from abc import abstractmethod

from corelm import hookimpl
from corelm.conformance.framework import NotApplicable, property_of
from corelm.kinds import Component


@hookimpl
def corelm_register(registry):
    registry.add_kind("whistle", "whistles:Whistle", summary="makes a sound")
    registry.add("whistle", "tin", "whistles:Tin", summary="A tin whistle.")


class Whistle(Component):
    """Makes a sound."""

    kind = "whistle"
    conformance = "whistles"

    def __init__(self, config):
        pass

    @abstractmethod
    def pitch(self): ...


class Tin(Whistle):
    """A tin whistle."""

    def pitch(self):
        return 587.3


@property_of("whistle", statement="It can be heard.", catches="a frequency in the wrong unit")
def is_heard(part, draw):
    BODY
'''


def pytest_in(folder, *arguments, xdist=False):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *([] if xdist else ["-p", "no:xdist"])]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [*command, *arguments], cwd=folder, capture_output=True, text=True, check=False, env=environment
    )


def whistles(folder, body="assert 20 < part.cls(None).pitch() < 20_000", before=""):
    """A plugin that brings a kind with one property, and one part of it."""
    (folder / "whistles.py").write_text(before + WHISTLE.replace("BODY", body))
    info = folder / "whistle_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: whistle-parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[corelm]\nwhistles = whistles\n")


def test_the_plugin_costs_nothing_where_it_is_not_used():
    program = (
        "import sys, corelm.conformance.pytest_plugin\n"
        "heavy = {'torch', 'hypothesis', 'pydantic', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_pytest_collects_one_test_per_part_and_property(tmp_path):
    done = pytest_in(tmp_path, "--corelm", "--collect-only", "-q", "-k", "rmsnorm or causal")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "norm/rmsnorm::second_moment" in done.stdout
    assert "attention/gqa::causal" in done.stdout
    assert "mask/causal::slices_agree" in done.stdout


def test_pytest_runs_them_and_nothing_without_the_option(tmp_path):
    done = pytest_in(tmp_path, "--corelm-plugin", "corelm", "-k", "rmsnorm and (odd or second_moment)")
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert pytest_in(tmp_path).returncode == 5, "no tests were collected"


def test_two_lines_give_a_plugin_its_own_suite(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "from corelm.conformance import suite\ntest_conformance = suite('corelm')\n"
    )
    done = pytest_in(tmp_path, "-v", "-k", "rmsnorm and odd")
    assert "test_mine.py::test_conformance[norm/rmsnorm::odd] PASSED" in done.stdout, done.stdout + done.stderr


def test_a_failure_under_pytest_is_the_kits_explanation(tmp_path):
    (tmp_path / "conftest.py").write_text(
        "from corelm.conformance.bugs.norm import BesselCorrection\n"
        "import corelm_norms.rmsnorm\n"
        "corelm_norms.rmsnorm.RMSNorm.forward = lambda self, x: x * 2\n"
    )
    done = pytest_in(tmp_path, "--corelm", "-k", "rmsnorm and nearly_scale_free")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "norm/rmsnorm (corelm 0.1.0) fails nearly_scale_free" in done.stdout
    assert "corelm verify norm/rmsnorm --property nearly_scale_free" in done.stdout
    assert "Traceback" not in done.stdout


ASKED = ("--corelm-plugin", "whistle-parts")
SUITE = "from corelm.conformance import suite\n\ntest_conformance = suite('whistle-parts')\n"


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "in-two-processes"])
def test_in_a_plugins_own_folder_without_any_test_file_its_parts_are_tested_and_counted(tmp_path, workers):
    whistles(tmp_path)
    done = pytest_in(tmp_path, *ASKED, "-v", *workers, xdist=bool(workers))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "whistle/tin::is_heard" in done.stdout
    assert re.search(r"corelm: (\d+) applicable  \1 run  \1 passed  0 failed", done.stdout)


@pytest.mark.parametrize(
    ("arguments", "suited"),
    [(ASKED, False), ((*ASKED, "-n", "2"), False), ((), True)],
    ids=["alone", "in-two-processes", "suite"],
)
def test_skips_alone_do_not_make_a_run_green(tmp_path, arguments, suited):
    whistles(tmp_path, "raise NotApplicable('it makes no sound')")
    if suited:
        (tmp_path / "test_whistles.py").write_text(SUITE)
    done = pytest_in(tmp_path, *arguments, xdist="-n" in arguments)
    said = "too little was tested: whistle/tin: only 0 of the 1 properties of kind whistle passed, at least 1 must"
    assert said in done.stdout, done.stdout + done.stderr
    assert " failed" not in done.stdout.splitlines()[-1]
    assert done.returncode == 1


def test_of_a_selection_nothing_is_said_about_how_much_was_tested(tmp_path):
    whistles(tmp_path, "raise NotApplicable('it makes no sound')")
    done = pytest_in(tmp_path, *ASKED, "-k", "loads or constructs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "too little" not in done.stdout


def test_a_plugin_that_cannot_be_loaded_fails_and_so_does_its_suite(tmp_path):
    whistles(tmp_path, before="1 / 0\n")
    said = "plugin whistles (whistle-parts 1.0) failed to load: ZeroDivisionError: division by zero"
    done = pytest_in(tmp_path, *ASKED)
    assert (done.returncode, said in done.stdout) == (1, True), done.stdout + done.stderr
    (tmp_path / "test_whistles.py").write_text(SUITE)
    done = pytest_in(tmp_path)
    assert (done.returncode, said in done.stdout) == (2, True), done.stdout + done.stderr


def test_an_unknown_plugin_is_a_mistake_in_the_command(tmp_path):
    done = pytest_in(tmp_path, "--corelm-plugin", "corelmm")
    assert done.returncode == 4
    assert "no part of a distribution called 'corelmm' is installed; did you mean 'corelm'?" in done.stderr


KIND_MISTAKES = {
    "without a module of properties": (
        ('    conformance = "whistles"\n', ""),
        "no properties are stated for the kind 'whistle'; name the module that states them in its base class",
    ),
    "whose module is misspelt": (
        ('"whistles"\n\n    def', '"whistels"\n\n    def'),
        "importing the properties of the kind 'whistle' failed: ModuleNotFoundError: No module named 'whistels'",
    ),
    "whose module states none": (
        ('@property_of("whistle"', '@property_of("wistle"'),
        "makes 0 properties with property_of('whistle', …); at least 1 are needed",
    ),
    "whose property doesn't say what it found": (
        ("    raise", "    assert part.cls(None).pitch() < 20\n    raise"),
        "not so: assert part.cls(None).pitch() < 20",
    ),
}


@pytest.mark.parametrize("mistake", KIND_MISTAKES)
def test_a_strangers_kind_is_told_what_it_lacks(tmp_path, mistake):
    (old, new), said = KIND_MISTAKES[mistake]
    whistles(tmp_path, "raise NotApplicable('it makes no sound')")
    code = (tmp_path / "whistles.py").read_text()
    assert old in code
    (tmp_path / "whistles.py").write_text(code.replace(old, new))
    command = [sys.executable, "-m", "corelm.cli", "verify", "--plugin", "Whistle_Parts", "--jobs", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stdout) == (1, True), done.stdout + done.stderr


def test_verify_holds_what_is_asked_for_and_counts(capsys):
    assert main(["verify", "norm/rmsnorm", "--property", "odd", "--examples", "3"]) == 0
    out = capsys.readouterr().out
    assert "norm/rmsnorm" in out
    assert "5 passed" in out, "with those that all others wait for"


def test_verify_says_by_its_exit_code_that_a_part_is_wrong(capsys, monkeypatch):
    import corelm_norms.rmsnorm

    monkeypatch.setattr(corelm_norms.rmsnorm.RMSNorm, "forward", lambda self, x: x * 2)
    assert main(["verify", "norm/rmsnorm", "--property", "nearly_scale_free", "--seed", "4", "--jobs", "0"]) == 1
    out = capsys.readouterr().out
    assert "norm/rmsnorm (corelm 0.1.0) fails nearly_scale_free" in out
    assert "--seed 4" in out


def test_verify_prints_plain_data_and_writes_a_page(capsys, tmp_path):
    page = tmp_path / "page.html"
    assert main(["verify", "norm/rmsnorm", "--property", "odd", "--json", "--report", str(page)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["counts"]["passed"] == 5
    assert {row["property"] for row in data["outcomes"]} >= {"loads", "constructs", "odd"}
    assert "<title>corelm verify</title>" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["norm/rmsnrm"], "did you mean 'rmsnorm'?"),
        (["nrom"], "nothing installed is called 'nrom'; did you mean 'norm'?"),
        (["rmsnorm"], "nothing installed is called 'rmsnorm'; did you mean norm/rmsnorm?"),
        (["corelm"], "nothing installed is called 'corelm'; for a distribution's parts write --plugin corelm"),
        (["norm", "--timeout", "soon"], "'soon' is no number of seconds"),
        (["norm", "--jobs", "-1"], "'-1' is no whole number"),
        (["--plugin", "acme"], "no part of a distribution called 'acme'"),
        (["norm", "--property", "evn"], "no property is called 'evn'"),
        (["norm/rmsnorm", "--property", "od"], "did you mean 'odd'?"),
        (["norm", "--examples", "0"], "at least 1"),
    ],
)
def test_a_mistake_of_the_users_is_a_sentence_and_exit_code_2(arguments, said, capsys):
    try:
        code = main(["verify", *arguments])
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    assert said in capsys.readouterr().err


def test_without_hypothesis_verify_says_what_to_install():
    program = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "from corelm.cli import main\n"
        "sys.exit(main(['verify', 'norm']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the conformance kit needs hypothesis" in done.stderr
    assert 'pip install "corelm[test]"' in done.stderr
    assert "Traceback" not in done.stderr
