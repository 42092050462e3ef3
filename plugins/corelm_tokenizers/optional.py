"""Libraries that only some parts need."""

from __future__ import annotations

import importlib
from types import ModuleType

from corelm.errors import UserError


def needed(name: str) -> ModuleType:
    """Import a library.

    Raises:
        UserError: it isn't installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"the library {name} isn't installed, or doesn't load: {error}",
            remedy='Install it: pip install "corelm[tokenizers]".',
            code="library-missing",
        ) from error
