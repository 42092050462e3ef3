"""``pytest --corelm``: one test per (part, property) over everything that is installed.

Loaded by every pytest run of an environment that has corelm, so it imports nothing until it is asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
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
        """Put one item per (part, property), and one per plugin that can't be loaded, behind the collected ones."""
        from corelm.conformance.selection import cases, failed_plugins
        from corelm.errors import UserError

        plugins = config.getoption("--corelm-plugin")
        try:
            found = list(cases(plugins=plugins))
        except UserError as error:
            raise pytest.UsageError(str(error)) from error
        for failure in failed_plugins(plugins=plugins):
            name = f"plugin {failure.plugin} ({failure.distribution} {failure.version})::loads"
            items.append(PluginItem.from_parent(session, name=name, failure=failure))
        for part, prop in found:
            items.append(
                ConformanceItem.from_parent(session, name=f"{part.label}::{prop.name}", part=part, prop=prop)
            )


class _Item(pytest.Item):
    """An item whose failures explain themselves."""

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The kit's own explanation, without a traceback through the kit."""
        if excinfo.errisinstance(AssertionError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Where the item is, for pytest's listing."""
        return self.path, None, self.name


class ConformanceItem(_Item):
    """One property of one part."""

    def __init__(self, *, part: PartUnderTest, prop: Property, **more: Any) -> None:
        super().__init__(**more)
        self.part, self.prop = part, prop

    def runtest(self) -> None:
        """Hold the part to the property."""
        from corelm.conformance.selection import enforce

        record: Callable[[str, object], None] = lambda name, value: self.user_properties.append((name, value))  # noqa: E731
        enforce(self.part, self.prop, record)


class PluginItem(_Item):
    """A plugin that can't be loaded; it fails."""

    def __init__(self, *, failure: Any, **more: Any) -> None:
        super().__init__(**more)
        self.failure = failure

    def runtest(self) -> None:
        """Say why."""
        from corelm.conformance.report import told

        raise AssertionError(told(self.failure))


def pytest_configure(config: pytest.Config) -> None:
    """Keep count, for those too who call ``suite`` in a test of their own."""
    config.pluginmanager.register(_Counts(), "corelm-conformance-counts")


class _Counts:
    """Counts outcomes in the process that reports, wherever they were found."""

    def __init__(self) -> None:
        self.tallies: dict[tuple[str, str], dict[str, str]] = {}
        self.short: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note an outcome down."""
        for name, tally in report.user_properties:
            if name == "corelm" and isinstance(tally, dict):
                self.tallies[tally["part"], tally["property"]] = tally

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run when parts were held to too little: what was skipped must not turn it green."""
        if not self.tallies or hasattr(session.config, "workerinput"):
            return
        from corelm.conformance.selection import shortfalls

        self.short = shortfalls(self.tallies.values())
        if self.short and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Count, and say how to look closer when something failed."""
        if not self.tallies:
            return
        from corelm.conformance.report import count, shown

        for text in self.short:
            terminalreporter.write_line(f"corelm: too little was tested: {text}", red=True)
        statuses = Counter(tally["status"] for tally in self.tallies.values())
        terminalreporter.write_line(f"corelm: {shown(count(statuses))}")
        if statuses["failed"]:
            terminalreporter.write_line("corelm: repeat one with `corelm verify KIND/NAME --property NAME`")
