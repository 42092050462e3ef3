"""Personal data out of documents."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, get_args

import regex
from pydantic import Field

from corelm.kinds import ComponentConfig
from corelm_data.one_by_one import OneByOne, Verdict

KindOfData = Literal["key", "e-mail", "iban", "card", "ip", "phone"]

_IBAN_LENGTHS: Final = {
    15: "NO", 16: "BE", 18: "DK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV",
    29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
}  # fmt: skip
"""Lengths of account numbers and the countries that have them (ISO 13616, SWIFT's registry)."""


def _iban() -> str:
    """Groups of four, with or without spaces, as many as the country has: what stands behind is no part of it."""
    kinds = []
    for length, countries in _IBAN_LENGTHS.items():
        groups, rest = divmod(length - 4, 4)
        end = rf"\ ?[A-Z0-9]{{{rest}}}" if rest else ""
        kinds.append(rf"(?:{countries.replace(' ', '|')})\d{{2}}(?:\ ?[A-Z0-9]{{4}}){{{groups}}}{end}")
    return rf"(?<![A-Za-z0-9])(?:{'|'.join(kinds)})(?![A-Za-z0-9])"


_KEY: Final = r"""
    -----BEGIN\ (?:[A-Z0-9]+\ )*PRIVATE\ KEY-----\r?\n(?:[A-Za-z0-9+/=]{1,80}\r?\n)+-----END\ (?:[A-Z0-9]+\ )*PRIVATE\ KEY-----
  | (?<![A-Za-z0-9_-])(?:
        (?:AKIA|ASIA)[A-Z0-9]{16}                       # Amazon
      | gh[pousr]_[A-Za-z0-9]{36,255} | github_pat_[A-Za-z0-9_]{40,255}
      | xox[abeprs]-[A-Za-z0-9-]{10,250}                # Slack
      | AIza[A-Za-z0-9_-]{35}                           # Google
      | [rs]k_(?:live|test)_[A-Za-z0-9]{20,250}         # Stripe
      | sk-[A-Za-z0-9_-]{20,250}                        # OpenAI and others
      | hf_[A-Za-z0-9]{30,60}                           # Hugging Face
      | eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}   # JSON web tokens (RFC 7519)
    )(?![A-Za-z0-9_-])
"""
_EMAIL: Final = (
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)
_CARD: Final = r"""
    (?<![A-Za-z0-9.,+-])(?:
        \d{4}(?<gap>[ -])\d{4}\g<gap>\d{4}\g<gap>\d{4}(?:\g<gap>\d{3})?
      | 3\d{3}(?<g>[ -])\d{6}\g<g>\d{4,5}
      | \d{13,19}
    )(?![A-Za-z0-9]|[.,-]\d)
"""
_IP: Final = r"""
    (?<![\w.:])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)
  | (?<![\w.:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:]|\.\d)
"""
_PHONE: Final = r"""
    (?<![\w+.])\+\d{1,3}(?:[ .\-/]?(?:\(\d{1,4}\)|\d{1,4})){2,6}(?!\w|[.,\-/]\d)                    # +49 30 1234567
  | (?<![\w+.\-])(?<!\d[ ])(?:1[ .\-])?(?:\([2-9]\d\d\)\ ?|[2-9]\d\d[ .\-])[2-9]\d\d[ .\-]\d{4}(?!\w|[.,\-]\d)
  | (?<![\w+.,\-/])(?<!\d[ ])(?:\(0\d{1,5}\)|0\d{1,5})[ \-/]{1,3}\d{2,8}(?:[ \-]\d{2,6}){0,3}(?!\w|[.,\-/]\d)
"""


def _digits(found: str) -> str:
    return "".join(filter(str.isdigit, found))


def luhn(found: str) -> bool:
    """Whether the last digit is the checksum of the others (ISO/IEC 7812), for an issuer of cards."""
    digits = _digits(found)
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    issued = digits[0] in "3456" or "2221" <= digits[:4] <= "2720"
    return issued and (doubled + sum(map(int, digits[::-2]))) % 10 == 0


def iban(found: str) -> bool:
    """Whether the check digits are right: modulo 97 (ISO 7064)."""
    text = found.replace(" ", "")
    return int("".join(str(int(character, 36)) for character in text[4:] + text[:4])) % 97 == 1


def public_address(found: str) -> bool:
    """Whether it is an address that is reached from everywhere; 127.0.0.1 and its kin are nobody's."""
    try:
        return ipaddress.ip_address(found).is_global
    except ValueError:
        return False


def _phone(found: str) -> bool:
    return (9 if found.startswith(("0", "(0")) else 8) <= len(_digits(found)) <= 15


class Pattern(NamedTuple):
    """What one kind of data looks like.

    Attributes:
        placeholder: what is written in its place; holds nothing that any pattern finds.
        pattern: finds candidates.
        accept: whether a candidate is one: checksums and the like.
        hint: without which there is none in a text.
    """

    placeholder: str
    pattern: regex.Pattern[str]
    accept: Callable[[str], bool]
    hint: regex.Pattern[str]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where data of this kind are."""
        if not self.hint.search(text):
            return []
        return [match.span() for match in self.pattern.finditer(text) if self.accept(match[0])]


def _of(placeholder: str, pattern: str, accept: Callable[[str], bool], hint: str) -> Pattern:
    return Pattern(placeholder, regex.compile(pattern, regex.VERBOSE), accept, regex.compile(hint))


PATTERNS: Final[dict[str, Pattern]] = {
    "key": _of("[key]", _KEY, bool, r"-----BEGIN|AKIA|ASIA|gh[pousr]_|github_pat_|xox|AIza|[rs]k[-_]|hf_|eyJ"),
    "e-mail": _of("[e-mail]", _EMAIL, bool, "@"),
    "iban": _of("[IBAN]", _iban(), iban, r"[A-Z]{2}\d\d"),
    "card": _of("[card]", _CARD, luhn, r"\d[\d -]{11}"),
    "ip": _of("[IP]", _IP, public_address, r"\d\.\d|:[0-9A-Fa-f]*:"),
    "phone": _of("[phone]", _PHONE, _phone, r"\d[\d ()./-]{5,}\d"),
}


class PersonalData(OneByOne):
    """Replaces personal data and secrets by placeholders such as [e-mail].

    Found are: keys and tokens of well-known services, private keys and JSON web tokens (``key``); e-mail addresses;
    account numbers (``iban``, by country, length and checksum); numbers of payment cards (``card``, by issuer and
    checksum); public addresses of the Internet (``ip``, versions 4 and 6); telephone numbers in international,
    North American and 0-prefixed notation (``phone``). Each replacement is counted under its kind. Names of people and
    postal addresses are not found.

    Patterns miss some and take some numbers for what they are not; look at the samples. The report's samples show what
    was replaced: keep the page to yourself.
    """

    local = True
    writes = tuple(pattern.placeholder for pattern in PATTERNS.values())

    class Config(ComponentConfig):
        """What is replaced."""

        kinds: list[KindOfData] = Field(list(get_args(KindOfData)), min_length=1, description="Kinds of data.")

    def judge(self, text: str) -> Verdict | None:
        """Replace until nothing is found: each round takes digits or signs out, so there is a last one."""
        counts: dict[str, int] = {}
        now, before = self._replaced(text, counts), text
        while now != before:
            now, before = self._replaced(now, counts), now
        return Verdict(now, counts) if now != text else None

    def _replaced(self, text: str, counts: dict[str, int]) -> str:
        for kind, pattern in PATTERNS.items():
            spans = pattern.spans(text) if kind in self.config.kinds else []
            if spans:
                counts[kind] = counts.get(kind, 0) + len(spans)
                edges = [0, *(edge for span in spans for edge in span), len(text)]
                kept = [text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
                text = pattern.placeholder.join(kept)
        return text
