"""What a family's config can say: its fields, their defaults, and their values in our words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import Field

from corelm.errors import UserError
from corelm.kinds import ComponentConfig
from corelm_interchange.expressions import evaluate
from corelm_interchange.normal import same

WITHOUT_EFFECT: Final = frozenset(
    {
        "_name_or_path",
        "_attn_implementation",
        "_attn_implementation_autoset",
        "architectures",
        "attn_implementation",
        "auto_map",
        "bos_token_id",
        "chunk_size_feed_forward",
        "dtype",
        "eos_token_id",
        "experts_implementation",
        "gradient_checkpointing",
        "id2label",
        "initializer_range",
        "is_decoder",
        "is_encoder_decoder",
        "label2id",
        "model_type",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "prefix",
        "problem_type",
        "quantization_config",
        "return_dict",
        "task_specific_params",
        "torch_dtype",
        "transformers_version",
        "unk_token_id",
        "use_cache",
        "vocab_file",
    }
)
"""Fields of any config that don't change what an evaluated model computes, once its tensors are read."""
ACTIVATIONS: Final = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu-tanh",
    "gelu_pytorch_tanh": "gelu-tanh",
    "gelu_fast": "gelu-tanh",
    "gelu_python_tanh": "gelu-tanh",
    "quick_gelu": "quick-gelu",
    "relu": "relu",
    "relu2": "relu-squared",
    "sigmoid": "sigmoid",
    "linear": "identity",
}
"""Names of activations, theirs and ours; of several with one meaning the first is written."""
TABLES: Final[dict[str, dict[str, Any]]] = {"activations": ACTIVATIONS}


class ConfigField(ComponentConfig):
    """One field."""

    default: Any = Field(None, description="Value where the config has none; may have holes. Without: required.")
    nullable: bool = Field(False, description="Whether null is a value of its own; else it means the default.")
    table: str | dict[Any, Any] | None = Field(None, description="Their values and ours, or `activations`.")
    elements: list[str] = Field(
        [], description="Names of a list's elements, each of which is then a field: $field.name."
    )
    aliases: list[str] = Field([], description="Other names that configs have had for it.")
    examples: list[Any] = Field([], description="Values, valid together with any others, that tests draw from.")

    @property
    def required(self) -> bool:
        """Whether a config must say it."""
        return "default" not in self.model_fields_set

    @property
    def words(self) -> dict[Any, Any] | None:
        """Their values and ours; None where they are the same."""
        return TABLES[self.table] if isinstance(self.table, str) else self.table


class Values:
    """Values of fields, with the defaults of those that are not given.

    Attributes:
        given: in the config's words.
        defaults: whether fields that are not given have their default, or are not known.
    """

    def __init__(self, fields: Mapping[str, ConfigField], given: Mapping[str, Any], *, defaults: bool = True) -> None:
        self.fields, self.given, self.defaults = fields, given, defaults

    def theirs(self, name: str) -> Any:
        """In the config's words.

        Raises:
            KeyError: it is required, and not given.
        """
        if name in self.given:
            return self.given[name]
        field = self.fields.get(name)
        if not self.defaults or field is None or field.required:
            raise KeyError(name)
        return evaluate(field.default, Plain(self))

    def ours(self, name: str) -> Any:
        """In our words.

        Raises:
            UserError: our parts have no such thing.
        """
        value, words = self.theirs(name), self.words(name)
        if words is None:
            return value
        if isinstance(value, list):
            return [_translated(name, one, words) for one in value]
        return _translated(name, value, words)

    def words(self, name: str) -> dict[Any, Any] | None:
        """Values of a field, theirs and ours; None where they are the same."""
        return self.fields[name].words if name in self.fields else None

    def to_theirs(self, name: str, ours: Any) -> Any:
        """A value of ours in the config's words; ``KeyError`` where there is no word."""
        words = self.words(name)
        if words is None:
            return ours
        if isinstance(ours, list):
            return [self.to_theirs(name, one) for one in ours]
        for theirs, here in words.items():
            if same(here, ours):
                return theirs
        raise KeyError(name)


class Plain:
    """Values in the config's words on both sides: what defaults, conditions and sizes are computed with."""

    def __init__(self, values: Values) -> None:
        self.values = values

    def theirs(self, name: str) -> Any:
        """In the config's words."""
        return self.values.theirs(name)

    def ours(self, name: str) -> Any:
        """In the config's words."""
        return self.values.theirs(name)


def _translated(name: str, value: Any, words: Mapping[Any, Any]) -> Any:
    if value not in words:
        raise UserError(
            f"config.json: {name}: {value!r} can't be read",
            remedy=f"Values that can: {', '.join(map(str, words))}.",
            code="config-value-unknown",
        )
    return words[value]
