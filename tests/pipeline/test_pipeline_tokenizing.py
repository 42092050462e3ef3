"""Tokens of a large corpus: made by several processes, killed at any moment, always the same."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from corelm.errors import Interrupted, UserError
from corelm.kinds.records import Text
from corelm.pipeline import tokenizing
from corelm.pipeline.records import encode_record
from corelm.pipeline.runner import run
from corelm.pipeline.token_workers import Workers
from corelm.pipeline.tokens import DiskTokens

HERE = Path(__file__).parent
RECIPE = """\
corelm: 1
name: large
corpus: {source: {use: jsonl, path: texts.jsonl}, holdout: 0.2}
tokenizer: bytes
trackers: []
"""


def project(folder: Path, documents: int = 400) -> Path:
    draw = random.Random(0)
    with (folder / "texts.jsonl").open("w") as file:
        for number in range(documents):
            words = " ".join(f"wörd{draw.randrange(999)}" for _ in range(draw.choice([1, 5, 50, 300])))
            file.write(json.dumps({"text": f"{number} {words}"}) + "\n")
    (folder / "large.yaml").write_text(RECIPE)
    return folder / "large.yaml"


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "stage.json"
    }


def killed(recipe: Path, out: Path, span: int, worth: int, kills: list[int]) -> list[list[int]]:
    script = [sys.executable, str(HERE / "killing_tokens.py"), str(recipe), str(out), str(span), str(worth)]
    done = subprocess.run([*script, *map(str, kills)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return [[int(number) for number in line.split()] for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A recipe, and what its corpus is as tokens when nobody interferes."""
    folder = tmp_path_factory.mktemp("large")
    recipe = project(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizing, "SPAN_BYTES", 10_000)
        return recipe, files(run(recipe, folder / "whole").folder / "tokens")


def test_every_document_is_there_once_in_the_order_of_the_corpus(whole):
    recipe, _ = whole
    for split in ("train", "holdout"):
        corpus = (recipe.parent / "whole" / "large" / "corpus" / f"{split}.jsonl").read_text().splitlines()
        store = DiskTokens(recipe.parent / "whole" / "large" / "tokens" / split)
        assert [bytes(store[n].ids.tolist()).decode() for n in range(len(store))] == [
            json.loads(line)["text"] for line in corpus
        ]


def test_killed_again_and_again_it_goes_on_with_what_is_done_to_the_same_files(whole, tmp_path):
    recipe, expected = whole
    # The last one comes when all spans are done, while the results are put together.
    corpora = [recipe.parent / "whole" / "large" / "corpus" / f"{split}.jsonl" for split in ("train", "holdout")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizing, "SPAN_BYTES", 10_000)
        kills = [1, 2, 3, 9, 15, sum(len(tokenizing.spans_of(corpus, tmp_path)) for corpus in corpora)]
    told = killed(recipe, tmp_path, 10_000, 1 << 40, kills)
    assert files(tmp_path / "large" / "tokens") == expected
    assert len(told) >= len(kills) - 1
    for (before, kept, _), at in zip(told, [0, *kills], strict=False):
        assert kept == before >= at, "what was done was made again"


def test_two_processes_make_the_same_files_and_vanish_with_a_run_that_is_killed(whole, tmp_path):
    recipe, expected = whole
    ((_, _, processes),) = killed(recipe, tmp_path, 10_000, 100_000, [4])
    assert files(tmp_path / "large" / "tokens") == expected
    if processes:  # on a machine with one processor nothing is shared
        assert processes >= 2


@pytest.mark.parametrize("text", [["a" * 5], ["a", "b" * 300, "c"], ["é" * 100] * 9, ["", "x"], []])
@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_spans_hold_every_line_once_however_long_lines_are(tmp_path, monkeypatch, text, size):
    corpus = tmp_path / "train.jsonl"
    corpus.write_text("".join(encode_record(Text(one, str(n))) + "\n" for n, one in enumerate(text)))
    monkeypatch.setattr(tokenizing, "SPAN_BYTES", size)
    spans = tokenizing.spans_of(corpus, tmp_path / "spans")
    found = [document for span in spans for document in tokenizing._texts(span)]
    assert [document.text for document in found] == text
    assert all(span.stop - span.start >= min(size, corpus.stat().st_size - span.start) for span in spans)


def jobs(*what: str):
    return [{"do": one} for one in what]


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


def test_processes_share_the_jobs_and_end_with_the_block(on_path):
    with Workers("answering", 3, {"each": 5}) as workers:
        pids = [process.pid for process in workers._processes]
        assert Counter(filter(None, workers.work(jobs(*["work"] * 7)))) == {5: 14}
        assert list(workers.work([])) == []
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("refuse", UserError, "no such text"),
        ("crash", RuntimeError, "a mistake of ours"),
        ("die", UserError, r"ended without a word \(exit code -9\)"),
    ],
)
def test_what_goes_wrong_in_a_process_is_told(on_path, what, error, message):
    with Workers("answering", 2, {"each": 1}) as workers, pytest.raises(error, match=message):
        list(workers.work(jobs("work", what, "work")))


def test_asked_to_stop_nobody_waits_for_a_process(on_path):
    def asked():
        with Workers("answering", 1, {"each": 1}) as workers:
            for _ in workers.work(jobs("hang")):
                raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        asked()
