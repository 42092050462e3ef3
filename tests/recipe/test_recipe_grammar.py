"""The page about the grammar: its recipes validate, or wait for exactly the parts and options that they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from recipe_texts import problems

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "grammar.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
WAITING = {"unknown-part", "unknown-key", "nothing-to-load"}


def whole(block: str) -> str:
    # With layers of every kind, but not with all: hundreds of experts in dozens of layers take long to build.
    shorter = re.sub(r"(?<=\n  layers: )\d+", lambda found: str(min(8, int(found[0]))), block)
    return f"corelm: 1\nname: page\n{shorter}"


def title(block: str) -> str:
    return next(line for line in block.splitlines() if not line.startswith("#")) + f" ({len(block)})"


@pytest.mark.parametrize("block", [b for b in BLOCKS if not b.startswith("# waits for")], ids=title)
def test_recipes_on_the_page_validate(block, tmp_path):
    assert [p.render() for p in problems(tmp_path, whole(block))] == []


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.startswith("# waits for")], ids=title)
def test_recipes_that_wait_for_parts_lack_nothing_but_what_they_say(block, tmp_path):
    said = block.splitlines()[0].removeprefix("# waits for: ")
    found = problems(tmp_path, whole(block))
    assert found, "nothing is missing any more: take the first line off the page"
    for problem in found:
        assert problem.code in WAITING, problem.render()
        last = str(problem.path[-1])
        named = re.search(r"unknown \S+ '([^']+)'", problem.message)
        wanted = named[1] if named else last
        groups = wanted in ("groups", "groups_kept", "selection_bias") and "groups and so on" in said
        assert groups or wanted in said or (problem.code == "nothing-to-load" and "folder" in said), problem.render()


def test_all_ten_architectures_are_there():
    assert sum("vocab_size" in block for block in BLOCKS) == 10
