"""``pytest --corelm``, the suite for a plugin's own tests, and ``corelm verify``."""

import json
import subprocess
import sys

import pytest

from corelm.cli import main


def pytest_in(folder, *arguments):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


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
    assert "norm/rmsnorm fails nearly_scale_free" in done.stdout
    assert "corelm verify norm/rmsnorm --property nearly_scale_free" in done.stdout
    assert "Traceback" not in done.stdout


def test_verify_holds_what_is_asked_for_and_counts(capsys):
    assert main(["verify", "norm/rmsnorm", "--property", "odd", "--examples", "3"]) == 0
    out = capsys.readouterr().out
    assert "norm/rmsnorm" in out
    assert "4 passed" in out, "with load, construct, not a stub"


def test_verify_says_by_its_exit_code_that_a_part_is_wrong(capsys, monkeypatch):
    import corelm_norms.rmsnorm

    monkeypatch.setattr(corelm_norms.rmsnorm.RMSNorm, "forward", lambda self, x: x * 2)
    assert main(["verify", "norm/rmsnorm", "--property", "nearly_scale_free", "--seed", "4"]) == 1
    out = capsys.readouterr().out
    assert "norm/rmsnorm fails nearly_scale_free" in out
    assert "--seed 4" in out


def test_verify_prints_plain_data_and_writes_a_page(capsys, tmp_path):
    page = tmp_path / "page.html"
    assert main(["verify", "norm/rmsnorm", "--property", "odd", "--json", "--report", str(page)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["counts"]["passed"] == 4
    assert {row["property"] for row in data["outcomes"]} >= {"loads", "constructs", "odd"}
    assert "<title>corelm verify</title>" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["norm/rmsnrm"], "did you mean 'rmsnorm'?"),
        (["nrom"], "nothing installed is called 'nrom'"),
        (["--plugin", "acme"], "no part of a distribution called 'acme'"),
        (["norm", "--property", "evn"], "no property is called 'evn'"),
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
