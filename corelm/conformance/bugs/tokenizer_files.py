"""Tokenizers that say something else in the files of others than what they do."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from corelm.conformance.bugs.tokenizer import Pair, Pairs
from corelm.conformance.planted import plant, reference
from corelm.errors import UserError
from corelm.kinds.tokenizer import Tokenizer


@reference
class Writes(Pairs):
    """Byte pairs in a file of their own making."""

    @classmethod
    def to_files(cls, tokenizer: Tokenizer, path: Path) -> list[Path] | None:
        """Pairs and names, under one name."""
        if path.name != "encoder.json":
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
        if not path.is_file() or not path.read_bytes().startswith(b'{"pairs"'):
            return None
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


@reference
class Ranks(Pairs):
    """Byte pairs that reads tiktoken's files, and leaves what is in them to that library."""

    held: Any = None

    @classmethod
    def from_files(cls, path: Path) -> Tokenizer | None:
        """Ranks, and beside them how text is cut."""
        beside = path.with_name(f"{path.name}.json")
        if not beside.is_file():
            return None
        import tiktoken

        said, made = json.loads(beside.read_text()), cls(cls.Config())
        lines = [line.split() for line in path.read_text().splitlines() if line]
        made.names = tuple(said["special_tokens"])
        made.held = tiktoken.Encoding(
            "x", pat_str=said["pat_str"], mergeable_ranks=cls.ranks(lines), special_tokens=said["special_tokens"]
        )
        return made

    @classmethod
    def ranks(cls, lines: list[list[str]]) -> dict[bytes, int]:
        """Rank of each token."""
        return {base64.b64decode(token): int(rank) for token, rank in lines}

    @property
    def specials(self) -> dict[str, int]:
        """As the file says."""
        return {name: self.held.encode_single_token(name) for name in self.names} if self.held else super().specials

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Text to ids."""
        if self.held:
            allowed = set(self.names) if allow_special else set[str]()
            return list(self.held.encode(text, allowed_special=allowed, disallowed_special=()))
        return super().encode(text, allow_special=allow_special)


@plant("files_mean_what_they_say", "the number of a line is taken for its rank")
class CountsLines(Ranks):
    """Right, as long as the lines are in order."""

    @classmethod
    def ranks(cls, lines: list[list[str]]) -> dict[bytes, int]:
        return {base64.b64decode(token): place for place, (token, _) in enumerate(lines)}
