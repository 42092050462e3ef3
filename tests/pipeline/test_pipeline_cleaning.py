"""Data of a recipe, read and cleaned: what is lost on the way is told, whatever reads it."""

from __future__ import annotations

import json

import pytest

from corelm.errors import UserError
from corelm.kinds import DataConfig
from corelm.pipeline.cleaning import stream

LONG = "a text of some more words than the other one has"


def data(tmp_path, lines, /, source=None, **options):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": line}) if line != "broken" else line for line in lines))
    return DataConfig.model_validate({"source": {"use": "jsonl", "path": str(path), **(source or {})}, **options})


def read(found, split="all"):
    notes: list[str] = []
    return [record.text for record in stream(found, split, notes.append)], notes


def test_what_cleaners_drop_and_sources_leave_out_is_noted_in_the_end(tmp_path):
    clean = ["exact-dedup", {"use": "gopher-quality", "words_least": 9, "stop_words": 0}]
    given = data(tmp_path, ["short", LONG, "broken", LONG], {"broken": "skip"}, clean=clean)
    assert read(given) == (
        [LONG],
        [
            "source jsonl: left out as broken-line: 1 (rows.jsonl:3)",
            "cleaner exact-dedup: kept 2 of 3 (duplicate 1)",
            "cleaner gopher-quality: kept 1 of 2 (word-count 1)",
        ],
    )


def test_where_nothing_was_lost_nothing_is_noted(tmp_path):
    assert read(data(tmp_path, ["one", "two"], clean=["exact-dedup"])) == (["one", "two"], [])
    assert read(data(tmp_path, ["one", "two"], limit=1)) == (["one"], [])


def test_a_source_of_which_all_is_left_out_says_so(tmp_path):
    with pytest.raises(UserError, match=r"yielded no records \(left out as broken-line: 2 \(rows\.jsonl:1") as caught:
        read(data(tmp_path, ["broken", "broken"], {"broken": "skip"}))
    assert caught.value.code == "corpus-empty"


def test_data_of_which_cleaners_leave_nothing_say_which(tmp_path):
    with pytest.raises(
        UserError, match=r"nothing is left of the 2 documents.*: .*kept 0 of 2 \(word-count 2"
    ) as caught:
        read(data(tmp_path, ["one", "broken", "two"], {"broken": "skip"}, clean=["gopher-quality"]))
    assert "left out as broken-line: 1" in str(caught.value)
    assert caught.value.code == "corpus-all-dropped"
