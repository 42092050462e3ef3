"""Mutants are what they say, run where they should, and leave the process as it is."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import judging
import pytest
import warm
from drawing import in_order, modules_of, parts_of, path_of
from judging import Court, key_of
from mutating import mutants, mutated

from corelm.conformance.framework import PartUnderTest
from corelm.conformance.selection import properties

ROOT = Path(__file__).parents[2]


def changes(body: str) -> set[str]:
    """All that is made of a function's only statement."""
    source = f"def f(x, y, n):\n{textwrap.indent(body, '    ')}\n"
    return {mutant.mutated for mutant in mutants(source, "f.py")}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return x + y", {"return x - y", "return x", "return y"}),
        ("return x - y", {"return x + y", "return y - x", "return x", "return y"}),
        ("return x < y", {"return x <= y", "return x >= y"}),
        ("return x == y", {"return x != y"}),
        ("return not x", {"return x"}),
        ("return -x", {"return x"}),
        ("return x and y", {"return x or y", "return x", "return y"}),
        ("return 0", {"return 1", "return -1"}),
        ("return 0.5", {"return 1.0", "return -0.5"}),
        ("return True", {"return False"}),
        ("return min(x, y)", {"return max(x, y)"}),
        ("return x.clamp(min=y)", {"return x.clamp(max=y)"}),
        ("return x.sum(-1)", {"return x.mean(-1)", "return x.sum(0)", "return x.sum(-2)"}),
        (
            "return x.amax(dim=y, keepdim=True)",
            {"return x.amin(dim=y, keepdim=True)", "return x.amax(dim=y, keepdim=False)"},
        ),
        ("return x.detach()", {"return x"}),
        ("return x if y else n", {"return x", "return n"}),
        ("return x[:y]", {"return x[:y + 1]", "return x[:y - 1]", "return x[1:y]"}),
        ("return torch.where(x, y, n)", {"return torch.where(x, n, y)"}),
        ("return [i for i in x if i]", {"return [i for i in x if True]"}),
        ("if x:\n    return y", {"if True:", "if False:"}),
        ("x += y", {"x -= y", "pass"}),
        ("x.add_(y)", {"x.sub_(y)", "pass"}),
        ("x[y] = n", {"pass"}),
        ("with torch.no_grad():\n    return y", {"if True:"}),
        ("for i in range(n):\n    return y", {"for i in range(n - 1):"}),
    ],
)
def test_an_operator_makes_these_changes(body, expected):
    assert changes(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        'raise UserError(f"{1 + 2}", remedy="3")',
        "if x < 1:\n    raise ValueError",
        "assert x < y",
        '"""A docstring with 1 + 1."""',
        "z: Literal[1] = y",
        "yield Problem(1, 2)",
        "super().__init__(x, y)",
    ],
)
def test_messages_refusals_and_types_are_left_alone(body):
    assert changes(body) == set()


def test_schemas_and_declarations_are_left_alone():
    source = """
    class Part:
        width: ClassVar[int] = 2

        class Config(ComponentConfig):
            width: int = Field(1 + 1)
            other: int = 3

        @classmethod
        def check(cls, config, context):
            return config.width < 2

        def reference(self, x):
            return x + 1

        @abstractmethod
        def call(self):
            return 1
    """
    assert {m.function for m in mutants(textwrap.dedent(source), "p.py")} == {"Part.width"}


def test_a_mutant_differs_from_its_module_in_one_statement():
    path = path_of("corelm_feedforward.top_k")
    source = path.read_text(encoding="utf-8")
    before = ast.unparse(ast.parse(source)).splitlines()
    found = mutants(source, str(path))
    assert len(found) > 100
    for mutant in found:
        after = ast.unparse(mutated(source, mutant)).splitlines()
        assert after != before
        if len(after) == len(before):
            assert sum(a != b for a, b in zip(after, before, strict=True)) == 1


def test_every_beginning_of_the_order_is_stratified():
    path = path_of("corelm_feedforward.top_k")
    found = mutants(path.read_text(encoding="utf-8"), str(path))
    functions = {mutant.function for mutant in found}
    assert {mutant.function for mutant in in_order(found, 0)[: len(functions)]} == functions
    assert sorted(map(key_of, in_order(found, 0))) == sorted(map(key_of, found))
    assert in_order(found, 0) == in_order(found, 0) != in_order(found, 1)


def test_a_part_is_its_module_its_helpers_and_its_kinds_interface():
    (part,) = [part for part in parts_of("norm") if part.name == "rmsnorm"]
    assert modules_of(part) == ["corelm_norms.rmsnorm", "corelm_norms.gain", "corelm.kinds.norm"]


NORM = """
from corelm.kinds import ComponentConfig, Norm, ParameterInfo, declare

TWO = 2


class Halved(Norm):
    \"\"\"Divides by the root mean square.\"\"\"

    Config = ComponentConfig
    centred = False
    epsilon = 1e-6

    def __init__(self, config, dim):
        super().__init__(config, dim)
        self.weight = declare(self, "weight", (dim,), ParameterInfo("norm", constant=1.0))

    def forward(self, x):
        if x.numel() < 0:
            return x
        return x * (x.pow(TWO).mean(-1, keepdim=True) + 1e-6).rsqrt() * self.weight
"""


@pytest.fixture
def halved(tmp_path, monkeypatch):
    """A part in a module of its own."""
    path = tmp_path / "halved_norm.py"
    path.write_text(NORM)
    spec = importlib.util.spec_from_file_location("halved_norm", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "halved_norm", module)
    spec.loader.exec_module(module)
    sources = warm.Sources([("halved_norm", path)])
    return PartUnderTest("norm", "halved", given=module.Halved), sources, mutants(NORM, str(path))


def judged(halved, mutated_to):
    part, sources, found = halved
    (mutant,) = [mutant for mutant in found if mutant.mutated == mutated_to]
    assert sources.plantable(mutant)
    jobs = [(part, prop, 0.2) for prop in properties("norm") if prop.name == "second_moment"]
    return warm.run(jobs, sources=sources, mutant=mutant)


def test_the_original_survives(halved):
    part, sources, _ = halved
    assert warm.run([(part, prop, 0.2) for prop in properties("norm") if prop.name == "odd"]).status == "survived"


@pytest.mark.parametrize(
    "change",
    [
        "return x * (x.pow(TWO).sum(-1, keepdim=True) + 1e-06).rsqrt() * self.weight",
        "return x * (x.pow(TWO).mean(-1, keepdim=True) - 1e-06).rsqrt() * self.weight",
        "TWO = 3",
        "epsilon = 2e-06",
        "if True:",
    ],
)
def test_a_mutant_is_what_runs_and_is_killed(halved, change):
    ran = judged(halved, change)
    assert (ran.status, ran.by) == ("killed", "second_moment")


def test_an_equivalent_mutant_survives_and_is_not_run_once_declared(halved, monkeypatch):
    part, sources, found = halved
    assert judged(halved, "if False:").status == "survived"
    court = Court("norm")
    chosen = in_order(court.all, 0)[:3]
    monkeypatch.setattr(court, "judge", lambda mutant, factors: warm.Ran("survived"))
    verdicts = court.verdicts(number=3, seed=0, equivalent={key_of(chosen[1])})
    assert (verdicts.equivalent, verdicts.survivors) == (1, [chosen[0], chosen[2]])


def test_the_warm_process_stays_as_it_is(halved):
    part, sources, _ = halved
    before = part.cls.forward.__code__, sys.modules["halved_norm"].TWO, os.environ.copy()
    judged(halved, "TWO = 3")
    judged(halved, "if True:")
    assert (part.cls.forward.__code__, sys.modules["halved_norm"].TWO, os.environ.copy()) == before


def test_it_is_noted_what_a_property_calls(halved):
    part, sources, found = halved
    (mutant,) = [mutant for mutant in found if mutant.mutated == "if True:"]
    jobs = [(part, prop, 0.2) for prop in properties("norm") if prop.name in ("second_moment", "roles_are_declared")]
    ran = warm.run(jobs, sources=sources, through=True, noting=True)
    held = {jobs[job][1].name: judging.Held(jobs[job], 0.0, reached) for job, reached in ran.reached.items()}
    assert {name: one.calls(mutant) for name, one in held.items()} == {
        "second_moment": True,
        "roles_are_declared": False,
    }
    assert not ran.failed and not hasattr(builtins, "__reached__")


def test_where_parts_share_their_code_only_what_calls_it_is_asked(monkeypatch):
    monkeypatch.setattr(judging, "SHARING", {"norm"})
    monkeypatch.setattr(judging, "FEW", 1)
    court = Court("norm")
    first, second = court.parts[:2]
    mutant = next(mutant for mutant in court.all if mutant.outer and court.users[mutant.file] == [first])
    calling, other = frozenset({warm.place(mutant.file, mutant.outer)}), frozenset[str]()
    laws = properties("norm")[:3]

    def jobs(part, factor):
        return [
            judging.Held((part, prop, factor), 1.0, reached)
            for prop, reached in zip(laws, [other, calling, calling], strict=True)
        ]

    monkeypatch.setattr(court, "jobs", jobs)
    court.users[mutant.file] = [first, second]
    asked = court.asked(mutant, 1.0)
    assert Counter(held.job[1].name for held in asked) == {laws[1].name: 2, laws[2].name: 2}
    assert {held.job[2] for held in asked} == {1.0} and asked[0].seconds == pytest.approx(10.0)
    monkeypatch.setattr(judging, "FEW", 2)
    asked = [held.job[1].name for held in court.asked(mutant, 1.0)]
    assert asked[-2:] == [laws[0].name] * 2, "what doesn't call it comes last"


@pytest.mark.parametrize(
    ("body", "status"),
    [("while True: pass", "hung"), ("__import__('os')._exit(3)", "killed"), ("bytearray(2**40)", "killed")],
)
def test_what_hangs_breaks_or_swallows_memory_ends(body, status, monkeypatch):
    monkeypatch.setattr(warm, "failure", lambda job: exec(body))
    (prop, *_) = properties("norm")
    part = PartUnderTest("norm", "none", given=object)
    ran = warm.run([(part, prop, 1.0)], limits=[0.5])
    assert ran.status == status, ran


def test_processes_that_a_mutant_starts_have_it_too(halved, tmp_path, monkeypatch):
    _, sources, found = halved
    (mutant,) = [mutant for mutant in found if mutant.mutated == "TWO = 3"]
    for name in ("CORELM_MUTANT", "PYTHONPATH"):
        monkeypatch.setenv(name, "")
    folder = Path(mutant.file).parent
    sources.announce(mutant, folder)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path.append({str(folder)!r}); import halved_norm; print(halved_norm.TWO)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "3"


def _tool():
    spec = importlib.util.spec_from_file_location("mutation_main", Path(__file__).with_name("__main__.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Sized:
    """Fields whose defaults are arguments'."""

    size: int = 3
    name: str = field(default="a", kw_only=True)
    count: int = field(default=5, kw_only=True)


def test_a_field_of_a_data_class_has_the_mutants_default():
    kept = Sized.__init__.__defaults__, Sized.__init__.__kwdefaults__, Sized.size
    try:
        warm._put_constant(__name__, "Sized.size", ast.parse("class Sized:\n    size: int = 4"))
        warm._put_default(Sized.__init__, "count", 6)
        assert Sized() == Sized(4, name="a", count=6)
    finally:
        Sized.__init__.__defaults__, Sized.__init__.__kwdefaults__, Sized.size = kept


def test_what_is_declared_equivalent_is_still_there():
    declared = set(_tool().equivalents())
    files = {ROOT / file for file, *_ in declared}
    found = {key_of(m) for path in files for m in mutants(path.read_text(encoding="utf-8"), str(path))}
    assert not declared - found, "take out of tests/mutation/equivalent.yaml what the code no longer says"


def test_figures_are_kept_and_survivors_are_judged_again(tmp_path, monkeypatch):
    tool, out = _tool(), tmp_path / "mutation.json"
    verdict = ["survived"]
    monkeypatch.setattr(Court, "judge", lambda court, mutant, factors: warm.Ran(verdict[0], by="odd"))
    assert tool.main(["norm", "--mutants", "4", "--out", str(out)]) == 1
    first = json.loads(out.read_text())["norm"]
    verdict[0] = "killed"
    assert tool.main(["norm", "--survivors", "--out", str(out)]) == 0
    then = json.loads(out.read_text())["norm"]
    assert then["killed"] == {"odd": len(first["survivors"])} and not then["survivors"]
    assert then["equivalent"] == first["equivalent"] and then["available"] == first["available"]


def _page():
    spec = importlib.util.spec_from_file_location("mutation_page", ROOT / "docs" / "mutation_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_was_measured():
    page = _page()
    assert page.PAGE.read_text(encoding="utf-8") == page.page(), "run: python docs/make.py"


def test_the_interval_is_wilsons():
    low, high = _page().wilson(27, 30)
    assert (low, high) == pytest.approx((0.7438, 0.9654), abs=1e-4)
