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


FORWARDS = 3
"""A training step takes three forward passes: one, and twice as much for the gradients of inputs and of weights."""


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "plan",
        help="what a recipe would do: stages, parameters, arithmetic, memory, tokens",
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
    """The model's size and cost, and each stage with what it reads and how long it trains."""
    from corelm.model.assemble import assemble
    from corelm.model.costs import operations
    from corelm.pipeline.plan import model_config, units_of
    from corelm.recipe.checks import vocab_size

    config = model_config(recipe.config)
    model = None if config is None else assemble(config, vocab_size(recipe.config), device="meta")
    facts: dict[str, Any] = {"name": recipe.name, "stages": []}
    if model is not None:
        facts["model"] = {**_sizes(model), **_passes(model), "silent": _silent(model)}
    for unit in units_of(recipe):
        inputs = {role: names for role, names in unit.inputs.items() if not role.startswith("(")}
        stage = {"name": unit.name, "use": unit.use, "makes": unit.output, "from": inputs}
        node = recipe.config.stages.get(unit.name)
        tokens = getattr(node.spec.config, "tokens", None) if node and unit.use == "pretrain" else None
        if node is not None and tokens and model is not None:
            options: Any = node.spec.config
            time = options.time or model.context
            a_step = options.batch * options.accumulate * time
            stage["steps"], stage["tokens_per_step"] = math.ceil(tokens / a_step), a_step
            stage["training_flops"] = FORWARDS * tokens * sum(operations(model, time).values()) / time
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


def _passes(model: LanguageModel) -> dict[str, Any]:
    """What a row of the whole context takes, and its last token when the others are stored."""
    import torch

    from corelm.kinds.cost import Cost, Work
    from corelm.model.costs import costs, operations, state_size

    time = model.context
    whole = operations(model, time)
    last = sum(costs(model, Work(1, 1, time - 1)).values(), Cost())
    state = state_size(model, time, torch.float32, "cpu")
    return {
        "forward": {"tokens": time, "operations": sum(whole.values()), "by_section": whole},
        "decoding": {"tokens": time, "operations": last.operations, "reads": last.reads, "state_bytes": state},
    }


def _silent(model: LanguageModel) -> list[str]:
    """Attention that doesn't say what it takes besides its maps, so that it isn't counted."""
    specs = [layer.attention for layer in model.config.resolved() if layer.attention is not None]
    return sorted({spec.record.qualified for spec in specs if not hasattr(spec.part, "cost")})


def render(facts: dict[str, Any]) -> str:
    """As people read it."""
    lines = [facts["name"]]
    if "model" in facts:
        model = facts["model"]
        sections = ", ".join(f"{name} {count:,}" for name, count in model["by_section"].items())
        lines.append(f"model: {model['parameters']:,} parameters ({sections})")
        lines.append(
            f"memory: {_scaled(model['weights_bytes'])}B of weights in float32; "
            f"{_scaled(model['training_bytes'])}B to train with AdamW, and activations"
        )
        forward, decoding, tokens = model["forward"], model["decoding"], model["forward"]["tokens"]
        sections = ", ".join(f"{name} {_scaled(each / tokens)}" for name, each in forward["by_section"].items())
        lines.append(
            f"forward: {_scaled(forward['operations'] / tokens)} floating-point operations per token "
            f"in rows of {tokens:,} ({sections})"
        )
        lines.append(
            f"decoding: {_scaled(decoding['operations'])} operations for token {tokens:,}, which reads "
            f"{_scaled(decoding['reads'])}B of weights and {_scaled(decoding['state_bytes'])}B of state in float32"
        )
        if model["silent"]:
            lines.append(
                f"not counted: all but the maps of {', '.join(model['silent'])}, which says nothing of its cost"
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


def _scaled(number: float) -> str:
    """Three digits and a prefix: ``285 M``."""
    power = min(4, max(0, math.floor(math.log10(number) / 3))) if number >= 1 else 0
    return f"{number / 1000**power:.3g} {['', 'k', 'M', 'G', 'T'][power]}"


def _names(names: str | list[str]) -> str:
    return names if isinstance(names, str) else f"[{', '.join(names)}]"
