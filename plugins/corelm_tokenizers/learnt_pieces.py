"""What the tokenizers share that learn pieces of characters: steps and a model put together, one file of plain JSON."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from corelm.errors import UserError
from corelm.kinds import END_OF_TEXT, Piece, Tokenizer
from corelm_tokenizers.assembled import Assembly
from corelm_tokenizers.model import Model
from corelm_tokenizers.vocabulary import check_scalars, check_specials, too_few_pieces, unreadable, write_whole

Scored = tuple[str, float]
"""Spelling and score of a piece; the score is 0 where there is nothing to weigh."""


class LearnsPieces(Tokenizer):
    """Base of tokenizers that learn pieces of characters from counted words.

    A part says how a text is cut for training, what it learns, its description and its model; everything else is done
    by an ``Assembly`` of the description's steps around the model. Ids: ``outside`` (unknown, bytes), then the pieces
    learnt, then the special tokens. The file is ``vocabulary.json``: ``{"pieces": [[piece, score], …], "specials":
    [text, …]}``, the same for siblings, so that one reads what another wrote.
    """

    FILE: ClassVar[str] = "vocabulary.json"
    lossy: ClassVar[bool] = True
    family: ClassVar[str] = ""
    """Parts of one family read each other's files, and encode alike."""
    model_type: ClassVar[str] = ""
    """What descriptions call the model."""
    outside: ClassVar[tuple[str, ...]] = ()
    """Pieces that are there without training."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.learnt: tuple[Scored, ...] = ()
        self._assembly: Assembly | None = None

    @classmethod
    def trained_size(cls, config: Any, specials: Sequence[str] = (END_OF_TEXT,)) -> int:
        """What the config asks for; training gives that or fails."""
        size: int = config.vocab_size
        return size

    def train(self, documents: Iterable[str], specials: Sequence[str] = (END_OF_TEXT,)) -> None:
        """Learn pieces from documents; see the class.

        Raises:
            UserError: the text has fewer different pieces than ``vocab_size`` asks for, or there is no room for any.
        """
        asked = self.config.vocab_size
        room = asked - len(self.outside) - len(specials)
        if room < 0:
            raise self._no_room(asked, asked - room, 0)
        words: Counter[str] = Counter()
        for document in documents:
            check_scalars(document)
            words.update(self._words(document))
        learnt, reached = self._learn(words, room), room
        if len(learnt) > room:
            raise self._no_room(asked, asked - room, len(learnt))
        while len(learnt) < reached:
            # What can be learnt may depend on the room; the error names a size that can be reached indeed.
            reached = len(learnt)
            learnt = self._learn(words, reached)
        if reached < room:
            raise too_few_pieces(asked, asked - room + reached)
        self._set(learnt, specials)

    @abstractmethod
    def _words(self, document: str) -> Iterable[str]:
        """What training counts; no piece crosses the ends of one."""

    @abstractmethod
    def _learn(self, words: Counter[str], room: int) -> Sequence[Scored]:
        """At most ``room`` pieces, or more if the text can't be written with so few."""

    @abstractmethod
    def _described(self, pieces: Sequence[Scored], specials: Sequence[str]) -> dict[str, Any]:
        """Description in the schema of ``tokenizer.json`` of all pieces, the ones outside first."""

    @abstractmethod
    def _model(self, pieces: Sequence[Scored]) -> Model:
        """What turns a word into ids."""

    def _set(self, learnt: Sequence[Scored], specials: Sequence[str]) -> None:
        """Take a vocabulary."""
        check_specials(specials)
        self.learnt = tuple((piece, float(score)) for piece, score in learnt)
        pieces = [*((piece, 0.0) for piece in self.outside), *self.learnt]
        twice = {piece for piece, _ in pieces}.intersection(specials)
        if twice:
            raise UserError(
                f"the special token {min(twice)!r} is spelt as a piece of the vocabulary is",
                remedy="Spell it so that no word is like it, such as <|name|>.",
                code="specials-invalid",
            )
        self._told = self._described(pieces, specials)
        self._vocabulary = self._model(pieces)
        self._assembly = Assembly(self._told, self._vocabulary)

    @property
    def _ready(self) -> Assembly:
        if self._assembly is None:
            raise UserError(
                "the tokenizer has no vocabulary yet", remedy="Train it, or load one.", code="tokenizer-untrained"
            )
        return self._assembly

    def _no_room(self, asked: int, taken: int, needed: int) -> UserError:
        smallest, fixed = taken + needed, len(self.outside)
        what = f"{fixed} fixed pieces and {taken - fixed} special tokens"
        return UserError(
            f"vocab_size {asked} has no room for {f'{needed} pieces beside ' if needed else ''}{what}",
            remedy=f"Set vocab_size to at least {smallest}.",
            code="vocabulary-too-small",
            reachable=smallest,
        )

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self._ready.vocab_size

    @property
    def specials(self) -> dict[str, int]:
        """Special tokens and their ids, in the order of ids."""
        return self._ready.specials

    @property
    def every_byte(self) -> bool:
        """Whether any bytes can be written and come back."""
        return self._ready.every_byte

    @property
    def unknown(self) -> int | None:
        """The id that stands for what can't be written; None where everything can."""
        self._ready  # noqa: B018 (an untrained one says so)
        return None if self._vocabulary.every_byte else self._vocabulary.unknown

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Text to ids; with ``allow_special`` the spelling of a special token becomes that token.

        Raises:
            UserError: a lone surrogate, or the tokenizer is untrained.
        """
        return self._ready.encode(text, allow_special=allow_special)

    def encode_bytes(self, data: bytes) -> list[int]:
        """Bytes to ids; those that are no UTF-8 too, where ``every_byte``.

        Raises:
            UserError: bytes that are no UTF-8, unless ``every_byte``.
        """
        return self._ready.encode_bytes(data)

    def encode_with_spans(self, text: str, *, allow_special: bool = False) -> list[Piece]:
        """Ids, and the characters of the text that each stands for.

        Raises:
            UserError: as ``encode``.
        """
        return self._ready.encode_with_spans(text, allow_special=allow_special)

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Ids to bytes; special tokens give their spelling.

        Raises:
            UserError: an id is outside the vocabulary.
        """
        return self._ready.decode_bytes(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text; bytes that are no UTF-8 become U+FFFD."""
        return self._ready.decode(ids)

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Decode piece by piece; a piece ends at a character's end."""
        return self._ready.stream(ids)

    def normalise(self, text: str) -> str:
        """What is left of a text once it has been encoded."""
        return self._ready.normalise(text)

    def save(self, folder: Path) -> None:
        """Write ``vocabulary.json`` into an existing folder."""
        specials = list(self.specials)
        pieces = ",\n".join(json.dumps(list(one)) for one in self.learnt)
        write_whole(folder / self.FILE, f'{{"pieces": [\n{pieces}\n],\n"specials": {json.dumps(specials)}}}\n')

    @classmethod
    def load(cls, config: Any, folder: Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            UserError: the file is missing or isn't such a vocabulary.
        """
        path = folder / cls.FILE
        try:
            content = json.loads(path.read_bytes())
            learnt = [(str(piece), float(score)) for piece, score in content["pieces"]]
            check_pieces([*cls.outside, *(piece for piece, _ in learnt)])
            specials = [str(special) for special in content["specials"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise unreadable(path, error) from error
        made = cls(config)
        made._set(learnt, specials)
        return made

    def as_tokenizers_json(self) -> str | None:
        """The same tokenizer as a ``tokenizer.json`` of the tokenizers library."""
        self._ready  # noqa: B018 (an untrained one says so)
        told = self._in_librarys_words()
        return None if told is None else json.dumps(told, ensure_ascii=False, indent=2)

    def _in_librarys_words(self) -> dict[str, Any] | None:
        """The description, in types that the library has; None where it has no words for it."""
        return self._told

    @classmethod
    def from_tokenizers_json(cls, text: str) -> Self | None:
        """The tokenizer that ``as_tokenizers_json`` wrote so; None where the file says anything else."""
        if f'"{cls.model_type}"' not in text:
            return None
        try:
            data = json.loads(text)
            pieces, options = cls._read(data)
            check_pieces([*cls.outside, *(piece for piece, _ in pieces[len(cls.outside) :])])
            specials = [token["content"] for token in data["added_tokens"]]
            made = cls(cls.Config(vocab_size=len(pieces) + len(specials), **options))
            made._set(pieces[len(cls.outside) :], specials)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, UserError):
            return None
        # What isn't said in exactly these words might mean something else.
        return made if json.loads(json.dumps(made._in_librarys_words())) == data else None

    @classmethod
    def _read(cls, data: Any) -> tuple[list[Scored], dict[str, Any]]:
        """All pieces of a description, and the options that it was made with; any error where it is of another kind."""
        raise ValueError("no such file describes it")


def check_pieces(pieces: Sequence[str]) -> None:
    """Raise ``ValueError`` where a piece is empty or there twice."""
    for piece, count in Counter(pieces).items():
        if not piece or count > 1:
            raise ValueError(f"the piece {piece!r} is there {count} times" if piece else "a piece is empty")
