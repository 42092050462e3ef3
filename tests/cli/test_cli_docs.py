"""The pages say what is so."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import corelm.kinds
from corelm import registration
from corelm.cli import VERBS, main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.S | re.M)
    return [text for found, text in fenced if found == language]


def test_the_pages_of_properties_are_what_the_kit_holds(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    for name in ("properties_page", "catches_page"):
        maker = importlib.import_module(name)
        assert maker.PAGE.read_text(encoding="utf-8") == maker.page(), "run: python docs/make.py"


def test_pages_name_only_verbs_that_there_are():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        code = "\n".join(re.findall(r"`(corelm [^`]*)`", text) + blocks(page, ""))
        for verb in re.findall(r"(?:^|&& )corelm ([a-z]+)", code, re.M):
            assert verb in VERBS, f"{page.name}: corelm {verb}"


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http") and not target.endswith(".png"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readmes_recipe_is_valid_and_its_mistake_reads_as_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (recipe,) = blocks(ROOT / "README.md", "yaml")
    path = Path("mine.yaml")
    path.write_text(recipe)
    assert main(["validate", "mine.yaml"]) == 0, capsys.readouterr().err
    assert main(["validate", "mine.yaml", "model.dim=768", "stages.base.tokens=100M"]) == 0
    path.write_text(recipe.replace("kv_heads: 2", "kv_headz: 2"))
    assert main(["validate", "mine.yaml"]) == 2
    printed = next(block for block in blocks(ROOT / "README.md", "") if "kv_headz" in block)
    assert capsys.readouterr().err.startswith(printed)


def test_the_readmes_plugin_works_as_it_stands(tmp_path, monkeypatch):
    package = tmp_path / "acme_norms"
    package.mkdir()
    for block in blocks(ROOT / "README.md", "python"):
        if block.startswith("# acme_norms/"):
            (tmp_path / block.splitlines()[0].split()[1].rstrip(":")).write_text(block)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("acme_norms")
    assert "acme_norms.peak" not in sys.modules
    registry = registration.Registry()
    registration.add_plugin(registry, corelm.kinds, "core", "corelm", "0")
    registration.add_plugin(registry, module, "acme_norms", "acme-norms", "1")
    record = registry.find("norm", "peak")
    part = record.load()
    assert part.__doc__ == f"{record.summary}."
    assert part(part.Config(), 4).dim == 4
