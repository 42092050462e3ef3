"""``corelm plan``: what a recipe would do, without doing it."""

from __future__ import annotations

import argparse
import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corelm.model.language_model import LanguageModel
    from corelm.recipe.reader import Recipe

EPILOG = """examples:
  corelm plan recipe.yaml
  corelm plan recipe.yaml model.layers=24 model.dim=2048
"""


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "plan",
        help="what a recipe would do: stages, parameters, memory, tokens",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", default=[], metavar="path=value")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Assemble the model on the meta device and count."""
    from corelm.recipe.reader import Recipe

    facts = plan(Recipe.read(args.recipe, overrides=args.overrides))
    print(json.dumps(facts, indent=1) if args.json else render(facts))
    return 0


def plan(recipe: Recipe) -> dict[str, Any]:
    """The model's size, and each stage with what it reads and how long it trains."""
    from corelm.model.assemble import assemble
    from corelm.pipeline.plan import model_config, units_of
    from corelm.recipe.checks import vocab_size

    config = model_config(recipe.config)
    facts: dict[str, Any] = {"name": recipe.name, "stages": []}
    if config is not None:
        facts["model"] = _sizes(assemble(config, vocab_size(recipe.config), device="meta"))
    for unit in units_of(recipe):
        inputs = {role: names for role, names in unit.inputs.items() if not role.startswith("(")}
        stage = {"name": unit.name, "use": unit.use, "makes": unit.output, "from": inputs}
        node = recipe.config.stages.get(unit.name)
        tokens = getattr(node.spec.config, "tokens", None) if node and unit.use == "pretrain" else None
        if node is not None and tokens and config is not None:
            options = node.spec.config
            a_step = options.batch * options.accumulate * (options.time or config.context)  # type: ignore[attr-defined]
            stage["steps"], stage["tokens_per_step"] = math.ceil(tokens / a_step), a_step
            stage["training_flops"] = 6 * facts["model"]["parameters"] * tokens
        facts["stages"].append(stage)
    return facts


def _sizes(model: LanguageModel) -> dict[str, Any]:
    parts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        section = name.split(".")[0] if not name.startswith("layers.") else "layers"
        parts[section] = parts.get(section, 0) + parameter.numel()
    total = sum(parts.values())
    # Weights, gradients and two moments in float32; activations come on top.
    return {"parameters": total, "by_section": parts, "weights_bytes": 4 * total, "training_bytes": 16 * total}


def render(facts: dict[str, Any]) -> str:
    """As people read it."""
    lines = [facts["name"]]
    if "model" in facts:
        model = facts["model"]
        sections = ", ".join(f"{name} {count:,}" for name, count in model["by_section"].items())
        lines.append(f"model: {model['parameters']:,} parameters ({sections})")
        lines.append(
            f"memory: {model['weights_bytes'] / 1e6:,.0f} MB of weights in float32; "
            f"{model['training_bytes'] / 1e6:,.0f} MB to train with AdamW, and activations"
        )
    lines.append("stages:")
    for stage in facts["stages"]:
        given = ", ".join(f"{role}: {_names(names)}" for role, names in stage["from"].items())
        lines.append(f"  {stage['name']:<12} {stage['use']:<20} {given}")
        if "steps" in stage:
            lines.append(
                f"  {'':<12} {stage['steps']:,} steps of {stage['tokens_per_step']:,} tokens, "
                f"{stage['training_flops']:.2e} floating-point operations"
            )
    return "\n".join(lines)


def _names(names: str | list[str]) -> str:
    return names if isinstance(names, str) else f"[{', '.join(names)}]"
