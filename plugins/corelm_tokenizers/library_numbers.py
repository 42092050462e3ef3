"""Decimal numbers as the library tokenizers reads them, which isn't always the nearest float64."""

from __future__ import annotations

from typing import Final

_LARGEST: Final = 2**64 - 1
_HIGHEST_POWER: Final = 308
_SHORT: Final = 16


def number(text: str) -> float:
    """The float64 that the library makes of a number of JSON, one in eight of them a last bit off.

    It takes the digits as one whole number, as many as fit into 64 bits, makes that a float, and multiplies or divides
    by the power of ten: three roundings for one. Between equally probable ways to cut a word such a bit decides.

    Args:
        text: the number as the file writes it, with a fraction or an exponent.
    """
    if len(text) <= _SHORT and "e" not in text and "E" not in text:
        return float(text)  # digits and power are floats themselves: there is but one rounding
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits, power = int(whole + fraction), int(exponent or 0) - len(fraction)
    if digits > _LARGEST:
        digits, kept = _as_far_as_fits(whole + fraction)
        power = int(exponent or 0) + len(whole) - kept
    value = float(digits)
    while power < -_HIGHEST_POWER and value:
        value, power = value / 10.0**_HIGHEST_POWER, power + _HIGHEST_POWER
    scaled = value * float(f"1e{power}") if power >= 0 else value / float(f"1e{-power}") if value else 0.0
    return -scaled if text.startswith("-") else scaled


def _as_far_as_fits(digits: str) -> tuple[int, int]:
    """The leading digits that fit into 64 bits, as a number, and how many they are."""
    fitting = next(size for size in range(len(digits), 0, -1) if int(digits[:size]) <= _LARGEST)
    return int(digits[:fitting]), fitting
