"""The units of a run, in order: the three implicit ones and the recipe's stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corelm.kinds.component import Spec, nested_specs
from corelm.kinds.data import DataConfig
from corelm.kinds.stage import Artifact, ArtifactType
from corelm.model.config import ModelConfig
from corelm.pipeline import corpus, identity
from corelm.pipeline.context import StageContext
from corelm.recipe.reader import Recipe
from corelm.recipe.schema import Load, RecipeConfig
from corelm.recipe.stages import StageNode

Work = Callable[[StageContext, Mapping[str, Artifact]], dict[str, float]]


@dataclass
class Unit:
    """One thing to do.

    Attributes:
        name: of the stage and its folder.
        use: the part that does it.
        output: type of what it makes.
        specs: the parts involved, for revisions, fingerprints and provenance.
        config: plain data that it depends on.
        inputs: role → name(s) of earlier units.
        run: does it.
    """

    name: str
    use: str
    output: ArtifactType
    specs: list[Spec[Any]]
    config: dict[str, Any]
    inputs: dict[str, str | list[str]]
    run: Work

    def identity(self, made: Mapping[str, Artifact]) -> dict[str, Any]:
        """Everything that the result depends on, as plain data."""
        digests = {
            role: made[names].digest if isinstance(names, str) else [made[name].digest for name in names]
            for role, names in self.inputs.items()
        }
        return {
            "use": self.use,
            "config": self.config,
            "inputs": digests,
            "revisions": identity.revisions(self.specs),
            "data": identity.fingerprints(self.specs),
        }


def model_config(config: RecipeConfig) -> ModelConfig | None:
    """The recipe's model section, where it describes a model."""
    return config.model if isinstance(config.model, ModelConfig) else None


def model_source(config: RecipeConfig) -> Path | None:
    """The folder of the model that the recipe starts from, where it names one."""
    return Path(config.model.load) if isinstance(config.model, Load) else None


def units_of(recipe: Recipe) -> list[Unit]:
    """All units of a recipe, each after those that it needs."""
    config = recipe.config
    units: list[Unit] = []
    if config.corpus is not None:
        units.append(_corpus_unit(config.corpus))
    tokenizer = config.tokenizer
    template = [config.template] if config.template is not None else []
    if isinstance(tokenizer, Spec):
        units.append(
            Unit(
                "tokenizer",
                tokenizer.name,
                "tokenizer",
                [tokenizer, *template],
                {"tokenizer": tokenizer.dump(), "template": [spec.dump() for spec in template]},
                {"corpus": "corpus"},
                lambda context, made: corpus.train_tokenizer(context, tokenizer, config.template),
            )
        )
    elif tokenizer is not None:
        path = Path(tokenizer.load)
        units.append(
            Unit(
                "tokenizer",
                "load",
                "tokenizer",
                [],
                {"load": identity.folder_digest(path) if path.is_dir() else str(path)},
                {},
                lambda context, made: corpus.copy_tokenizer(context, path),
            )
        )
    if config.corpus is not None and (tokenizer is not None or model_source(config) is not None):
        inputs: dict[str, str | list[str]] = {"corpus": "corpus"}
        if tokenizer is not None:
            inputs["tokenizer"] = "tokenizer"
        units.append(
            Unit(
                "tokens", "tokenize", "corpus", [], {}, inputs, lambda context, made: corpus.tokenize_corpus(context)
            )
        )
    return units + [_stage_unit(recipe, node, {unit.name for unit in units}) for node in config.stages.values()]


def _corpus_unit(data: DataConfig) -> Unit:
    return Unit(
        "corpus",
        data.source.name,
        "corpus",
        [data.source, *data.clean],
        data.model_dump(mode="json"),
        {},
        lambda context, made: corpus.clean_corpus(context, data),
    )


def _stage_unit(recipe: Recipe, node: StageNode, implicit: set[str]) -> Unit:
    config, part = recipe.config, node.spec.part
    specs: list[Spec[Any]] = [node.spec]
    plain: dict[str, Any] = {"stage": node.spec.dump(), "seed": config.seed}
    inputs: dict[str, str | list[str]] = {role: names for role, names in node.inputs.items() if names}
    if part.uses_model:
        model = model_config(config)
        if model is not None:
            specs += [spec for _, spec in nested_specs(model)]
            plain["model"] = model.model_dump(mode="json")
        source = model_source(config)
        if source is not None:
            plain["model"] = identity.folder_digest(source)
    if part.uses_corpus:
        inputs["(corpus)"], inputs["(tokens)"] = "corpus", "tokens"
    if "tokenizer" in implicit:
        inputs["(tokenizer)"] = "tokenizer"
    if part.uses_template and config.template is not None:
        specs.append(config.template)
        plain["template"] = config.template.dump()
    return Unit(node.name, node.spec.name, part.output, specs, plain, inputs, _runner(node))


def _runner(node: StageNode) -> Work:
    def work(context: StageContext, made: Mapping[str, Artifact]) -> dict[str, float]:
        inputs = {
            role: made[names] if isinstance(names, str) else [made[name] for name in names]
            for role, names in node.inputs.items()
            if names
        }
        return node.spec.build().run(context, inputs)

    return work
