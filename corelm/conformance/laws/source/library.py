"""Properties of sources that read Python's own library: held to a small library whose records are written out."""

from __future__ import annotations

import ast
import re
import sysconfig
import tempfile
from pathlib import Path
from typing import Any, Final
from unittest import mock

from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.source.formats import content

CUT: Final = '''"""Cuts texts.

In pieces.
"""

import re


def dedent(text: str, *, deep: bool = False) -> str:
    """Take off what lines
    have in common.  Nothing else is touched.

    Not this.
    """
    return re.sub(" ", "", text)


def _hidden():
    """Nobody asks what this does."""


class Box:
    """A box of many pieces."""

    @classmethod
    def empty(cls):
        """Box.empty()

        Make one without any pieces.
        """

    def open(self, key):
        """Open the lid.

        >>> Box().open(1)
        """

    def again(self):
        """Take off what lines have in common.  Nothing else is touched."""

    def blank(self):
        """
        """


async def wait(one, two, three, four, five, six, seven, eight, nine, ten, eleven):
    """Wait until all of the pieces are there. Then go on."""


def silent(x):
    return x
'''

FILES: Final[dict[str, str]] = {
    "text/cut.py": CUT,
    "text/__init__.py": "def join(parts):\n    '''Put the pieces together again.'''\n",
    "_private.py": "def shown():\n    '''Shown to nobody at all.'''\n",
    "broken.py": "def half(:\n",
    "accents.py": "# -*- coding: latin-1 -*-\ndef accent(e):\n    '''Put an é on a letter.'''\n",
    "empty.py": "",
    "test/test_cut.py": "def test():\n    '''This is a test.'''\n",
    "site-packages/other.py": "def other():\n    '''This is another package.'''\n",
    "notes.txt": "no program",
    "pydoc_data/topics.py": "topics = {'WHILE': 'Loops on.', 'IF': 'Chooses.'}\n",
}

ASKED: Final = (
    ("accents.accent", "What does `accents.accent(e)` do?", "Put an é on a letter.", "def accent(e):"),
    ("text.join", "What does `text.join(parts)` do?", "Put the pieces together again.", "def join(parts):"),
    (
        "text.cut.dedent",
        "What does `text.cut.dedent(text, *, deep=False)` do?",
        "Take off what lines have in common. Nothing else is touched.",
        "def dedent(text, *, deep=False):",
    ),
    ("text.cut.Box", "What is `text.cut.Box`?", "A box of many pieces.", "class Box:"),
    ("text.cut.Box.empty", "What does `text.cut.Box.empty()` do?", "Make one without any pieces.", "def empty(cls):"),
    (
        "text.cut.Box.open",
        "What does `text.cut.Box.open(key)` do?",
        "Open the lid.",
        "def open(self, key):",
    ),
    (
        "text.cut.wait",
        "What does `text.cut.wait(…)` do?",
        "Wait until all of the pieces are there. Then go on.",
        "def wait(…):",
    ),
)
"""What there is to be asked in these files: name, question, answer, first line of code; in order of files and lines."""

LONGER: Final = 100
"""Files of a library of which parts are taken."""


def _format(part: PartUnderTest) -> str:
    return str(getattr(part.cls, "format", part.name))


def _excuse(part: PartUnderTest) -> str | None:
    known = ("python-stdlib", "stdlib-docstrings")
    return None if _format(part) in known else "it doesn't read Python's library"


def _reading(under: PartUnderTest, folder: Path, /, **options: Any) -> Any:
    """The source of the library in a folder."""
    paths = {**sysconfig.get_paths(), "stdlib": str(folder)}
    with mock.patch("sysconfig.get_paths", return_value=paths):
        return under.cls(under.cls.Config(**options))


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="latin-1" if "latin-1" in text else "utf-8")


def _docstrings(text: str) -> str:
    """Those of a program that can be read, where they begin in it."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return ""
    known = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [
        (getattr(node, "lineno", 0), ast.get_docstring(node)) for node in ast.walk(tree) if isinstance(node, known)
    ]
    texts = [text.strip() for _, text in sorted(found, key=lambda each: each[0]) if text]
    return "\n\n".join(text for text in texts if text)


@property_of(
    "source",
    statement="What is mined from a library is what is written there: its files in order, its docstrings as Python reads "
    "them, its help topics; a public function's question and answer.",
    formula="records(library by hand) = records by hand",
    catches="an overload's docstring under another name, tests and installed packages in the corpus, an answer that also "
    "stands among the wrong ones, a docstring of white space for a text",
    tier="bit",
    examples=1,
    excuse=_excuse,
)
def library_as_written(part: PartUnderTest, draw: Draw) -> None:
    """A library of ten files."""
    with tempfile.TemporaryDirectory() as name:
        _write(Path(name), FILES)
        if _format(part) == "python-stdlib":
            _texts(part, Path(name))
        else:
            _answers(part, Path(name))
        words = re.findall(r"\w+", " ".join(_reading(part, Path(name)).notes()))
        assert not {"sys", "math", "builtins"} & {*words}, (
            f"notes say that what Python has itself is lacking: {words}"
        )


def _texts(part: PartUnderTest, folder: Path) -> None:
    kept = sorted(each for each in FILES if each.endswith(".py") and each.count("test") + each.count("-") == 0)
    programs = [each for each in kept if not each.startswith("pydoc_data") and FILES[each]]
    every = {
        "code": [(each, FILES[each]) for each in programs],
        "docstrings": [(f"{each} (docstrings)", _docstrings(FILES[each])) for each in programs],
        "topics": [("topic IF", "Chooses."), ("topic WHILE", "Loops on.")],
    }
    for include in (["code", "topics"], ["docstrings"], ["topics", "docstrings", "code"]):
        expected = [(f"python-stdlib: {each}", text) for kind in include for each, text in every[kind] if text]
        source = _reading(part, folder, include=include)
        came = [(record.name, record.text) for record in source.records()]
        assert came == expected, f"of {include} came {came}, expected {expected}"
        assert [r.name for r in source.records(2)] == [each for each, _ in expected[2:]], "records(2) are others"


def _answers(part: PartUnderTest, folder: Path) -> None:
    def came(**options: Any) -> list[tuple[str, Any]]:
        return [(r.name.partition(": ")[2], content(r)) for r in _reading(part, folder, **options).records()]

    talk = [(name, ((("user", asked), ("assistant", answer)),)) for name, asked, answer, _ in ASKED]
    told = [(name, f"{asked}\n\n{answer}\n") for name, asked, answer, _ in ASKED]
    assert came() == talk, f"conversations {came()}, expected {talk}"
    assert came(yields="text") == told, f"texts {came(yields='text')}, expected {told}"
    cut = {name: values[0][1][1] for name, values in came(max_characters=90)}
    assert cut["text.cut.dedent"] == "Take off what lines have in common.", f"cut after a sentence: {cut}"
    answers = {name: answer for name, _, answer, _ in ASKED}
    for (name, asked, answer, _), (found, (prompt, chosen, rejected)) in zip(
        ASKED, came(yields="preference"), strict=True
    ):
        assert (found, prompt, chosen) == (name, (("user", asked),), answer), f"{found}: {prompt}, {chosen}"
        near = {each for other, each in answers.items() if other.startswith("text.cut.") and other != name}
        wrong = near if name.startswith("text.cut.") else set(answers.values()) - {answer}
        assert rejected in wrong, f"{name}: {rejected!r} is rejected, which is none of {sorted(wrong)}"
    for context, written in (("code", '{3}\n    """'), ("question", "{1}\n")):
        for item, (found, (contexts, endings, gold)) in zip(
            ASKED, came(yields="choice", context=context), strict=True
        ):
            assert (found, contexts) == (item[0], (written.format(*item),)), f"{found}: {contexts}"
            assert len(set(endings)) == 4 and set(endings) <= set(answers.values()), f"{found}: endings {endings}"
            assert endings[gold] == item[2], f"{found}: {endings[gold]!r} is said to be right"


@property_of(
    "source",
    statement="train and holdout share no file and are all files together; one in ten is held out; a limit is kept, and "
    "filled with whole documents.",
    formula="train ∪ holdout = all, train ∩ holdout = ∅; Σ|r| ≤ limit, and no r left out would fit",
    catches="an evaluation on what was trained on, a sample that is always the first files of the alphabet",
    tier="stat",
    tolerance=f"Of {LONGER} files ten are held out in the mean, with a standard deviation of three: 1 to 25.",
    examples=1,
    excuse=_excuse,
)
def parts_share_nothing(part: PartUnderTest, draw: Draw) -> None:
    """A library of a hundred files of a function each."""
    if "part" not in part.cls.Config.model_fields:
        raise NotApplicable("it has no option part")
    files = {
        f"m{n:03}.py": f"def f{n:03}():\n    '''Give back the number {n}{' again' * (n % 7)}.'''\n"
        for n in range(LONGER)
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder, files)
        every, train, holdout = (
            {record.name: content(record) for record in _reading(part, folder, part=each).records()}
            for each in ("all", "train", "holdout")
        )
        assert len(every) == LONGER and every == {**train, **holdout}, f"{len(every)} are not those of both parts"
        assert not train.keys() & holdout.keys(), f"in both parts: {sorted(train.keys() & holdout.keys())}"
        assert 1 <= len(holdout) <= LONGER // 4, f"of {LONGER} files {len(holdout)} are held out"
        if "limit_bytes" in part.cls.Config.model_fields:
            _limited(part, folder, every)


def _limited(part: PartUnderTest, folder: Path, every: dict[str, str]) -> None:
    sizes = {name: len(text.encode()) for name, text in every.items()}
    limit = sum(sizes.values()) // 3
    names = [record.name for record in _reading(part, folder, limit_bytes=limit).records()]
    free = limit - sum(sizes[name] for name in names)
    assert free >= 0, f"{limit - free} bytes came, limit_bytes is {limit}"
    assert names == [name for name in every if name in set(names)], "a sample changes the order"
    fitting = [name for name in every if name not in names and sizes[name] <= free]
    assert not fitting, f"{free} bytes are free, and {fitting[0]} is left out"
    assert names != list(every)[: len(names)], "the sample is the first documents in their order"
