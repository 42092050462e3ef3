"""A description's model and added tokens, made ready."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import count
from typing import NoReturn

from corelm.errors import UserError
from corelm_tokenizers import description as words
from corelm_tokenizers.byte_letters import spelling
from corelm_tokenizers.fallback import BYTES
from corelm_tokenizers.merging import Merging, Words
from corelm_tokenizers.model import Model
from corelm_tokenizers.scored_pairs import ScoredPairs
from corelm_tokenizers.sentence_words import SentenceWords
from corelm_tokenizers.unigram import Unigram
from corelm_tokenizers.wordpiece import WordPiece


def broken(what: str) -> NoReturn:
    """Raise the error for a description that contradicts itself."""
    raise UserError(what, remedy="Copy the file again, or make it anew.", code="tokenizer-file-damaged")


def pieces_of(said: words.Description) -> list[str]:
    """Spelling of the model's ids.

    Raises:
        UserError: two pieces have one id, or ids are left out.
    """
    model = said.model
    if isinstance(model, words.UnigramModel):
        return [piece for piece, _ in model.vocab]
    if isinstance(model, words.SentencePieceModel):
        return [piece for piece, _, _ in model.pieces]
    pieces: list[str | None] = [None] * len(model.vocab)
    beyond: list[tuple[str, int]] = []
    for piece, number in model.vocab.items():
        if not 0 <= number < len(pieces):
            beyond.append((piece, number))
        elif pieces[number] is not None:
            broken(f"the pieces {pieces[number]!r} and {piece!r} both claim the id {number}")
        else:
            pieces[number] = piece
    if beyond:
        missing = pieces.index(None)
        broken(
            f"the ids of the model's {len(pieces)} pieces have a hole: none has {missing}, but {beyond[0][0]!r} has "
            f"{beyond[0][1]}"
        )
    return [piece or "" for piece in pieces]


def check_added(said: words.Description, pieces: Sequence[str]) -> None:
    """Raise ``UserError`` unless each added token's id is its piece's, or the next that is free."""
    vocabulary = getattr(said.model, "vocab", None)
    known = vocabulary if isinstance(vocabulary, dict) else dict(zip(pieces, count(), strict=False))
    beyond: dict[str, int] = {}
    given: dict[int, str] = {}
    for token in said.added_tokens:
        if not token.content:
            broken(f"the added token with the id {token.id} is empty")
        if token.id in given:
            broken(f"the added tokens {given[token.id]!r} and {token.content!r} both claim the id {token.id}")
        if token.id < len(pieces) and known.get(token.content) != token.id:
            broken(
                f"the added token {token.content!r} and the piece {pieces[token.id]!r} both claim the id {token.id}"
            )
        wanted = known.get(token.content)
        if wanted is None:
            wanted = beyond.setdefault(token.content, len(known) + len(beyond))
        if wanted != token.id:
            broken(f"the added token {token.content!r} claims the id {token.id}, but {wanted} is its place")
        given[token.id] = token.content


def model_of(said: words.Description, pieces: Sequence[str]) -> Model:
    """The model; special tokens are never spelt by a text.

    Raises:
        UserError: it contradicts itself, or can't be run exactly.
    """
    hidden = frozenset(token.id for token in said.added_tokens if token.special)
    model = said.model
    if isinstance(model, words.Bpe):
        return _merging(model, pieces, hidden)
    if isinstance(model, words.UnigramModel):
        return _unigram(model, pieces, hidden)
    if isinstance(model, words.SentencePieceModel):
        return _sentencepiece(model, pieces, hidden)
    unknown = _unknown(model.unk_token, pieces)
    if isinstance(model, words.WordLevel):
        return Words(pieces, unknown=unknown, hidden=hidden)
    return WordPiece(
        ["" if number in hidden else piece for number, piece in enumerate(pieces)],
        unknown=unknown,
        prefix=model.continuing_subword_prefix,
        longest_word=model.max_input_chars_per_word,
    )


def _unknown(token: str, pieces: Sequence[str]) -> int:
    if token not in pieces:
        broken(f"the unknown token {token!r} is no piece of the model")
    return pieces.index(token)


def _merging(model: words.Bpe, pieces: Sequence[str], hidden: Collection[int]) -> Merging:
    if model.dropout:
        raise UserError(
            f"merges are dropped at random (dropout {model.dropout}), so a text has no one encoding",
            remedy="Set dropout to null in the file.",
            code="tokenizer-not-representable",
        )
    prefix = model.continuing_subword_prefix or ""
    numbers = model.vocab
    rules: dict[tuple[int, int], tuple[int, int]] = {}
    for rank, (left, right) in enumerate(model.merges):
        try:
            rules[numbers[left], numbers[right]] = rank, numbers[left + right[len(prefix) :]]
        except KeyError as absent:
            what = f"merge {rank} ({left!r} {right!r}) needs the piece {absent.args[0]!r}"
            broken(f"{what}, which the model doesn't have")
    return Merging(
        pieces,
        rules,
        unknown=None if model.unk_token is None else _unknown(model.unk_token, pieces),
        fuse=model.fuse_unk,
        every_byte=_falls_back(model.byte_fallback, pieces),
        whole=model.ignore_merges,
        prefix=prefix,
        suffix=model.end_of_word_suffix or "",
        hidden=hidden,
    )


def _falls_back(asked: bool, pieces: Sequence[str]) -> bool:
    """Whether characters without a piece are written as bytes."""
    known = set(BYTES).intersection(pieces) if asked else set()
    if known and len(known) < len(BYTES):
        missing = next(piece for piece in BYTES if piece not in known)
        broken(f"the model falls back to bytes, but has no piece {missing} ({len(BYTES) - len(known)} are missing)")
    return bool(known)


def _unigram(model: words.UnigramModel, pieces: Sequence[str], hidden: Collection[int]) -> Unigram:
    if model.unk_id is not None and not 0 <= model.unk_id < len(pieces):
        broken(f"the unknown's id {model.unk_id} is outside of the model's {len(pieces)} pieces")
    every_byte = _falls_back(model.byte_fallback, pieces)
    if model.unk_id is None and not every_byte:
        raise UserError(
            "the model has no unknown, so there are texts that it can't write",
            remedy="Give unk_id.",
            code="tokenizer-not-representable",
        )
    if model.unk_id is not None:
        hidden = {*hidden, model.unk_id}  # the word for what can't be written is no way to write
    scores = [score for _, score in model.vocab]
    return Unigram(pieces, scores, unknown=model.unk_id, every_byte=every_byte, hidden=hidden)


def _sentencepiece(
    model: words.SentencePieceModel, pieces: Sequence[str], specials: Collection[int]
) -> Unigram | ScoredPairs | SentenceWords:
    kinds = [kind for _, _, kind in model.pieces]
    scores = [score for _, score, _ in model.pieces]
    unknowns = [number for number, kind in enumerate(kinds) if kind == "unknown"]
    if len(unknowns) != 1:
        broken(f"the model has {len(unknowns)} unknowns, not one")
    hidden = {number for number, kind in enumerate(kinds) if kind in ("unknown", "control", "byte")} | set(specials)
    chosen = {number for number, kind in enumerate(kinds) if kind == "user_defined"}
    unused = {number for number, kind in enumerate(kinds) if kind == "unused"}
    every_byte = _falls_back(model.byte_fallback, pieces)
    if model.type == "SentencePieceWord":
        return SentenceWords(pieces, unknown=unknowns[0], every_byte=every_byte, hidden=hidden | unused)
    if model.type == "SentencePieceCharacter":
        # Nothing is joined, so that only characters and what the user defined come out.
        hidden |= {number for number, kind in enumerate(kinds) if kind == "normal" and len(pieces[number]) > 1}
    if model.type == "SentencePieceUnigram":
        return Unigram(
            pieces,
            scores,
            unknown=unknowns[0],
            every_byte=every_byte,
            hidden=hidden | unused,
            user_defined=chosen,
            single=True,
        )
    return ScoredPairs(
        pieces,
        scores,
        unknown=unknowns[0],
        every_byte=every_byte,
        hidden=hidden,
        user_defined=chosen,
        unused=unused,
    )


def writes_letters(model: words.Model, pieces: Sequence[str]) -> bool:
    """Whether a byte-pair model can write every letter of GPT-2's alphabet, and so every byte."""
    plain = isinstance(model, words.Bpe) and not model.continuing_subword_prefix and not model.end_of_word_suffix
    return plain and not set(spelling()).difference(pieces)
