"""First-party tokenizers parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corelm import hookimpl

if TYPE_CHECKING:
    from corelm.registration import Registrar

_PARTS: tuple[tuple[str, str, str, str], ...] = (
    ("tokenizer", "assembled", "assembled:Assembled", "A ``tokenizer.json``, run from scratch"),
    ("tokenizer", "bpe", "bpe:BytePairTokenizer", "Byte-level byte-pair encoding, learnt from raw UTF-8 bytes"),
    ("tokenizer", "bytes", "bytes:ByteTokenizer", "One id per UTF-8 byte"),
    ("tokenizer", "characters", "characters:CharacterTokenizer", "One id per character, bytes for rare ones"),
    (
        "tokenizer",
        "fallback-bpe",
        "scored_pairs_tokenizer:ScoredPairsTokenizer",
        "Byte-pair encoding of characters in SentencePiece's manner, bytes for rare ones",
    ),
    (
        "tokenizer",
        "hf-bpe",
        "hf_bpe:LibraryBytePairTokenizer",
        "Byte-level byte-pair encoding by the ``tokenizers`` library",
    ),
    (
        "tokenizer",
        "hf-unigram",
        "hf_unigram:LibraryUnigramTokenizer",
        "Unigram language model by the ``tokenizers`` library",
    ),
    (
        "tokenizer",
        "hf-wordpiece",
        "hf_wordpiece:LibraryWordPieceTokenizer",
        "WordPiece by the ``tokenizers`` library",
    ),
    (
        "tokenizer",
        "sentencepiece-bpe",
        "sentencepiece_bpe:SentencePieceBytePairTokenizer",
        "Byte-pair encoding of characters by the ``sentencepiece`` library",
    ),
    (
        "tokenizer",
        "sentencepiece-unigram",
        "sentencepiece_unigram:SentencePieceUnigramTokenizer",
        "Unigram language model by the ``sentencepiece`` library",
    ),
    (
        "tokenizer",
        "tiktoken-bpe",
        "tiktoken_bpe:TiktokenBytePairTokenizer",
        "Byte-level byte-pair encoding by the ``tiktoken`` library",
    ),
    (
        "tokenizer",
        "tokenizers-json",
        "tokenizers_json:TokenizersJson",
        "A ``tokenizer.json`` of the ``tokenizers`` library, as it is",
    ),
    ("tokenizer", "unigram", "unigram_tokenizer:UnigramTokenizer", "Unigram language model, learnt from text"),
    (
        "tokenizer",
        "wordpiece",
        "wordpiece_tokenizer:WordPieceTokenizer",
        "WordPiece as BERT has it, learnt from text",
    ),
)


@hookimpl
def corelm_register(registry: Registrar) -> None:
    """Register this package's parts."""
    for kind, name, target, summary in _PARTS:
        registry.add(kind, name, f"corelm_tokenizers.{target}", summary=summary)
