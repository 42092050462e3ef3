"""First-party data parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corelm import hookimpl

if TYPE_CHECKING:
    from corelm.registration import Registrar

_PARTS: tuple[tuple[str, str, str, str], ...] = (
    ("source", "python-stdlib", "python_stdlib:PythonLibrary", "Python's own standard library as text"),
    (
        "source",
        "stdlib-docstrings",
        "stdlib_docstrings:LibraryDocstrings",
        "Questions and answers mined from the docstrings of Python's standard library",
    ),
    ("source", "text-files", "text_files:TextFiles", "Plain text files in UTF-8"),
    ("source", "jsonl", "jsonl:JsonLines", "Records from a file of JSON lines"),
    ("source", "hugging-face", "hugging_face:HuggingFaceData", "Records read by the ``datasets`` library"),
    (
        "cleaner",
        "unicode-nfc",
        "unicode_nfc:UnicodeNormalisation",
        "Rewrites documents in a Unicode normalisation form",
    ),
    ("cleaner", "exact-dedup", "exact_dedup:ExactDeduplication", "Drops documents whose text has come before"),
    ("template", "plain", "plain:PlainTemplate", "Conversations as headed paragraphs of text"),
    ("template", "chatml", "chatml:ChatTemplate", "Conversations with a pair of special tokens around each turn"),
    ("packer", "blocks", "blocks:Blocks", "Documents one after the other, cut into full rows"),
    ("packer", "padded", "padded:Padded", "Whole documents in rows of their own, padded on the right"),
)


@hookimpl
def corelm_register(registry: Registrar) -> None:
    """Register this package's parts."""
    for kind, name, target, summary in _PARTS:
        registry.add(kind, name, f"corelm_data.{target}", summary=summary)
