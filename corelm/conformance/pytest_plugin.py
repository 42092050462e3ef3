"""``pytest --corelm``: one test per (part, property) over everything that is installed.

Loaded by every pytest run of an environment that has corelm, so it imports nothing until it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from corelm.conformance.framework import PartUnderTest, Property


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--corelm`` and ``--corelm-plugin``."""
    group = parser.getgroup("corelm", "conformance of corelm parts")
    group.addoption("--corelm", action="store_true", help="test every installed part against its kind's properties")
    group.addoption(
        "--corelm-plugin", action="append", default=[], metavar="NAME", help="only this distribution's parts"
    )


def pytest_sessionstart(session: pytest.Session) -> None:
    """Let the conformance items hang below the session, whatever paths were asked for."""
    if _asked(session.config):
        session.config.pluginmanager.register(_Collect(), "corelm-conformance-items")


def _asked(config: pytest.Config) -> bool:
    return bool(config.getoption("--corelm", False) or config.getoption("--corelm-plugin", []))


class _Collect:
    """Adds the conformance items to what pytest has collected itself."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Put one item per (part, property) behind the collected ones."""
        from corelm.conformance.selection import cases

        plugins = config.getoption("--corelm-plugin")
        for part, prop in cases(plugins=plugins):
            items.append(
                ConformanceItem.from_parent(session, name=f"{part.label}::{prop.name}", part=part, prop=prop)
            )


class ConformanceItem(pytest.Item):
    """One property of one part."""

    def __init__(self, *, part: PartUnderTest, prop: Property, **more: Any) -> None:
        super().__init__(**more)
        self.part, self.prop = part, prop

    def runtest(self) -> None:
        """Hold the part to the property."""
        from corelm.conformance.running import enforce

        enforce(self.part, self.prop)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The kit's own explanation, without a traceback through the kit."""
        if excinfo.errisinstance(AssertionError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Where the part is defined."""
        return self.path, None, self.name


def pytest_terminal_summary(terminalreporter: Any) -> Iterator[None] | None:
    """Say how to look closer when something failed."""
    config = terminalreporter.config
    if _asked(config) and terminalreporter.stats.get("failed"):
        terminalreporter.write_line("corelm: repeat one with `corelm verify KIND/NAME --property NAME`")
    return None
