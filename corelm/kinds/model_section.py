"""The ``model`` section of a recipe: sizes, the parts of a layer, and which layers differ.

It stands among the kinds because formats of other libraries are read into it and written from it.
"""

from __future__ import annotations

from typing import Annotated, Any, Self, TypeVar

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from corelm.kinds.attention import Attention
from corelm.kinds.block import Block, Connection
from corelm.kinds.carriers import LayerContext, ModelContext
from corelm.kinds.component import ComponentConfig, Count, Spec, use
from corelm.kinds.embedding import Embedding
from corelm.kinds.feedforward import FeedForward
from corelm.kinds.head import Head
from corelm.kinds.init import Init
from corelm.kinds.mask import Mask
from corelm.kinds.norm import Norm
from corelm.kinds.position import Position
from corelm.layering import overlay

T = TypeVar("T")


def _listed(value: object) -> object:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


OneOrMore = Annotated[list[T], BeforeValidator(_listed)]
"""A list that may be written as its only element."""


class LayerConfig(ComponentConfig):
    """The parts of one kind of layer."""

    block: Spec[Block] = Field(use("residual"), description="How the sub-layers are wired.")
    norm: Spec[Norm] = Field(use("rmsnorm"), description="The norms inside the block.")
    position: OneOrMore[Spec[Position]] = Field(
        default_factory=list, description="Position schemes, applied in order; none by default."
    )
    mask: OneOrMore[Spec[Mask]] = Field(
        [use("causal"), use("documents")], description="Rules that must all allow a pair of tokens."
    )
    attention: Spec[Attention] | None = Field(None, description="What mixes tokens; null for none.")
    feedforward: Spec[FeedForward] | None = Field(None, description="The per-token transform; null for none.")
    connection: Spec[Connection] = Field(use("single"), description="The residual connection.")


class Every(ComponentConfig):
    """Layers ``offset, offset + every, …`` are ``use``; the others ``otherwise``."""

    every: int = Field(ge=1, description="Distance between the chosen layers.")
    offset: int = Field(0, ge=0, description="The first chosen layer.")
    use: str = Field(description="Block of the chosen layers.")
    otherwise: str = Field(description="Block of the others.")

    def names(self, depth: int) -> list[str]:
        """One block name per layer."""
        chosen = set(range(self.offset, depth, self.every))
        return [self.use if i in chosen else self.otherwise for i in range(depth)]


class Runs(ComponentConfig):
    """Blocks repeated a number of times, in order; the whole list is repeated until the layers are full."""

    runs: list[dict[str, Annotated[int, Field(ge=1)]]] = Field(
        min_length=1, description="E.g. [{local: 5}, {global: 1}]."
    )

    def names(self, depth: int) -> list[str]:
        """One block name per layer."""
        once = [name for run in self.runs for name, count in run.items() for _ in range(count)]
        return _cycle(once, depth)


class First(ComponentConfig):
    """The first layers are one block, the rest another."""

    first: int = Field(ge=0, description="How many layers.")
    use: str = Field(description="Block of the first layers.")
    otherwise: str = Field(description="Block of the rest.")

    def names(self, depth: int) -> list[str]:
        """One block name per layer."""
        return [self.use if i < self.first else self.otherwise for i in range(depth)]


class At(ComponentConfig):
    """The layers with these numbers are one block, the others another."""

    at: list[int] = Field(description="Layer numbers from 0; negative ones count from the end.")
    use: str = Field(description="Block of these layers.")
    otherwise: str = Field(description="Block of the others.")

    def names(self, depth: int) -> list[str]:
        """One block name per layer."""
        chosen = {i % depth for i in self.at if depth}
        return [self.use if i in chosen else self.otherwise for i in range(depth)]


class Letters(ComponentConfig):
    """One letter per layer, as in ``MM*M``; repeated until the layers are full."""

    letters: str = Field(min_length=1, description="One letter per layer.")
    names_: dict[str, str] = Field(alias="names", description="Block that each letter stands for.")

    def names(self, depth: int) -> list[str]:
        """One block name per layer."""
        missing = sorted(set(self.letters) - set(self.names_))
        if missing:
            raise PydanticCustomError(
                "pattern_letter", "letter '{letter}' is not explained in names", {"letter": missing[0]}
            )
        return _cycle([self.names_[letter] for letter in self.letters], depth)


def _cycle(once: list[str], depth: int) -> list[str]:
    return [once[i % len(once)] for i in range(depth)]


_FORMS: dict[str, type[Every | Runs | First | At | Letters]] = {
    "every": Every,
    "runs": Runs,
    "first": First,
    "at": At,
    "letters": Letters,
}


def pattern_names(pattern: object, depth: int) -> list[str]:
    """One block name per layer: from a list (repeated as a cycle) or one of the forms above."""
    if isinstance(pattern, str):
        return [pattern] * depth
    if isinstance(pattern, list) and pattern and all(isinstance(name, str) for name in pattern):
        return _cycle(pattern, depth)
    if isinstance(pattern, dict):
        for key, form in _FORMS.items():
            if key in pattern:
                return form.model_validate(pattern).names(depth)
    raise PydanticCustomError(
        "pattern",
        "a pattern is a list of block names, or a map with one of the keys {keys}",
        {"keys": ", ".join(_FORMS)},
    )


class ModelConfig(LayerConfig):
    """The ``model`` section of a recipe.

    Layers that differ: ``blocks`` names kinds of layers, each overriding only what differs from the section itself
    (by the rule of ``corelm.layering``); ``pattern`` says which layer is which. ``patterns`` gives several, one
    per axis, whose overrides are laid over each other in order.
    """

    dim: int = Field(gt=0, description="Width of the residual stream.")
    layers: int = Field(ge=0, description="Number of layers.")
    context: Count = Field(gt=0, description="Longest sequence, in tokens.")
    vocab_size: Count | None = Field(None, gt=0, description="Rows of the embedding; default: the tokenizer's.")
    embedding: Spec[Embedding] = Field(use("token"), description="Token ids to vectors.")
    final_norm: Spec[Norm] | None = Field(None, description="Norm after the last layer; default: norm.")
    normed: bool = Field(True, description="Whether there is a norm after the last layer.")
    head: Spec[Head] = Field(use("language-model"), description="Hidden states to logits.")
    init: Spec[Init] = Field(use("normal"), description="How parameters are drawn.")
    blocks: dict[str, LayerConfig] = Field(default_factory=dict, description="Kinds of layers that differ.")
    pattern: Any = Field(None, description="Which layer is which block.")
    patterns: dict[str, Any] = Field(default_factory=dict, description="Several patterns, one per axis.")

    @model_validator(mode="before")
    @classmethod
    def _complete_blocks(cls, data: Any) -> Any:
        """Lay each block over the section, so that it is validated whole."""
        if not isinstance(data, dict) or not isinstance(data.get("blocks"), dict):
            return data
        base = {key: data[key] for key in LayerConfig.model_fields if key in data}
        blocks = {
            name: overlay(base, over) if isinstance(over, dict) else over for name, over in data["blocks"].items()
        }
        return {**data, "blocks": blocks}

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        self.layer_names()
        return self

    def layer_names(self) -> list[str]:
        """The block name of each layer; ``default`` where there are no blocks."""
        axes = list(self.patterns.values()) if self.patterns else [self.pattern]
        if axes == [None]:
            if self.blocks:
                raise PydanticCustomError("pattern", "blocks are named, but no pattern says which layer is which", {})
            return ["default"] * self.layers
        per_axis = [pattern_names(axis, self.layers) for axis in axes]
        known = {"default", *self.blocks}
        for name in {name for axis in per_axis for name in axis}:
            if name not in known:
                raise PydanticCustomError(
                    "pattern_block",
                    "the pattern names the block '{name}'; blocks: {known}",
                    {"name": name, "known": ", ".join(sorted(known))},
                )
        return ["+".join(dict.fromkeys(names)) for names in zip(*per_axis, strict=True)]

    def resolved(self) -> list[LayerConfig]:
        """The parts of each layer, patterns worked out."""
        base = LayerConfig.model_construct(**{k: getattr(self, k) for k in LayerConfig.model_fields})
        known = {"default": base, **self.blocks}
        combined: dict[str, LayerConfig] = {}
        for name in dict.fromkeys(self.layer_names()):
            layer = base
            for axis in name.split("+"):
                chosen = known[axis]
                changed = {
                    key: getattr(chosen, key)
                    for key in LayerConfig.model_fields
                    if getattr(chosen, key) != getattr(base, key)
                }
                layer = layer.model_copy(update=changed)
            combined[name] = layer
        return [combined[name] for name in self.layer_names()]

    def settled(self, vocab_size: int = 0) -> list[LayerConfig]:
        """``resolved()`` with those defaults written out that follow from sizes: what each layer is, in full."""
        sizes = (self.dim, self.layers, self.context, self.vocab_size or vocab_size)
        seen: dict[str, LayerConfig] = {}
        for index, (name, layer) in enumerate(zip(self.layer_names(), self.resolved(), strict=True)):
            if name not in seen:
                context = LayerContext(*sizes, index=index, block=name)
                values = {key: getattr(layer, key) for key in LayerConfig.model_fields}
                seen[name] = layer.model_copy(update={key: settle(value, context) for key, value in values.items()})
        return [seen[name] for name in self.layer_names()]


def settle(value: Any, context: ModelContext) -> Any:
    """A part, or a list of parts, with those defaults written out that follow from their place; and parts in parts."""
    if isinstance(value, list):
        return [settle(one, context) for one in value]
    if not isinstance(value, Spec):
        return value
    config = value.part.settled(value.config, context)
    inner = {key: settle(getattr(config, key), context) for key in type(config).model_fields}
    return Spec(value.record, config.model_copy(update=inner))
