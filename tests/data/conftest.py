"""A small standard library to test on."""

import pytest
from corelm_data import library, stdlib_docstrings

_TEXTUAL = '''"""Tools for text."""


def wrap(text, width=70, *, tabs: int = 8) -> str:
    """Wrap one paragraph of text.

    More."""


class Wrapper:
    """Wrap text in a reusable way."""

    def fill(self, text):
        """fill(text) -> str

        Wrap and join the lines."""

    def _hidden(self):
        """Not for the public at all."""

    def short(self):
        """Too short."""
'''
_PACK = '''"""A package of things."""


def load(path):
    """Load a thing from a path."""


def save(path, thing):
    """Save a thing to a path."""


def copy(thing):
    """Copy a thing."""
'''


@pytest.fixture
def small_library(tmp_path, monkeypatch):
    """A standard library of a few files."""
    root = tmp_path / "lib"
    files = {
        "textual.py": _TEXTUAL,
        "pack/__init__.py": _PACK,
        "pack/inner.py": 'def load(path):\n    """Load a thing from a path."""\n',
        "latin.py": "# -*- coding: latin-1 -*-\nname = 'é'\n".encode("latin-1"),
        "broken.py": b"# -*- coding: utf-8 -*-\nname = '\xff'\n",
        "wrong.py": "def (:\n",
        "test/test_a.py": "tests",
        "pack/tests/test_b.py": "tests",
        "site-packages/other.py": "installed",
        "idlelib/run.py": "editor",
        "config-3.11-x86/made.py": "made",
        "_sysconfigdata_x.py": "made",
        "encodings/cp1.py": "table",
        "pydoc_data/topics.py": "topics = {'while': 'The while statement.', 'if': 'The if statement.'}\n",
    }
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setattr(library, "root", lambda: root)
    monkeypatch.setattr(stdlib_docstrings, "_mine", stdlib_docstrings._mine.__wrapped__)
    return root
