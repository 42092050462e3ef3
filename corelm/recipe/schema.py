"""What a recipe may say, from its first key to its last."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator, ValidationInfo

from corelm.kinds.component import ComponentConfig, LocalPath, Spec, use
from corelm.kinds.data import DataConfig
from corelm.kinds.template import Template
from corelm.kinds.tokenizer import Tokenizer
from corelm.kinds.tracker import Tracker
from corelm.model.config import ModelConfig
from corelm.recipe.stages import StageNode, read_stages


class Load(ComponentConfig):
    """Something made elsewhere."""

    load: LocalPath = Field(description="Folder or file to read, ours or in any format that can be imported.")


def _loads(value: Any) -> bool:
    return isinstance(value, Load) or (isinstance(value, dict) and "load" in value)


def _read_model(value: Any) -> ModelConfig | Load:
    return Load.model_validate(value) if _loads(value) else ModelConfig.model_validate(value)


def _read_tokenizer(value: Any) -> Spec[Tokenizer] | Load:
    return Load.model_validate(value) if _loads(value) else Spec.read("tokenizer", value)


def _read_stages(value: Any, info: ValidationInfo) -> Any:
    """Stages of a recipe that starts from an existing model begin with that."""
    return read_stages(value, "model" if isinstance(info.data.get("model"), Load) else None)


def _plain(value: Any) -> Any:
    return value.dump() if isinstance(value, Spec) else value.model_dump(mode="json")


ModelSection = Annotated[ModelConfig | Load, PlainValidator(_read_model), PlainSerializer(_plain)]
TokenizerSection = Annotated[Spec[Tokenizer] | Load, PlainValidator(_read_tokenizer), PlainSerializer(_plain)]
Stages = Annotated[
    dict[str, StageNode],
    PlainValidator(_read_stages),
    PlainSerializer(lambda stages: {name: node.dump() for name, node in stages.items()}),
]


class RecipeConfig(ComponentConfig):
    """A whole recipe."""

    corelm: Literal[1] = Field(description="Version of the recipe's grammar.")
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Name of the run, and of its folder under `out`."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Everything random is derived from it.")
    out: LocalPath | None = Field(None, description="Folder of the runs; default: runs.")
    corpus: DataConfig | None = Field(None, description="The text that the tokenizer and the model learn from.")
    tokenizer: TokenizerSection | None = Field(None, description="A tokenizer to train, or `load: PATH`.")
    template: Spec[Template] | None = Field(None, description="How conversations become tokens.")
    model: ModelSection | None = Field(
        None, description="The model, or `load: FOLDER` to start from an existing one."
    )
    stages: Stages = Field(default_factory=dict, description="Stages by name: what is done, and from what.")
    checkpoint_seconds: float = Field(300.0, gt=0, description="Time between two checkpoints of a long stage.")
    trackers: list[Spec[Tracker]] = Field(
        default_factory=lambda: [use("progress"), use("jsonl"), use("html")], description="What watches the run."
    )
