"""Tokenizers that say something else in the files of others than what they do."""

from __future__ import annotations

import json
from pathlib import Path

from corelm.conformance.bugs.tokenizer import Pair, Pairs
from corelm.conformance.planted import plant, reference
from corelm.errors import UserError
from corelm.kinds.tokenizer import Tokenizer


@reference
class Writes(Pairs):
    """Byte pairs in a file of their own making."""

    @classmethod
    def to_files(cls, tokenizer: Tokenizer, path: Path) -> list[Path] | None:
        """Pairs and names, where the name ends in .json."""
        if path.suffix != ".json":
            return None
        if not isinstance(tokenizer, Pairs):
            raise UserError(f"{path}: it has no pairs", remedy="Write pairs.")
        path.write_text(json.dumps({"pairs": cls.told(tokenizer.pairs), "names": cls.named(tokenizer.names)}))
        return [path]

    @classmethod
    def told(cls, pairs: list[Pair]) -> list[Pair]:
        """The pairs that are written."""
        return pairs

    @classmethod
    def named(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        """The special tokens that are written."""
        return names

    @classmethod
    def from_files(cls, path: Path) -> Tokenizer | None:
        """What ``to_files`` wrote."""
        said = json.loads(path.read_text())
        made = cls(cls.Config())
        made.pairs, made.names = [(left, right) for left, right in said["pairs"]], tuple(said["names"])
        return made


@plant("files_of_others_come_back", "pairs are written in the order of their ids, not of their joining")
class WritesSortedPairs(Writes):
    """As a dictionary would be."""

    @classmethod
    def told(cls, pairs: list[Pair]) -> list[Pair]:
        return sorted(pairs, reverse=True)


@plant("files_of_others_come_back", "only the first special token is written")
class WritesOneSpecial(Writes):
    """The end of text."""

    @classmethod
    def named(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return names[:1]


@plant("files_of_others_come_back", "an empty file is left where the format has no words")
class LeavesHalfAFile(Writes):
    """Opened before it was looked at."""

    @classmethod
    def to_files(cls, tokenizer: Tokenizer, path: Path) -> list[Path] | None:
        path.touch()
        raise UserError(f"{path}: it can't be said", remedy="Write something else.")
