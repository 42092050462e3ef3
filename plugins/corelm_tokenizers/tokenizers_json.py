"""A ``tokenizer.json`` of the ``tokenizers`` library, as it is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, ClassVar, Self

import tokenizers

from corelm.errors import UserError
from corelm.kinds import Piece, spans_of_bytes
from corelm_tokenizers.decoding import Decoding
from corelm_tokenizers.described import Described, frame_of
from corelm_tokenizers.vocabulary import check_scalars


class TokenizersJson(Described):
    """A ``tokenizer.json`` of the ``tokenizers`` library, as it is.

    For models that were trained elsewhere: the library encodes, whatever normaliser, pattern and model the file names.
    It can't be trained; a recipe takes it by ``tokenizer: {load: PATH}``. ``assembled`` runs most such files without
    the library, with the same ids.
    """

    library: ClassVar[str | None] = "tokenizers"

    def _set(self, text: str) -> None:
        data = json.loads(text)
        self._special, self._plain = (tokenizers.Tokenizer.from_str(text) for _ in range(2))
        self._plain.encode_special_tokens = True  # what a text spells is text
        for library in (self._special, self._plain):
            library.no_padding()
            library.no_truncation()
            library.post_processor = None  # it adds what is not asked for, and moves spans
        added = self._special.get_added_tokens_decoder()
        vocabulary = self._special.get_vocab(with_added_tokens=True)
        _check_ids(data.get("added_tokens") or (), vocabulary)
        pieces = [""] * (1 + max(vocabulary.values()))
        for piece, number in vocabulary.items():
            pieces[number] = piece
        self._unknown = _unknown(data["model"], vocabulary)
        told = {number: (token.content, token.special) for number, token in added.items()}
        self._decoding = Decoding(data.get("decoder"), pieces, told)
        self._frame = frame_of(data.get("post_processor"))
        self._forbidden = frozenset(self._decoding.specials.values()) - {self._unknown}
        self._text = text

    @property
    def unknown(self) -> int | None:
        """Id of the unknown."""
        self._loaded()
        return self._unknown

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Text to ids, nothing added before or after.

        Raises:
            UserError: a lone surrogate, or the library makes a special token of what the text spells.
        """
        return self.encode_batch([text], allow_special=allow_special)[0]

    def encode_batch(self, texts: Sequence[str], *, allow_special: bool = False) -> list[list[int]]:
        """Encode each text as ``encode`` does, on all processors."""
        self._loaded()
        for text in texts:
            check_scalars(text)
        library = self._special if allow_special else self._plain
        found = [one.ids for one in library.encode_batch_fast(list(texts), add_special_tokens=False)]
        if not allow_special:
            for ids in found:
                self._check(ids)
        return found

    def encode_with_spans(self, text: str, *, allow_special: bool = False) -> list[Piece]:
        """Ids, and the characters of the text as it was given that each stands for.

        Raises:
            UserError: as ``encode``.
        """
        self._loaded()
        check_scalars(text)
        found = (self._special if allow_special else self._plain).encode(text, add_special_tokens=False)
        if not allow_special:
            self._check(found.ids)
        size = len(text)  # the library counts the bytes that it writes an end of word with beyond the text
        spans = [(min(start, size), min(end, size)) for start, end in found.offsets]
        pieces: list[Piece] = []
        for (start, end), run in groupby(zip(found.ids, spans, strict=True), key=lambda placed: placed[1]):
            ids = [number for number, _ in run]
            spelt = [self.decode_bytes([number]) for number in ids]
            if len(ids) > 1 and b"".join(spelt) == text[start:end].encode():
                # To each byte of several characters without a piece the library gives the span of all of them.
                own = spans_of_bytes(text[start:end], map(len, spelt))
                pieces += [Piece(number, start + at, start + to) for number, (at, to) in zip(ids, own, strict=True)]
            else:
                pieces += [Piece(number, start, end) for number in ids]
        return pieces

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text; bytes that are no UTF-8 become U+FFFD.

        Where a decoder's steps see pieces that are joined, the text is the library's, and ``decode_bytes`` gives the
        pieces without those steps.

        Raises:
            UserError: an id is outside the vocabulary.
        """
        self._loaded()
        if not self._decoding.strange:
            return self._decoding.decode(ids)
        self._decoding.decode_bytes(ids)  # refuses ids that the library leaves out without a word
        text: str = self._special.decode(list(ids), skip_special_tokens=False)
        return text

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Decode piece by piece; in one piece where what is written may hang on all that follows."""
        self._loaded()
        if not self._decoding.strange:
            yield from self._decoding.stream(ids)
        elif text := self.decode(list(ids)):
            yield text

    def _check(self, ids: Sequence[int]) -> None:
        """Raise unless a text was kept from becoming a special token."""
        if self._forbidden.isdisjoint(ids):
            return
        number = next(number for number in ids if number in self._forbidden)
        raise UserError(
            f"the text spells the special token {self._decoding.spelt(number)!r}, which the file's model has as a piece, "
            "so that the library can't read it as text",
            remedy="Run the file by `use: assembled`, or allow special tokens.",
            code="text-becomes-special",
        )

    @classmethod
    def from_tokenizers_json(cls, text: str) -> Self | None:
        """Any that the library reads."""
        made = cls(cls.Config())
        try:
            made._set(text)
        except Exception:  # the library raises nothing more special
            return None
        return made


def _check_ids(added: Sequence[Mapping[str, Any]], vocabulary: Mapping[str, int]) -> None:
    """Raise ``UserError`` where the library gives an added token another id than the file: it does so in silence."""
    for token in added:
        stated, given = token["id"], vocabulary[token["content"]]
        if stated != given:
            other = next((piece for piece, number in vocabulary.items() if number == stated), None)
            why = f"which is {other!r}'s" if other is not None else f"but {given} is its place"
            raise UserError(
                f"tokenizer.json: the added token {token['content']!r} claims the id {stated}, {why}",
                remedy="Give the file that the model was trained with; ids of added tokens follow those of the vocabulary.",
                code="tokenizer-file-damaged",
            )


def _unknown(model: Mapping[str, Any], vocabulary: Mapping[str, int]) -> int | None:
    number: int | None = model.get("unk_id")
    return number if number is not None else vocabulary.get(model.get("unk_token") or "")
