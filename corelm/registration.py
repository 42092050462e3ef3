"""What is installed: kinds, the parts that implement them, and where each came from.

Plugins announce themselves in the entry point group ``corelm``; first-party plugins and strangers' come
through the same door. Looking up what exists imports neither torch nor any part: a record holds an import
string, and the class is loaded when somebody builds it.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pluggy

from corelm import hookspecs
from corelm.registered import Failure, Kind, Record, RegistrationError

__all__ = [
    "Failure",
    "Kind",
    "Record",
    "Registrar",
    "RegistrationError",
    "Registry",
    "active",
    "add_plugin",
    "discover",
    "using",
]

GROUP: Final = "corelm"

_NAME: Final = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")


@dataclass
class Registry:
    """Kinds, parts, plugins (name, distribution, version) and those that failed; frozen once discovery is over."""

    kinds: dict[str, Kind] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    disabled: list[str] = field(default_factory=list)
    plugins: list[tuple[str, str, str]] = field(default_factory=list)
    manager: pluggy.PluginManager = field(default_factory=lambda: _manager())
    recipe_packages: dict[str, str] = field(default_factory=dict)
    frozen: bool = False

    def registrar(self, distribution: str, version: str, plugin: str) -> Registrar:
        """Return the face that one plugin registers through."""
        return Registrar(self, distribution, version, plugin)

    def parts(self, kind: str | None = None) -> list[Record]:
        """All parts, or those of one kind, sorted by kind, name and distribution."""
        return sorted(
            (r for r in self.records if kind in (None, r.kind)), key=lambda r: (r.kind, r.name, r.distribution)
        )

    def plugin(self, hooked: str) -> str:
        """``name (distribution version)`` of the plugin whose hooks go by the name ``hooked``."""
        found = [(name, owner, version) for name, owner, version in self.plugins if hooked == f"{owner}:{name}"]
        return "{} ({} {})".format(*found[0]) if found else hooked

    def kind(self, name: str) -> Kind:
        """Return the kind ``name``.

        Raises:
            RegistrationError: unknown; the message names the nearest, and the kind of a part of this name.
        """
        if name in self.kinds:
            return self.kinds[name]
        owners = sorted({record.kind for record in self.records if record.name == name})
        hint = f"; did you mean {owners[0]}/{name}?" if owners else _nearest(name, self.kinds)
        remedy = f"kinds: {', '.join(sorted(self.kinds))}"
        raise RegistrationError(f"unknown kind {name!r}{hint}", remedy=remedy, code="unknown-kind")

    def find(self, kind: str, name: str, *, prefer: str = "") -> Record:
        """Return the part ``name`` (plain or ``distribution:name``) of a kind; of several, ``prefer``'s.

        Raises:
            RegistrationError: unknown, or a plain name that two distributions claim; the message says what was meant.
        """
        self.kind(kind)
        found = [r for r in self.records if r.kind == kind and name in (r.name, r.qualified)]
        if len(found) > 1:
            found = [r for r in found if r.distribution == prefer] or found
        if len(found) == 1:
            return found[0]
        if found:
            raise RegistrationError(
                f"{kind} {name!r} is offered by {' and '.join(sorted(r.qualified for r in found))}",
                remedy="Write which one you mean, with the distribution's name.",
                code="ambiguous-part",
            )
        raise self._unknown(kind, name)

    def _unknown(self, kind: str, name: str) -> RegistrationError:
        names = [record.name for record in self.parts(kind)]
        elsewhere = sorted({record.kind for record in self.records if record.name == name})
        hint = _nearest(name, names)
        if elsewhere:
            hint = f"; {name!r} is of kind {', '.join(elsewhere)}, not {kind}" + hint
        remedy = f"parts of kind {kind}: {', '.join(names) or 'none installed'}"
        for f in self.failures:
            remedy += f"\n  plugin {f.plugin} ({f.distribution} {f.version}) failed to load: {f.reason}"
        for disabled in self.disabled:
            remedy += f"\n  plugin {disabled} is disabled by CORELM_DISABLE"
        near = next(iter(difflib.get_close_matches(name, names, 1)), None)
        return RegistrationError(
            f"unknown {kind} {name!r}{hint}", remedy=remedy, code="unknown-part", suggestion=near
        )


def _nearest(name: str, among: Any) -> str:
    close = difflib.get_close_matches(name, list(among), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


class Registrar:
    """What a plugin's ``corelm_register`` is handed."""

    def __init__(self, registry: Registry, distribution: str, version: str, plugin: str) -> None:
        self._registry = registry
        self._origin = {"distribution": distribution, "version": version, "plugin": plugin}

    def add(self, kind: str, name: str, target: str, *, summary: str, interface: int = 1) -> None:
        """Register a part.

        Args:
            kind, name: plain within the kind, lower case with hyphens, without the distribution.
            target: import string, ``module:Class``; not imported now.
            summary: the first line of the class's docstring; its full stop is left out.
            interface: the version of the kind's interface that it was written for.

        Raises:
            RegistrationError: the registry is frozen, or the name or target is malformed.
        """
        self._take(f"{kind}/{name}", name, target)
        self._registry.records.append(
            Record(kind, name, target, summary.removesuffix("."), interface, **self._origin)
        )

    def add_kind(self, name: str, target: str, *, summary: str, interface: int = 1) -> None:
        """Register a kind: its name, base class and interface version.

        Raises:
            RegistrationError: as for ``add``, or somebody else has registered the kind.
        """
        self._take(f"kind {name}", name, target)
        if name in self._registry.kinds:
            first = self._registry.kinds[name].distribution
            raise RegistrationError(f"kind {name!r} is registered by both {first} and {self._origin['distribution']}")
        owner = self._origin["distribution"]
        self._registry.kinds[name] = Kind(name, target, summary.removesuffix("."), interface, owner)

    def add_recipes(self, prefix: str, package: str) -> None:
        """Ship recipes: ``prefix:name`` then means the file ``name.yaml`` in ``package``'s folder.

        Raises:
            RegistrationError: as for ``add``, or somebody else ships recipes under the prefix.
        """
        self._take(f"recipes {prefix}", prefix, f"{package}:")
        other = "the package corelm" if prefix == "corelm" else self._registry.recipe_packages.get(prefix)
        if other is not None:
            raise RegistrationError(f"recipes as {prefix!r} are from {other} already; {package} needs another prefix")
        self._registry.recipe_packages[prefix] = package

    def _take(self, what: str, name: str, target: str) -> None:
        if self._registry.frozen:
            raise RegistrationError(f"{what}: the registry is closed", remedy="Register in corelm_register only.")
        if not _NAME.fullmatch(name):
            raise RegistrationError(
                f"{what}: names are lower case letters and digits joined by hyphens, not {name!r}"
            )
        if target.count(":") != 1 or not target.partition(":")[0]:
            raise RegistrationError(f"{what}: target {target!r} is not of the form module:Class")


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager("corelm")
    manager.add_hookspecs(hookspecs)
    return manager


def discover(disable: frozenset[str] | None = None) -> Registry:
    """Read all entry points and return a frozen registry; a plugin that fails is recorded, never skipped."""
    if disable is None:
        disable = frozenset(filter(None, map(str.strip, os.environ.get("CORELM_DISABLE", "").split(","))))
    registry = Registry()
    for point in sorted(_entry_points(), key=_rank):
        distribution, version = _distribution(point)
        if point.name in disable:
            registry.disabled.append(point.name)
            continue
        try:
            add_plugin(registry, point.load(), point.name, distribution, version)
        except (Exception, SystemExit) as error:
            registry.failures.append(Failure(point.name, distribution, version, _reason(error)))
    _check(registry)
    registry.frozen = True
    return registry


def _entry_points() -> Iterable[importlib.metadata.EntryPoint]:
    return importlib.metadata.entry_points(group=GROUP)


def _rank(point: importlib.metadata.EntryPoint) -> tuple[bool, str, str, str]:
    """Order of discovery: the core's own kinds first, so that nobody else can take their names."""
    return point.value != "corelm.kinds", _distribution(point)[0], point.name, point.value


def _distribution(point: importlib.metadata.EntryPoint) -> tuple[str, str]:
    """Name, written as package indexes write it, and version."""
    return (re.sub(r"[-_.]+", "-", point.dist.name).lower(), point.dist.version) if point.dist else ("unknown", "0")


def _reason(error: BaseException) -> str:
    """Why a plugin failed, as one sentence."""
    if isinstance(error, RegistrationError):
        return f"{error.message}. {error.remedy}".removesuffix(". ")
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def add_plugin(registry: Registry, module: object, plugin: str, distribution: str, version: str) -> None:
    """Register one plugin object's hooks and run its ``corelm_register``; all or nothing.

    Raises:
        Exception: whatever the plugin raises; the registry is then as it was before.
    """
    kinds, recipes, count = dict(registry.kinds), dict(registry.recipe_packages), len(registry.records)
    name = f"{distribution}:{plugin}"
    if registry.manager.has_plugin(name):
        first = registry.manager.get_plugin(name)
        places = " and ".join(str(getattr(one, "__file__", one)) for one in (first, module))
        raise RegistrationError(
            f"two entry points are called {name}: {places}",
            remedy="Uninstall one of them; often an editable install and a wheel of the same package.",
        )
    _hooked(registry, module, name)
    try:
        registry.manager.register(module, name=name)
        registry.manager.check_pending()
        others = [p for p in registry.manager.get_plugins() if p is not module]
        registry.manager.subset_hook_caller("corelm_register", others)(
            registry=registry.registrar(distribution, version, plugin)
        )
    except Exception:
        if registry.manager.has_plugin(name):
            registry.manager.unregister(name=name)
        registry.kinds, registry.recipe_packages, registry.records = kinds, recipes, registry.records[:count]
        raise
    registry.plugins.append((plugin, distribution, version))


def _hooked(registry: Registry, module: object, name: str) -> None:
    """Refuse a plugin that pluggy would take and never call."""
    where = getattr(module, "__file__", module)
    known = registry.manager.get_name(module)
    if known is not None:
        raise RegistrationError(f"{where} is the plugin {known} already", remedy=f"Drop the entry point of {name}.")
    marked = [hook for hook in dir(module) if registry.manager.parse_hookimpl_opts(module, hook)]
    for hook in vars(hookspecs):
        if hook.startswith("corelm_") and hasattr(module, hook) and hook not in marked:
            raise RegistrationError(f"{hook} of {where} is not marked as a hook", remedy="Put @hookimpl above it.")
    if not marked:
        raise RegistrationError(f"{where} has no hook", remedy="Write corelm_register with @hookimpl above it.")


def _check(registry: Registry) -> None:
    """Turn parts that can't be taken into failures: unknown kind, wrong interface, a name taken twice (both go)."""
    taken: dict[tuple[str, str], list[str]] = {}
    for record in registry.records:
        taken.setdefault((record.kind, record.qualified), []).append(record.target)
    kept = []
    for record in registry.records:
        kind, targets = registry.kinds.get(record.kind), taken[record.kind, record.qualified]
        if kind is not None and record.interface == kind.interface and len(targets) == 1:
            kept.append(replace(record, base=kind.target))
            continue
        if kind is None:
            reason = (
                f"part {record.name!r} is of the unknown kind {record.kind!r}{_nearest(record.kind, registry.kinds)}"
            )
        elif record.interface != kind.interface:
            reason = (
                f"{record.kind}/{record.name} was written for version {record.interface} of the {record.kind} "
                f"interface; this corelm has version {kind.interface}: install a matching {record.distribution}"
            )
        else:
            reason = f"{record.kind}/{record.qualified} is registered {len(targets)} times: {' and '.join(sorted(targets))}"
        registry.failures.append(Failure(record.plugin, record.distribution, record.version, reason))
    registry.failures = list(dict.fromkeys(registry.failures))
    registry.records = kept


_active: Registry | None = None


def active() -> Registry:
    """The registry in force: everything installed, discovered on first use."""
    global _active
    if _active is None:
        _active = discover()
    return _active


@contextlib.contextmanager
def using(registry: Registry) -> Iterator[Registry]:
    """Put another registry in force for the length of a ``with`` block (tests, the kit)."""
    global _active
    before, _active = _active, registry
    try:
        yield registry
    finally:
        _active = before
