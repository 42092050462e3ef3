"""Whether the parts of a recipe fit together: said when it is read, not found out at step 300."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from pydantic_core import PydanticCustomError
from torch import nn

from corelm.errors import UserError
from corelm.kinds import quantizing
from corelm.kinds.carriers import LayerContext
from corelm.kinds.component import Problem, Spec, nested_specs
from corelm.kinds.mask import Mask, MaskFacts
from corelm.model.config import LayerConfig, ModelConfig
from corelm.recipe.schema import Load, RecipeConfig
from corelm.recipe.stages import IMPLICIT, StageNode

Path_ = tuple[str | int, ...]
Found = Iterator[tuple[Path_, Problem]]


def problems(config: RecipeConfig, resolved: Mapping[str, Any]) -> Found:
    """Everything that does not fit, each with the path of the map that it is about."""
    before = list(_sections(config))
    if isinstance(config.model, ModelConfig):
        rows = vocab_size(config)
        before += _model(config.model, rows)
        before += _vocabulary(config, config.model)
        before += _head(config, config.model)
        if not before:
            before += _assembles(config, config.model, rows)
    for name, node in config.stages.items():
        before += _part(("stages", name), node.spec, resolved)
    for section in ("corpus", "tokenizer", "template"):
        chosen = getattr(config, section)
        if isinstance(chosen, Spec):
            before += _part((section,), chosen, resolved)
        elif chosen is not None and not isinstance(chosen, Load):
            for path, spec in nested_specs(chosen):
                before += [((section, *path), problem) for problem in spec.part.check(spec.config, resolved)]
    yield from before


def model_alone(section: object) -> Found:
    """What doesn't fit within the model, where that section is well-formed although others are not."""
    try:
        model = ModelConfig.model_validate(section)
    except (ValidationError, PydanticCustomError):
        return
    yield from _model(model, 0)


def _sections(config: RecipeConfig) -> Found:
    """Stages find the sections that they read."""
    starts = isinstance(config.model, Load)
    for section, chosen in (("model", config.model), ("tokenizer", config.tokenizer)):
        if isinstance(chosen, Load) and not Path(chosen.load).exists():
            message = f"there is no {chosen.load}"
            yield (
                (section, "load"),
                Problem((), message, "The path starts from the recipe's folder.", "nothing-to-load"),
            )
    if config.corpus is not None:
        reads = config.corpus.source.part.yields(config.corpus.source.config)
        if reads != "text":
            message = f"a corpus is text; {config.corpus.source.name} yields {reads} records here"
            yield ("corpus", "source"), Problem((), message, "Set `yields: text`, where it can.", "corpus-not-text")
    if isinstance(config.tokenizer, Spec) and starts:
        message = "the model that is loaded has a tokenizer of its own; a new one's ids would mean nothing to it"
        yield ("tokenizer",), Problem((), message, "Leave `tokenizer` out.", "tokenizer-of-loaded-model")
    elif isinstance(config.tokenizer, Spec) and not config.tokenizer.part.trainable:
        message = f"{config.tokenizer.name} can't be trained; it holds tokenizers that were made elsewhere"
        yield ("tokenizer",), Problem((), message, "Write `tokenizer: {load: PATH}`.", "tokenizer-not-trainable")
    elif isinstance(config.tokenizer, Spec) and config.corpus is None:
        yield ("tokenizer",), Problem((), "there is no corpus to train it on", "Add `corpus`.", "no-corpus")
    for name, node in config.stages.items():
        part = node.spec.part
        fresh = part.uses_model and not node.upstream()
        if fresh and config.model is None:
            yield (
                ("stages", name),
                Problem((), "it trains the recipe's model, and there is none", "Add `model`.", "no-model"),
            )
        if (fresh or "model" in node.upstream()) and config.tokenizer is None and not starts:
            yield ("stages", name), Problem((), "its model needs a tokenizer", "Add `tokenizer`.", "no-tokenizer")
        for section in sorted(set(node.upstream()) & set(IMPLICIT)):
            if getattr(config, section) is None:
                message, remedy = f"from names {section}, and the recipe has no such section", f"Add `{section}`."
                yield ("stages", name, "from"), Problem((), message, remedy, f"no-{section}")
        if part.reads_corpus(node.spec.config) == "always" and config.corpus is None:
            yield (
                ("stages", name),
                Problem((), "it reads the corpus, and there is none", "Add `corpus`.", "no-corpus"),
            )
        if part.reads_template(node.spec.config) == "always" and config.template is None:
            message = "it renders conversations, and there is no template"
            yield ("stages", name), Problem((), message, "Add `template: chatml`.", "no-template")


def vocab_size(config: RecipeConfig) -> int:
    """Rows that the embedding will have; a stand-in where the tokenizer is made elsewhere."""
    if isinstance(config.model, ModelConfig) and config.model.vocab_size:
        return config.model.vocab_size
    if isinstance(config.tokenizer, Spec) and config.tokenizer.part.trainable:
        return config.tokenizer.part.trained_size(config.tokenizer.config)
    return 256


def _part(path: Path_, spec: Spec[Any], context: Any) -> Found:
    """What a part and the parts inside its config say of themselves."""
    for problem in spec.part.check(spec.config, context):
        yield path, problem
    for inner, nested in nested_specs(spec.config):
        for problem in nested.part.check(nested.config, context):
            yield (*path, *inner), problem


def _model(model: ModelConfig, vocab_size: int) -> Found:
    """Checks of all parts of the model, and of capabilities within each layer."""
    sizes = (model.dim, model.layers, model.context, vocab_size)
    names = model.layer_names()
    for name, layer in dict(zip(names, model.resolved(), strict=True)).items():
        context = LayerContext(*sizes, index=names.index(name), block=name)
        for field in LayerConfig.model_fields:
            chosen = getattr(layer, field)
            for index, spec in enumerate(chosen if isinstance(chosen, list) else [chosen]):
                if spec is None:
                    continue
                path = (*_layer_path(name), field, *((index,) if isinstance(chosen, list) else ()))
                yield from _part(path, spec, context)
        yield from _capabilities(name, layer)
        yield from _geometry(name, layer, context)
    for field in ("embedding", "final_norm", "head", "init"):
        spec = getattr(model, field)
        if spec is not None:
            yield from _part(("model", field), spec, LayerContext(*sizes))


def _layer_path(name: str) -> Path_:
    return ("model",) if name == "default" else ("model", "blocks", name.split("+")[-1])


def _capabilities(name: str, layer: LayerConfig) -> Found:
    """Position schemes and masks get what they need of the layer's attention."""
    if layer.attention is None:
        return
    offered = layer.attention.offers()
    for field in ("position", "mask"):
        for index, spec in enumerate(getattr(layer, field)):
            for need in sorted(spec.needs() | _needs_as_mask(spec)):
                kind, _, capability = need.partition(":")
                if kind != "attention" or capability in offered:
                    continue
                message = (
                    f"{spec.name} needs an attention that offers {capability!r}; {layer.attention.name} offers "
                    f"{', '.join(sorted(offered)) or 'nothing'} ({spec.record.distribution} and "
                    f"{layer.attention.record.distribution} say so)"
                )
                remedy = f"Choose another attention for this block, or give the block a {field} of its own."
                yield (*_layer_path(name), field, index), Problem((), message, remedy, f"{field}-needs-{capability}")
    if not any(isinstance(rule.part, type) and _causal(rule) for rule in layer.mask):
        message = "no rule of the mask is causal: tokens would see the ones that they are to predict"
        yield (*_layer_path(name), "mask"), Problem((), message, "Add causal.", "mask-not-causal")


def _geometry(name: str, layer: LayerConfig, context: LayerContext) -> Found:
    """Position schemes fit the heads of the layer's attention, which only the built attention knows."""
    if layer.attention is None or any(layer.attention.part.check(layer.attention.config, context)):
        return
    found: list[tuple[Path_, Problem]] = []
    # Other errors than a user's show when the whole model is assembled.
    with contextlib.suppress(Exception), torch.device("meta"):
        geometry = layer.attention.build(context).geometry
        for index, spec in enumerate(layer.position if geometry is not None else ()):
            try:
                spec.build(geometry)
            except UserError as error:
                problem = Problem((), error.message, error.remedy, error.code)
                found.append(((*_layer_path(name), "position", index), problem))
    yield from found


def _needs_as_mask(spec: Spec[Any]) -> frozenset[str]:
    """A rule that forbids more than causality and documents do needs an attention that honours any mask."""
    if spec.kind != Mask.kind or spec.build().trivial(MaskFacts()):
        return frozenset()
    return frozenset({"attention:mask"})


def _causal(rule: Spec[Mask]) -> bool:
    return rule.build().causal


def _vocabulary(config: RecipeConfig, model: ModelConfig) -> Found:
    """The embedding has a row for every id of the recipe's tokenizer."""
    if model.vocab_size is None or not isinstance(config.tokenizer, Spec):
        return
    ids = config.tokenizer.part.trained_size(config.tokenizer.config)
    if ids > model.vocab_size:
        message = f"the tokenizer {config.tokenizer.name} has {ids} ids, the model {model.vocab_size}"
        remedy = "Leave vocab_size out, or raise it."
        yield ("model", "vocab_size"), Problem((), message, remedy, "vocabulary-larger-than-model")


def _head(config: RecipeConfig, model: ModelConfig) -> Found:
    trained = [name for name, node in config.stages.items() if node.spec.part.uses_model]
    if trained and model.head.part.reads != "vocabulary":
        message = f"{trained[0]} trains on next tokens, but the head {model.head.name} gives {model.head.part.reads}"
        yield ("model", "head"), Problem((), message, "Use language-model here.", "head-not-vocabulary")


def _assembles(config: RecipeConfig, model: ModelConfig, vocab_size: int) -> Found:
    """The last net: build it, without memory; whatever a part's own checks have missed shows here."""
    from corelm.model.assemble import assemble

    try:
        built = assemble(model, vocab_size, device="meta")
    except Exception as error:
        yield ("model",), Problem((), f"the model can't be built: {error}", code="model-does-not-assemble")
        return
    for node in config.stages.values():
        if node.spec.part.chooses(node.spec.config) is not None and _maps_of_the_recipe(config, node):
            yield from _choices(node, built.module)


def _maps_of_the_recipe(config: RecipeConfig, node: StageNode) -> bool:
    """Whether the model that a stage is given has the maps of the recipe's model: no stage has replaced any."""
    before = node.inputs.get("model")
    if not isinstance(before, str) or before == "model":
        return before == "model"
    earlier = config.stages[before]
    if earlier.spec.part.chooses(earlier.spec.config) is not None:
        return False
    fresh = earlier.spec.part.uses_model and not earlier.upstream()
    return fresh or _maps_of_the_recipe(config, earlier)


def _choices(node: StageNode, module: nn.Module) -> Found:
    """Patterns of maps match some."""
    given = node.spec.part.chooses(node.spec.config) or {}
    found = False
    for option, patterns in given.items():
        for index, pattern in enumerate(patterns):
            try:
                list(quantizing.chosen(module, [pattern]))
            except UserError as error:
                found = True
                path = ("stages", node.name, option, index)
                yield path, Problem((), error.message, error.remedy, error.code)
    if not found:
        try:
            list(quantizing.chosen(module, given.get("targets", ()), given.get("skip", ())))
        except UserError as error:
            yield ("stages", node.name), Problem((), error.message, error.remedy, error.code)
