"""SentencePiece's compiled maps of characters, made up: a double-array trie (Aoe, 1989) of a few rules."""

from __future__ import annotations

import random
import struct
from typing import Any, Final

RULES: Final = {
    "\u00a0": " ", "\t": " ", "\r\n": "  ", "\u200b": "", "\ufeff": "", "Å": "A", "\u212b": "Å", "e\u0301": "é", "é": "e",
    "ß": "ss", "ﬁ": "fi", "ab": "ba", "aa": "b", "aaa": "a", "日本": "日 本", "日": "1", "T": "t", "The": "the",
    "🙂": "!", "İ": "i",
}  # fmt: skip
"""What characters become: of one and several, to none, one and several, some the beginning of others."""


def character_map(chance: random.Random, part: float = 0.6) -> bytes:
    """The map of some of the rules: four bytes with the size of the trie, the trie, the replacements."""
    rules = {old: new for old, new in RULES.items() if chance.random() < part} or {"ab": "ba"}
    return compiled(rules)


def compiled(rules: dict[str, str]) -> bytes:
    """The map of rules. A unit holds label, "a key ends here", the distance to its children, or a key's value."""
    heap, tree = b"\0", dict[int, Any]()
    for old, new in rules.items():
        node = tree
        for byte in old.encode():
            node = node.setdefault(byte, {})
        node[0] = len(heap)
        heap += new.encode() + b"\0"
    units, taken, waiting = {0: 0}, {0}, [(0, tree)]
    while waiting:
        place, node = waiting.pop()
        # No two nodes share a base, or one would find the other's children.
        base = next(b for b in range(1, 1 << 20) if b not in taken and not any(b ^ byte in units for byte in node))
        taken.add(base)
        units[place] |= (place ^ base) << 10 | (0 in node) << 8
        for byte, below in node.items():
            units[base ^ byte] = 1 << 31 | below if byte == 0 else byte
            if byte:
                waiting.append((base ^ byte, below))
    size = (max(*units, *taken) // 256 + 1) * 256
    trie = b"".join(struct.pack("<I", units.get(place, 0)) for place in range(size))
    return struct.pack("<I", len(trie)) + trie + heap
