"""Packages that misbehave: each is named in one sentence, and nobody else suffers."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import corelm
from corelm.cli import main
from corelm.registration import Registry, discover, using

RECIPE = """\
corelm: 1
name: small
seed: 1
corpus:
  source: {use: text-files, paths: [text.txt]}
tokenizer: bytes
model:
  dim: 16
  layers: 1
  context: 16
  position: rope
  norm: {use: rmsnorm}
  attention: {use: gqa, heads: 2}
  feedforward: {use: swiglu, width: 16}
trackers: []
stages:
  base:
    use: pretrain
    tokens: 64
    batch: 2
    optimizer: {use: adamw, learning_rate: 1e-2}
    trainer: {use: plain, precision: fp32}
"""

NORM = """
from corelm.kinds import Norm


class Peak(Norm):
    '''Changes nothing.'''

    epsilon = 1e-6

    def forward(self, x):
        return x
"""


def registering(*calls: str) -> str:
    body = "\n".join(f"    registry.{call}" for call in calls)
    return f"from corelm import hookimpl\n\n@hookimpl\ndef corelm_register(registry):\n{body}\n"


def adding(name: str, target: str, *, kind: str = "norm", more: str = "") -> str:
    return registering(f"add({kind!r}, {name!r}, {target!r}, summary='Changes nothing.'{more})")


def hooking(hook: str, body: str) -> str:
    return f"from corelm import hookimpl\n\n@hookimpl\ndef {hook}:\n    {body}\n"


Install = Callable[..., Registry]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put packages where Python finds them, as pip would leave them: ``acme=code`` is acme-parts 2.1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CORELM_DISABLE", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "text.txt").write_text("The cat sat on the mat. " * 40)
    (tmp_path / "small.yaml").write_text(RECIPE)
    site = tmp_path / "site"
    site.mkdir()
    (site / "norms_of_strangers.py").write_text(NORM)
    monkeypatch.syspath_prepend(str(site))
    before, entered = set(sys.modules), []

    def installed(**packages: str) -> Registry:
        for name, code in packages.items():
            (site / f"{name}.py").write_text(code)
            info = site / f"{name}_parts-2.1.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-parts\nVersion: 2.1\n")
            (info / "entry_points.txt").write_text(f"[corelm]\n{name} = {name}\n")
        context = using(discover())
        entered.append(context)
        return context.__enter__()

    yield installed
    for context in reversed(entered):
        context.__exit__(None, None, None)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(site)):
            del sys.modules[name]


GOOD = adding("untouched", "norms_of_strangers:Peak")

FAILS = {
    "raises": ("1 / 0\n", "ZeroDivisionError: division by zero"),
    "exits": ("raise SystemExit('goodbye')\n", "SystemExit: goodbye"),
    "wants": ("import a_package_that_is_missing\n", "No module named 'a_package_that_is_missing'"),
    "is_no_python": ("def (:\n", "SyntaxError"),
    "stops_half_way": (
        adding("peak", "norms_of_strangers:Peak") + "    raise OSError('disk gone')\n",
        "OSError: disk gone",
    ),
    "was_written_for_another_version": (
        adding("peak", "norms_of_strangers:Peak", more=", interface=7"),
        "norm/peak was written for version 7 of the norm interface; this corelm has version 1",
    ),
    "has_an_unknown_kind": (
        adding("peak", "norms_of_strangers:Peak", kind="nrom"),
        "part 'peak' is of the unknown kind 'nrom'; did you mean 'norm'?",
    ),
    "registers_twice": (
        registering(*(f"add('norm', 'peak', 'm:{c}', summary='')" for c in "AB")),
        "norm/registers-twice-parts:peak is registered 2 times: m:A and m:B",
    ),
    "misspells": (
        adding("peak", "norms_of_strangers:Peak").replace("corelm_register", "corelm_regsiter"),
        "corelm_regsiter",
    ),
    "forgets_to_mark": (
        adding("peak", "norms_of_strangers:Peak").replace("@hookimpl", ""),
        "is not marked as a hook. Put @hookimpl above it",
    ),
    "takes_our_kind": (
        registering("add_kind('norm', 'norms_of_strangers:Peak', summary='')"),
        "kind 'norm' is registered by both corelm and takes-our-kind-parts",
    ),
}


@pytest.mark.parametrize("name", FAILS)
def test_a_plugin_that_fails_is_said_loudly_and_hides_no_other(install, capsys, name):
    code, reason = FAILS[name]
    install(**{name: code, "zz_good": GOOD})
    assert main(["list", "norm"]) == 0
    listed = capsys.readouterr()
    (line,) = listed.err.splitlines()
    assert line.startswith(f"plugin {name} ({name.replace('_', '-')}-parts 2.1): ")
    assert reason in line
    assert "rmsnorm" in listed.out
    assert "untouched" in listed.out
    assert "peak" not in listed.out
    assert main(["plugins"]) == 0
    told = capsys.readouterr().out.splitlines()
    (line,) = [line for line in told if "FAILED: " in line]
    assert line.startswith(name)
    assert reason in line
    assert any("zz-good-parts 2.1" in line for line in told)


def test_columns_of_the_list_of_plugins_never_touch(install, capsys):
    long = "a_plugin_with_a_very_long_name_indeed"
    install(**{long: GOOD, "bad": "1 / 0\n"})
    assert main(["plugins"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in told} >= {long, "bad", "corelm_norms"}
    assert {re.match(r"\S+ +", line).end() for line in told} == {len(long) + 2}


@pytest.mark.parametrize("name", FAILS)
def test_a_recipe_that_needs_what_failed_says_why_it_is_missing_and_others_are_read(install, capsys, name):
    code, reason = FAILS[name]
    install(**{name: code})
    assert main(["validate", "small.yaml"]) == 0
    capsys.readouterr()
    assert main(["validate", "small.yaml", "model.norm={use: peak}"]) == 2
    said = capsys.readouterr().err
    assert "override model.norm: unknown norm 'peak'" in said
    assert f"plugin {name} ({name.replace('_', '-')}-parts 2.1) failed to load: " in said
    assert reason in said
    assert "Traceback" not in said


UNUSABLE = {
    "a module that is missing": (
        "a_module_that_is_missing:Peak",
        "importing a_module_that_is_missing:Peak failed: ModuleNotFoundError: No module named",
    ),
    "a class that is missing": ("norms_of_strangers:Paek", "has no attribute 'Paek'"),
    "a function": ("corelm.kinds:declare", "corelm.kinds:declare is "),
    "another kind": ("corelm.kinds:Activation", "corelm.kinds:Activation is not of the kind norm"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_what_is_wrong_with_a_part_is_said_where_a_recipe_names_it(install, capsys, case):
    target, reason = UNUSABLE[case]
    install(acme=adding("peak", target))
    assert main(["list", "norm"]) == 0
    listed = capsys.readouterr()
    assert "peak" in listed.out
    assert listed.err == ""
    assert main(["validate", "small.yaml"]) == 0
    Path("peak.yaml").write_text(RECIPE.replace("use: rmsnorm", "use: peak"))
    for command in (["validate", "peak.yaml"], ["run", "peak.yaml"]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "peak.yaml:12:15: model.norm: norm/peak of acme-parts 2.1: " in said
        assert reason in said
        assert "Traceback" not in said
    assert not Path("runs").exists()


def test_our_name_in_a_stranger_package_is_refused_only_where_it_is_used_plainly(install, capsys):
    install(acme=adding("rmsnorm", "norms_of_strangers:Peak"))
    assert main(["validate", "small.yaml"]) == 2
    said = capsys.readouterr().err
    assert "small.yaml:12:15: model.norm: norm 'rmsnorm' is offered by acme-parts:rmsnorm and corelm:rmsnorm" in said
    assert "Write which one you mean" in said
    for name, whose in (("corelm:rmsnorm", "corelm_norms.rmsnorm"), ("acme-parts:rmsnorm", "norms_of_strangers")):
        recipe = corelm.Recipe.read("small.yaml", [f"model.norm.use={name}"])
        assert recipe.config.model.norm.part.__module__ == whose
    assert main(["list", "norm"]) == 0
    assert "[acme-parts 2.1]" in capsys.readouterr().out


def test_a_default_of_ours_stays_ours_when_a_stranger_takes_its_name_too(install, capsys):
    Path("plain.yaml").write_text(RECIPE.replace("  norm: {use: rmsnorm}\n", ""))
    install(acme=adding("rmsnorm", "norms_of_strangers:Peak"))
    assert main(["validate", "plain.yaml"]) == 0, capsys.readouterr().err


def test_a_finished_model_is_read_when_a_stranger_takes_the_name_of_one_of_its_parts_too(install):
    install()
    folder = corelm.run("small.yaml").folder / "base"
    install(acme=adding("rmsnorm", "norms_of_strangers:Peak"))
    assert isinstance(corelm.load(folder).generate("The", max_new_tokens=2), str)


def test_a_run_that_goes_on_without_a_plugin_that_failed_says_so(install, capsys):
    install(raises="1 / 0\n")
    assert main(["run", "small.yaml"]) == 0
    assert "plugin raises (raises-parts 2.1): ZeroDivisionError" in capsys.readouterr().err


def test_a_hook_that_raises_while_a_run_is_watched_is_reported_once_and_the_run_goes_on(install, capsys):
    watching = hooking("corelm_run_event(event, fields)", "print('saw', event)")
    install(bad=hooking("corelm_run_event(event, fields)", "raise ValueError('no screen')"), good=watching)
    result = corelm.run("small.yaml")
    assert {stage.status for stage in result.stages} == {"done"}
    told = capsys.readouterr()
    (line,) = [line for line in told.err.splitlines() if "no screen" in line]
    assert "plugin bad (bad-parts 2.1) failed in corelm_run_event(run-start) and is dropped: ValueError" in line
    assert told.out.count("saw run-start") == told.out.count("saw run-end") == 1


def test_a_hook_may_take_only_what_it_needs(install, capsys):
    install(brief=hooking("corelm_run_event(event)", "print('saw', event)"))
    corelm.run("small.yaml")
    told = capsys.readouterr()
    assert "dropped" not in told.err
    assert "saw run-end" in told.out


def test_a_hook_that_raises_while_it_reads_a_recipe_is_named_and_can_be_disabled(install, capsys, monkeypatch):
    install(bad=hooking("corelm_recipe_read(recipe)", "return recipe['nothing']"))
    assert main(["validate", "small.yaml"]) == 2
    said = capsys.readouterr().err
    assert "the plugin bad (bad-parts 2.1) failed in corelm_recipe_read: KeyError: 'nothing'" in said
    assert "CORELM_DISABLE" in said
    assert "Traceback" not in said
    monkeypatch.setenv("CORELM_DISABLE", "bad")
    install()
    assert main(["validate", "small.yaml"]) == 0


def test_all_of_them_at_once_are_all_named(install, capsys):
    install(**{name: code for name, (code, _) in FAILS.items()}, zz_good=GOOD)
    assert main(["list"]) == 0
    listed = capsys.readouterr()
    assert sorted(line.split()[1] for line in listed.err.splitlines()) == sorted(FAILS)
    assert "untouched" in listed.out
