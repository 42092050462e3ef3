"""Libraries that only some parts need, and that come with an extra of this package."""

from __future__ import annotations

import importlib
from typing import Any

from corelm.errors import UserError


def library(name: str, *, extra: str, by: str) -> Any:
    """Import a library.

    Args:
        name: its module.
        extra: the extra that it comes with, as in ``pip install "corelm[extra]"``.
        by: who needs it, to begin the message with.

    Raises:
        UserError: it isn't there, or lacks something itself.
    """
    try:
        return importlib.import_module(name)
    except ImportError as missing:
        raise UserError(
            f"{by} needs the library {name}: {missing}",
            remedy=f'pip install "corelm[{extra}]"',
            code="library-missing",
        ) from missing
