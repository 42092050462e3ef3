"""The command line as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from corelm.cli import VERBS, main
from corelm.registration import Record, discover, using

ROOT = Path(__file__).parents[2]


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_explains_itself(capsys, verb):
    code, out, _ = call(capsys, verb, "--help")
    assert code == 0
    assert f"corelm {verb}" in out


def test_help_names_every_verb_and_where_to_start(capsys):
    code, out, _ = call(capsys)
    assert code == 0
    assert all(verb in out for verb in VERBS)
    assert "corelm init" in out


@pytest.mark.parametrize(
    ("arguments", "piece"),
    [
        (["run", "none.yaml"], "no such file"),
        (["rnu"], "did you mean 'run'?"),
        (["describe", "attention/gqaa"], "did you mean 'gqa'"),
        (["describe", "gqa"], "did you mean attention/gqa"),
        (["list", "attentions"], "unknown kind"),
        (["generate", "nowhere", "--prompt", "x"], "no model folder"),
        (["export", "hugging-face", "nowhere", "--out", "x"], "no model folder"),
        (["report", "nowhere"], "no run's folder"),
        (["evaluate", "nowhere", "--task", "perplexity"], "no model folder"),
    ],
)
def test_a_users_mistake_is_answered_without_a_traceback_and_exit_code_2(
    capsys, tmp_path, monkeypatch, arguments, piece
):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *arguments)
    assert code == 2
    assert piece in err
    assert "Traceback" not in out + err
    assert not list(tmp_path.iterdir()), "a refused command leaves nothing behind"


def test_debug_shows_the_traceback(capsys):
    code, _, err = call(capsys, "--debug", "run", "none.yaml")
    assert code == 2
    assert "Traceback" in err


def test_a_mistake_of_ours_exits_with_1_and_says_how_to_see_more(capsys, monkeypatch):
    monkeypatch.setattr("corelm.cli.list_.run", lambda args: 1 / 0)
    code, _, err = call(capsys, "list")
    assert code == 1
    assert "ZeroDivisionError" in err
    assert "--debug" in err


def test_list_is_json_with_what_scripts_need(capsys):
    code, out, _ = call(capsys, "list", "--json")
    assert code == 0
    records = json.loads(out)
    assert {"kind", "name", "distribution", "version", "summary"} <= records[0].keys()
    assert ("attention", "gqa") in {(record["kind"], record["name"]) for record in records}


def test_describe_tells_options_with_bounds_defaults_and_descriptions(capsys):
    code, out, _ = call(capsys, "describe", "attention/gqa")
    assert code == 0
    assert "kv_heads" in out
    assert "default" in out
    assert "gqa.py" in out
    assert json.loads(call(capsys, "describe", "attention/gqa", "--json")[1])["options"]
    assert "Contract" in call(capsys, "describe", "attention")[1]


def test_validate_gives_problems_as_json(capsys, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("corelm: 1\nname: x\nmodell: {}\n")
    code, out, _ = call(capsys, "validate", path, "--json")
    assert code == 2
    problem = json.loads(out)[0]
    assert (problem["code"], problem["path"], problem["line"], problem["suggestion"]) == (
        "unknown-key",
        "modell",
        3,
        "model",
    )
    assert call(capsys, "validate", ROOT / "recipes" / "quickstart.yaml")[0] == 0


def test_init_writes_a_recipe_that_validates_and_never_over_another(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "init")[0] == 0
    assert call(capsys, "validate", "recipe.yaml")[0] == 0
    assert json.loads((tmp_path / "corelm.schema.json").read_text())["title"]
    before = (tmp_path / "recipe.yaml").read_text()
    code, _, err = call(capsys, "init")
    assert code == 2
    assert "there already" in err
    assert (tmp_path / "recipe.yaml").read_text() == before


def test_plan_counts_parameters_and_steps(capsys):
    code, out, _ = call(capsys, "plan", ROOT / "recipes" / "quickstart.yaml", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["model"]["parameters"] == sum(facts["model"]["by_section"].values())
    assert next(s for s in facts["stages"] if s["name"] == "base")["steps"] > 0


def test_plan_counts_what_training_and_decoding_take(capsys, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "corelm: 1\nname: sizes\ncorpus: {source: {use: python-stdlib}}\ntokenizer: {use: bpe, vocab_size: 1000}\n"
        "model: {dim: 64, layers: 2, context: 128, attention: {use: gqa, heads: 4, kv_heads: 2}, "
        "feedforward: {use: moe, experts: 8, expert: {use: swiglu, width: 32}, router: {use: top-k, chosen: 2}}}\n"
        "stages: {base: {use: pretrain, tokens: 10k, time: 32}}\n"
    )
    facts = json.loads(call(capsys, "plan", path, "--json")[1])
    attention, router, expert, head = 64 * (2 * 64 + 2 * 32), 8 * 64, 3 * 64 * 32, 64 * 1000
    per_layer = attention + router + 2 * expert
    forward, decoding = facts["model"]["forward"], facts["model"]["decoding"]
    assert forward["tokens"] == 128
    assert forward["by_section"] == {"layers": 128 * 2 * (2 * per_layer + 4 * 64 * 128), "head": 128 * 2 * head}
    assert decoding["operations"] == 2 * (2 * per_layer + 4 * 64 * 128) + 2 * head
    assert decoding["reads"] == 4 * (2 * per_layer + head + 64 + 5 * 64), (
        "table, row, norms, and two experts of eight"
    )
    assert decoding["state_bytes"] == 4 * 2 * 2 * 32 * 128
    # A training step takes three forward passes; in its rows a token meets 32 others, not 128.
    trained = facts["stages"][-1]["training_flops"]
    assert trained == 3 * 10_000 * (2 * (2 * per_layer + 4 * 64 * 32) + 2 * head)

    shown = call(capsys, "plan", path)[1]
    assert f"forward: {forward['operations'] / 128e3:.3g} k floating-point operations per token" in shown
    assert f"{trained:.2e} floating-point operations" in shown


def test_plan_names_attention_that_does_not_say_what_it_costs(capsys, tmp_path):
    registry, target = discover(), "corelm.conformance.bugs.attention:TwoHeads"
    registry.records.append(Record("attention", "two-heads", target, "Two heads", 1, "acme", "1", "acme"))
    path = tmp_path / "r.yaml"
    path.write_text(
        "corelm: 1\nname: x\nmodel: {dim: 8, layers: 1, context: 8, vocab_size: 9, attention: two-heads}\n"
    )
    with using(registry):
        shown = call(capsys, "plan", path)[1]
    assert "not counted: all but the maps of acme:two-heads, which says nothing of its cost" in shown
    assert "not counted" not in call(capsys, "plan", ROOT / "recipes" / "tiny.yaml")[1]


def test_describe_tells_papers_and_cost(capsys):
    shown = call(capsys, "describe", "attention/gqa")[1]
    assert "Ainslie et al., 2023  https://arxiv.org/abs/2305.13245" in shown
    assert "parameters: 2 · dim · (heads + kv_heads) · head_dim" in shown
    assert "cost: The maps, and 4 · heads · head_dim operations per pair" in shown
    facts = json.loads(call(capsys, "describe", "activation/relu", "--json")[1])
    assert (facts["papers"], facts["elementary"], facts["cost"]) == ([], True, "")


def test_list_as_json_names_the_papers_of_every_part(capsys):
    listed = {(record["kind"], record["name"]): record for record in json.loads(call(capsys, "list", "--json")[1])}
    rope = {
        "citation": "Su et al., 2021",
        "identifier": "arXiv:2104.09864",
        "address": "https://arxiv.org/abs/2104.09864",
    }
    assert listed["position", "rope"]["papers"] == [rope]
    assert listed["mask", "causal"]["papers"] == []
    for (kind, name), record in listed.items():
        described = json.loads(call(capsys, "describe", f"{kind}/{name}", "--json")[1])
        assert record["papers"] == described["papers"], f"{kind}/{name} is listed without being imported"


def test_explain_says_where_a_value_came_from(capsys):
    code, out, _ = call(capsys, "explain", ROOT / "recipes" / "tiny.yaml", "model.attention")
    assert code == 0
    assert "tiny.yaml:" in out
    assert "default of attention gqa" in out


def test_listing_takes_less_than_a_third_of_importing_torch():
    def seconds(*command: str) -> float:
        times = []
        for _ in range(3):
            begun = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
            times.append(time.perf_counter() - begun)
        return min(times)

    assert seconds("-m", "corelm.cli", "list") < seconds("-c", "import torch") / 3
