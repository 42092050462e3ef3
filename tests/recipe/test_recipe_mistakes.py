# ruff: noqa: E501
"""Every mistake in a recipe: its code, its path, its line, and what is said about it."""

from __future__ import annotations

import itertools
import json

import pytest
from recipe_texts import SMALL, problems, read, write

from corelm.recipe.errors import RecipeError
from corelm.recipe.reader import Recipe

# what is replaced, by what, code, path, text on the line that is blamed, something that is said
MISTAKES = {
    "unknown part": ("norm: {use: rmsnorm,", "norm: {use: rmsnrm,", "unknown-part", "model.norm", "rmsnrm", "did you mean 'rmsnorm'?"),
    "unknown part, bare": ("position: rope", "position: ropes", "unknown-part", "model.position", "ropes", "did you mean 'rope'?"),
    "part of another kind": ("use: swiglu, width: 64", "use: rmsnorm", "unknown-part", "model.feedforward", "{use: rmsnorm}", "'rmsnorm' is of kind norm"),
    "not a part": ("position: rope", "position: [[rope]]", "expected", "model.position.0", "[[rope]]", "kind position"),
    "misspelt key of a part": ("kv_heads: 2", "kv_headz: 2", "unknown-key", "model.attention.kv_headz", "kv_headz", "did you mean 'kv_heads'?"),
    "misspelt key of the model": ("  layers: 2", "  layerz: 2", "unknown-key", "model.layerz", "layerz", "did you mean 'layers'?"),
    "misspelt section": ("tokenizer: bytes", "tokeniser: bytes", "unknown-key", "tokeniser", "tokeniser", "did you mean 'tokenizer'?"),
    "misspelt key of a stage": ("tokens: 8k", "tokenz: 8k", "unknown-key", "stages.base.tokenz", "tokenz", "see: corelm describe stage/pretrain"),
    "misspelt key of a nested part": ("learning_rate: 2e-3", "learning_rates: 2e-3", "unknown-key", "stages.base.optimizer.learning_rates", "learning_rates", "did you mean 'learning_rate'?"),
    "misspelt key in a list": ("tasks: [perplexity]", "tasks: [{use: perplexity, limits: 3}]", "unknown-key", "stages.scores.tasks.0.limits", "limits", "did you mean 'limit'?"),
    "missing key": ("  dim: 32\n", "", "missing-key", "model.dim", "model:", "Width of the residual stream"),
    "missing key of a part": ("heads: 4, kv_heads: 2", "kv_heads: 2", "missing-key", "model.attention.heads", "attention:", "heads"),
    "wrong type": ("dim: 32", "dim: wide", "int-type", "model.dim", "dim: wide", "not wide"),
    "a number in quotes": ("heads: 4", 'heads: "4"', "int-type", "model.attention.heads", 'heads: "4"', "integer"),
    "a word that YAML 1.1 takes for a boolean": ("holdout: 0.1", "holdout: no", "float-type", "corpus.holdout", "holdout: no", "not 'no'"),
    "a count that is none": ("tokens: 8k", "tokens: 8 thousand", "count", "stages.base.tokens", "8 thousand", "64k"),
    "underscores in a number": ("tokens: 8k", "tokens: 8_000", "count", "stages.base.tokens", "8_000", "64k"),
    "out of bounds": ("dim: 32", "dim: -32", "greater-than", "model.dim", "dim: -32", "greater than 0"),
    "out of bounds in a part": ("eps: 1e-6", "eps: -1.0", "greater-than", "model.norm.eps", "eps: -1.0", "-1"),
    "infinite": ("holdout: 0.1", "holdout: .nan", "finite-number", "corpus.holdout", ".nan", "finite"),
    "another grammar": ("corelm: 1", "corelm: 2", "literal-error", "corelm", "corelm: 2", "must be 1"),
    "unsafe name": ("name: small", "name: ../small", "string-pattern-mismatch", "name", "../small", "match"),
    "a list instead of a map": ("template: chatml", "template: chatml\nmodel2: []", "unknown-key", "model2", "model2", "did you mean 'model'?"),
    "heads that do not divide dim": ("heads: 4, kv_heads: 2", "heads: 5, kv_heads: 5", "heads-do-not-divide-dim", "model.attention.heads", "heads: 5,", "32"),
    "kv_heads that do not divide heads": ("kv_heads: 2", "kv_heads: 3", "kv-heads-do-not-divide-heads", "model.attention.kv_heads", "kv_heads: 3", "divide"),
    "alibi without scores": ("position: rope\n  attention: {use: gqa, heads: 4, kv_heads: 2}", "position: alibi\n  attention: {use: gated-linear, heads: 4}", "position-needs-scores", "model.position", "alibi", "gated-linear offers"),
    "a window without a mask": ("attention: {use: gqa, heads: 4, kv_heads: 2}", "mask: [causal, {use: window, size: 8}]\n  attention: {use: gated-linear, heads: 4}", "mask-needs-mask", "model.mask.1", "window", "gated-linear offers"),
    "more context than positions": ("position: rope", "position: {use: learned, size: 16}", "context-longer-than-positions", "model.position.size", "size: 16", "64"),
    "a mask that is not causal": ("position: rope", "position: rope\n  mask: documents", "mask-not-causal", "model.mask", "mask: documents", "causal"),
    "a head that is no vocabulary": ("position: rope", "position: rope\n  head: scalar", "head-not-vocabulary", "model.head", "head: scalar", "language-model"),
    "a pattern that names no block": ("position: rope", "position: rope\n  pattern: [near]", "pattern-block", "model.pattern", "pattern: [near]", "near"),
    "duplicate key": ("seed: 7", "seed: 7\nseed: 8", "duplicate-key", "seed", "seed: 8", "line 3"),
    "duplicate key in flow style": ("heads: 4,", "heads: 4, heads: 8,", "duplicate-key", "model.attention.heads", "heads: 8", "twice"),
    "a tag": ("seed: 7", "seed: !!int 7", "yaml-tag", "", "!!int", "tags"),
    "unknown stage": ("from: tuned", "from: tunde", "unknown-stage", "stages.judge.from", "tunde", "did you mean 'tuned'?"),
    "unknown stage in a list": ("from: [base, tuned]", "from: [base, tunes]", "unknown-stage", "stages.scores.from.1", "tunes", "stages: base, tuned, judge, scores"),
    "unknown stage of a stage that is wrong itself": ("from: tuned\n", "from: tunde\n    epochz: 2\n", "unknown-stage", "stages.judge.from", "tunde", "tuned"),
    "type mismatch between stages": ("from: [base, tuned]", "from: [base, judge]", "stage-type", "stages.scores.from.1", "judge]", "judge (reward-model) makes a reward-model"),
    "one stage where several are given": ("from: tuned", "from: [base, tuned]", "from-one", "stages.judge.from", "from: [base, tuned]\n    data", "one stage"),
    "unknown role": ("from: tuned", "from: {modle: tuned}", "from-role", "stages.judge.from.modle", "modle", "did you mean 'model'?"),
    "a role that is left out": ("from: tuned", "from: {}", "from-missing", "stages.judge.from", "from: {}", "model"),
    "a circle": ("data: {source: {use: stdlib-docstrings, yields: conversation}}", "from: tuned\n    data: {source: {use: stdlib-docstrings, yields: conversation}}", "stage-cycle", "stages.tuned.from", "from: tuned\n    data: {source: {use: stdlib-docstrings, yields: conv", "tuned needs tuned"),
    "reserved stage name": ("  judge:", "  tokens:", "stage-name", "stages.tokens", "  tokens:\n", "reserved"),
    "unsafe stage name": ("  judge:", "  a/b:", "stage-name", "stages.a/b", "a/b", "folder"),
    "no corpus": ("corpus:\n  source: {use: python-stdlib}\n  clean: [unicode-nfc]\n  holdout: 0.1\n", "", "no-corpus", "stages.base", "  base:", "corpus"),
    "no model": (SMALL[SMALL.index("model:") : SMALL.index("stages:")], "", "no-model", "stages.base", "  base:", "model"),
    "no template": ("template: chatml\n", "", "no-template", "stages.tuned", "  tuned:", "template"),
    "a corpus that is not text": ("source: {use: python-stdlib}\n  clean: [unicode-nfc]", "source: {use: stdlib-docstrings, yields: preference}", "corpus-not-text", "corpus.source", "  source: {use: stdlib-docstrings, yields: preference}", "text"),
    "cleaners of what is no text": ("source: {use: python-stdlib}", "source: {use: stdlib-docstrings, yields: preference}", "value-error", "corpus", "corpus:", "source of texts"),
    "nothing to load": ("tokenizer: bytes", "tokenizer: {load: nowhere}", "nothing-to-load", "tokenizer.load", "nowhere", "there is no"),
    "extends a missing file": ("seed: 7", "extends: base.yaml", "extends", "extends", "base.yaml", "no file"),
    "extends an unknown shipped recipe": ("seed: 7", "extends: corelm:quickstrat", "extends", "extends", "quickstrat", "corelm:quickstart"),
    "extends from nobody": ("seed: 7", "extends: acme:base", "extends", "extends", "acme", "'acme'"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_code_its_path_and_its_line(name, tmp_path):
    old, new, code, path, blamed, said = MISTAKES[name]
    assert SMALL.count(old) >= 1
    text = SMALL.replace(old, new, 1)
    assert text.count(blamed) == 1
    line = text[: text.index(blamed)].count("\n") + 1
    found = problems(tmp_path, text)
    same = [p for p in found if (p.code, p.dotted) == (code, path)]
    assert same, [(p.code, p.dotted, p.message) for p in found]
    assert same[0].mark.line == line
    assert said in same[0].render()


def test_the_unharmed_recipe_is_fine(tmp_path):
    assert problems(tmp_path, SMALL) == []


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path):
    chosen = [
        "unknown part",
        "misspelt key of a part",
        "out of bounds",
        "misspelt key of a stage",
        "duplicate key",
        "unknown stage in a list",
    ]
    text = SMALL
    for name in chosen:
        text = text.replace(*MISTAKES[name][:2], 1)
    found = problems(tmp_path, text)
    assert {MISTAKES[name][2:4] for name in chosen} <= {(p.code, p.dotted) for p in found}
    lines = [p.mark.line for p in found]
    assert lines == sorted(lines)


def test_combinations_within_the_model_are_told_along_with_typing_mistakes_elsewhere(tmp_path):
    text = SMALL.replace("heads: 4, kv_heads: 2", "heads: 5, kv_heads: 5").replace("batch: 4", "batch: four")
    assert [p.code for p in problems(tmp_path, text)] == ["heads-do-not-divide-dim", "int-type"]


def test_the_message_has_the_one_shape(tmp_path):
    path = write(tmp_path, SMALL.replace("kv_heads: 2", "kv_headz: 2"))
    with pytest.raises(RecipeError) as caught:
        Recipe.read(path)
    text = str(caught.value)
    line, column = 16, SMALL.splitlines()[15].index("kv_heads") + 1
    assert text.splitlines()[0] == f"{path}:{line}:{column}: model.attention.kv_headz: unknown key for attention gqa"
    assert text.splitlines()[1] == "   16 |   attention: {use: gqa, heads: 4, kv_headz: 2}"
    assert text.splitlines()[2] == "      | " + " " * (column - 1) + "^^^^^^^^ did you mean 'kv_heads'?"
    assert "  keys: use, heads, " in text and " kv_heads, " in text and "see: corelm describe attention/gqa" in text


def test_problems_are_there_for_machines(tmp_path):
    path = write(tmp_path, SMALL.replace("kv_heads: 2", "kv_headz: 2"))
    with pytest.raises(RecipeError) as caught:
        Recipe.read(path)
    (data,) = json.loads(json.dumps(caught.value.as_json()))
    assert {key: data[key] for key in ("code", "path", "file", "line", "column", "suggestion")} == {
        "code": "unknown-key",
        "path": "model.attention.kv_headz",
        "file": str(path),
        "line": 16,
        "column": 35,
        "suggestion": "kv_heads",
    }


def test_a_mistake_in_the_base_is_told_once_however_many_blocks_inherit_it(tmp_path):
    text = SMALL.replace("heads: 4, kv_heads: 2", "heads: 4, kv_heads: -1").replace(
        "position: rope", "position: rope\n  blocks: {near: {mask: [causal]}, far: {}}\n  pattern: [near, far]"
    )
    found = problems(tmp_path, text)
    assert [(p.code, p.mark.line) for p in found] == [("greater-than", 18)]


@pytest.mark.parametrize(
    ("old", "new", "paths"),
    [
        ("eps: 1e-6", "epss: 1e-6", ["model.norm.epss"]),
        ("position: rope", "position: {use: rope, thta: 3}", ["model.position.thta"]),
        ("kv_heads: 2", "kvheads: 2", ["model.attention.kvheads"]),
        (
            "position: rope",
            "position: rope\n  mask: [causal, {use: window, sizes: 8}]",
            ["model.mask.1.size", "model.mask.1.sizes"],
        ),
    ],
)
def test_a_misspelt_key_is_told_once_however_many_blocks_inherit_it(old, new, paths, tmp_path):
    blocks = "  blocks: {near: {attention: {heads: 2}}, far: {}, none: {feedforward: null}}\n"
    text = SMALL.replace(old, new).replace("stages:", f"{blocks}  pattern: [near, far]\nstages:")
    assert sorted(p.dotted for p in problems(tmp_path, text)) == paths


def test_a_misspelt_key_of_a_block_is_told_there_although_the_section_has_it_too(tmp_path):
    text = SMALL.replace("kv_heads: 2", "kvheads: 2").replace(
        "stages:", "  blocks: {near: {attention: {kvheads: 2}}}\n  pattern: near\nstages:"
    )
    assert sorted(p.dotted for p in problems(tmp_path, text)) == [
        "model.attention.kvheads",
        "model.blocks.near.attention.kvheads",
    ]


PATTERNS = [
    ("tuned", "adapter: lora\n    targets: ['*.value', '*.attentoin.*']", "targets.1", "layers.0.attention"),
    ("tuned", "adapter: lora\n    targets: ['*norm*']", "targets.0", "Nearest names"),
    (
        "small",
        "use: quantize\n    with: round-to-nearest\n    skip: ['*.attentoin.*']",
        "skip.0",
        "layers.0.attention",
    ),
    ("small", "use: quantize\n    with: round-to-nearest\n    skip: ['*']", "", "no linear map is left"),
]


@pytest.mark.parametrize(("stage", "options", "below", "said"), PATTERNS)
def test_a_pattern_that_matches_no_map_of_the_model_is_told(stage, options, below, said, tmp_path):
    text = SMALL.replace("    use: finetune\n", f"    use: finetune\n    {options}\n", 1)
    if stage == "small":
        text = f"{SMALL}  small:\n    from: tuned\n    {options}\n"
    (problem,) = problems(tmp_path, text)
    assert problem.dotted == ".".join(filter(None, ("stages", stage, below)))
    assert said in problem.render()


def test_patterns_for_maps_that_a_stage_has_replaced_are_left_to_the_run(tmp_path):
    adapted = SMALL.replace("    use: finetune\n", "    use: finetune\n    adapter: lora\n    merge: false\n", 1)
    small = "  small:\n    use: quantize\n    from: tuned\n    with: round-to-nearest\n    targets: ['*.base']\n"
    assert problems(tmp_path, adapted + small) == []


def test_a_mistake_in_a_block_points_into_the_block(tmp_path):
    text = SMALL.replace(
        "position: rope", "position: rope\n  blocks:\n    near:\n      attention: {kv_heads: 3}\n  pattern: near"
    )
    (problem,) = problems(tmp_path, text)
    assert (problem.code, problem.dotted, problem.mark.line) == (
        "kv-heads-do-not-divide-heads",
        "model.blocks.near.attention.kv_heads",
        18,
    )


OVERRIDES = [
    ("model.dimm=3", "unknown-key", "model.dimm", "did you mean 'dim'?"),
    ("model.dim=wide", "int-type", "model.dim", "not wide"),
    ("model.attention.heads=5", "heads-do-not-divide-dim", "model.attention.heads", "32"),
    ("model.dim", "override", "", "path=value"),
    ("=3", "override", "", "path=value"),
    ("", "override", "", "override '': it is empty"),
    ("seed=", "int-type", "seed", "override seed: must be a valid integer, not ''"),
    ("modle=", "unknown-key", "modle", "override modle: unknown key"),
    ("model..dim=3", "override", "", "path=value"),
    ("model.dim.x=3", "override", "model.dim.x", "below the value 32"),
    ("stages.scores.tasks.5=perplexity", "override", "stages.scores.tasks.5", "0 to 0"),
    ("stages.scores.tasks.first=perplexity", "override", "stages.scores.tasks.first", "position"),
    ("model.attention={use: gqa", "override", "model.attention", "YAML"),
    ("stages.judge.from=base.x", "unknown-stage", "stages.judge.from", "base"),
]


@pytest.mark.parametrize(("override", "code", "path", "said"), OVERRIDES)
def test_a_mistake_in_an_override_is_reported_as_such(override, code, path, said, tmp_path):
    found = [p for p in problems(tmp_path, SMALL, override) if (p.code, p.dotted) == (code, path)]
    assert found
    assert found[0].mark.file == f"override {override.partition('=')[0] or repr(override)}"
    assert said in found[0].render()


def test_a_missing_recipe_lists_what_is_there(tmp_path):
    write(tmp_path, SMALL, "mine.yaml")
    with pytest.raises(RecipeError) as caught:
        Recipe.read(tmp_path / "nine.yaml")
    assert "mine.yaml" in str(caught.value)
    with pytest.raises(RecipeError) as caught:
        Recipe.read("corelm:nothing")
    assert "quickstart" in str(caught.value)
    with pytest.raises(
        RecipeError, match=r"no recipe 'quick' in corelm \(it has .*\); did you mean corelm:quickstart\?$"
    ):
        Recipe.read("corelm:quick")


def test_no_mistake_ever_raises_anything_but_a_recipe_error(tmp_path):
    """Replace each value in turn by things of all shapes."""
    lines = SMALL.splitlines()
    strange = ["[]", "{}", "~", "-1", "1.5", "true", "'x'", "[{use: x}]", "{use: 3}", "{use: {}}", "{load: 1}"]
    for number, value in itertools.product(range(len(lines)), strange):
        if ":" not in lines[number]:
            continue
        text = "\n".join([*lines[:number], f"{lines[number].partition(':')[0]}: {value}", *lines[number + 1 :]])
        for problem in problems(tmp_path, text):
            assert problem.message and problem.code
            assert problem.mark.line <= len(lines)


def test_a_null_deletes_where_there_is_a_default(tmp_path):
    assert read(tmp_path, SMALL, "model.norm.eps=null").resolved()["model"]["norm"]["eps"] == 1e-6
    assert "scores" not in read(tmp_path, SMALL, "stages.scores=null").resolved()["stages"]
    assert read(tmp_path, SMALL, "corpus.holdout=~").resolved()["corpus"]["holdout"] == 0.0
    (problem,) = problems(tmp_path, SMALL, "model.dim=null")
    assert (problem.dotted, problem.mark.file) == ("model.dim", "override model.dim")
