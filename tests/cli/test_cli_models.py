"""Verbs that take a model or a run, and the mistakes that are made with them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

import corelm
from corelm.cli import main
from corelm.cli.chat import prompt
from corelm.kinds.component import Spec
from corelm.kinds.records import Message
from corelm.model.assemble import assemble
from corelm.model.config import ModelConfig
from corelm.model.loading import save

SECTION = {
    "dim": 16,
    "layers": 1,
    "context": 32,
    "attention": {"use": "gqa", "heads": 2},
    "feedforward": {"use": "mlp"},
    "norm": "rmsnorm",
    "position": "rope",
}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """What a run leaves: a model that writes, one that was tuned, one that scores."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps({"stages": {"base": {"use": "pretrain"}}, "trackers": []}))
    tokenizer = Spec.read("tokenizer", "bytes").build()
    tokenizer.train([])
    for name, head in (("base", "language-model"), ("judge", "scalar")):
        model = assemble(ModelConfig.model_validate({**SECTION, "head": head}), tokenizer.vocab_size)
        model.attach(tokenizer)
        save(model, folder / name)
    ledger = {"use": "pretrain", "seconds": 2.0, "figures": {"loss": 5.25, "steps": 40.0}, "notes": []}
    (folder / "base" / "stage.json").write_text(json.dumps(ledger))
    (folder / "corpus").mkdir()
    return folder


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("where", "pieces"),
    [
        (".", ["is a whole run", "models of this run", "tiny/base"]),
        ("corpus", ["holds no model", "tiny/base"]),
        ("base/model.json", ["is a file"]),
        ("bsae", ["does not exist", "tiny/base"]),
        ("judge", ["scores texts; it can't write"]),
    ],
)
def test_a_folder_that_cannot_write_is_refused_with_those_that_can(capsys, run_folder, where, pieces):
    code, out, err = call(capsys, "generate", run_folder / where, "--prompt", "x")
    assert code == 2
    assert out == ""
    assert all(piece in err for piece in pieces), err


@pytest.mark.parametrize(
    ("options", "piece"),
    [
        (["--prompt", "x", "--tokens", "0"], "'0' is not a whole number from 1 on"),
        (["--prompt", "x", "--tokens", "-3"], "not a whole number from 1 on"),
        (["--prompt", "x", "--seed", "-1"], "not a whole number from 0 on"),
        (["--prompt", "x", "--ask", "y"], "not allowed with"),
        (["--prompt", "x", "--sampler", "temprature"], "did you mean 'temperature'"),
        (["--prompt", "x", "--sampler", "{use: temperature, value: -1}"], "corelm describe sampler/temperature"),
        (["--prompt", "x", "--sampler", "{use: temperature"], "--sampler"),
        (["--prompt", "a\udcff"], "lone surrogate"),
        (["--ask", "x"], "was not tuned on conversations"),
        (["--promt", "x"], "one of the arguments --prompt --ask is required"),
        (["--prompt", "x", "--token", "3"], "did you mean '--tokens'?"),
        ([], "one of the arguments --prompt --ask is required"),
    ],
)
def test_what_cannot_be_generated_is_said_before_anything_is_printed(capsys, run_folder, options, piece):
    code, out, err = call(capsys, "generate", run_folder / "base", *options)
    assert code == 2
    assert out == ""
    assert piece in err


def test_generate_prints_the_prompt_and_what_follows(capsys, run_folder):
    code, out, err = call(capsys, "generate", run_folder / "base", "--prompt", "é 日本", "--tokens", "3")
    assert (code, err) == (0, "")
    assert out.startswith("é 日本")
    assert call(capsys, "generate", run_folder / "base", "--prompt", "", "--tokens", "3")[0] == 0


def test_generate_says_when_it_goes_beyond_what_the_model_was_made_for(capsys, run_folder):
    code, _, err = call(capsys, "generate", run_folder / "base", "--prompt", "x" * 30, "--tokens", "3")
    assert code == 0
    assert err == "note: 33 tokens in all; the model was made for 32\n"


@pytest.mark.parametrize(
    ("arguments", "piece"),
    [
        (["evaluate", "MODEL", "--task", "perplexity"], "has no data"),
        (["evaluate", "MODEL", "--task", "perplexity", "--data", "text-files"], "--data text-files: paths: field"),
        (["evaluate", "MODEL", "--task", "mean-reward", "--data", "stdlib-docstrings"], "Give --judge"),
        (["export", "hf", "MODEL", "--out", "x"], "format hf: unknown interchange 'hf'"),
        (["export", "hugging-face", "MODEL", "--out", "file/x"], "file/x: can't be written: Not a directory"),
        (["export", "hugging-face", "MODEL", "--out", "file"], "file is there already"),
        (["import", "hugging-face", "MODEL", "--out", "x"], "is a model folder of corelm's already"),
        (["import", "hugging-face", "nowhere", "--out", "x"], "nowhere does not exist"),
        (["import", "hugging-face", "file", "--out", "x"], "file does not look like hugging-face"),
        (["report", "MODEL"], "Runs: "),
        (["compare", "MODEL"], "is no run's folder"),
        (["init", "x"], "ends in .yaml"),
        (["init", "file"], "file is there already"),
        (["init", "x.yaml", "--from", "corelm:nope"], "no recipe 'nope'"),
        (["init", "x.yaml", "--from", "nope.yaml"], "nope.yaml can't be read: No such file"),
        (["schema", "--out", "file/x.json"], "file/x.json: can't be written"),
        (["list", "norms"], "did you mean 'norm'?"),
        (["describe", "attention", "gqa"], "not understood: gqa"),
        (["run", "corelm:tiny", "--set", "seed=3"], "write path=value without --set"),
        (["run"], "the following arguments are required: recipe\n"),
        (["chat", "MODEL"], "was not tuned on conversations"),
        (["new", "plugin", "Acme Norms"], "is no name of a package"),
        (["new", "plugin", "file"], "file is there already"),
        (["new", "plugin", "acme", "--kind", "norn"], "did you mean 'norm'?"),
    ],
)
def test_a_mistake_is_answered_in_words_and_leaves_nothing(
    capsys, tmp_path, monkeypatch, run_folder, arguments, piece
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("text")
    filled = [str(run_folder / "base") if argument == "MODEL" else argument for argument in arguments]
    code, _, err = call(capsys, *filled)
    assert code == 2
    assert piece in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_two_evaluations_by_one_task_are_both_told(capsys, tmp_path, run_folder):
    (tmp_path / "a.txt").write_text("Some text.\n" * 4)
    data = f"{{use: text-files, paths: ['{tmp_path / 'a.txt'}']}}"
    tasks = ["--task", "perplexity", "--task", "{use: perplexity, limit: 1}"]
    code, out, _ = call(capsys, "evaluate", run_folder / "base", *tasks, "--data", data, "--json")
    assert code == 0
    assert set(json.loads(out)) == {"perplexity", "{use: perplexity, limit: 1}"}


class Talking:
    """A template and a model that say what they were given."""

    context = 12
    tokenizer = None
    head = types.SimpleNamespace(reads="vocabulary")

    def __init__(self) -> None:
        self.template = self
        self.seen: list[str] = []

    def prompt(self, messages, tokenizer) -> tuple[int, ...]:
        self.seen.append(" ".join(f"{m.role[0]}:{m.content}" for m in messages))
        return tuple(range(3 * len(messages)))

    def pieces(self, ids, tokens, samplers, seed):
        yield from ("fi", "ne")


def test_chat_keeps_the_conversation_until_an_empty_line(capsys, monkeypatch):
    model = Talking()
    monkeypatch.setattr("corelm.cli.models.open_model", lambda path, writes: model)
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\n\nthree\n"))
    code, out, err = call(capsys, "chat", "x", "--tokens", "1")
    assert code == 0
    assert out == "fine\nfine\nfine\n"
    assert model.seen == ["u:one", "u:one a:fine u:two", "u:three"]
    assert "new conversation" in err


def test_chat_forgets_the_oldest_turn_when_the_context_is_full(capsys):
    messages = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    assert len(prompt(Talking(), messages, 4)) == 3
    assert [message.content for message in messages] == ["c"]
    assert "forgot" in capsys.readouterr().err


def test_compare_puts_runs_side_by_side(capsys, run_folder, tmp_path):
    other = tmp_path / "other"
    (other / "base").mkdir(parents=True)
    (other / "recipe.json").write_text(json.dumps({"stages": {"base": {"use": "pretrain"}}}))
    ledger = {"use": "pretrain", "seconds": 3.0, "figures": {"loss": 4.5}, "notes": []}
    (other / "base" / "stage.json").write_text(json.dumps(ledger))
    (other / "base" / "metrics.json").write_text(json.dumps({"small": {"perplexity": {"bits": 2.5}}}))
    code, out, _ = call(capsys, "compare", run_folder, other)
    assert code == 0
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[1:]}
    assert rows["base/loss"] == ["5.25", "–"]
    assert rows["base/small/perplexity/bits"] == ["–", "2.5"]
    assert rows["base/seconds"] == ["2", "3"]
    told = json.loads(call(capsys, "compare", run_folder, other, "--json")[1])
    assert told[str(other)] == {"base/small/perplexity/bits": 2.5, "base/seconds": 3.0}


@pytest.mark.parametrize("kind", ["norm", "activation", "sampler", "cleaner"])
def test_a_new_plugin_registers_a_part_that_can_be_built(capsys, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "new", "plugin", f"acme-{kind}", "--kind", kind)[0] == 0
    monkeypatch.syspath_prepend(str(tmp_path / f"acme-{kind}"))
    module = __import__(f"acme_{kind}")
    registry = corelm.registration.Registry()
    for plugin, name in ((corelm.kinds, "core"), (module, module.__name__)):
        corelm.registration.add_plugin(registry, plugin, name, "acme", "1")
    (record,) = registry.records
    part = record.load()
    assert (part.kind, part.__doc__.splitlines()[0].removesuffix(".")) == (kind, record.summary)
    built = part(part.Config(), *([8] if kind == "norm" else []))
    assert built.config is not None
    compile((tmp_path / f"acme-{kind}" / "tests" / f"test_acme_{kind}.py").read_text(), "test", "exec")


def test_a_reader_that_leaves_early_is_no_failure_even_for_short_output():
    code = f"{sys.executable} -c \"import sys; from corelm.cli import main; sys.exit(main(['list']))\" | true"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {code}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_the_terminal_cannot_show_is_escaped():
    code = "from corelm.cli import main; main(['describe', 'feedforward/swiglu'])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={"PYTHONIOENCODING": "ascii"}, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"\\xb7" in done.stdout
