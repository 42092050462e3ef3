"""What byte-level tokenizers share: pieces made of bytes, special tokens, one file of plain JSON."""

from __future__ import annotations

import json
import os
import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from corelm.errors import UserError
from corelm.kinds import Tokenizer

Merge = tuple[int, int]
"""Two ids that are joined; merges stand in the order in which they are applied."""


def pieces_of(merges: Sequence[Merge]) -> tuple[list[bytes], list[int]]:
    """Bytes of every id, and the id that each merge yields.

    Ids 0–255 are the bytes. A merge yields a new id, or, where two ways lead to the same bytes, the id that they have.
    """
    pieces = [bytes([value]) for value in range(256)]
    known = {piece: number for number, piece in enumerate(pieces)}
    results = []
    for left, right in merges:
        joined = pieces[left] + pieces[right]
        if joined not in known:
            known[joined] = len(pieces)
            pieces.append(joined)
        results.append(known[joined])
    return pieces, results


class ByteLevelTokenizer(Tokenizer):
    """Base of tokenizers whose ids stand for bytes: 0–255 the single bytes, then merges, then special tokens.

    A part says how it encodes text free of special tokens (``_encode_plain``); everything else is here. The file is
    ``vocabulary.json``: ``{"merges": [[left, right], …], "specials": [text, …]}``, the same for all of them, so that
    one reads what another wrote.
    """

    FILE: ClassVar[str] = "vocabulary.json"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._pieces: list[bytes] = []
        self._specials: dict[str, int] = {}
        self.merges: tuple[Merge, ...] = ()

    @abstractmethod
    def _encode_plain(self, text: str) -> list[int]:
        """Ids of a text in which nothing is special; bytes that are no UTF-8 stand in it as surrogate escapes."""

    def _set(self, merges: Sequence[Merge], specials: Sequence[str]) -> None:
        """Take a vocabulary."""
        check_specials(specials)
        self.merges = tuple(merges)
        self._pieces = pieces_of(self.merges)[0]
        self._specials = {special: len(self._pieces) + number for number, special in enumerate(specials)}
        self._pieces += [special.encode() for special in specials]
        # Longest first: of two specials that start alike the longer one is meant.
        spelt = "|".join(re.escape(special) for special in sorted(specials, key=len, reverse=True))
        self._special_pattern = re.compile(f"({spelt})") if specials else None

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return len(self._trained())

    @property
    def specials(self) -> dict[str, int]:
        """Special tokens and their ids, in the order of ids."""
        return dict(self._specials)

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Text to ids; with ``allow_special`` the spelling of a special token becomes that token.

        Raises:
            UserError: a lone surrogate, or the tokenizer is untrained.
        """
        self._trained()
        check_scalars(text)
        if not allow_special or self._special_pattern is None:
            return self._encode_plain(text)
        ids: list[int] = []
        for number, part in enumerate(self._special_pattern.split(text)):
            if number % 2:
                ids.append(self._specials[part])
            elif part:
                ids += self._encode_plain(part)
        return ids

    @property
    def every_byte(self) -> bool:
        """Each has an id."""
        return True

    def encode_bytes(self, data: bytes) -> list[int]:
        """Bytes to ids; bytes that are no UTF-8 are signs that are neither letters, nor digits, nor spaces."""
        self._trained()
        return self._encode_plain(data.decode("utf-8", "surrogateescape"))

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Ids to bytes; special tokens give their spelling.

        Raises:
            UserError: an id is outside the vocabulary.
        """
        pieces = self._trained()
        try:
            if len(ids) and min(ids) >= 0:
                return b"".join([pieces[token] for token in ids])
        except IndexError:
            pass
        wrong = next((int(token) for token in ids if not 0 <= token < len(pieces)), None)
        if wrong is None:
            return b""
        raise UserError(
            f"token id {wrong} is outside the vocabulary of {len(pieces)} ids",
            remedy="Decode with the tokenizer that the ids were made with.",
            code="token-id-out-of-range",
        )

    def save(self, folder: Path) -> None:
        """Write ``vocabulary.json`` into an existing folder."""
        self._trained()
        merges = ",\n".join(f"[{left}, {right}]" for left, right in self.merges)
        specials = json.dumps(list(self._specials))
        write_whole(folder / self.FILE, f'{{"merges": [\n{merges}\n],\n"specials": {specials}}}\n')

    @classmethod
    def load(cls, config: Any, folder: Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            UserError: the file is missing or isn't such a vocabulary.
        """
        path = folder / cls.FILE
        try:
            content = json.loads(path.read_bytes())
            merges = [(int(left), int(right)) for left, right in content["merges"]]
            if any(min(merge) < 0 for merge in merges):
                raise ValueError("a negative id")
            made = cls(config)
            made._set(merges, content["specials"])
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise unreadable(path, error) from error
        return made

    def as_tokenizers_json(self) -> str | None:
        """The same tokenizer as a ``tokenizer.json`` of the tokenizers library."""
        from corelm_tokenizers import library

        self._trained()
        return library.to_json(self.merges, list(self._specials), getattr(self.config, "pattern", "none"))

    @classmethod
    def from_tokenizers_json(cls, text: str) -> Self | None:
        """The tokenizer that ``as_tokenizers_json`` wrote so; None where the file says anything else."""
        from corelm_tokenizers import library

        found = library.from_json(text)
        if found is None:
            return None
        merges, specials, pattern = found
        options = {"vocab_size": len(pieces_of(merges)[0]) + len(specials), "pattern": pattern}
        if not options.keys() <= cls.Config.model_fields.keys():
            if merges or pattern != "none":
                return None
            options = {}
        made = cls(cls.Config(**options))
        made._set(merges, specials)
        return made

    def _trained(self) -> list[bytes]:
        if not self._pieces:
            raise UserError(
                "the tokenizer has no vocabulary yet", remedy="Train it, or load one.", code="tokenizer-untrained"
            )
        return self._pieces


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="ascii", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def unreadable(path: Path, error: Exception) -> UserError:
    """The error for a vocabulary's file that says something else than was written."""
    return UserError(
        f"{path}: not a readable vocabulary: {type(error).__name__}: {error}",
        remedy="Train the tokenizer again, or restore the file.",
        code="tokenizer-unreadable",
    )


def check_scalars(text: str) -> None:
    """Raise ``UserError`` if the text has a lone surrogate, which no encoding of Unicode can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"the text has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}",
            remedy="Read the text with the encoding that it is in; half of a surrogate pair is no character.",
            code="lone-surrogate",
        ) from error


def too_few_pieces(asked: int, reachable: int) -> UserError:
    """The error for a vocabulary that the text can't fill."""
    return UserError(
        f"vocab_size {asked} is larger than the text allows: it has only {reachable} different pieces, "
        "special tokens included",
        remedy=f"Give more text, or a vocab_size of at most {reachable}.",
        code="vocabulary-too-large",
        reachable=reachable,
    )


def check_room(vocab_size: int, specials: Sequence[str]) -> int:
    """Number of ids that are left for merges.

    Raises:
        UserError: there is no room for the 256 bytes and the special tokens.
    """
    room = vocab_size - 256 - len(specials)
    if room < 0:
        raise UserError(
            f"vocab_size {vocab_size} has no room for 256 bytes and {len(specials)} special tokens",
            remedy=f"Set vocab_size to at least {256 + len(specials)}.",
            code="vocabulary-too-small",
        )
    return room


def check_specials(specials: Sequence[str]) -> None:
    """Raise ``UserError`` if a special token is empty, there twice, or has a lone surrogate."""
    for number, special in enumerate(specials):
        if not special or special in specials[:number]:
            what = "empty" if not special else f"named twice: {special!r}"
            raise UserError(f"a special token is {what}", code="specials-invalid")
        check_scalars(special)
