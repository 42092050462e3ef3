"""The preview of a recipe's data, and the page of a corpus, which shows the same after a run."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import corelm
from corelm.cli import main
from corelm.cli.data import plain
from corelm.cli.data_page import render
from corelm.cli.data_preview import Token, preview
from corelm.errors import UserError
from corelm.kinds.records import EXCERPT
from corelm.pipeline.changes import changes, visible
from corelm.recipe.reader import Recipe

HOSTILE = "<script>alert('x')</script> & \"quoted\" \x1b[31m \u202e"
TEXTS = [
    "The café was open. It was a fine day for all of them.",
    "The cafe\u0301 was open. It was a fine day for all of you.",
    "The café was open. It was a fine day for all of them.",
    f"{HOSTILE} is what it said.",
    "Last one, and the longest of them all, to be kept by everything.",
]


@pytest.fixture
def recipe(tmp_path):
    """A recipe with a corpus, and a stage that is tuned on conversations."""
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    said = [{"prompt": f"What is {n}?", "response": f"It is {n}."} for n in range(4)]
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    talk = {"source": {"use": "jsonl", "path": "talk.jsonl", "yields": "conversation"}}
    written = {
        "corelm": 1,
        "name": "seen",
        "seed": 0,
        "out": "runs",
        "corpus": {"source": {"use": "jsonl", "path": "docs.jsonl"}, "clean": ["unicode-nfc", "exact-dedup"]},
        "tokenizer": {"use": "bpe", "vocab_size": 4096},
        "template": "chatml",
        "model": {"dim": 8, "layers": 1, "context": 32, "attention": {"use": "gqa", "heads": 1}},
        "stages": {
            "base": {"use": "pretrain", "tokens": 32, "batch": 1, "trainer": "plain"},
            "tuned": {"use": "finetune", "from": "base", "data": talk, "batch": 1},
        },
    }
    written["model"] |= {"position": "rope", "feedforward": {"use": "swiglu", "width": 8}}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(written, sort_keys=False))
    return path


def test_each_document_is_shown_with_what_each_step_did_to_it(recipe):
    corpus, tuned = preview(Recipe.read(recipe), 5).sections
    assert [document.name for document in corpus.documents] == [f"jsonl: docs.jsonl:{n}" for n in range(1, 6)]
    deeds = [[(step.name, step.after is None, step.reasons) for step in d.steps] for d in corpus.documents]
    assert deeds[1] == [("unicode-nfc", False, {"rewritten": 1}), ("exact-dedup", False, {})]
    assert deeds[2] == [("unicode-nfc", False, {}), ("exact-dedup", True, {"duplicate": 1})]
    assert [document.dropped for document in corpus.documents] == [False, False, True, False, False]
    step = corpus.documents[1].steps[0]
    assert (step.before, step.after) == (TEXTS[1], TEXTS[1].replace("e\u0301", "é"))
    assert [document.name for document in tuned.documents] == [f"jsonl: talk.jsonl:{n}" for n in range(1, 5)]


def test_tokens_are_those_that_the_model_will_see(recipe):
    found = preview(Recipe.read(recipe), 5)
    assert re.match(
        r"tokenizer: bpe, trained on the documents of this preview alone, \d+ instead of 4,096 ids", found.notes[0]
    )
    corpus, tuned = found.sections
    for row in corpus.rows:
        assert all(
            token.learnt for before, token in zip(row, row[1:], strict=False) if before.document == token.document
        )
    assert "blocks" in corpus.packed
    for row in tuned.rows:
        said = "".join(token.text for token in row if token.learnt)
        number = re.search(r"What is (\d)\?", "".join(token.text for token in row))[1]
        assert said.startswith(f"It is {number}.<|im_end|>")
        assert "What" not in said
        assert all(token.special == token.text.startswith("<|") for token in row)


def test_conversations_that_a_stage_leaves_out_are_left_out(recipe):
    short = Recipe.read(recipe, overrides=["model.context=16", "stages.base.tokens=16"])
    assert preview(short, 5).sections[1].packed == "all 4 are longer than 16 tokens, and left out"


def test_nothing_is_written_or_run(recipe):
    before = sorted(path.name for path in recipe.parent.rglob("*"))
    preview(Recipe.read(recipe), 2)
    assert sorted(path.name for path in recipe.parent.rglob("*")) == before


def test_the_tokenizer_of_an_earlier_run_is_used_and_named(recipe):
    small = Recipe.read(recipe, overrides=["tokenizer.vocab_size=280", "stages=null"])
    corelm.run(small)
    found = preview(small, 2)
    assert found.notes[0].endswith("made by an earlier run")
    assert str(recipe.parent / "runs" / "seen" / "tokenizer") in found.notes[0]
    assert found.sections[0].packed == "each by itself"


def test_a_recipe_without_a_tokenizer_is_previewed_without_tokens(recipe):
    bare = Recipe.read(recipe, overrides=["tokenizer=null", "stages=null", "model=null", "template=null"])
    found = preview(bare, 2)
    assert found.notes == ["no tokens: the recipe names no tokenizer"]
    assert found.sections[0].rows == []


@pytest.mark.parametrize(
    ("overrides", "stages", "message"),
    [
        ([], ["tunde"], "--stage tunde: no such stage"),
        (["corpus=null", "stages=null", "tokenizer=null", "model=null"], [], "names no data to preview"),
        (["corpus.source.path=missing.jsonl"], [], "missing.jsonl"),
    ],
)
def test_what_can_t_be_previewed_says_why(recipe, overrides, stages, message):
    with pytest.raises(UserError, match=message):
        preview(Recipe.read(recipe, overrides=overrides), 2, stages=stages)


def test_stages_can_be_chosen(recipe):
    assert [section.title for section in preview(Recipe.read(recipe), 2, stages=["tuned"]).sections] == ["tuned"]


def test_the_command_prints_every_step(recipe, capsys):
    assert main(["data", "preview", str(recipe), "--documents", "5"]) == 0
    told = capsys.readouterr().out
    assert "unicode-nfc: rewritten rewritten" in told
    assert "exact-dedup: dropped duplicate" in told
    assert "]]" in told
    assert "\x1b[31m" not in told and "\u202e" not in told, "what a document holds is shown and not obeyed"


def test_the_page_is_self_contained_and_escaped(recipe, tmp_path, capsys):
    path = tmp_path / "page.html"
    assert main(["data", "preview", str(recipe), "--html", str(path)]) == 0
    page = path.read_text(encoding="utf-8")
    _harmless(page)
    assert "<del>" in page and "<ins>" in page
    assert page == render(preview(Recipe.read(recipe), 5))


def _harmless(page):
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page and "\u202e" not in page
    assert not re.search(r"(?:src|href)=\"(?!#)", page), "nothing is loaded from elsewhere"


def test_what_the_source_left_out_is_told(recipe):
    docs = recipe.parent / "docs.jsonl"
    docs.write_text("broken\n" + docs.read_text())
    found = preview(Recipe.read(recipe, overrides=["corpus.source.broken=skip"]), 2, stages=["corpus"])
    assert found.notes[1:] == ["source jsonl: left out as broken-line: 1 (docs.jsonl:1)"]
    assert "left out as broken-line" in render(found)


@pytest.mark.parametrize("arguments", [["--documents", "0"], ["--documents", "x"]])
def test_numbers_that_are_none_are_refused(recipe, arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["data", "preview", str(recipe), *arguments])
    assert ended.value.code == 2
    assert "is not a number from 1 on" in capsys.readouterr().err


def test_the_corpus_has_a_report_that_people_can_read(recipe):
    corelm.run(Recipe.read(recipe, overrides=["tokenizer=null", "stages=null", "model=null", "template=null"]))
    folder = recipe.parent / "runs" / "seen" / "corpus"
    report = json.loads((folder / "report.json").read_text())
    assert [(c["use"], c["seen"], c["kept"], c["reasons"]) for c in report["cleaners"]] == [
        ("unicode-nfc", 5, 5, {"rewritten": 1}),
        ("exact-dedup", 5, 4, {"duplicate": 1}),
    ]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "4 documents to train on" in page
    assert page.count("<details") == 2
    assert not re.search(r"(?:src|href)=\"(?!#)", page)


def test_a_page_shows_hostile_samples_and_does_not_obey_them(recipe):
    rules = "corpus.clean=[{use: gopher-quality, words_least: 12}]"
    corelm.run(Recipe.read(recipe, overrides=["tokenizer=null", "stages=null", "model=null", "template=null", rules]))
    _harmless((recipe.parent / "runs" / "seen" / "corpus" / "report.html").read_text(encoding="utf-8"))


def test_a_corpus_of_which_nothing_is_left_says_who_dropped_it(recipe):
    rules = "corpus.clean=[{use: gopher-quality, words_least: 1k}]"
    with pytest.raises(UserError, match=r"gopher-quality: kept 0 of 5 \(word-count 5\)") as caught:
        corelm.run(
            Recipe.read(recipe, overrides=["tokenizer=null", "stages=null", "model=null", "template=null", rules])
        )
    assert caught.value.code == "corpus-all-dropped"


def test_cleaners_of_records_that_are_no_texts_are_refused(recipe):
    with pytest.raises(UserError, match="cleaners read texts, but jsonl yields conversation"):
        Recipe.read(recipe, overrides=["stages.tuned.data.clean=[exact-dedup]"])


@given(st.text("ab \n.", max_size=12), st.text("ab \n.", max_size=12))
def test_changes_joined_are_the_texts(before, after):
    found = changes(before, after)
    assert "".join(text for kind, text in found if kind != "new") == before
    assert "".join(text for kind, text in found if kind != "gone") == after


def test_where_an_excerpt_ends_is_no_change():
    before = "a" + " word" * 400
    found = changes(before[:EXCERPT], ("b" + before[1:] + "x")[2 : EXCERPT + 2])
    assert [change.kind for change in found].count("gone") == 1
    assert found[-1] == ("same", " …")


@pytest.mark.parametrize(
    ("text", "seen"),
    [("a b", "a b"), ("\n", "↵\n"), ("\x00", "␀"), ("\u200b", "⟨200B⟩"), ("\u00a0", "⟨00A0⟩"), ("é", "é")],
)
def test_characters_that_nobody_sees_get_signs(text, seen):
    assert visible(text) == seen


def test_without_colours_tokens_are_set_apart():
    row = [
        Token(n, text, learnt, 0, False) for n, (text, learnt) in enumerate([("a", False), ("b", True), ("c", False)])
    ]
    assert plain(row) == "[[a|]]b|[[c|]]"
