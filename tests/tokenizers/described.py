"""Running a description without the engine: by the library where it has the words, else by model and normaliser alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import tokenizers
from corelm_tokenizers.charsmap import CharacterMap, SentencePieceNormaliser
from corelm_tokenizers.formats import Found
from corelm_tokenizers.scored_pairs import ScoredPairs
from corelm_tokenizers.sentence_words import SentenceWords
from corelm_tokenizers.unigram import Unigram


def encoder(found: Found) -> Callable[[str], list[int]]:
    """What a description says that a text becomes, nothing put around it."""
    if not found.description["model"]["type"].startswith("SentencePiece"):
        library = tokenizers.Tokenizer.from_str(json.dumps(found.description))
        library.encode_special_tokens = True
        return lambda text: library.encode(text, add_special_tokens=False).ids
    normalise, model = normaliser(found).normalise, model_of(found)
    return lambda text: list(model.ids(normalise(text))) if normalise(text) else []


def normaliser(found: Found) -> SentencePieceNormaliser:
    options = {key: value for key, value in found.description["normalizer"].items() if key != "type"}
    blob = options.pop("precompiled_charsmap")
    return SentencePieceNormaliser(CharacterMap(base64.b64decode(blob)) if blob else None, **options)


def model_of(found: Found) -> ScoredPairs | SentenceWords | Unigram:
    said = found.description["model"]
    kinds = [kind for _, _, kind in said["pieces"]]

    def ids(*wanted: str) -> list[int]:
        return [number for number, kind in enumerate(kinds) if kind in wanted]

    pieces, scores = [piece for piece, _, _ in said["pieces"]], [score for _, score, _ in said["pieces"]]
    options = {"unknown": kinds.index("unknown"), "every_byte": said["byte_fallback"]}
    hidden = ids("control", "byte", "unknown")
    if said["type"] == "SentencePieceWord":
        return SentenceWords(pieces, hidden=[*hidden, *ids("unused")], **options)
    if said["type"] == "SentencePieceUnigram":
        hidden, more = [*hidden, *ids("unused")], {"single": True}
        return Unigram(pieces, scores, hidden=hidden, user_defined=ids("user_defined"), **more, **options)
    more = {"unused": ids("unused"), "user_defined": ids("user_defined")}
    return ScoredPairs(pieces, scores, hidden=hidden, **more, **options)
