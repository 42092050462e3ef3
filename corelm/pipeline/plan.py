"""The units of a run, in order: the three implicit ones and the recipe's stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from corelm.files import read_json
from corelm.kinds.component import Spec, nested_specs
from corelm.kinds.data import DataConfig
from corelm.kinds.stage import Artifact, ArtifactType
from corelm.kinds.template import Template
from corelm.kinds.trainer import Checkpoints, Watch
from corelm.model import loading
from corelm.model.config import ModelConfig
from corelm.pipeline import corpus, identity, starting, tokenizing
from corelm.pipeline.context import StageContext
from corelm.pipeline.processes import RunGroup
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
        template: the recipe's, where it is read.
        fingerprints: of the sources that were asked in this run; the units of a recipe share it.
    """

    name: str
    use: str
    output: ArtifactType
    specs: list[Spec[Any]]
    config: dict[str, Any]
    inputs: dict[str, str | list[str]]
    run: Work
    template: Spec[Template] | None = None
    fingerprints: dict[Spec[Any], str] = field(default_factory=dict)

    @property
    def trainers(self) -> list[Spec[Any]]:
        """The trainers among its parts."""
        return [spec for spec in identity.all_specs(self.specs) if spec.kind == "trainer"]

    @property
    def distributed(self) -> bool:
        """Whether several processes can do it together: it trains, and its trainer knows how to."""
        return bool(self.trainers) and all(trainer.part.distributed for trainer in self.trainers)

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
            "data": identity.fingerprints(self.specs, self.fingerprints),
        }


def context_of(
    unit: Unit,
    recipe: Recipe,
    run_folder: Path,
    folder: Path,
    *,
    watch: Watch,
    checkpoints: Checkpoints,
    group: RunGroup,
) -> StageContext:
    """What a unit sees of the run; it writes into ``folder``."""
    config = recipe.config
    return StageContext(
        name=unit.name,
        run_folder=run_folder,
        folder=folder,
        scratch=work_folder(run_folder, unit) / "scratch",
        seed=int(identity.digest([config.seed, unit.name])[:15], 16),
        watch=watch,
        checkpoints=checkpoints,
        recipe=recipe.resolved(),
        model_config=model_config(config),
        loaded=model_source(config) is not None,
        template_spec=unit.template,
        group=group,
    )


def work_folder(run_folder: Path, unit: Unit) -> Path:
    """Where a unit keeps what it needs until it is done."""
    return run_folder / ".work" / unit.name


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
    units += _tokenizer_units(config)
    tokenized = any(unit.name == "tokenizer" for unit in units)
    if config.corpus is not None and tokenized:
        units.append(_tokens_unit(config))
    units += _model_units(config, tokenized)
    units += [_stage_unit(recipe, node, {unit.name for unit in units}) for node in config.stages.values()]
    for unit in units:
        unit.fingerprints = units[0].fingerprints
    return units


def _corpus_unit(data: DataConfig) -> Unit:
    return Unit(
        "corpus",
        data.source.name,
        "corpus",
        [data.source, *data.clean],
        identity.plain(data),
        {},
        _alone(partial(corpus.clean_corpus, data=data)),
    )


def _tokenizer_units(config: RecipeConfig) -> list[Unit]:
    """The tokenizer: trained, loaded, or the loaded model's own."""
    choice = config.tokenizer
    if isinstance(choice, Spec):
        specs: list[Spec[Any]] = [choice, *([config.template] if config.template is not None else [])]
        plain = {"tokenizer": choice.dump(), "template": [spec.dump() for spec in specs[1:]]}
        train = partial(corpus.train_tokenizer, choice=choice, template=config.template)
        return [Unit("tokenizer", choice.name, "tokenizer", specs, plain, {"corpus": "corpus"}, _alone(train))]
    source = Path(choice.load) if choice is not None else model_source(config)
    if source is None or (choice is None and loading.find_tokenizer(source) is None):
        return []
    copy = partial(starting.copy_tokenizer, source=source)
    return [Unit("tokenizer", "load", "tokenizer", [], {"load": starting.tokenizer_digest(source)}, {}, _alone(copy))]


def _tokens_unit(config: RecipeConfig) -> Unit:
    inputs: dict[str, str | list[str]] = {"corpus": "corpus", "tokenizer": "tokenizer"}
    specs = _tokenizer_specs(config)
    return Unit("tokens", "tokenize", "corpus", specs, {}, inputs, _alone(tokenizing.tokenize_corpus))


def _tokenizer_specs(config: RecipeConfig) -> list[Spec[Any]]:
    """The tokenizer's part: its revision may change what is encoded without a change of its files."""
    if isinstance(config.tokenizer, Spec):
        return [config.tokenizer]
    source = Path(config.tokenizer.load) if config.tokenizer is not None else model_source(config)
    found = loading.find_tokenizer(source) if source is not None else None
    if found is None or not found.is_dir():
        return []
    return [Spec.read("tokenizer", read_json(found / "part.json"))]


def _model_units(config: RecipeConfig, tokenized: bool) -> list[Unit]:
    """The model before any training, where it is loaded or a stage reads it."""
    source = model_source(config)
    inputs: dict[str, str | list[str]] = {"tokenizer": "tokenizer"} if tokenized else {}
    if source is not None:
        copy = partial(starting.copy_model, source=source, tokenized=tokenized)
        return [Unit("model", "load", "model", [], {"load": starting.model_digest(source)}, inputs, _alone(copy))]
    model = model_config(config)
    if model is None or not any("model" in node.upstream() for node in config.stages.values()):
        return []
    plain = {"model": model.model_dump(mode="json"), "seed": config.seed}
    specs = [spec for _, spec in nested_specs(model)]
    return [Unit("model", "draw", "model", specs, plain, inputs, _alone(starting.draw_model))]


def _alone(work: Callable[[StageContext], dict[str, float]]) -> Work:
    """Work that finds all it needs in the run's folder."""
    return lambda context, made: work(context)


def _stage_unit(recipe: Recipe, node: StageNode, implicit: set[str]) -> Unit:
    config, part = recipe.config, node.spec.part
    specs: list[Spec[Any]] = [node.spec]
    plain: dict[str, Any] = {"stage": {**node.spec.dump(), **identity.plain(node.spec.config)}, "seed": config.seed}
    inputs: dict[str, str | list[str]] = {role: names for role, names in node.inputs.items() if names}
    model = model_config(config)
    if model is not None:
        specs += [spec for _, spec in nested_specs(model)]
        if part.uses_model:
            plain["model"] = model.model_dump(mode="json")
    elif part.uses_model and "model" in implicit:
        inputs["(model)"] = "model"
    if part.reads_corpus(node.spec.config) != "never":
        inputs.update({f"({name})": name for name in ("corpus", "tokens") if name in implicit})
    if "tokenizer" in implicit:
        inputs["(tokenizer)"] = "tokenizer"
        specs += _tokenizer_specs(config)
    template = config.template if part.reads_template(node.spec.config) != "never" else None
    if template is not None:
        specs.append(template)
        plain["template"] = template.dump()
    return Unit(node.name, node.spec.name, part.output, specs, plain, inputs, _runner(node), template)


def _runner(node: StageNode) -> Work:
    def work(context: StageContext, made: Mapping[str, Artifact]) -> dict[str, float]:
        inputs = {
            role: made[names] if isinstance(names, str) else [made[name] for name in names]
            for role, names in node.inputs.items()
            if names
        }
        return node.spec.build().run(context, inputs)

    return work
