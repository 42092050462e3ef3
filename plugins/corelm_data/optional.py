"""Libraries that only some parts need."""

from __future__ import annotations

import importlib
from typing import Any

from corelm.errors import UserError


def library(name: str, part: str) -> Any:
    """Import a library that comes with ``corelm[data]``.

    Raises:
        UserError: it isn't there, or lacks something itself; names the part that asked.
    """
    try:
        return importlib.import_module(name)
    except ImportError as missing:
        raise UserError(
            f"{part} needs the library {name}: {missing}",
            remedy='pip install "corelm[data]"',
            code="library-missing",
        ) from missing
