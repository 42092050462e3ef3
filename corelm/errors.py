"""The one exception that means "the user can mend this"."""

from __future__ import annotations

from typing import Any


class UserError(Exception):
    """Something the user asked for can't be done; the message says what, where, and what to do instead.

    The command line prints the message without a traceback and exits with 2.

    Args:
        message: what is wrong, where.
        remedy: what to do instead.
        code: a stable name for machines, e.g. ``corpus-empty``.
    """

    def __init__(self, message: str, *, remedy: str = "", code: str = "user-error", **details: Any) -> None:
        super().__init__(f"{message}\n  {remedy}" if remedy else message)
        self.message = message
        self.remedy = remedy
        self.code = code
        self.details = details


class Interrupted(UserError):  # noqa: N818
    """The run was asked to stop and stopped cleanly; running it again goes on from the last checkpoint."""
