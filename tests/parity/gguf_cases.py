"""Small vocabularies in GGUF, and texts that are hard on them: what llama.cpp is asked, and what the test asks again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from corelm_tokenizers import formats
from corelm_tokenizers.bpe import BytePairTokenizer
from corelm_tokenizers.formats import gguf_metadata, words
from corelm_tokenizers.scored_pairs_tokenizer import ScoredPairsTokenizer

TRAINING = [
    "The quick brown fox doesn't jump over 12345 lazy dogs; THEY'LL see.  Two  spaces,\tone tab\r\n\r\n and lines\n\n",
    "Ünïcödé naïve café — „Straße“, élève, 北京欢迎你 こんにちは 안녕하세요 مرحبا नमस्ते দুনিয়া শুভ ไทย 🙂👩‍👩‍👧 ﬁ ① ½",
    "def main(args):\n    return [x ** 2 for x in range(100)]  # http://a.b/c/d\n",
] * 4
TEXTS = [
    *TRAINING[:3],
    *["a", " a", "a ", "  a", "a  b", "\n", "\n\n a", "a\n\n\nb", "\t\tx", "1234567 ١٢٣ ½", "it's IT'S we'LL don't 'quoted'"],
    *["camelCase HTMLParser ÀÉîÖ ДОМдом", "দুনিয়া শুভ e\u0301te\u0301 \u0301", "a.b,c!?...//\r\n", "漢字かなカナ한글ไทย"],
    *["🙂👩‍👩‍👧\ufe0f", "<s></s><unk><0x41>", "▁a ▁ b", "\u00a0\u2003x\u200b\ufeff", "ſ K 'ſ it'ſ", "\x01\x7f\x85\u2028"],
]  # fmt: skip

SPACED = {
    "type": "SentencePiece",
    "precompiled_charsmap": None,
    "add_dummy_prefix": True,
    "remove_extra_whitespaces": False,
    "escape_whitespaces": True,
    "treat_whitespace_as_suffix": False,
    "user_defined": [],
}


def vocabularies(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and file of each; of byte pairs one for each way to cut that has a name."""
    pairs = BytePairTokenizer(BytePairTokenizer.Config(vocab_size=400, pattern="gpt2"))
    pairs.train(TRAINING)
    formats.save(pairs, folder / "pairs.gguf")
    values = gguf_metadata.read(folder / "pairs.gguf", "")
    for name in words.CUTS:
        gguf_metadata.write(folder / "named.gguf", values | {"tokenizer.ggml.pre": name})
        yield name, folder / "named.gguf"
    sentences = ScoredPairsTokenizer(ScoredPairsTokenizer.Config(vocab_size=420))
    sentences.train(TRAINING)
    formats.save(sentences, folder / "sentences.gguf")
    yield "sentences", folder / "sentences.gguf"
    spaced = formats.read(folder / "sentences.gguf")
    said = spaced.description | {"normalizer": SPACED, "pre_tokenizer": None}
    formats.write(formats.Found(said, spaced.end_of_text), folder / "spaced.gguf")
    yield "sentences with a space before", folder / "spaced.gguf"


def digest(path: Path) -> str:
    """Of the file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
