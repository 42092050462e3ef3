"""Cleaners: idempotent, in order, counted."""

import unicodedata

from corelm_data.exact_dedup import ExactDeduplication
from corelm_data.unicode_nfc import UnicodeNormalisation
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corelm.kinds import Text

FORMS = ["NFC", "NFD", "NFKC", "NFKD"]
pieces = st.sampled_from([*"aeé\u0301\u0323ﬁⅧ한Å\u212bｶ\u1100\u1161 ", "e\u0301", "q\u0323\u0307"])
texts = st.one_of(st.lists(pieces, max_size=6).map("".join), st.text(max_size=8))
corpora = st.lists(texts, max_size=12).map(lambda found: [Text(text, f"d{n}") for n, text in enumerate(found)])


def cleaners():
    return [
        *(UnicodeNormalisation(UnicodeNormalisation.Config(form=form)) for form in FORMS),
        ExactDeduplication(None),
    ]


@settings(max_examples=150, deadline=None)
@given(documents=corpora)
@example(documents=[Text("a", "1"), Text("a", "2"), Text("", "3"), Text("", "4")])
def test_cleaning_twice_changes_nothing_more_and_every_change_is_counted(documents):
    for first, second in zip(cleaners(), cleaners(), strict=True):
        once = list(first.clean(iter(documents)))
        assert list(second.clean(once)) == once
        assert second.report.reasons == {}
        names = [document.name for document in once]
        assert names == [d.name for d in documents if d.name in set(names)], "order or names changed"
        before = {document.name: document.text for document in documents}
        changed = sum(before[document.name] != document.text for document in once)
        report = first.report
        assert (report.seen, report.kept) == (len(documents), len(once))
        assert sum(report.reasons.values()) == len(documents) - len(once) + changed
        assert second.report.seen == second.report.kept == len(once)


@settings(max_examples=150, deadline=None)
@given(documents=corpora, form=st.sampled_from(FORMS))
def test_normalised_text_is_in_the_form_asked_for(documents, form):
    cleaner = UnicodeNormalisation(UnicodeNormalisation.Config(form=form))
    texts = [document.text for document in cleaner.clean(documents)]
    assert texts == [unicodedata.normalize(form, document.text) for document in documents]


@settings(max_examples=150, deadline=None)
@given(documents=corpora)
def test_the_first_of_equal_documents_stays(documents):
    cleaner = ExactDeduplication(None)
    kept = list(cleaner.clean(documents))
    assert kept == list({document.text: document for document in reversed(documents)}.values())[::-1] or kept == [
        document
        for number, document in enumerate(documents)
        if document.text not in {earlier.text for earlier in documents[:number]}
    ]
    assert cleaner.report.reasons.get("duplicate", 0) == len(documents) - len({d.text for d in documents})


def test_cleaners_stream():
    def endless():
        number = 0
        while True:
            yield Text(f"{number // 2}", str(number))
            number += 1

    for cleaner in cleaners():
        stream = cleaner.clean(endless())
        assert [next(stream).text for _ in range(2)] in (["0", "1"], ["0", "0"])


def test_examples_of_what_was_done_are_few_and_named():
    cleaner = ExactDeduplication(None)
    list(cleaner.clean([Text("same", f"d{number}") for number in range(9)]))
    assert cleaner.report.reasons == {"duplicate": 8}
    assert cleaner.report.examples == {"duplicate": ["d1", "d2", "d3"]}
