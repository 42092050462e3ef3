"""The quickstart inside its time and memory, and what it has learnt. Run with: python -m pytest -m heavy -n0 -s."""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from corelm.kinds import Spec
from corelm.model.assemble import assemble, initialise
from corelm.model.config import ModelConfig
from corelm.model.loading import load_tokenizer
from corelm.pipeline.records import read_records
from corelm.pipeline.tokens import DiskTokens

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    out = tmp_path_factory.mktemp("quickstart")
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [
        sys.executable,
        "-m",
        "corelm.cli",
        "run",
        str(ROOT / "recipes" / "quickstart.yaml"),
        "--out",
        str(out),
    ]
    begun = time.monotonic()
    subprocess.run(command, check=True, env=environment)
    return out / "quickstart", time.monotonic() - begun, command, environment


def metrics(folder: Path, stage: str) -> dict:
    return json.loads((folder / stage / "metrics.json").read_text())


def held_out_bytes(folder: Path) -> int:
    return sum(len(record.text.encode()) for record in read_records(folder / "corpus" / "holdout.jsonl"))


def test_it_stays_inside_its_time_and_memory_and_the_second_run_takes_seconds(quickstart):
    _, seconds, command, environment = quickstart
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"quickstart: {seconds:.0f} s, {peak:.2f} GiB")
    assert seconds < 360
    assert peak < 3
    begun = time.monotonic()
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    assert time.monotonic() - begun < 30
    assert done.stdout.count("up to date") >= 15


def test_it_codes_held_out_text_far_better_than_a_unigram_and_an_untrained_model(quickstart):
    folder = quickstart[0]
    trained = metrics(folder, "scores")["base"]["perplexity"]["bits_per_byte"]
    train, held_out = DiskTokens(folder / "tokens" / "train"), DiskTokens(folder / "tokens" / "holdout")
    tokenizer = load_tokenizer(folder / "tokenizer")
    counts = np.ones(tokenizer.vocab_size)
    for index in range(len(train)):
        counts += np.bincount(train[index].ids, minlength=tokenizer.vocab_size)
    surprise = -np.log2(counts / counts.sum())
    unigram = sum(surprise[held_out[i].ids].sum() for i in range(len(held_out))) / held_out_bytes(folder)
    facts = json.loads((folder / "base" / "model.json").read_text())
    model = assemble(ModelConfig.model_validate(facts["model"]), facts["vocab_size"])
    initialise(model, 0)
    model.attach(tokenizer)
    untrained = Spec.read("evaluator", "perplexity").build()
    records = list(read_records(folder / "corpus" / "holdout.jsonl"))
    before = untrained.evaluate(model, records, _Quiet())["bits_per_byte"]
    print(f"bits per byte: trained {trained:.3f}, unigram {unigram:.3f}, untrained {before:.3f}")
    assert trained <= 0.75 * unigram
    assert trained <= 0.5 * before


def test_it_answers_questions_about_functions_it_has_never_seen_above_chance(quickstart):
    found = {name: measured["multiple-choice"] for name, measured in metrics(quickstart[0], "scores").items()}
    print(f"multiple choice: {found}")
    for name, measured in found.items():
        error = math.sqrt(0.25 * 0.75 / measured["questions"])
        assert measured["accuracy_pmi"] > 0.25 + 3 * error, name


def test_the_reward_model_tells_right_answers_from_wrong_ones_and_alignment_raises_the_reward(quickstart):
    folder = quickstart[0]
    pairs = metrics(folder, "pairs")["judge"]["pair-accuracy"]
    rewards = {name: found["mean-reward"]["reward"] for name, found in metrics(folder, "rewards").items()}
    print(f"pairs: {pairs}; rewards: {rewards}")
    assert rewards["preferred"] > rewards["tuned"]
    assert pairs["accuracy"] > 0.5 + 3 * pairs["accuracy_stderr"]


class _Quiet:
    stopping = False

    def step(self, *args):
        pass

    def note(self, message):
        pass
