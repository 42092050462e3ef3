"""What redoes a stage and what doesn't."""

from __future__ import annotations

import shutil

import pytest
from corelm_data.text_files import TextFiles

from corelm.errors import UserError
from corelm.pipeline.runner import run


def redone(result) -> set[str]:
    return {stage.name for stage in result.stages if stage.status != "up to date"}


def test_comments_order_and_spelling_redo_nothing(project):
    run(project.recipe, project.out)
    text = project.recipe.read_text()
    spelt = text.replace("position: rope", "position: [{use: rope}]").replace("tokens: 640", "tokens: 0.64k # few")
    spelt = spelt.replace("tokenizer: {use: bytes}\n", "").replace("seed: 7", "# a seed\nseed: 7\ntokenizer: bytes")
    spelt = spelt.replace("tasks: [perplexity]", "tasks:\n      - use: perplexity")
    assert spelt != text
    project.recipe.write_text(spelt)
    assert redone(run(project.recipe, project.out)) == set()


def test_a_default_written_out_redoes_nothing(project):
    run(project.recipe, project.out)
    assert redone(run(project.recipe, project.out, overrides=["stages.base.accumulate=1"])) == set()


def test_a_run_folder_can_be_moved(project):
    run(project.recipe, project.out)
    moved = project.folder / "elsewhere"
    project.out.rename(moved)
    result = run(project.recipe, moved)
    assert redone(result) == set() and str(moved) in result["base"].folder


def test_the_recipe_can_be_moved_with_its_text(project):
    (project.folder / "more.jsonl").write_text('{"text": "One more document."}\n' * 4)
    tuned = "  tuned:\n    use: finetune\n    from: base\n    batch: 2\n    data: {source: {use: jsonl, path: more.jsonl}}\n"
    project.recipe.write_text(project.recipe.read_text() + tuned)
    out = project.folder.with_name("runs-elsewhere")
    run(project.recipe, out)
    project.folder = project.folder.rename(project.folder.with_name("moved"))
    assert redone(run(project.recipe, out)) == set()
    (project.folder / "more.jsonl").write_text('{"text": "Another document."}\n' * 4)
    (project.folder / "text" / "00.txt").rename(project.folder / "text" / "zero.txt")
    result = run(project.recipe, out)
    assert "data.text-files" in result["corpus"].reason and "data.jsonl" in result["tuned"].reason


def test_sources_are_read_for_their_fingerprint_once_in_a_run(project, monkeypatch):
    asked = []
    fingerprint = TextFiles.fingerprint
    monkeypatch.setattr(TextFiles, "fingerprint", lambda self: asked.append(self) or fingerprint(self))
    data = "    data: {source: {use: text-files, paths: [text]}}\n"
    for name in ("one", "two"):
        stage = f"  {name}:\n    use: finetune\n    from: base\n    batch: 2\n{data}"
        project.recipe.write_text(project.recipe.read_text() + stage)
    run(project.recipe, project.out)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("seed=8", {"base", "scores"}),
        ("template=plain", {"tokenizer", "tokens", "base", "scores"}),
        ("checkpoint_seconds=1", set()),
        ("stages.base.trainer.clip=0.5", {"base", "scores"}),
    ],
)
def test_a_section_that_a_stage_reads_redoes_it(project, change, expected):
    run(project.recipe, project.out)
    assert redone(run(project.recipe, project.out, overrides=[change])) == expected


def test_another_template_redoes_what_was_rendered_with_it_and_nothing_before(project):
    talks = project.folder / "talks.jsonl"
    talks.write_text('{"prompt": "Say hello.", "response": "hello"}\n' * 4)
    project.recipe.write_text(
        project.recipe.read_text().replace("context: 16", "context: 64")
        + "  tuned:\n    use: finetune\n    from: base\n    batch: 2\n"
        "    data: {source: {use: jsonl, path: talks.jsonl, yields: conversation}}\n"
        "  more:\n    use: finetune\n    from: base\n    batch: 2\n    data: {source: {use: text-files, paths: [text]}}\n"
    )
    run(project.recipe, project.out)
    # A tokenizer of the same tokens: what doesn't read the template itself stays.
    result = run(project.recipe, project.out, overrides=["template=plain", "tokenizer.use=bytes"])
    assert "tuned" in redone(result)
    assert "template" in result["tuned"].reason


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("corelm_norms.rmsnorm:RMSNorm", {"base", "scores"}),
        ("corelm_training.adamw:AdamW", {"base"}),
        ("corelm_evaluation.perplexity:Perplexity", {"scores"}),
        ("corelm_tokenizers.bytes:ByteTokenizer", {"tokenizer", "tokens", "base", "scores"}),
        ("corelm_data.text_files:TextFiles", {"corpus"}),
    ],
)
def test_a_raised_revision_redoes_what_the_part_had_a_hand_in_and_says_so(project, monkeypatch, part, expected):
    import importlib

    run(project.recipe, project.out)
    module, name = part.split(":")
    monkeypatch.setattr(getattr(importlib.import_module(module), name), "revision", 99)
    result = run(project.recipe, project.out)
    # The same bits come out here, so that stages after these stand.
    assert redone(result) == expected
    assert all("revisions" in result[stage].reason and "99" in result[stage].reason for stage in expected)


@pytest.mark.parametrize("name", ["tokenizer/part.json", "model.safetensors"])
def test_a_missing_file_of_a_result_is_named(project, name):
    run(project.recipe, project.out)
    (project.run_folder / "base" / name).unlink()
    with pytest.raises(UserError, match=f"truncated or altered: {name}") as error:
        run(project.recipe, project.out)
    assert "--redo base" in error.value.remedy
    assert redone(run(project.recipe, project.out, redo=["base"])) == {"base"}


def test_a_removed_result_is_made_again_and_what_follows_stands(project):
    run(project.recipe, project.out)
    shutil.rmtree(project.run_folder / "base")
    assert redone(run(project.recipe, project.out)) == {"base"}
