"""First-party tokenizers parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corelm import hookimpl

if TYPE_CHECKING:
    from corelm.registration import Registrar

_PARTS: tuple[tuple[str, str, str, str], ...] = (
    ("tokenizer", "bpe", "bpe:BytePairTokenizer", "Byte-level byte-pair encoding, learnt from raw UTF-8 bytes"),
    ("tokenizer", "bytes", "bytes:ByteTokenizer", "One id per UTF-8 byte"),
    (
        "tokenizer",
        "hf-bpe",
        "hf_bpe:LibraryBytePairTokenizer",
        "Byte-level byte-pair encoding by the ``tokenizers`` library",
    ),
    (
        "tokenizer",
        "tokenizers-json",
        "tokenizers_json:TokenizersJson",
        "A ``tokenizer.json`` of the ``tokenizers`` library, as it is",
    ),
)


@hookimpl
def corelm_register(registry: Registrar) -> None:
    """Register this package's parts."""
    for kind, name, target, summary in _PARTS:
        registry.add(kind, name, f"corelm_tokenizers.{target}", summary=summary)
