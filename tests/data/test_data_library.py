"""The standard library as text and as questions."""

import collections
import math
import os
import subprocess
import sys

import pytest
from corelm_data import library
from corelm_data.python_stdlib import PythonLibrary, docstrings
from corelm_data.stdlib_docstrings import LibraryDocstrings, first_paragraph
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import build, read

from corelm.errors import UserError
from corelm.kinds import Choice, Conversation, Message, Preference


def test_the_library_is_its_own_files_sorted_without_what_is_left_out(small_library):
    names = [record.name.removeprefix("python-stdlib: ") for record in read(PythonLibrary, include=["code"])]
    assert names == ["latin.py", "pack/__init__.py", "pack/inner.py", "textual.py", "wrong.py"]
    texts = {record.name: record.text for record in read(PythonLibrary)}
    assert texts["python-stdlib: latin.py"].endswith("name = 'é'\n")
    assert texts["python-stdlib: topic if"] == "The if statement."


def test_notes_name_what_is_left_out_what_is_lacking_and_what_cannot_be_read(small_library, monkeypatch):
    monkeypatch.setattr(sys, "stdlib_module_names", frozenset({"textual", "pack", "no_such_module_here", "_private"}))
    first, lacking, unreadable = build(PythonLibrary).notes()
    for name in ("test", "site-packages", "idlelib", "config-*", "encodings", "pydoc_data", "_sysconfigdata*.py"):
        assert name in first
    assert "turtledemo" not in first
    assert "not installed here" in lacking
    assert lacking.endswith(": no_such_module_here")
    assert unreadable.endswith(": broken.py")


def test_the_real_library_is_there_and_whole():
    source = build(PythonLibrary)
    names = {record.name for record in source.records()}
    for expected in ("textwrap.py", "json/decoder.py", "asyncio/tasks.py", "topic assignment"):
        assert f"python-stdlib: {expected}" in names
    assert not any("/test" in name or "site-packages" in name for name in names)
    assert not any("can't be decoded" in note for note in source.notes())
    assert library.missing(library.root()) == [] or sys.platform != "linux" or "python3/dist" in str(sys.path)


def test_docstrings_alone_are_documents_too(small_library):
    texts = {record.name: record.text for record in read(PythonLibrary, include=["docstrings"])}
    assert texts["python-stdlib: textual.py (docstrings)"].startswith(
        "Tools for text.\n\nWrap one paragraph of text."
    )
    assert "python-stdlib: latin.py (docstrings)" not in texts
    assert docstrings("def (") == ""


@settings(max_examples=10, deadline=None)
@given(limit=st.integers(20_000, 900_000))
def test_a_sample_stays_within_its_limit_and_takes_whole_documents(limit):
    whole = {record.name: record.text for record in read(PythonLibrary, include=["topics"])}
    sample = read(PythonLibrary, include=["topics"], limit_bytes=limit)
    sizes = [len(record.text.encode()) for record in sample]
    assert sum(sizes) <= limit
    assert all(whole[record.name] == record.text for record in sample)
    left = [len(text.encode()) for name, text in whole.items() if name not in {record.name for record in sample}]
    assert not left or sum(sizes) + min(left) > limit


def test_a_python_without_source_files_is_refused(small_library, monkeypatch, tmp_path):
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(library, "root", lambda: tmp_path / "empty")
    with pytest.raises(UserError, match="comes without the source files of its standard library"):
        read(PythonLibrary)
    monkeypatch.undo()
    with pytest.raises(UserError, match="no document has 1 bytes or less"):
        read(PythonLibrary, include=["topics"], limit_bytes=1)


def test_questions_are_mined_with_their_signature(small_library):
    said = {record.name: record.messages for record in read(LibraryDocstrings)}
    user, assistant = said["stdlib-docstrings: textual.wrap"]
    assert user == Message("user", "What does `textual.wrap(text, width=70, *, tabs=8)` do?")
    assert assistant == Message("assistant", "Wrap one paragraph of text.")
    assert said["stdlib-docstrings: textual.Wrapper"][0].content == "What is `textual.Wrapper`?"
    fill = said["stdlib-docstrings: textual.Wrapper.fill"]
    assert [m.content for m in fill] == ["What does `textual.Wrapper.fill(text)` do?", "Wrap and join the lines."]
    assert not any(name.endswith(("_hidden", ".short", "inner.load")) for name in said)


def test_no_code_of_the_library_is_executed(small_library):
    (small_library / "bomb.py").write_text(
        'def f():\n    """Does a thing that matters."""\nraise SystemExit\n', encoding="utf-8"
    )
    assert "stdlib-docstrings: bomb.f" in {record.name for record in read(LibraryDocstrings)}
    assert "bomb" not in sys.modules


@pytest.mark.parametrize("yields", ["conversation", "preference", "choice", "text"])
def test_training_and_held_out_parts_share_nothing(yields):
    train, held, both = (read(LibraryDocstrings, yields=yields, part=part) for part in ("train", "holdout", "all"))
    assert len(held) > 100
    assert len({record.name for record in both}) == len(both)
    assert {r.name for r in train} | {r.name for r in held} == {r.name for r in both}
    assert not {r.name for r in train} & {r.name for r in held}
    assert not _answers(train) & _answers(held)


def _answers(records):
    found = set()
    for record in records:
        if isinstance(record, Conversation):
            found.add(record.messages[1].content)
        elif isinstance(record, Preference):
            found |= {record.chosen, record.rejected}
        elif isinstance(record, Choice):
            found |= set(record.endings)
        else:
            found.add(record.text.split("\n\n", 1)[1])
    return found


def membership():
    return {item.name: library.held_out(item.path) for item in build(LibraryDocstrings)._chosen()}


def share_and_spread(weights):
    """Held-out share of what all files weigh, and its deviation where each file is held out with a chance of a tenth."""
    total = sum(weights.values())
    share = sum(weight for path, weight in weights.items() if library.held_out(path)) / total
    return share, math.sqrt(0.1 * 0.9 * sum(weight * weight for weight in weights.values())) / total


@pytest.mark.parametrize("weigh", ["paths", "files", "bytes", "functions"])
def test_one_file_in_ten_is_held_out_and_its_text_with_it(weigh):
    """Three deviations, which are wider for text and functions, as a few files hold much of both."""
    folder = library.root()
    paths = library.files(folder)
    if weigh == "paths":
        weights = {f"package{i}/module{j}.py": 1 for i in range(100) for j in range(100)}
    elif weigh == "files":
        weights = dict.fromkeys(paths, 1)
    elif weigh == "bytes":
        weights = {path: (folder / path).stat().st_size for path in paths}
    else:
        weights = collections.Counter(item.path for item in build(LibraryDocstrings)._chosen())
    share, spread = share_and_spread(weights)
    assert abs(share - 0.1) < 3 * spread, f"{share:.3f} of {weigh}, with a deviation of {spread:.3f}"


def test_a_corpus_of_the_training_part_has_no_held_out_file():
    train, held = (read(PythonLibrary, part=part) for part in ("train", "holdout"))
    both = read(PythonLibrary)
    assert {r.name for r in train} | {r.name for r in held} == {r.name for r in both}
    assert not {r.name for r in train} & {r.name for r in held}
    for record in read(LibraryDocstrings, yields="text", part="holdout")[::20]:
        name = record.name.removeprefix("stdlib-docstrings: ")
        assert not any(r.name.endswith(f": {name.split('.')[0]}/{name.split('.')[1]}.py") for r in train), name


def test_membership_of_a_function_does_not_depend_on_the_others(small_library):
    before = membership()
    (small_library / "another.py").write_text('def f():\n    """Another function altogether."""\n', encoding="utf-8")
    (small_library / "pack/inner.py").unlink()
    after = membership()
    assert after.items() >= before.items()
    assert len(after) == len(before) + 1


def test_rejected_answers_are_another_functions_mostly_of_the_same_module():
    pairs = read(LibraryDocstrings, yields="preference", part="train")
    owner = {item.answer: item for item in build(LibraryDocstrings)._chosen()}
    assert all(pair.chosen != pair.rejected for pair in pairs)
    assert all(pair.prompt[-1].role == "user" for pair in pairs)
    same = [owner[pair.chosen].module == owner[pair.rejected].module for pair in pairs]
    assert sum(same) / len(same) > 0.95


@pytest.mark.parametrize("part", ["train", "holdout"])
def test_choices_have_four_different_endings_and_the_right_one_anywhere(part):
    choices = read(LibraryDocstrings, yields="choice", part=part)
    answers = {f"stdlib-docstrings: {item.name}": item.answer for item in build(LibraryDocstrings)._chosen()}
    for choice in choices:
        assert len(set(choice.endings)) == 4
        assert choice.endings[choice.gold] == answers[choice.name]
    count = len(choices)
    for place in range(4):
        share = sum(choice.gold == place for choice in choices) / count
        assert abs(share - 0.25) < 5 * (0.1875 / count) ** 0.5
    # The length gives nothing away: the shortest and the longest are right about a quarter of the time.
    for pick in (min, max):
        right = sum(len(c.endings[c.gold]) == pick(map(len, c.endings)) for c in choices) / count
        assert abs(right - 0.25) < 0.09


def test_a_choice_can_be_asked_as_a_question():
    code, question = (
        read(LibraryDocstrings, yields="choice", context=context)[0] for context in ("code", "question")
    )
    assert code.contexts[0].endswith(':\n    """')
    assert question.contexts[0].startswith("What ")
    assert code.endings == question.endings


@pytest.mark.parametrize("longest", [80, 300])
def test_question_and_answer_stay_within_their_bound(longest, monkeypatch):
    root = library.root()
    monkeypatch.setattr(library, "root", lambda: root / "asyncio")
    records = read(LibraryDocstrings, max_characters=longest)
    assert len(records) > 20
    for record in records:
        assert sum(len(message.content) for message in record.messages) <= longest
        assert "\n" not in record.messages[1].content


@pytest.mark.parametrize(
    ("docstring", "longest", "expected"),
    [
        ("One line of text.", 80, "One line of text."),
        ("One\n    line of\n    text.\n\n    More.", 80, "One line of text."),
        ("f(x) -> y\n\n    Says what it does.", 80, "Says what it does."),
        ("First sentence here. Second one is long.", 30, "First sentence here."),
        ("A sentence without an end that fits", 10, ""),
        ("Too short.", 80, ""),
        (">>> one two three", 80, ""),
        ("", 80, ""),
    ],
)
def test_the_first_paragraph_is_prose_on_one_line(docstring, longest, expected):
    assert first_paragraph(docstring, longest) == expected


def test_the_library_gives_the_same_records_under_every_hash_seed():
    script = (
        "from corelm_data.stdlib_docstrings import LibraryDocstrings as L\n"
        "import hashlib\n"
        "from corelm_data import library\n"
        "root = library.root()\n"
        "library.root = lambda: root / 'asyncio'\n"
        "print(hashlib.sha256(repr(list(L(L.Config(yields='choice')).records())).encode()).hexdigest())"
    )

    def run(seed):
        command, environment = [sys.executable, "-c", script], {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.run(command, env=environment, capture_output=True, check=True).stdout

    assert run("0") == run("1")
