"""What is installed is known completely, in one order, and what can't be taken is said."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import corelm.kinds
from corelm import hookimpl, registration
from corelm.registration import RegistrationError, Registry, discover


@dataclass
class Point:
    """An entry point as ``importlib.metadata`` gives it."""

    name: str
    plugin: Any
    distribution: str = "acme"
    version: str = "1.2"

    @property
    def value(self) -> str:
        return "corelm.kinds" if self.name == "core" else self.name

    @property
    def dist(self) -> Any:
        return SimpleNamespace(name=self.distribution, version=self.version)

    def load(self) -> object:
        if isinstance(self.plugin, BaseException):
            raise self.plugin
        return self.plugin


CORE = Point("core", corelm.kinds, "corelm", "0.1.0")


def plugin(register: Any) -> Any:
    """A plugin whose ``corelm_register`` is the given function."""

    class Plugin:
        @hookimpl
        def corelm_register(self, registry: Any) -> None:
            register(registry)

    return Plugin()


def norm(name: str = "peak", target: str = "acme_norms.peak:PeakNorm", **more: Any) -> Any:
    return plugin(lambda registry: registry.add("norm", name, target, summary="One", **more))


@pytest.fixture
def installed(monkeypatch):
    """Discover as if exactly these entry points (and the core's) were installed."""

    def discovered(*points: Point, disable: frozenset[str] | None = None) -> Registry:
        monkeypatch.setattr(registration, "_entry_points", lambda: [CORE, *points])
        return discover(disable)

    return discovered


def reasons(registry: Registry) -> list[str]:
    return [failure.reason for failure in registry.failures]


def test_a_part_is_found_by_its_plain_and_its_qualified_name(installed):
    registry = installed(Point("norms", norm(), "Acme_Norms", "1.2"))
    record = registry.find("norm", "peak")
    assert registry.find("norm", "acme-norms:peak") is record
    assert (record.distribution, record.version, record.plugin) == ("acme-norms", "1.2", "norms")
    assert registry.failures == []


def test_of_two_parts_with_one_qualified_name_neither_is_taken_and_both_places_are_named(installed):
    registry = installed(Point("a", norm(target="one:Peak")), Point("b", norm(target="two:Peak")))
    assert registry.parts("norm") == []
    assert {f.plugin for f in registry.failures} == {"a", "b"}
    assert all("norm/acme:peak is registered 2 times: one:Peak and two:Peak" in r for r in reasons(registry))
    with pytest.raises(RegistrationError, match="registered 2 times"):
        registry.find("norm", "peak")


def test_a_short_name_of_two_distributions_is_refused_only_when_it_is_used(installed):
    registry = installed(Point("a", norm(), "acme"), Point("b", norm(), "zeta"))
    assert registry.failures == []
    assert registry.find("norm", "zeta:peak").distribution == "zeta"
    with pytest.raises(RegistrationError, match="offered by acme:peak and zeta:peak") as refused:
        registry.find("norm", "peak")
    assert refused.value.code == "ambiguous-part"


@pytest.mark.parametrize("interface", [0, 2])
def test_a_part_for_another_version_of_the_interface_is_refused_with_both_versions(installed, interface):
    registry = installed(Point("a", norm(interface=interface)))
    assert registry.parts("norm") == []
    (reason,) = reasons(registry)
    assert f"version {interface} of the norm interface" in reason
    assert "has version 1" in reason


def test_a_part_of_an_unknown_kind_is_a_failure_that_names_the_nearest(installed):
    registry = installed(Point("a", plugin(lambda r: r.add("norms", "x", "m:X", summary="One"))))
    assert reasons(registry) == ["part 'x' is of the unknown kind 'norms'; did you mean 'norm'?"]


BROKEN = {
    "import": (ModuleNotFoundError("No module named 'acme'"), "ModuleNotFoundError: No module named 'acme'"),
    "exit": (SystemExit(3), "SystemExit: 3"),
    "raises": (plugin(lambda r: 1 / 0), "ZeroDivisionError: division by zero"),
    "lines": (plugin(lambda r: r.missing(1)), "has no attribute 'missing'"),
    "name": (norm(name="Peak Norm"), "lower case letters and digits joined by hyphens, not 'Peak Norm'"),
    "colon": (norm(name="acme:peak"), "not 'acme:peak'"),
    "target": (norm(target="acme_norms.peak.PeakNorm"), "not of the form module:Class"),
    "kind": (plugin(lambda r: r.add_kind("norm", "a:B", summary="")), "registered by both corelm and bad-parts"),
    "recipes": (plugin(lambda r: r.add_recipes("corelm", "acme")), "acme needs another prefix"),
    "nothing": (SimpleNamespace(__file__="acme.py"), "acme.py has no hook"),
    "unmarked": (SimpleNamespace(corelm_register=lambda registry: None), "is not marked as a hook. Put @hookimpl"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_plugin_is_named_in_one_sentence_and_hides_no_other(installed, broken):
    module, piece = BROKEN[broken]
    registry = installed(Point("broken", module, "bad-parts", "0.3"), Point("zz", norm()))
    (failure,) = registry.failures
    assert (failure.plugin, failure.distribution, failure.version) == ("broken", "bad-parts", "0.3")
    assert piece in failure.reason
    assert "\n" not in failure.reason
    assert [record.name for record in registry.parts("norm")] == ["peak"]
    with pytest.raises(RegistrationError, match=r"plugin broken \(bad-parts 0\.3\) failed to load"):
        registry.find("norm", "unknown")


def test_a_hook_with_a_misspelt_name_is_a_failure(installed):
    class Plugin:
        @hookimpl
        def corelm_regsiter(self, registry: Any) -> None:
            """Misspelt."""

    (reason,) = reasons(installed(Point("a", Plugin())))
    assert "corelm_regsiter" in reason
    assert "\n" not in reason


def test_a_hook_with_another_argument_is_a_failure(installed):
    class Plugin:
        @hookimpl
        def corelm_register(self, reg: Any) -> None:
            """Wrong argument."""

    (reason,) = reasons(installed(Point("a", Plugin())))
    assert "reg" in reason
    assert "\n" not in reason


def test_a_plugin_that_fails_half_way_leaves_nothing_behind(installed):
    def register(registry: Any) -> None:
        registry.add_kind("retriever", "a:B", summary="")
        registry.add_recipes("acme", "acme")
        registry.add("norm", "peak", "a:B", summary="")
        raise RuntimeError("no")

    registry = installed(Point("a", plugin(register)))
    assert "retriever" not in registry.kinds
    assert registry.recipe_packages == {}
    assert registry.records == []
    assert not registry.manager.has_plugin("acme:a")


def test_one_module_under_two_entry_points_is_said(installed):
    module = norm()
    registry = installed(Point("a", module), Point("b", module))
    assert len(registry.parts("norm")) == 1
    assert "is the plugin acme:a already" in reasons(registry)[0]


def test_two_entry_points_of_one_name_are_said_with_both_places(installed):
    registry = installed(Point("a", norm("one")), Point("a", norm("two")))
    assert len(registry.parts("norm")) == 1
    assert "two entry points are called acme:a" in reasons(registry)[0]


def test_nothing_can_be_registered_after_discovery(installed):
    registry = installed()
    late = registry.registrar("acme", "1", "late")
    for register in (
        lambda: late.add("norm", "x", "m:X", summary=""),
        lambda: late.add_kind("x", "m:X", summary=""),
        lambda: late.add_recipes("x", "m"),
    ):
        with pytest.raises(RegistrationError, match="the registry is closed"):
            register()


def test_a_plugin_can_bring_a_kind_and_another_plugin_its_parts_in_any_order(installed):
    kind = plugin(lambda r: r.add_kind("retriever", "corelm.kinds:Norm", summary="finds", interface=3))
    part = plugin(lambda r: r.add("retriever", "bm25", "m:X", summary="One", interface=3))
    for order in ([Point("a", kind), Point("b", part)], [Point("a", part), Point("b", kind)]):
        registry = installed(*order)
        assert registry.failures == []
        assert registry.find("retriever", "bm25").interface == 3


def test_a_disabled_plugin_is_not_even_imported_and_named_where_its_part_is_missed(installed, monkeypatch):
    monkeypatch.setenv("CORELM_DISABLE", "other, a")
    registry = installed(Point("a", AssertionError("imported")), Point("b", norm()))
    assert registry.disabled == ["a"]
    assert registry.failures == []
    assert len(registry.parts("norm")) == 1
    with pytest.raises(RegistrationError, match="plugin a is disabled by CORELM_DISABLE"):
        registry.find("norm", "unknown")


def test_the_order_of_entry_points_never_matters(installed):
    points = [
        Point("a", norm("one"), "zeta"),
        Point("b", norm("two"), "acme"),
        Point("c", norm("two"), "acme"),
        Point("d", plugin(lambda r: r.add_kind("retriever", "a:B", summary="")), "beta"),
        Point("e", plugin(lambda r: r.add_kind("retriever", "a:B", summary="")), "acme"),
    ]
    seen = set()
    for order in itertools.permutations(points):
        registry = installed(*order)
        seen.add((tuple(registry.parts()), tuple(registry.failures), registry.kinds["retriever"].distribution))
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("target", "piece", "code"),
    [
        ("acme_nowhere:X", "importing acme_nowhere:X failed: ModuleNotFoundError", "part-import-failed"),
        ("corelm.kinds.norm:Nrom", "has no attribute 'Nrom'", "part-import-failed"),
        ("corelm.kinds:KINDS", "corelm.kinds:KINDS is of type tuple, not a class", "part-not-a-class"),
        ("corelm.kinds.mask:Mask", "corelm.kinds.mask:Mask is not of the kind norm", "part-of-another-kind"),
    ],
)
def test_a_target_that_is_no_part_of_its_kind_is_said_when_it_is_loaded(installed, target, piece, code):
    record = installed(Point("a", norm(target=target))).find("norm", "peak")
    with pytest.raises(RegistrationError, match="norm/peak of acme 1.2") as refused:
        record.load()
    assert piece in str(refused.value)
    assert refused.value.code == code


def test_unknown_names_come_with_the_nearest_and_with_the_kind_that_they_belong_to(installed):
    registry = installed(Point("a", norm()))
    with pytest.raises(RegistrationError, match="did you mean 'peak'") as refused:
        registry.find("norm", "peek")
    assert refused.value.details["suggestion"] == "peak"
    with pytest.raises(RegistrationError, match="'peak' is of kind norm, not attention"):
        registry.find("attention", "peak")
    with pytest.raises(RegistrationError, match="unknown kind 'norn'; did you mean 'norm'"):
        registry.find("norn", "peak")


def install(folder: Path, distribution: str, module: str, code: str) -> None:
    """A package with an entry point, as pip would leave it."""
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[corelm]\n{module} = {module}\n")


GOOD = """from corelm import hookimpl
@hookimpl
def corelm_register(registry):
    registry.add("norm", "peak", "parts_that_are_not_there:Peak", summary="One")
"""


def test_listing_is_the_same_under_every_hash_seed_and_imports_no_part(tmp_path):
    install(tmp_path, "zeta-parts", "zeta_parts", GOOD)
    install(tmp_path, "acme-parts", "acme_parts", GOOD)
    install(tmp_path, "bad-parts", "bad_parts", "import nowhere_to_be_found")
    told = []
    for seed in ("0", "1", "4711"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-m", "corelm.cli", "list", "norm", "--json"],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        told.append((done.stdout, done.stderr))
    assert len(set(told)) == 1
    names = [record["qualified"] for record in json.loads(told[0][0])]
    assert [name for name in names if name.endswith(":peak")] == ["acme-parts:peak", "zeta-parts:peak"]
    assert told[0][1] == (
        "plugin bad_parts (bad-parts 1.0): ModuleNotFoundError: No module named 'nowhere_to_be_found'\n"
    )
