"""What every vocabulary must hold: each id once, none left out, merges whose parts and results are there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from corelm_tokenizers.formats.found import damaged, refused
from corelm_tokenizers.formats.schema import Json
from corelm_tokenizers.library import spelling

STRAY: Final = 64
"""So many tokens that no merge makes may be in a vocabulary of bytes and merges."""


def read_json(path: Path) -> Json:
    """The object in a file.

    Raises:
        UserError: it is no JSON, no object, or says a key twice.
    """

    def once(entries: list[tuple[str, Any]]) -> Json:
        made = dict(entries)
        if len(made) < len(entries):
            seen = set[str]()
            twice = next(key for key, _ in entries if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise damaged(path, f"key {twice!r}", "it is there twice")
        return made

    try:
        read = json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=once)
    except UnicodeDecodeError as error:
        raise damaged(path, f"byte {error.start}", "it is no UTF-8") from error
    except json.JSONDecodeError as error:
        raise damaged(path, f"line {error.lineno}, column {error.colno}", f"it is no JSON: {error.msg}") from error
    except RecursionError as error:
        raise damaged(path, "the beginning", "it is nested too deeply") from error
    if not isinstance(read, dict):
        raise damaged(path, "the beginning", f"an object is expected, not a {type(read).__name__}")
    return read


def ids_of(path: Path, entries: Mapping[str, Any], where: str = "") -> dict[str, int]:
    """Entries as a table from spelling to id, in the order of ids.

    Raises:
        UserError: an id is no number, negative, or claimed by two.
    """
    owners: dict[int, str] = {}
    for piece, number in entries.items():
        if type(number) is not int or number < 0:
            raise damaged(path, f"{where}token {piece!r}", f"its id is {number!r}, which is none")
        other = owners.setdefault(number, piece)
        if other != piece:
            raise damaged(path, f"{where}id {number}", f"two tokens claim it: {other!r} and {piece!r}")
    return {owners[number]: number for number in sorted(owners)}


def check_no_holes(path: Path, ids: Iterable[int], what: str = "ids") -> None:
    """Raise ``UserError`` unless the ids are 0 … n − 1, naming the first that is missing."""
    known = set(ids)
    if len(known) == max(known, default=-1) + 1:
        return
    missing = next(number for number in range(len(known) + 1) if number not in known)
    raise damaged(
        path,
        f"id {missing}",
        f"no token has it, but {what} go up to {max(known)}",
        "Restore the tokens that were taken out, or give the file that adds them (added_tokens.json) beside it.",
    )


def check_merges(
    path: Path, merges: Sequence[tuple[str, str]], vocabulary: Mapping[str, int], line: int = 1, *, once: bool = True
) -> None:
    """Raise ``UserError`` if a merge's parts or result are no tokens, or a merge is there twice.

    Args:
        path: the file of the merges.
        merges: in the order of the file.
        vocabulary: ids by spelling.
        line: number of the first one's line.
        once: whether a merge may be there once only.
    """
    known = dict[tuple[str, str], int]()
    for number, (left, right) in enumerate(merges, line):
        joined = left + right
        if once and known.setdefault((left, right), number) != number:
            raise damaged(path, f"merge {number}", f"{f'{left} {right}'!r} is merge {known[left, right]} already")
        if left not in vocabulary or right not in vocabulary or joined not in vocabulary:
            piece = next(piece for piece in (left, right, joined) if piece not in vocabulary)
            raise damaged(
                path,
                f"merge {number} ({f'{left} {right}'!r})",
                f"{piece!r}, which it {'makes' if piece == joined else 'joins'}, has no id in the vocabulary",
                "Merges and vocabulary must be from one training.",
            )


def check_byte_level(path: Path, merges: Sequence[tuple[str, str]], vocabulary: Iterable[str]) -> None:
    """Raise ``UserError`` unless merges join bytes, as GPT-2 writes them.

    Bytes without a token are no error: what can't be written is left out, as the field's libraries do.
    """
    if sum(piece.endswith("</w>") for piece in vocabulary) > 1:
        raise refused(
            path,
            "its tokens are characters with </w> at words' ends (the first GPT, CLIP), whose normaliser it doesn't say",
            "Give the model's tokenizer.json.",
        )
    alphabet = frozenset(spelling())
    for number, pair in enumerate(merges, 1):
        if not alphabet.issuperset("".join(pair)):
            raise refused(
                path,
                f"merge {number} ({' '.join(pair)!r}) joins characters, not bytes as GPT-2 writes them",
                "Give the model's tokenizer.json, which says what is done with characters.",
            )


def check_no_gaps(
    path: Path, merges: Sequence[tuple[str, str]], vocabulary: Iterable[str], special: Iterable[str], line: int = 1
) -> None:
    """Raise ``UserError`` if byte-level merges are missing: a merge could never happen, or many tokens never come.

    A few tokens that no merge makes are no error (RoBERTa has three): they are as dead elsewhere.

    Args:
        path: the file of the merges.
        merges: in the order of the file.
        vocabulary: all tokens.
        special: those of them that no text spells.
        line: number of the first merge's line.
    """
    known = {left + right for left, right in merges}.union(spelling(), special)
    for number, pair in enumerate(merges, line):
        for piece in pair:
            if piece not in known:
                raise damaged(
                    path,
                    f"merge {number} ({' '.join(pair)!r})",
                    f"{piece!r}, which it joins, is made by no merge: some are missing",
                )
    dead = [piece for piece in vocabulary if piece not in known]
    if len(dead) > STRAY:
        raise damaged(
            path,
            f"after line {line + len(merges) - 1}",
            f"it ends, but no merge makes {len(dead):,} tokens of the vocabulary, {dead[0]!r} the first of them",
        )


def check_every_byte(path: Path, tokens: Iterable[bytes]) -> None:
    """Raise ``UserError`` unless each byte is a token."""
    known = set(tokens)
    missing = [value for value in range(256) if bytes([value]) not in known]
    if missing:
        raise damaged(
            path,
            f"byte {missing[0]:#04x}",
            f"it has no rank, nor have {len(missing) - 1} other bytes: the vocabulary is smaller than the alphabet",
            "Give a rank file with all 256 bytes.",
        )
