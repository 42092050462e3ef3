"""corelm: language models out of interchangeable parts.

Importing this package imports no torch; the names below are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corelm.hookspecs import hookimpl as hookimpl
    from corelm.model.loading import load as load
    from corelm.model.loading import load_tokenizer as load_tokenizer
    from corelm.model.loading import write_tokenizer as write_tokenizer
    from corelm.pipeline.runner import run as run
    from corelm.recipe.reader import Recipe as Recipe
    from corelm.registration import Record

__version__ = "0.1.0"

_LAZY = {
    "hookimpl": "corelm.hookspecs",
    "load": "corelm.model.loading",
    "load_tokenizer": "corelm.model.loading",
    "Recipe": "corelm.recipe.reader",
    "run": "corelm.pipeline.runner",
    "write_tokenizer": "corelm.model.loading",
}

__all__ = ["Recipe", "components", "hookimpl", "load", "load_tokenizer", "run", "write_tokenizer"]


def components(kind: str | None = None) -> list[Record]:
    """Return what is installed, of one kind or of all, as records (imports no part)."""
    from corelm.registration import active

    return active().parts(kind)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'corelm' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
