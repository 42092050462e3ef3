"""Who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "corelm"
PLUGINS = ROOT / "plugins"

ALLOWED = {
    "errors": set(),
    "layering": set(),
    "files": {"errors"},
    "hookspecs": {"registration"},
    "registered": {"errors"},
    "registration": {"errors", "hookspecs", "registered"},
    "kinds": {"errors", "registration", "hookspecs", "layering"},
    "model": {"kinds", "errors", "registration", "layering", "files"},
    "recipe": {"registration", "errors", "kinds", "layering", "model", "files"},
    "pipeline": {"model", "recipe", "kinds", "errors", "registration", "files"},
    "conformance": {
        "pipeline",
        "recipe",
        "model",
        "kinds",
        "errors",
        "registration",
        "layering",
        "files",
        "hookspecs",
    },
    "cli": {"pipeline", "conformance", "recipe", "model", "kinds", "errors", "registration", "files"},
}


def imports(path: Path, *, lazy: bool = True) -> Iterator[str]:
    """Modules that a file imports, those under TYPE_CHECKING left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped.update(id(inner) for inner in ast.walk(node))
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "corelm" and parts[1] in ALLOWED else None


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_imports_only_along_its_arrows_and_no_plugin(path):
    own = path.relative_to(CORE).parts[0].removesuffix(".py")
    for module in imports(path):
        assert not module.startswith(("corelm_", "plugins")), f"{path} imports the plugin {module}"
        target = room(module)
        if target is not None and own in ALLOWED and target != own:
            assert target in ALLOWED[own], f"{path.relative_to(ROOT)} imports {module}: {own} → {target} is no arrow"


@pytest.mark.parametrize("path", sorted(PLUGINS.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_plugins_see_only_the_kinds(path):
    own = path.relative_to(PLUGINS).parts[0]
    for module in imports(path):
        if module.startswith("corelm_"):
            assert module.split(".")[0] == own, f"{path.relative_to(ROOT)} imports another plugin, {module}"
        if module.split(".")[0] == "corelm" and module != "corelm":
            seen = module.split(".")[1]
            assert seen in {"kinds", "hookimpl", "errors"}, f"{path.relative_to(ROOT)} imports {module}"


def test_listing_what_is_installed_imports_no_torch():
    code = "import sys, corelm; corelm.components(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_nothing_is_pickled():
    for path in [*CORE.rglob("*.py"), *PLUGINS.rglob("*.py")]:
        for module in imports(path):
            assert module.split(".")[0] not in {"pickle", "dill", "cloudpickle", "joblib"}, path
        text = path.read_text(encoding="utf-8")
        assert "torch.load(" not in text and "torch.save(" not in text, path


def test_no_public_function_of_the_package_has_a_submodules_name():
    import corelm

    submodules = {p.stem for p in CORE.iterdir() if not p.name.startswith("_")}
    assert not submodules & set(corelm.__all__)
