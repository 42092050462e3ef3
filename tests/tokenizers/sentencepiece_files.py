"""SentencePiece models out of pieces, for tests."""

import pytest
from corelm_tokenizers.formats.protobuf import field

KINDS = {"normal": 1, "unknown": 2, "control": 3, "user_defined": 4, "unused": 5, "byte": 6}


def processor(pieces, *, model, byte_fallback):
    """The library's own, for pieces with score and kind; nothing is normalised, no space is added."""
    library = pytest.importorskip("sentencepiece")

    def message(values):
        return b"".join(field(number, value) for number, value in values.items())

    spelt = [message({1: p.encode(), 2: float(score), 3: KINDS[kind]}) for p, score, kind in pieces]
    trainer = message({3: {"unigram": 1, "bpe": 2}[model], 35: int(byte_fallback)})
    normaliser = message({1: b"identity", 3: 0, 4: 0, 5: 1})
    data = b"".join(field(1, piece) for piece in spelt) + field(2, trainer) + field(3, normaliser)
    return library.SentencePieceProcessor(model_proto=data)
