"""Personal data: what is found, what only looks like it, and that neighbours stay."""

from __future__ import annotations

import pytest
from corelm_data.scrub_personal_data import PATTERNS, PersonalData, iban, luhn, public_address
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reading import build

from corelm.kinds import Text

FOUND = [
    ("e-mail", "jane.doe@example.org"),
    ("e-mail", "o_o+tag%x-1@mail.example.co.uk"),
    ("phone", "+49 30 1234567"),
    ("phone", "+1 (212) 555-0123"),
    ("phone", "+442079460958"),
    ("phone", "(212) 555-0123"),
    ("phone", "212-555-0123"),
    ("phone", "1-212-555-0123"),
    ("phone", "030 123 456 78"),
    ("phone", "(0171) 1234567"),
    ("phone", "089/1234567"),
    ("ip", "8.8.8.8"),
    ("ip", "2001:4860:4860::8888"),
    ("iban", "DE89 3704 0044 0532 0130 00"),
    ("iban", "DE89370400440532013000"),
    ("iban", "GB82 WEST 1234 5698 7654 32"),
    ("iban", "BE68 5390 0754 7034"),
    ("iban", "NO93 8601 1117 947"),
    ("iban", "MT84 MALT 0110 0001 2345 MTLC AST0 01S"),
    ("card", "4111 1111 1111 1111"),
    ("card", "4111-1111-1111-1111"),
    ("card", "5555555555554444"),
    ("card", "3782 822463 10005"),
    ("card", "2223003122003222"),
    ("key", "AKIAIOSFODNN7EXAMPLE"),
    ("key", "ghp_" + "a1B2" * 9),
    ("key", "xoxb-123456789012-abcdefGHIJ"),
    ("key", "AIza" + "Sy0_-" * 7),
    ("key", "sk-proj-" + "a1B2" * 10),
    ("key", "hf_" + "aBcD" * 9),
    ("key", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN"),
    ("key", "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/=\nabcd\n-----END RSA PRIVATE KEY-----"),
]
"""Kind, and something of it; the numbers are those of documentation and of tests."""

LEFT = [
    "jane.doe(at)example.org",
    "a @ b.org",
    "@handle and user@host",
    "on 01-02-2003 at 12:30:45",
    "2024-01-15T08:30:00",
    "version 1.2.3.4567",
    "1.2.3.4.5",
    "300.1.1.1",
    "127.0.0.1 and 192.168.0.1",
    "::1",
    "std::vector and a::b::c",
    "ISBN 978-3-16-148410-0",
    "4111 1111 1111 1112",
    "1234567890123452",
    "DE89 3704 0044 0532 0130 01",
    "XX89 3704 0044 0532 0130 00",
    "1,234,567,890",
    "3.14159265358979",
    "-----BEGIN PUBLIC KEY-----\nabcd\n-----END PUBLIC KEY-----",
    "a +1 for this, +2 for that",
    "scores 3-1, 2-0 and 10-9",
    "from 1939-1945",
]
"""Text that only looks like personal data."""


def scrubbed(text, **options):
    cleaner = build(PersonalData, **options)
    (document,) = cleaner.clean([Text(text, "d")])
    return document.text, cleaner.report.reasons


@pytest.mark.parametrize(("kind", "found"), FOUND)
@pytest.mark.parametrize(
    "around", ["{}", "see {} now", "({}),", "a\n{}\nb", "is {}. Then", "“{}”", "一{}二"[1:-1] + "!"]
)
def test_what_is_found_is_replaced_and_its_neighbours_stay(kind, found, around):
    placeholder = PATTERNS[kind].placeholder
    assert scrubbed(around.format(found)) == (around.format(placeholder), {kind: 1})


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_like_it_is_left(text):
    assert scrubbed(text) == (text, {})


@pytest.mark.parametrize(("kind", "found"), FOUND)
def test_kinds_that_are_not_asked_for_are_left(kind, found):
    others = [name for name in PATTERNS if name not in (kind, "phone", "card", "iban")]
    if kind in ("e-mail", "key", "ip"):
        assert scrubbed(found, kinds=others) == (found, {})
    assert scrubbed(found, kinds=[kind]) == (PATTERNS[kind].placeholder, {kind: 1})


def test_replacements_are_counted_one_by_one():
    text = "a@b.org, c@d.org and 8.8.8.8; DE89 3704 0044 0532 0130 00 THEN ROME"
    assert scrubbed(text) == ("[e-mail], [e-mail] and [IP]; [IBAN] THEN ROME", {"e-mail": 2, "iban": 1, "ip": 1})


def test_placeholders_are_found_by_no_pattern():
    told = " ".join(pattern.placeholder for pattern in PATTERNS.values())
    assert scrubbed(told) == (told, {})


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([found for _, found in FOUND if "\n" not in found]),
            st.sampled_from(["word", "and", ".", ",", "-", "@", "+", "(", ")", ":", "1", "42", " ", "\n\n", "é"]),
        ),
        max_size=8,
    ).map("".join)
)
def test_it_ends_and_a_second_time_changes_nothing(text):
    once, _ = scrubbed(text)
    assert scrubbed(once) == (once, {})


@given(st.integers(0, 10**15 - 1))
def test_of_ten_last_digits_one_is_the_checksum(number):
    assert sum(luhn(f"4{number:015}"[:-1] + str(last)) for last in range(10)) == 1


@given(st.integers(0, 10**18 - 1))
def test_of_all_check_digits_one_or_two_are_right(number):
    right = [check for check in range(2, 99) if iban(f"DE{check:02}{number:018}")]
    assert len(right) == 1


@pytest.mark.parametrize(
    ("address", "public"),
    [("8.8.8.8", True), ("10.0.0.1", False), ("1.2.3", False), ("999.1.1.1", False), ("::1", False)],
)
def test_only_addresses_that_everybody_reaches_count(address, public):
    assert public_address(address) == public


def test_no_kinds_are_refused():
    with pytest.raises(ValidationError, match="at least 1"):
        PersonalData.Config(kinds=[])


def test_patterns_take_time_in_proportion_to_the_text():
    import time

    hard = [
        "1 " * 50_000,
        "a" * 100_000 + "@",
        "0-" * 50_000,
        ":" * 100_000,
        "a.b" * 30_000 + "@c",
        "-----BEGIN A " * 8_000,
    ]
    begun = time.process_time()
    for text in hard:
        scrubbed(text)
    assert time.process_time() - begun < 20
