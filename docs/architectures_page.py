"""The page about families: what their tests found, how large they are, what a layer looks like."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from corelm_interchange.family import Family, families
from corelm_interchange.normal import normal_form
from torch import nn

from corelm.kinds import Spec, pattern_names
from corelm.model.assemble import assemble
from corelm.model.config import ModelConfig
from corelm.recipe.layering import read_layers

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "docs" / "architectures.json", ROOT / "docs" / "architectures.md"
RECIPES = ROOT / "recipes" / "architectures"
TESTS = "tests/parity/test_architectures.py"
CHECKS = {
    "import": "logits of the full pass",
    "cached": "logits token by token",
    "greedy": "greedy text",
    "padding": "logits behind left padding",
    "export": "tensors bit for bit, and the reference's logits from them",
    "gradients": "gradients of the loss",
}
BEGINNING = """# Architectures

Written by `python docs/make.py` from the families' files, their recipes and the results of their tests;
[families.md](families.md) says how a family is written. Import: `corelm import hugging-face FOLDER --out DIR`; export:
`corelm export hugging-face DIR --out FOLDER`.

## Equality with the reference

Tiny models of transformers {version}, float32, every number drawn at random; the reference is its full pass. Each cell:
the largest difference that was found, and over how many configs. Logits are in parts of their spread and must be within
1e-4, gradients in parts of each tensor's largest and within 1e-3; greedy text is equal, or differs where the reference's
two likeliest tokens are that near (the number of such ties is given). A dash: the reference's own results change with
the padding.
"""


def measure() -> None:
    """Run the families' tests and keep what they found."""
    environment = {**os.environ, "CORELM_ARCHITECTURES": str(RESULTS), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-n0", "-q", "-k", "not drawn", str(ROOT / TESTS)]
    subprocess.run(command, check=True, env=environment, cwd=ROOT)


def page() -> str:
    """The page as it should be."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    parts = [BEGINNING.format(version=results["transformers"]), _table(results["families"])]
    parts += [_section(name, family) for name, family in sorted(families().items())]
    return "\n".join(parts)


def _table(results: Mapping[str, Any]) -> str:
    lines = ["| family | " + " | ".join(CHECKS) + " |", "| --- |" + " --- |" * len(CHECKS)]
    for name, family in sorted(families().items()):
        cells = [_cell(results.get(name, {}).get(check)) for check in CHECKS]
        lines.append(f"| [{family.file.title}](#{_anchor(family)}) | " + " | ".join(cells) + " |")
    meanings = "; ".join(f"*{check}*: {meaning}" for check, meaning in CHECKS.items())
    return "\n".join(lines) + f"\n\n{meanings[0].upper() + meanings[1:]}.\n"


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    if found["failed"]:
        return f"**{found['failed']} of {found['configs']} failed**"
    ties = f", {found['ties']} ties" if found.get("ties") else ""
    return f"{found['worst']} ({found['configs']}{ties})"


def _anchor(family: Family) -> str:
    return re.sub(r"[^a-z0-9-]", "", family.file.title.lower().replace(" ", "-"))


def _section(name: str, family: Family) -> str:
    tiny = model_of(RECIPES / f"{name}-tiny.yaml")
    papers = ", ".join(
        f"[{one}](https://arxiv.org/abs/{one.removeprefix('arXiv:')})" if one.startswith("arXiv:") else one
        for one in family.file.papers
    )
    sizes = "\n".join(f"| `{path.stem}` | {parameters(model_of(path)):,} |" for path in _recipes(name))
    return (
        f"## {family.file.title}\n\n{papers}. `model_type: {', '.join(family.file.model_types)}`, {_whole(family)}written as "
        f"`{family.file.architecture}`.\n\n| recipe | parameters |\n| --- | --- |\n{sizes}\n\n"
        f"Its layers, in the size of the tests:\n\n```text\n{_drawing(tiny)}\n```\n\n{_fields(family)}"
    )


def _whole(family: Family) -> str:
    """The larger models that it is read out of."""
    kinds = ", ".join(f"`{kind}`" for kind in family.file.inside)
    return f"or the language model of {kinds}; " if kinds else ""


def _recipes(name: str) -> list[Path]:
    others = [other for other in families() if other != name and other.startswith(name)]
    found = sorted(RECIPES.glob(f"{name}*.yaml"))
    return [path for path in found if not any(path.stem.startswith(other) for other in others)]


def model_of(path: Path) -> ModelConfig:
    """The model section of a recipe, as it is written: hundreds of layers of experts take seconds to check."""
    return ModelConfig.model_validate(read_layers(path).data["model"])


def parameters(config: ModelConfig) -> int:
    """Number of a model's parameters; layers of one kind are alike, so one of each is built."""
    names = config.layer_names()
    first = {name: names.index(name) for name in names}

    def shortened(pattern: Any) -> list[str]:
        whole = pattern_names(pattern, config.layers)
        return [whole[index] for index in first.values()]

    changed: dict[str, Any] = {"layers": len(first)}
    changed["pattern"] = None if config.pattern is None else shortened(config.pattern)
    changed["patterns"] = {axis: shortened(pattern) for axis, pattern in config.patterns.items()}
    model = assemble(config.model_copy(update=changed), 0, device="meta")
    more = sum((names.count(name) - 1) * _size(layer) for name, layer in zip(first, model.layers, strict=True))
    return _size(model) + more


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _fields(family: Family) -> str:
    """Fields of the config, with their defaults."""
    said = [
        f"`{name}`" + ("" if one.required else f" ({_default(one.default)})")
        for name, one in family.file.config.items()
    ]
    if family.file.rope is not None:
        said.append(f"rotary positions in any spelling ({', '.join(['default', *family.file.rope.scalings])})")
    fixed = [f"`{name}: {json.dumps(value)}`" for name, value in family.file.requires.items()]
    only = f" Only with {', '.join(fixed)}." if fixed else ""
    return f"Fields of its config, and their defaults: {', '.join(said)}.{only}\n"


def _default(value: Any) -> str:
    if isinstance(value, str):
        return f"as `{value[1:]}`" if value.startswith("$") else value
    return "computed" if isinstance(value, dict) else json.dumps(value)


def _drawing(config: ModelConfig) -> str:
    """The stack, with each kind of layer once."""
    form = normal_form(config.model_dump(mode="json"))
    lines = [f"{_part('embedding', form['embedding'])}: {form['vocab_size']} × {form['dim']}", ""]
    drawn: list[dict[str, Any]] = []
    for index, layer in enumerate(form["stack"]):
        if layer in drawn:
            continue
        drawn.append(layer)
        which = [str(i) for i, other in enumerate(form["stack"]) if other == layer]
        name = form["names"][index]
        title = f"layers {', '.join(which)}" + ("" if name == "default" else f": {name}")
        lines += [title, *(f"  {line}" for line in _layer(layer)), ""]
    last = [_part("norm", form["final_norm"])] if form["final_norm"] else []
    tied = ", tied to the embedding" if form["head"].get("tied") else ""
    return "\n".join([*lines, " ─ ".join([*last, _part("head", form["head"]) + tied])])


def _layer(layer: Mapping[str, Any]) -> Iterator[str]:
    layout, norm = layer["block"]["layout"], layer["norm"]["use"]
    branches = [layer[slot]["use"] for slot in ("attention", "feedforward") if layer[slot]]
    for together in [branches] if layout.startswith("parallel") else [[branch] for branch in branches]:
        yield from _sub_layer(layout, norm, together)
    for slot in ("attention", "feedforward", "norm"):
        if layer[slot]:
            yield _part(slot, layer[slot], options=True)
    for slot in ("position", "mask"):
        shown = ", ".join(_part(slot, one, options=True) for one in layer[slot])
        yield f"{slot}: {shown or 'none'}"


def _sub_layer(layout: str, norm: str, branches: list[str]) -> Iterator[str]:
    """One update of the stream: the branches above, what is carried on below."""
    shared = f"{norm} ─" if layout in ("pre", "sandwich", "parallel") else ""
    own = f"{norm} ─ " if layout == "parallel-norms" else ""
    after = f" ─ {norm}" if layout in ("branch-post", "sandwich") else ""
    out = f" {norm} ─" if layout == "post" else ""
    width = max(len(f"{own}{branch}{after}") for branch in branches)
    first, *rest = [f"{own}{branch}{after} ".ljust(width + 1, "─") for branch in branches]
    fork = "┬" if rest else "─"
    head = f"x ─┬─ {shared}{fork}─ " if shared else f"x ─┬─{fork}─ "
    yield f"{head}{first}─(+)─{out} x"
    for branch in rest:
        yield f"   │{' ' * (len(head) - 7)}└─ {branch}──┤"
    yield f"   └{'─' * (len(head) + width + 2 - 4 + 1)}┘"


def _part(kind: str, value: Mapping[str, Any], *, options: bool = False) -> str:
    """Name of a part, with the options that differ from its defaults."""
    if not options:
        return str(value["use"])
    config = Spec.read(kind, dict(value)).config
    said = []
    for key, field in type(config).model_fields.items():
        chosen = getattr(config, key)
        if field.is_required() or chosen != field.get_default(call_default_factory=True):
            shown = _part(chosen.record.kind, chosen.dump(), options=True) if isinstance(chosen, Spec) else chosen
            said.append(f"{key} {shown:g}" if isinstance(shown, float) else f"{key} {shown}")
    return f"{value['use']}" + (f" ({', '.join(said)})" if said else "")
