"""SentencePiece's compiled map of characters, and the normaliser that it is part of.

The map is a table of rules "these characters become those", kept as a double-array trie (Aoe, 1989; in the layout of
the library darts-clone) of UTF-8 bytes whose values point into a heap of strings that end with a zero byte. The
normaliser is that of SentencePiece (Kudo and Richardson, 2018, arXiv:1808.06226): at each place the longest rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from typing import Final

import numpy as np
import regex

SPACE: Final = "▁"
"""U+2581, which stands for a space inside of pieces."""

_MOST_STEPS: Final = 1024
"""Longer no rule is, in bytes."""


class CharacterMap:
    """Rules that replace characters by others.

    Args:
        blob: four bytes with the size of the trie, the trie, the replacements.

    Raises:
        ValueError: the blob is broken.
    """

    def __init__(self, blob: bytes) -> None:
        if len(blob) < 8:
            raise ValueError("the map of characters is shorter than its header")
        size = int.from_bytes(blob[:4], "little")
        if size % 4 or not 4 <= size < len(blob) - 4:
            raise ValueError(f"the map of characters claims {size} bytes of trie, {len(blob) - 4} are there")
        units = np.frombuffer(blob, "<u4", size // 4, 4).astype(np.int64)
        self._heap = blob[4 + size :]
        self._units: list[int] = units.tolist()
        self._values: dict[int, str] = {}
        alone, inside = _signs(units, self._heap)
        self.alone: frozenset[str] = frozenset(map(chr, alone))
        """Characters that are a rule by themselves."""
        self.inside: frozenset[str] = frozenset(map(chr, inside))
        """Characters that stand in a rule, but not as its first."""

    def longest_prefix(self, text: str, at: int = 0) -> tuple[int, str] | None:
        """The longest rule that the text spells at a place: its length, and what replaces it; None: no rule."""
        found = None
        for found in self._prefixes(text, at):  # noqa: B007
            pass
        return found

    def shortest_prefix(self, text: str) -> str | None:
        """What the shortest rule with which the text begins puts for it; None: no rule.

        So the library tokenizers reads a map (``Precompiled``): the whole of the text becomes that, however short the
        rule is.
        """
        found = next(self._prefixes(text, 0), None)
        return None if found is None else found[1]

    @property
    def doubles_spaces(self) -> bool:
        """Whether any replacement has two spaces in a row."""
        return b"  " in self._heap

    def _prefixes(self, text: str, at: int) -> Iterator[tuple[int, str]]:
        """Rules that the text spells at a place, the shorter first."""
        units = self._units
        base = _offset(units[0])
        for place in range(at, len(text)):
            try:
                spelt = text[place].encode()
            except UnicodeEncodeError:  # a byte that is no UTF-8
                return
            for byte in spelt:
                base ^= byte
                if base >= len(units) or units[base] & 0x800000FF != byte:
                    return
                unit = units[base]
                base ^= _offset(unit)
            if unit >> 8 & 1:
                yield place + 1 - at, self._value(units[base] & 0x7FFFFFFF)

    def _value(self, place: int) -> str:
        """The replacement at a place of the heap."""
        known = self._values.get(place)
        if known is None:
            known = self._heap[place : self._heap.index(b"\0", place)].decode()
            self._values[place] = known
        return known


def _offset(unit: int) -> int:
    """How far the children of a unit are from it.

    A unit holds, from the lowest bit: eight bits of label, one "a key ends here", one "the offset is in blocks of 256",
    the offset; or, with the highest bit set, a value. The child of the unit at ``p`` for a byte is at
    ``p ^ offset ^ byte`` and has that byte as its label; the value of the key that ends there is at ``p ^ offset``.
    """
    return unit >> 10 << ((unit & 1 << 9) >> 6)


def _signs(units: np.ndarray, heap: bytes) -> tuple[set[int], set[int]]:
    """Code points that are keys by themselves, and those that stand in keys after the first.

    Raises:
        ValueError: keys that never end, values outside of the heap, either no UTF-8.
    """
    try:
        heap.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"the replacements of the map of characters are no UTF-8 at byte {error.start}") from error
    places = np.arange(len(units))
    labels, nodes = units & 0xFF, (units >> 31) == 0
    order = np.argsort(places ^ labels, kind="stable")
    order = order[nodes[order] & (labels[order] > 0) & (order > 0)]
    bases = (places ^ labels)[order]
    alone, inside = set[int](), set[int]()
    # Of every beginning of a key: its unit, the code point so far, the bytes that it still needs, whether it is the first.
    state = np.array([[0, 0, 0, 1]])
    for _ in range(_MOST_STEPS):
        unit = units[state[:, 0]]
        base = state[:, 0] ^ (unit >> 10 << ((unit & 1 << 9) >> 6))
        whole = (state[:, 2] == 0) & (state[:, 0] > 0)
        ends = unit >> 8 & 1 > 0
        _check_values(units, base[ends], heap, split=bool((ends & ~whole).any()))
        alone.update(state[ends & (state[:, 3] == 1), 1].tolist())
        inside.update(state[whole & (state[:, 3] == 0), 1].tolist())
        low, high = np.searchsorted(bases, base), np.searchsorted(bases, base, "right")
        counts = high - low
        if not counts.sum():
            return alone, inside
        parents = np.repeat(np.arange(len(state)), counts)
        within = np.arange(len(parents)) - np.repeat(np.cumsum(counts) - counts, counts)
        children = order[np.repeat(low, counts) + within]
        state = np.unique(_stepped(state[parents], children, labels[children]), axis=0)
    raise ValueError("the trie of the map of characters has no end")


def _stepped(state: np.ndarray, children: np.ndarray, byte: np.ndarray) -> np.ndarray:
    """Beginnings of keys, each one byte longer."""
    begins = state[:, 2] == 0
    more = (byte >= 0xC2).astype(np.int64) + (byte >= 0xE0) + (byte >= 0xF0)
    follows = byte >> 6 == 2
    if (begins == follows).any():
        raise ValueError("a rule of the map of characters is no UTF-8")
    lead = np.where(more == 0, byte, byte & 0x3F >> more)
    point = np.where(begins, lead, state[:, 1] << 6 | byte & 0x3F)
    first = np.where(begins & (state[:, 0] > 0), 0, state[:, 3])
    left = np.where(begins, more, state[:, 2] - 1)
    return np.stack([children, point, left, first], axis=1)


def _check_values(units: np.ndarray, places: np.ndarray, heap: bytes, *, split: bool) -> None:
    """Raise ``ValueError`` if a value points outside of the heap, or into a character."""
    if split or (places >= len(units)).any():
        raise ValueError("the trie of the map of characters is broken")
    values = units[places] & 0x7FFFFFFF
    last = heap.rfind(b"\0")
    if (values > last).any():
        raise ValueError(f"a rule of the map of characters points at {values.max()}, behind the last replacement")
    if len(values) and (np.frombuffer(heap, np.uint8)[values] >> 6 == 2).any():
        raise ValueError("a rule of the map of characters points into a character")


class SentencePieceNormaliser:
    """What SentencePiece does with a text before it is cut.

    The pieces that the user defined stay as they are; elsewhere the longest rule that fits replaces what it fits.
    Then, as the options say: spaces at both ends go and those in a row become one; a space is put before the text;
    each space becomes ``▁``.

    Args:
        characters: the map; None: nothing is replaced.
        add_dummy_prefix: put a space before the text (behind it with ``treat_whitespace_as_suffix``); never for "".
        remove_extra_whitespaces: trim, and one space for several.
        escape_whitespaces: write ``▁`` for a space.
        treat_whitespace_as_suffix: see ``add_dummy_prefix``.
        user_defined: pieces that are not to be touched; the longest that fits.
    """

    def __init__(
        self,
        characters: CharacterMap | None,
        *,
        add_dummy_prefix: bool = True,
        remove_extra_whitespaces: bool = True,
        escape_whitespaces: bool = True,
        treat_whitespace_as_suffix: bool = False,
        user_defined: Sequence[str] = (),
    ) -> None:
        self.characters = characters
        self.trims = remove_extra_whitespaces
        self.space = SPACE if escape_whitespaces else " "
        self.before = self.space if add_dummy_prefix and not treat_whitespace_as_suffix else ""
        self.after = self.space if add_dummy_prefix and treat_whitespace_as_suffix else ""
        spelt = "|".join(regex.escape(piece) for piece in sorted(user_defined, key=len, reverse=True))
        self._untouched = regex.compile(spelt) if spelt else None
        self._fits: dict[str, str] = {}
        first, later = (characters.alone, characters.inside) if characters else (frozenset[str](), frozenset[str]())
        # Rules only ever reach over signs that stand inside of a rule, so what lies between stays as it is.
        self._clusters = _clusters(first, later, spelt)
        # Where that is not the whole story, unit by unit: it is slower.
        self._by_units = bool(
            self.after
            or any(piece[0] in later for piece in user_defined)
            or any("  " in piece for piece in user_defined)
            or (characters and characters.doubles_spaces)
        )

    def normalise(self, text: str) -> str:
        """The text as the model gets it."""
        if self._by_units:
            return "".join(piece for piece, _, _ in self._units(text))
        if not text:
            return ""
        if self._clusters is not None:
            text = self._clusters.sub(self._replaced, text)
        if self.trims:
            text = regex.sub(" {2,}", " ", text.lstrip(" "))
        text = self.before + text.replace(" ", self.space)
        return text.rstrip(self.space) if self.trims else text

    def aligned(self, text: str) -> tuple[str, list[tuple[int, int]]]:
        """The text as the model gets it, and for each of its characters from where to where in ``text`` it comes."""
        units = list(self._units(text))
        return "".join(piece for piece, _, _ in units), [(start, end) for piece, start, end in units for _ in piece]

    def _replaced(self, match: regex.Match[str]) -> str:
        """A run of characters to which rules may apply, after them."""
        cluster: str = match[0]
        known = self._fits.get(cluster)
        if known is None:
            if self._untouched is not None and self._untouched.fullmatch(cluster):
                return cluster
            known = "".join(piece for piece, _, _ in self._prefixes(cluster))
            if len(cluster) <= 8 and len(self._fits) < 2**16:
                self._fits[cluster] = known
        return known

    def _prefixes(self, text: str) -> Iterator[tuple[str, int, int]]:
        """What is replaced as one, from left to right: what for, from where, up to where."""
        at = 0
        while at < len(text):
            untouched = self._untouched.match(text, at) if self._untouched is not None else None
            if untouched is not None:
                yield untouched[0], at, untouched.end()
                at = untouched.end()
                continue
            rule = self.characters.longest_prefix(text, at) if self.characters else None
            size, piece = rule or (1, text[at])
            yield piece, at, at + size
            at += size

    def _units(self, text: str) -> list[tuple[str, int, int]]:
        """The result in pieces, each with what of the text it comes from."""
        prefixes = list(self._prefixes(text))
        if self.trims:
            while prefixes and prefixes[0][0] == " ":
                prefixes.pop(0)
        if not prefixes:
            return []
        start = prefixes[0][1]
        units = [(self.before, start, start)] if self.before else []
        spaced = self.trims
        for piece, start, end in prefixes:
            kept = piece.lstrip(" ") if spaced else piece
            if kept:
                units.append((kept.replace(" ", self.space), start, end))
                spaced = self.trims and kept.endswith(" ")
        while self.trims and units and units[-1][0].endswith(self.space):
            piece, start, end = units.pop()
            if piece.rstrip(self.space):
                units.append((piece.rstrip(self.space), start, end))
        last = units[-1][2] if units else len(text)
        return [*units, (self.after, last, last)] if self.after else units


def _clusters(first: Set[str], later: Set[str], untouched: str) -> regex.Pattern[str] | None:
    """A pattern for every place to which a rule may apply; None: there are no rules."""
    if not first and not later:
        return None
    ways = [untouched] if untouched else []
    if later:
        inside = _one_of(later)
        ways += [f"{_one_of(first)}{inside}*"] if first else []
        ways.append(f"(?s:.){inside}+")
    else:
        ways.append(_one_of(first))
    return regex.compile("|".join(ways))


def _one_of(signs: Set[str]) -> str:
    """A class of characters, as ranges."""
    points = np.array(sorted(map(ord, signs)))
    breaks = np.flatnonzero(np.diff(points) != 1) + 1
    runs = np.split(points, breaks)
    return "[" + "".join(rf"\U{run[0]:08x}-\U{run[-1]:08x}" for run in runs) + "]"
