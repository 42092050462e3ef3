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


class ToldElsewhere(UserError):  # noqa: N818
    """Another process of the same run has failed or was stopped, and has said so; this one ends with it.

    Args:
        message: what the other one said.
        exit_code: the other one's.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message, code="told-elsewhere")
        self.exit_code = exit_code


class Interrupted(UserError):  # noqa: N818
    """The run was asked to stop and stopped cleanly; running it again goes on from the last checkpoint."""


def exit_code(error: BaseException) -> int:
    """What a process ends with after this error: 130 stopped, 2 something for the user to mend, 1 our mistake."""
    if isinstance(error, ToldElsewhere):
        return error.exit_code
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, UserError) else 1
