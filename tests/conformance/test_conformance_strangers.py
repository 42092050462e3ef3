"""Parts that misbehave: each is reported for what it is, by name and distribution, and the rest goes on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch import _meta_registrations as _meta_registrations

from corelm.cli import main
from corelm.conformance import run
from corelm.conformance.report import Report, explain
from corelm.registration import discover, using

GOOD = '''
import torch
from pydantic import Field
from corelm.kinds import ComponentConfig, Norm


class Good(Norm):
    """Divides by the root mean square."""

    class Config(ComponentConfig):
        eps: float = Field(1e-6, gt=0, lt=1, description="Added to the mean square.")

    @property
    def epsilon(self):
        return self.config.eps

    def mischief(self):
        pass

    def forward(self, x):
        self.mischief()
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (wide * (wide.square().mean(-1, keepdim=True) + self.epsilon).rsqrt()).to(x.dtype)
'''

REGISTER = """
from corelm import hookimpl


@hookimpl
def corelm_register(registry):
    registry.add("norm", "good", "strange_good:Good", summary="Divides by the root mean square.")
    for name in {names!r}:
        target = "strange_" + name.replace("-", "_") + ":Bad"
        registry.add("norm", name, target, summary="Divides by the root mean square.")
"""

Plugin = Callable[..., None]


def wrong(forward: str = "pass", *, before: str = "", inside: str = "") -> str:
    """A module with a norm that does ``forward`` whenever it is called, ``before`` on import, ``inside`` its class."""
    body = "\n".join(f"        {line}" for line in forward.splitlines())
    return (
        f"{before}\nimport torch\nfrom corelm.kinds import ComponentConfig\nfrom strange_good import Good\n\n\n"
        f'class Bad(Good):\n    """Divides by the root mean square."""\n{inside}\n    def mischief(self):\n{body}\n'
    )


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plugin]:
    """Install strange-parts 0.7 with the given modules, each with a norm called Bad, beside a good one."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delenv("CORELM_DISABLE", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before, entered = set(sys.modules), []

    def install(more: str = "", **modules: str) -> None:
        (tmp_path / "strange_good.py").write_text(GOOD)
        for name, code in modules.items():
            (tmp_path / f"strange_{name}.py").write_text(code)
        names = [name.replace("_", "-") for name in modules]
        (tmp_path / "strange.py").write_text(REGISTER.format(names=names) + more)
        info = tmp_path / "strange_parts-0.7.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-parts\nVersion: 0.7\n")
        (info / "entry_points.txt").write_text("[corelm]\nstrange = strange\n")
        context = using(discover())
        context.__enter__()
        entered.append(context)

    yield install
    for context in reversed(entered):
        context.__exit__(None, None, None)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def verdicts(report: Report) -> dict[str, list[str]]:
    """Names of the failed properties by part."""
    return {
        part: [o.prop.name for o in outcomes if o.status == "failed"] for part, outcomes in report.by_part.items()
    }


def told(report: Report, name: str) -> str:
    """What is printed about the first failure of a part."""
    return explain(next(outcome for outcome in report.failures if outcome.part == f"norm/{name}"))


# What a part does when it is called, and what the report says of it.
CONDUCT = {
    "prints": ("print('I am called')", "it printed 'I am called"),
    "complains": ("import sys; sys.stderr.write('oh dear')", "it printed 'oh dear"),
    "dtype": (
        "torch.set_default_dtype(torch.float64)",
        "it changed torch's default dtype from torch.float32 to torch.float64; pass it where you need it",
    ),
    "device": ("torch.set_default_device('meta')", "it changed torch's default device from cpu to meta"),
    "threads": ("torch.set_num_threads(torch.get_num_threads() + 1)", "it changed torch's number of threads from"),
    "gradients": ("torch.set_grad_enabled(False)", "it changed whether gradients are recorded from True to False"),
    "algorithms": (
        "torch.set_deterministic_debug_mode(1)",
        "it changed torch's deterministic algorithms from 0 to",
    ),
    "precision": ("torch.set_float32_matmul_precision('medium')", "it changed the precision of matrix products from"),
    "autocast": ("torch.set_autocast_enabled('cpu', True)", "it changed autocast from"),
    "denormal": ("torch.set_flush_denormal(True)", "it changed whether tiny numbers become zero from False to True"),
    "anomaly": ("torch.autograd.set_detect_anomaly(True)", "it changed torch's anomaly detection from False to True"),
    "seed": ("torch.manual_seed(0); torch.rand(1)", "the global random state of torch; use a generator of your own"),
    "numpy_draw": ("import numpy; numpy.random.rand()", "it changed the global random state of numpy"),
    "python_draw": ("import random; random.random()", "it changed the global random state of random"),
    "numpy_errors": ("import numpy; numpy.seterr(all='ignore')", "it changed numpy's treatment of errors from"),
    "warnings": ("import warnings; warnings.simplefilter('always')", "it changed the filters of warnings"),
    "environment": (
        "import os; os.environ['STRANGE'] = str(len(os.environ.get('STRANGE', '')))",
        "it changed the environment variables (STRANGE)",
    ),
    "folder": ("import os; os.chdir('/')", "it changed the current folder from"),
    "locale": ("import locale; locale.setlocale(locale.LC_ALL, 'C.UTF-8')", "it changed the locale from"),
    "path": ("import sys; sys.path.append('/nowhere')", "it changed sys.path"),
    "recursion": ("import sys; sys.setrecursionlimit(12345)", "it changed the limit of recursion from"),
    "garbage": ("import gc; gc.disable()", "it changed whether garbage is collected from True to False"),
    "logger": ("import logging; logging.getLogger().setLevel(3)", "it changed the root logger (level)"),
    "patches": (
        "torch.nn.functional.gelu = lambda x: x",
        "it changed the module torch.nn.functional (gelu); call your own function",
    ),
    "builtin": ("import builtins; builtins.sum = lambda x: 0", "it changed Python's builtins (sum)"),
    "exits": ("raise SystemExit(3)", "it raised SystemExit: 3 at"),
    "interrupts": ("raise KeyboardInterrupt", "it raised KeyboardInterrupt at"),
    "leaves": ("raise GeneratorExit('done')", "it raised GeneratorExit: done at"),
    "spawns": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(4,), name='strange-thread').start()",
        "it left threads running: strange-thread",
    ),
}

LIMITS = {
    "loops": ("while True:\n    pass", "it had not ended after"),
    "sleeps": ("import time; time.sleep(1000)", "it had not ended after"),
    "defies": (
        "try:\n    while True:\n        pass\nexcept Exception:\n    pass",
        "it had not ended after",
    ),
    "eats": (
        "kept = []\nwhile True:\n    kept.append(torch.empty(1 << 26))",
        "it wanted more than the 4 GiB of memory that an example may take",
    ),
    "wants_all": ("bytearray(1 << 36)", "it wanted more than the 4 GiB of memory that an example may take"),
}


@pytest.mark.parametrize(("conduct", "seconds"), [(CONDUCT, 60), (LIMITS, 1)], ids=["conduct", "limits"])
def test_what_a_part_does_to_the_process_is_reported_undone_and_blocks_only_that_part(plugin, conduct, seconds):
    plugin(**{name: wrong(code) for name, (code, _) in conduct.items()})
    report = run(plugins=["strange-parts"], names=["odd"], examples=2, seconds=seconds)
    found = verdicts(report)
    assert found.pop("norm/good") == []
    for name, (_, said) in conduct.items():
        part = f"norm/{name.replace('_', '-')}"
        assert found.pop(part) == ["not_a_stub"], (part, [o.reason for o in report.by_part[part]])
        text = told(report, name.replace("_", "-"))
        assert text.startswith(f"{part} (strange-parts 0.7) fails not_a_stub\n")
        assert said in text, text
        if "found:        it raised" not in text:
            assert "law:          Whatever is tested, a part ends" in text
            assert "a stub" not in text, "the likely cause of another failure would mislead"
    assert not found


IMPORTED = {
    "raises": (wrong(before="1 / 0"), "loads", "failed: ZeroDivisionError: division by zero at {}:1"),
    "exits": (wrong(before="raise SystemExit(4)"), "loads", "failed: it raised SystemExit: 4"),
    "misses": (wrong(before="import nobody_has_this"), "loads", "No module named 'nobody_has_this'"),
    "hangs": (wrong(before="while True: pass"), "loads", "failed: it had not ended after"),
    "greets": (wrong(before="print('Hello!')"), "import_is_quiet", "importing it printed 'Hello!'"),
    "widens": (
        wrong(before="import torch; torch.set_default_dtype(torch.float64)"),
        "import_is_quiet",
        "importing it changed torch's default dtype from torch.float32 to torch.float64",
    ),
    "is_no_class": ("Bad = 3\n", "loads", "strange_is_no_class:Bad is of type int, not a class"),
    "is_a_mask": (
        "from corelm.kinds import Mask\n\nclass Bad(Mask):\n    'A mask.'\n",
        "loads",
        "strange_is_a_mask:Bad is not of the kind norm",
    ),
    "has_no_config": (
        wrong(inside="    Config = 3\n"),
        "loads",
        "Config must be a class that derives from Component",
    ),
    "takes_a_function": (
        wrong(
            before="from typing import Callable, Optional",
            inside="    class Config(Good.Config):\n        curve: Optional[Callable] = None\n",
        ),
        "loads",
        "the config can't be written as JSON Schema",
    ),
    "expects_nonsense": (
        wrong(inside="    expected_failures = {'second_momnet': 'because'}\n"),
        "loads",
        "expected_failures names 'second_momnet', which is no property of kind norm; did you mean 'second_moment'?",
    ),
    "expects_silently": (
        wrong(inside="    expected_failures = {'second_moment': ''}\n"),
        "loads",
        "expected_failures gives no reason for 'second_moment'",
    ),
}


def test_what_cannot_be_loaded_or_misbehaves_while_it_is_says_so_and_the_rest_goes_on(plugin, tmp_path):
    plugin(**{name: code for name, (code, _, _) in IMPORTED.items()})
    report = run(plugins=["strange-parts"], names=["import_is_quiet"], examples=1, seconds=1)
    found = verdicts(report)
    assert found.pop("norm/good") == []
    for name, (_, prop, said) in IMPORTED.items():
        shown = name.replace("_", "-")
        assert found.pop(f"norm/{shown}") == [prop], name
        assert told(report, shown).startswith(f"norm/{shown} (strange-parts 0.7) fails {prop}\n")
        assert said.format(f"{tmp_path}/strange_{name}.py") in told(report, shown)
    assert not found
    blocked = {o.reason for o in report.by_part["norm/raises"] if o.status == "blocked"}
    assert blocked == {"blocked by loads"}


def test_right_numbers_in_the_wrong_dtype_are_found(plugin):
    plugin(widens=wrong(inside="    def forward(self, x):\n        return super().forward(x).double()\n"))
    report = run("norm/widens", names=["dtype_is_kept", "odd"])
    assert verdicts(report) == {"norm/widens": ["dtype_is_kept"]}
    assert "torch.float64 came out" in told(report, "widens")


def test_a_config_whose_values_cannot_be_written_is_found(plugin):
    field = "    class Config(Good.Config):\n        names: set[str] | object = Field(object(), description='Anything.')\n"
    plugin(unwritable=wrong(before="from pydantic import Field", inside=field))
    report = run("norm/unwritable", names=["config_round_trips"], examples=3)
    assert "config_round_trips" in verdicts(report)["norm/unwritable"]
    assert "serializ" in told(report, "unwritable").lower() or "JSON" in told(report, "unwritable")


def test_a_part_that_hangs_twice_is_let_go(plugin):
    stop = "if not x.is_contiguous() or len(x) == 1 and x.ndim > 2: __import__('time').sleep(99)"
    forward = f"    def forward(self, x):\n        {stop}\n        return super().forward(x)\n"
    plugin(slow=wrong(inside=forward))
    report = run("norm/slow", examples=2, seconds=0.5)
    hung = [o.prop.name for o in report.failures if "had not ended" in o.reason]
    assert len(hung) == 2
    assert {o.reason for o in report.outcomes if o.status == "blocked"} == {
        f"blocked by {' and '.join(hung)}, which did not end"
    }


# What only a process of its own survives.
DEADLY = {
    "waits_in_c": (
        "import itertools; sum(itertools.repeat(0))",
        "and could not be interrupted at",
    ),
    "disarms": (
        "import signal; signal.setitimer(signal.ITIMER_REAL, 0)\nwhile True: pass",
        "and could not be interrupted at",
    ),
    "crashes": ("import ctypes; ctypes.string_at(0)", "it crashed the process (SIGSEGV) at"),
    "quits": ("import os; os._exit(7)", "it ended the process with code 7"),
    "is_killed": (
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "the system ended the process (SIGKILL): most likely it took more memory than there is",
    ),
    "writes_past_python": ("import os; os.write(1, b'psst')", "it printed 'psst"),
}


def test_what_hangs_outside_of_python_or_ends_the_process_takes_nobody_else_with_it(plugin, capsys):
    modules = {name: wrong(code) for name, (code, _) in DEADLY.items()}
    modules["never_loads"] = wrong(before="import itertools; sum(itertools.repeat(0))")
    plugin(**modules)
    arguments = ["--plugin", "strange-parts", "--property", "odd", "--examples", "2", "--timeout", "1", "--jobs", "2"]
    assert main(["verify", *arguments]) == 1
    out = capsys.readouterr().out
    assert "norm/good" in out
    said = {block.strip().partition(" (")[0]: block for block in out.split("\n\n") if " fails " in block}
    assert set(said) == {f"norm/{name.replace('_', '-')}" for name in modules}
    for name, (_, words) in DEADLY.items():
        block = said[f"norm/{name.replace('_', '-')}"]
        assert "(strange-parts 0.7) fails not_a_stub" in block
        assert words in block, block
        assert f"strange_{name}.py:" in block or " at" not in words
    assert "importing norm/strange-parts:never-loads failed: it had not ended after" in said["norm/never-loads"]


def test_the_line_that_is_printed_shows_the_failure_again(plugin, capsys):
    plugin(rough=wrong(inside="    def forward(self, x):\n        return super().forward(x) * 1.01\n"))
    assert main(["verify", "norm/rough", "--jobs", "0", "--seed", "11", "--property", "second_moment"]) == 1
    first = capsys.readouterr().out
    (line,) = {text.partition("repeat:")[2].strip() for text in first.splitlines() if "repeat:" in text}
    program, *arguments = shlex.split(line)
    assert program == "corelm"
    assert main([*arguments, "--jobs", "1"]) == 1
    again = capsys.readouterr().out
    block = first.partition("\n\n")[0]
    assert "law:" in block
    rewritten = {text for text in block.splitlines() if text.strip().startswith("assert ")}  # by pytest, for itself
    assert set(block.strip().splitlines()) - rewritten <= set(again.splitlines())


def test_a_plugin_that_cannot_be_loaded_at_all_fails_the_run(plugin, capsys):
    plugin(more="\n1 / 0\n")
    report = run(plugins=["strange-parts"])
    assert not report.ok
    assert report.data()["failed_plugins"][0]["distribution"] == "strange-parts"
    assert main(["verify", "--plugin", "strange-parts"]) == 1
    out = capsys.readouterr().out
    assert "plugin strange (strange-parts 0.7) failed to load: ZeroDivisionError: division by zero" in out
    assert main(["verify", "norm/rmsnorm", "--property", "odd", "--jobs", "0"]) == 0
    assert "plugin strange (strange-parts 0.7)" in capsys.readouterr().err
