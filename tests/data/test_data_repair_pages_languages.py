"""Cleaners that ask a library: repair of Unicode, text of pages, languages."""

from __future__ import annotations

import sys

import pytest
from corelm_data.html_text import HtmlText
from corelm_data.language import KNOWN, LanguageChoice, _identifier
from corelm_data.one_by_one import settled
from corelm_data.unicode_repair import UnicodeRepair
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reading import build

from corelm.errors import UserError
from corelm.kinds import Text

SENTENCES = {
    "en": "The people of this country have the right to life, liberty and security of person.",
    "de": "Jeder Mensch hat das Recht auf Leben, Freiheit und Sicherheit der Person.",
    "fr": "Tout individu a droit à la vie, à la liberté et à la sûreté de sa personne.",
}
PAGE = (
    "<!DOCTYPE html>\n<html><head><title>T</title><style>p {}</style><script>var x;</script></head><body>"
    "<nav><a href='/'>Home</a> | <a href='/about'>About us</a></nav><article><h1>The ferry</h1>"
    + "".join(f"<p>{text} It is paragraph {n} &amp; no other.</p>" for n, text in enumerate([SENTENCES["en"]] * 6))
    + "<table><tr><td>Ticket price</td><td>four crowns</td></tr></table></article>"
    "<footer>Copyright 2020, all rights reserved</footer></body></html>"
)


def cleaned(part, text, /, **options):
    cleaner = build(part, **options)
    kept = [document.text for document in cleaner.clean([Text(text, "d")])]
    return (kept[0] if kept else None), cleaner.report.reasons


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("schÃ¶n, cafÃ©", "schön, café"),
        ("â€œquotedâ€\x9d", "“quoted”"),
        ("schÃƒÂ¶n", "schön"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("\ufeffbegins", "begins"),
        ("fish &amp; chips", "fish & chips"),
        ("bell\x07", "bell"),
    ],
)
def test_damage_is_repaired(broken, whole):
    assert cleaned(UnicodeRepair, broken) == (whole, {"repaired": 1})


@pytest.mark.parametrize(
    "text", ["schön", "“quoted”", "ﬁne", "１２", "e\u0301", "<p>fish &amp; chips</p>", "日本語 नमस्ते 🙂"]
)
def test_text_without_damage_stays(text):
    assert cleaned(UnicodeRepair, text) == (text, {})


@pytest.mark.parametrize(
    ("options", "text", "whole"),
    [
        ({"entities": False}, "fish &amp; chips", "fish &amp; chips"),
        ({"quotes": True}, "“quoted”", '"quoted"'),
        ({"ligatures": True}, "ﬁne", "fine"),
        ({"form": "NFC"}, "e\u0301", "é"),
    ],
)
def test_options_of_the_repair(options, text, whole):
    assert cleaned(UnicodeRepair, text, **options)[0] == whole


pieces = st.sampled_from(
    [*"aé&<;\r\n\x07\ufeff", "Ã¶", "Ã", "Â", "â€", "\x9d", "&amp;", "amp;", "&lt;", "&#39;", "ﬁ", "\u0301"]
)


@settings(deadline=None)
@given(st.one_of(st.lists(pieces, max_size=10).map("".join), st.text(max_size=10)), st.booleans())
def test_a_second_repair_changes_nothing(text, entities):
    once, _ = cleaned(UnicodeRepair, text, entities=entities)
    assert cleaned(UnicodeRepair, once, entities=entities) == (once, {})


def test_what_never_settles_stays_as_it_was():
    assert settled(lambda text: text[1:] + text[0], "ab", 8) == "ab"
    assert settled(lambda text: text.replace("aa", "a"), "a" * 100, 8) == "a"
    assert settled(lambda text: text[:-1] or text, "a" * 50, 8) == "a" * 50


def test_the_text_of_a_page_is_left_without_what_stands_around_it():
    text, reasons = cleaned(HtmlText, PAGE)
    assert reasons == {"extracted": 1}
    assert "The ferry" in text
    assert "paragraph 5 & no other." in text
    assert [word for word in ("<p>", "Home", "About us", "Copyright", "var x") if word in text] == []


def test_options_of_the_extraction():
    assert "four crowns" in cleaned(HtmlText, PAGE, tables=True)[0]
    assert "four crowns" not in cleaned(HtmlText, PAGE, tables=False)[0]
    assert "# The ferry" in cleaned(HtmlText, PAGE, markdown=True)[0]


@pytest.mark.parametrize(
    "text", ["plain text", "a <b>bold</b> claim", "x <html>", "", "<htmlish>", "def f(): return '<html>'"]
)
def test_what_doesn_t_begin_as_a_page_stays(text):
    assert cleaned(HtmlText, text) == (text, {})


@pytest.mark.parametrize(
    "begin", ["<html>", "\n<!-- c --><HTML lang='en'>", "<?xml version='1.0'?>\n<!DOCTYPE html>", "<body>"]
)
def test_pages_are_known_by_how_they_begin(begin):
    page = PAGE.removeprefix("<!DOCTYPE html>\n<html>")
    assert cleaned(HtmlText, begin + page)[1] == {"extracted": 1}


def test_pages_without_text_are_dropped():
    assert cleaned(HtmlText, "<html><body></body></html>") == (None, {"no-text": 1})


def test_a_page_that_shows_a_page_is_dropped():
    shown = "&lt;html&gt; is how a page begins, " + SENTENCES["en"] * 4
    text, reasons = cleaned(HtmlText, f"<html><body><article><p>{shown}</p></article></body></html>")
    assert (text, reasons) == (None, {"markup-remains": 1})


@pytest.mark.parametrize("language", SENTENCES)
def test_documents_of_the_languages_asked_for_stay(language):
    text = SENTENCES[language]
    others = [code for code in SENTENCES if code != language]
    assert cleaned(LanguageChoice, text, languages=[language]) == (text, {})
    assert cleaned(LanguageChoice, text, languages=others) == (None, {f"language-{language}": 1})
    assert cleaned(LanguageChoice, text, languages=[language], drop=True) == (None, {f"language-{language}": 1})
    assert cleaned(LanguageChoice, text, languages=others, drop=True) == (text, {})


def test_a_language_that_isn_t_sure_is_dropped_or_kept():
    assert cleaned(LanguageChoice, "1234", languages=["en"]) == (None, {"uncertain": 1})
    assert cleaned(LanguageChoice, "1234", languages=["en"], uncertain=True) == ("1234", {})
    assert cleaned(LanguageChoice, SENTENCES["en"], languages=["en"], confidence=1.0)[1] in ({}, {"uncertain": 1})


def test_so_much_of_the_beginning_is_looked_at():
    text = SENTENCES["de"] + SENTENCES["en"] * 20
    assert cleaned(LanguageChoice, text, languages=["de"], characters=70) == (text, {})
    assert cleaned(LanguageChoice, text, languages=["de"])[1] == {"language-en": 1}


def test_unknown_languages_are_refused_with_those_that_are_known():
    with pytest.raises(ValidationError, match=r"'english' is no language that can be told; known: .* en "):
        LanguageChoice.Config(languages=["english"])


def test_the_codes_are_the_library_s():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    assert set(LanguageIdentifier.from_model_file(MODEL_FILE).nb_classes) == KNOWN


@pytest.mark.parametrize(
    ("part", "library", "options", "text"),
    [
        (UnicodeRepair, "ftfy", {}, "x"),
        (HtmlText, "trafilatura", {}, PAGE),
        (LanguageChoice, "py3langid.langid", {"languages": ["en"]}, "x"),
    ],
)
def test_a_library_that_is_missing_is_named_with_the_remedy(monkeypatch, part, library, options, text):
    monkeypatch.setitem(sys.modules, library, None)
    _identifier.cache_clear()
    with pytest.raises(UserError, match=library) as caught:
        cleaned(part, text, **options)
    assert 'pip install "corelm[data]"' in caught.value.remedy
    assert caught.value.code == "library-missing"


@pytest.mark.data
def test_languages_of_the_declaration_of_human_rights_are_told_apart(data):
    files = {
        "deu_1996": "de",
        "eng": "en",
        "fra": "fr",
        "rus": "ru",
        "jpn": "ja",
        "hin": "hi",
        "swh": "sw",
        "tur": "tr",
    }
    for name, language in files.items():
        lines = (data / "udhr" / f"udhr_{name}.txt").read_text(encoding="utf-8").split("\n")
        pieces = [" ".join(lines[start : start + 8]) for start in range(0, len(lines), 8)]
        cleaner = build(LanguageChoice, languages=[language])
        kept = list(cleaner.clean([Text(piece, str(n)) for n, piece in enumerate(pieces)]))
        assert len(kept) >= 0.9 * len(pieces), (name, cleaner.report.reasons)
