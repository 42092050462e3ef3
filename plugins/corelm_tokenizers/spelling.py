"""How ids are spelt: the decoders of ``tokenizer.json``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from corelm_tokenizers.byte_letters import byte_values
from corelm_tokenizers.oniguruma import Expression

_BYTE: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")

# What the library calls cleaning up, piece by piece.
_CLEANED: Final = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
    (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip
_KNOWN: Final = ("ByteLevel", "Metaspace", "WordPiece", "BPEDecoder", "ByteFallback", "Fuse", "Strip", "Replace")


class Speller:
    """Spells pieces.

    A piece's bytes are those that it has inside of a text. The first piece of a text and the last may be spelt
    otherwise: without the space before the first word, or behind the last.

    Args:
        decoder: as a ``tokenizer.json`` has it; steps that aren't known do nothing.

    Attributes:
        strange: what can't be done exactly; None: nothing.
        strip: how many characters, at most, go from the text's start and from its end, and which.
    """

    def __init__(self, decoder: Mapping[str, Any] | None) -> None:
        self._joins = not decoder
        steps = _flat(decoder)
        self.strange = next((f"the decoder {step['type']}" for step in steps if step["type"] not in _KNOWN), None)
        whole = next((at for at, step in enumerate(steps) if step["type"] in ("Fuse", "ByteLevel")), len(steps))
        self._bytes = any(step["type"] == "ByteLevel" for step in steps[whole : whole + 1])
        after_joining = [step for step in steps[whole + 1 :] if step["type"] != "Fuse"]
        while after_joining and not self._bytes and _of_one_character(after_joining[0]):
            # One character for another: it makes no difference whether pieces are joined before.
            steps.insert(whole, after_joining.pop(0))
            whole += 1
        self._steps = steps[:whole]
        names = [step["type"] for step in self._steps]
        after = names[names.index("ByteFallback") + 1 :] if "ByteFallback" in names else []
        if "ByteFallback" in names and self._bytes:
            after = [*after, "ByteLevel"]
        if any(name != "ByteFallback" for name in after):
            self.strange = self.strange or f"the decoder {after[0]} after bytes are joined"
        self._patterns = [_replacement(step) for step in self._steps]
        self.strip: list[tuple[str, int, int]] = []
        for step in after_joining:
            if step["type"] == "Strip":
                self.strip.append((step["content"], step["start"], step["stop"]))
            else:
                self.strange = self.strange or f"the decoder {step['type']} after all pieces are joined"

    @property
    def looks_ahead(self) -> bool:
        """Whether the last piece is spelt otherwise."""
        return any(step["type"] == "BPEDecoder" for step in self._steps) or any(stop for _, _, stop in self.strip)

    def added(self, token: str, first: bool = False, last: bool = False) -> bytes:
        """Bytes of a token that was added to the vocabulary; its letters stand for themselves."""
        return self._spelt(token, first, last, added=True)

    def piece(self, token: str, first: bool = False, last: bool = False) -> bytes:
        """Bytes of a piece."""
        return self._spelt(token, first, last, added=False)

    def _spelt(self, token: str, first: bool, last: bool, added: bool) -> bytes:
        if self._joins:
            return (token if first else f" {token}").encode()
        for step, pattern in zip(self._steps, self._patterns, strict=True):
            if step["type"] == "ByteFallback" and (byte := _BYTE.fullmatch(token)):
                return bytes([int(byte[1], 16)])
            token = _step(step, pattern, token, first, last)
        if self._bytes and not added:
            values = byte_values()
            # A piece with a letter that stands for no byte is written as it is, all of it.
            known = all(letter in values for letter in token)
            return bytes([values[letter] for letter in token]) if known else token.encode()
        return token.encode()


def _step(step: Mapping[str, Any], pattern: Expression | None, token: str, first: bool, last: bool) -> str:
    """One step of decoding on one piece."""
    match step["type"]:
        case "Replace":
            if pattern is None:
                return token.replace(step["pattern"]["String"], step["content"])
            for start, end in reversed(pattern.matches(token)):
                token = token[:start] + step["content"] + token[end:]
        case "Metaspace":
            gone = first and step.get("prepend_scheme", "always") != "never"
            return token.replace(step["replacement"], "" if gone else " ")
        case "WordPiece":
            if not first:
                opened = token.startswith(step["prefix"])
                token = token[len(step["prefix"]) :] if opened else f" {token}"
            return _clean(token) if step["cleanup"] else token
        case "BPEDecoder":
            return token.replace(step["suffix"], "" if last else " ")
        case "Strip":
            return stripped(token, step["content"], step["start"], step["stop"])
    return token


def stripped(text: str, character: str, start: int, stop: int) -> str:
    """The text without so many of a character, at most, at its start and at its end."""
    left = min(start, len(text) - len(text.lstrip(character)))
    right = min(stop, len(text) - len(text.rstrip(character)))
    return text[left : len(text) - right] if left + right <= len(text) else ""


def _clean(token: str) -> str:
    for old, new in _CLEANED:
        token = token.replace(old, new)
    return token


def _replacement(step: Mapping[str, Any]) -> Expression | None:
    pattern = step.get("pattern", {})
    return Expression(pattern["Regex"]) if "Regex" in pattern else None


def _of_one_character(step: Mapping[str, Any]) -> bool:
    """Whether a step changes each character by itself."""
    return step["type"] == "Replace" and len(step["pattern"].get("String", "")) == 1


def _flat(decoder: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """What a decoder does, in order."""
    if not decoder:
        return []
    if decoder["type"] != "Sequence":
        return [decoder]
    return [step for one in decoder["decoders"] for step in _flat(one)]
