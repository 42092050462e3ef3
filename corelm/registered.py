"""What a registry holds: kinds, parts and failed plugins, each with where it came from."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

from corelm.errors import UserError


class RegistrationError(UserError):
    """A plugin registered something that can't be taken, or a name can't be resolved."""


@dataclass(frozen=True)
class Kind:
    """One interface of the house.

    Attributes:
        target: import string of the interface's base class, ``module:Class``.
        interface: version of the interface; until 1.0 exactly this one is accepted.
        distribution: who brought it.
    """

    name: str
    target: str
    summary: str
    interface: int = 1
    distribution: str = "corelm"

    def load(self) -> type[Any]:
        """Import and return the base class."""
        return _load(self.target, f"kind {self.name} of {self.distribution}")


@dataclass(frozen=True)
class Record:
    """One registered part and its provenance.

    Attributes:
        base: import string of the kind's base class; known once the registry is closed.
    """

    kind: str
    name: str
    target: str
    summary: str
    interface: int
    distribution: str
    version: str
    plugin: str
    base: str = ""

    @property
    def qualified(self) -> str:
        """``distribution:name``, unambiguous within the kind."""
        return f"{self.distribution}:{self.name}"

    @property
    def location(self) -> str:
        """Path of the file that defines the part (finds the module without importing it)."""
        spec = importlib.util.find_spec(self.target.partition(":")[0])
        return str(spec.origin) if spec and spec.origin else ""

    def load(self) -> type[Any]:
        """Import and return the part's class.

        Raises:
            RegistrationError: the import fails, or the class isn't of the kind.
        """
        what = f"{self.kind}/{self.name} of {self.distribution} {self.version}"
        part = _load(self.target, what)
        base = _load(self.base, f"kind {self.kind}") if self.base else object
        if not issubclass(part, base):
            raise RegistrationError(
                f"{what}: {self.target} is not of the kind {self.kind}",
                remedy=f"Its class must derive from {base.__name__} of {base.__module__}.",
                code="part-of-another-kind",
            )
        return part


@dataclass(frozen=True)
class Failure:
    """A plugin that could not be loaded, and why."""

    plugin: str
    distribution: str
    version: str
    reason: str


def _load(target: str, what: str) -> type[Any]:
    module_name, _, attribute = target.partition(":")
    try:
        loaded = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:
        raise RegistrationError(
            f"{what}: importing {target} failed: {type(error).__name__}: {error}",
            remedy="Update or uninstall the package that fails; `corelm plugins` lists what is installed.",
            code="part-import-failed",
        ) from error
    if not isinstance(loaded, type):
        found = type(loaded).__name__
        raise RegistrationError(f"{what}: {target} is of type {found}, not a class", code="part-not-a-class")
    return loaded
