"""Rules for quality: each with a document that just passes and one that just fails."""

from __future__ import annotations

import pytest
from corelm_data.c4_quality import C4Quality
from corelm_data.gopher_quality import GopherQuality
from corelm_data.gopher_repetition import GopherRepetition
from reading import build

from corelm.errors import UserError
from corelm.kinds import Text


def reasons(part, text, /, **options):
    """Why a text is dropped or rewritten; {} where it goes through as it is."""
    cleaner = build(part, **options)
    kept = list(cleaner.clean([Text(text, "d")]))
    again = build(part, **options)
    assert list(again.clean(kept)) == kept
    return cleaner.report.reasons


def cleaned(part, text, /, **options):
    return [document.text for document in build(part, **options).clean([Text(text, "d")])]


def prose(words=50, *first):
    """So many words, of five letters but for the given ones and two stop words."""
    return [*first, "the", "and", *["stone"] * (words - len(first) - 2)]


def spread(words, lines, start="", end=""):
    """Words over so many lines, some of which begin and end with something."""
    size = len(words) // lines
    pieces = [" ".join(words[n * size : (n + 1) * size]) for n in range(lines)]
    starts = [start] * 20 if isinstance(start, str) else start
    ends = [end] * 20 if isinstance(end, str) else end
    return "\n".join(a + piece + b for a, piece, b in zip(starts, pieces, ends, strict=False))


GOPHER = {
    "word-count": [
        (" ".join(prose(50)), " ".join(prose(49))),
        (" ".join(prose(100_000)), " ".join(prose(100_001))),
    ],
    "word-length": [
        (" ".join(["the", "and"] * 25), " ".join(["the", "and"] * 24 + ["the", "be"])),
        (
            " ".join(["the", "and", "x" * 17, "y" * 17, *["z" * 10] * 46]),
            " ".join(["the", "and", "x" * 17, "y" * 18, *["z" * 10] * 46]),
        ),
    ],
    "hashes": [(" ".join(prose(50, *["stone#"] * 5)), " ".join(prose(50, *["stone#"] * 6)))],
    "ellipses": [
        (" ".join(prose(50, *["well…"] * 3, *["well..."] * 2)), " ".join(prose(50, *["well…"] * 3, *["well..."] * 3)))
    ],
    "bullet-lines": [
        (spread(prose(), 10, ["- "] * 5 + ["• "] * 4 + [""]), spread(prose(), 10, ["* "] * 5 + ["• "] * 5))
    ],
    "ellipsis-lines": [
        (spread(prose(), 10, end=["..."] * 2 + ["…"] + [""] * 7), spread(prose(), 10, end=["..."] * 4 + [""] * 6))
    ],
    "alphabetic-words": [(" ".join(prose(50, *["1,234"] * 10)), " ".join(prose(50, *["1,234"] * 11)))],
    "stop-words": [
        (" ".join(["The,", '"with"', *["stone"] * 48]), " ".join(["the", "The", *["stone"] * 48])),
    ],
}
"""Reason → pairs of texts; nothing else is wrong with either."""


@pytest.mark.parametrize(("reason", "pair"), [(r, p) for r, pairs in GOPHER.items() for p in pairs])
def test_gopher_keeps_what_equals_a_threshold_and_drops_what_is_beyond(reason, pair):
    assert reasons(GopherQuality, pair[0]) == {}
    assert reasons(GopherQuality, pair[1]) == {reason: 1}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"words_least": 52}, "word-count"),
        ({"words_most": 49}, "word-count"),
        ({"word_length_least": 6.0}, "word-length"),
        ({"word_length_most": 4.0}, "word-length"),
        ({"hashes": 0.01}, "hashes"),
        ({"ellipses": 0.01}, "ellipses"),
        ({"bullet_lines": 0.05}, "bullet-lines"),
        ({"ellipsis_lines": 0.05}, "ellipsis-lines"),
        ({"alphabetic_words": 1.0}, "alphabetic-words"),
        ({"stop_words": 3}, "stop-words"),
        ({"stop_word_list": ["der", "die"]}, "stop-words"),
    ],
)
def test_every_threshold_of_gopher_can_be_moved(options, reason):
    text = spread(prose(50, "stone#", "1234", "a..."), 10, ["- "] + [""] * 9, ["..."] + [""] * 9)
    assert reasons(GopherQuality, text) == {}
    assert reasons(GopherQuality, text, **options) == {reason: 1}


def test_the_detail_of_a_sample_has_the_figure_and_the_bound():
    cleaner = build(GopherQuality)
    list(cleaner.clean([Text("too short", "d")]))
    assert cleaner.report.samples["word-count"][0].detail == "2, at least 50"


def test_an_empty_document_breaks_no_arithmetic():
    for part in (GopherQuality, GopherRepetition, C4Quality):
        assert cleaned(part, "") in ([], [""])
    assert cleaned(GopherQuality, "", words_least=0, word_length_least=0.0, stop_words=0, alphabetic_words=0.0) == [
        ""
    ]


def unique(characters, *, start=0):
    """Different words of ten letters, and a last one that makes up so many characters."""
    words, number = [], start
    while characters > 0:
        length = min(10, characters)
        words.append(f"{number:0>{length}}"[-length:] if length > 3 else chr(0x3B1 + number) * length)
        characters -= length
        number += 1
    return words


def repeated(gram, characters, times=2):
    """An n-gram between words that come once, so many characters in all."""
    rest = unique(characters - times * sum(map(len, gram)), start=100)
    half = len(rest) // 2
    return " ".join([*gram, *rest[:half], *gram, *rest[half:]])


def test_duplicate_lines_and_their_characters():
    others = [" ".join(unique(100, start=20 * n + 1000)) for n in range(6)]
    assert reasons(GopherRepetition, "\n".join(["x"] * 4 + others)) == {}
    assert reasons(GopherRepetition, "\n".join(["x"] * 5 + others[:5])) == {"duplicate-lines": 1}
    assert reasons(GopherRepetition, "\n".join(["a" * 20] * 2 + ["b" * 20, "c" * 20, "d" * 20])) == {}
    assert reasons(GopherRepetition, "\n".join(["a" * 21] * 2 + ["b" * 20, "c" * 20, "d" * 20])) == {
        "duplicate-line-characters": 1
    }


def test_duplicate_paragraphs_and_their_characters():
    lines = {"lines": 1.0, "line_characters": 1.0}
    others = [" ".join(unique(100, start=20 * n + 1000)) for n in range(6)]
    assert reasons(GopherRepetition, "\n\n".join(["x"] * 4 + others), **lines) == {}
    assert reasons(GopherRepetition, "\n \n".join(["x"] * 5 + others[:5]), **lines) == {"duplicate-paragraphs": 1}
    assert reasons(GopherRepetition, "\n\n".join(["a" * 20] * 2 + ["b" * 20, "c" * 20, "d" * 20]), **lines) == {}
    assert reasons(GopherRepetition, "\n\n".join(["a" * 21] * 2 + ["b" * 20, "c" * 20, "d" * 20]), **lines) == {
        "duplicate-paragraph-characters": 1
    }


@pytest.mark.parametrize(("n", "length"), [(2, 5), (3, 3), (4, 2)])
def test_the_most_frequent_n_gram(n, length):
    gram = [chr(97 + k) * length for k in range(n)]
    assert reasons(GopherRepetition, repeated(gram, 100)) == {}
    assert reasons(GopherRepetition, repeated(gram, 99)) == {f"top-{n}-gram": 1}


@pytest.mark.parametrize(("n", "share"), [(5, 15), (6, 14), (7, 13), (8, 12), (9, 11), (10, 10)])
def test_characters_in_duplicate_n_grams(n, share):
    gram = [chr(97 + k) * (share // n + (k < share % n)) for k in range(n)]
    assert reasons(GopherRepetition, repeated(gram, 100), top=[1.0] * 3) == {}
    assert reasons(GopherRepetition, repeated(gram, 99), top=[1.0] * 3) == {f"duplicate-{n}-grams": 1}


def test_overlapping_n_grams_are_counted_once_and_one_that_stands_once_is_none():
    # Ten times the same word: five-grams begin at six places, five of them duplicates, which cover nine words.
    off = {"lines": 1.0, "line_characters": 1.0, "top": [1.0] * 3}
    words = [*["ha"] * 10, *unique(180)]
    assert reasons(GopherRepetition, " ".join(words), **off, duplicate=[0.09, *[1.0] * 5]) == {}
    assert reasons(GopherRepetition, " ".join(words), **off, duplicate=[0.0899, *[1.0] * 5]) == {
        "duplicate-5-grams": 1
    }
    assert reasons(GopherRepetition, "three words only") == {}


SENTENCES = "This is a sentence of words.\nHere is another one, isn't it?\nAnd “this one ends in quotes.”"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SENTENCES, {}),
        (SENTENCES.rpartition("\n")[0], {"sentence-count": 1}),
        ("One sentence stands here. Two are here. Three of them are.", {}),
        (f"{SENTENCES} Lorem Ipsum.", {"lorem-ipsum": 1}),
        (f"{SENTENCES} {{", {"curly-bracket": 1}),
        (f"{SENTENCES}\nfour words are few.", {"short-line": 1}),
        (f"{SENTENCES}\nfive words are just enough.", {}),
        (f"{SENTENCES}\nthis line of words has no end", {"line-without-end": 1}),
        (f"{SENTENCES}\nthis line of words ends so,", {"line-without-end": 1}),
        (f"{SENTENCES}\nYou must enable JavaScript to see this.", {"javascript-line": 1}),
        (f"{SENTENCES}\nRead our Privacy Policy and be happy.", {"policy-line": 1}),
        (f"{SENTENCES}\nIt is so for all of them.[12][Citation needed]", {"citation-mark": 2}),
        (f"{SENTENCES}\nIt was [[1]2] so for all of them.", {"citation-mark": 2}),
    ],
)
def test_c4_takes_out_lines_and_drops_pages(text, expected):
    assert reasons(C4Quality, text) == expected


def test_c4_leaves_the_other_lines_as_they_are():
    text = f"Menu\n{SENTENCES}\n\nclick here for more and more\nIt is so for all of them.[3]"
    assert cleaned(C4Quality, text) == [f"{SENTENCES}\nIt is so for all of them."]
    off = {"words_least": 0, "terminal_punctuation": False, "citations": False}
    assert cleaned(C4Quality, text, **off) == [text]


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("javascript", f"{SENTENCES}\nYou must enable JavaScript to see this."),
        ("policies", f"{SENTENCES}\nRead our Privacy Policy and be happy."),
        ("lorem_ipsum", f"{SENTENCES}\nLorem ipsum is what it says."),
        ("curly_brackets", f"{SENTENCES}\nA bracket looks so, { {} } as you see."),
    ],
)
def test_every_rule_of_c4_can_be_switched_off(option, text):
    assert reasons(C4Quality, text) != {}
    assert reasons(C4Quality, text, **{option: False}) == {}


def test_c4_drops_what_has_a_blocked_word_as_a_word_of_its_own(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("Grumble\nvery bad thing\n")
    assert reasons(C4Quality, f"{SENTENCES} GRUMBLE!", blocked_words=str(path)) == {"blocked-word": 1}
    assert reasons(C4Quality, f"{SENTENCES} A very bad thing.", blocked_words=str(path)) == {"blocked-word": 1}
    assert reasons(C4Quality, f"{SENTENCES} Grumbled so much.", blocked_words=str(path)) == {}
    for content in (None, b"\xff\xfe"):
        wrong = tmp_path / "wrong.txt"
        if content:
            wrong.write_bytes(content)
        with pytest.raises(UserError, match=r"wrong.txt: the blocked words can't be read") as caught:
            reasons(C4Quality, SENTENCES, blocked_words=str(wrong))
        assert caught.value.code == "blocked-words-unreadable"


@pytest.mark.data
def test_documents_of_c4_pass_the_rules_of_c4(data):
    import json

    rows = (data / "web-and-wiki" / "c4_demo.jsonl").read_text(encoding="utf-8").splitlines()
    cleaner = build(C4Quality)
    documents = [Text(json.loads(row)["text"], str(number)) for number, row in enumerate(rows)]
    assert list(cleaner.clean(documents)) == documents
    assert cleaner.report.reasons == {}
