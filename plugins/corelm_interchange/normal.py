"""Model sections in a normal form, in which two sections that mean the same evaluated model are equal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from corelm.kinds import LayerConfig, ModelConfig, ModelContext, settle

TRAINING_ONLY: Final = frozenset({"dropout", "output_dropout", "balance", "z_loss", "chunk"})
"""Options that change nothing in evaluation (``chunk``: but the speed); without a field for them they are not kept."""
WITHOUT_EFFECT: Final = {"mask": frozenset({"documents"}), "position": frozenset({"none"})}
"""Parts of lists that change nothing where every row is one document."""
ABBREVIATED: Final = {"swiglu": {"use": "glu", "activation": {"use": "silu"}}}
"""Parts that are another with one option set."""
WHOLE: Final = ("dim", "layers", "context", "vocab_size", "embedding", "normed", "final_norm", "head")
"""What a section says once, in the normal form."""


def normal_form(section: Mapping[str, Any], vocab_size: int = 0) -> dict[str, Any]:
    """The section, resolved and settled.

    Args:
        section: of a recipe, as plain data; defaults may be left out.
        vocab_size: rows of the embedding where the section doesn't say.

    Returns:
        ``WHOLE``, ``stack`` (the parts of each layer) and ``names`` (the block name of each layer).

    Raises:
        pydantic.ValidationError: it is no model section.
    """
    config = ModelConfig.model_validate(section)
    vocabulary = config.vocab_size or vocab_size
    place = ModelContext(config.dim, config.layers, config.context, vocabulary)
    layers: dict[int, dict[str, Any]] = {}
    stack = []
    for layer in config.settled(vocab_size):
        if id(layer) not in layers:
            layers[id(layer)] = {slot: _plain(getattr(layer, slot), slot) for slot in LayerConfig.model_fields}
        stack.append(layers[id(layer)])
    return {
        "dim": config.dim,
        "layers": config.layers,
        "context": config.context,
        "vocab_size": vocabulary,
        "embedding": _plain(settle(config.embedding, place)),
        "normed": config.normed,
        "final_norm": _plain(settle(config.final_norm or config.norm, place)) if config.normed else None,
        "head": _plain(settle(config.head, place)),
        "stack": stack,
        "names": config.layer_names(),
    }


def _plain(value: Any, slot: str = "") -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return [_plain(one) for one in value if one.name not in WITHOUT_EFFECT.get(slot, ())]
    return _unabbreviated(value.dump())


def _unabbreviated(value: Any) -> Any:
    if isinstance(value, dict):
        value = {key: _unabbreviated(one) for key, one in value.items()}
        return {**value, **ABBREVIATED.get(value.get("use", ""), {})}
    return [_unabbreviated(one) for one in value] if isinstance(value, list) else value


def in_normal_form(node: Any, value: Any) -> Any:
    """A piece of a template as the normal form writes it, given the value that it is to be compared with.

    Bare names become maps with ``use``, a part where the form has a list becomes one, abbreviations are written out,
    and parts of lists without effect are left out.
    """
    if isinstance(value, list):
        listed = node if isinstance(node, list) else [node]
        dropped = frozenset().union(*WITHOUT_EFFECT.values())
        names = [one.get("use") if isinstance(one, dict) else one for one in listed]
        return [
            one for one, name in zip(listed, names, strict=True) if not (isinstance(name, str) and name in dropped)
        ]
    if isinstance(node, str) and isinstance(value, dict) and "use" in value:
        node = {"use": node}
    if isinstance(node, dict) and isinstance(name := node.get("use"), str) and name in ABBREVIATED:
        return {**node, **ABBREVIATED[name]}
    return node


class Lack(str):
    """Something that there are no words for, and how much it sets a model apart."""

    cost: int

    def __new__(cls, text: str, cost: int = 1) -> Lack:
        """An option costs 1, another part 10."""
        made = super().__new__(cls, text)
        made.cost = cost
        return made


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[Lack]:
    """What ``ours`` has that ``theirs`` has not, in words; nothing when the two mean the same evaluated model."""
    for key in WHOLE:
        if key == "final_norm" and ours["normed"] != theirs["normed"]:
            continue
        yield from _differ(ours[key], theirs[key], key, key)
    if len(ours["stack"]) == len(theirs["stack"]):
        said = set()
        for name, one, other in zip(ours["names"], ours["stack"], theirs["stack"], strict=True):
            for slot in one:
                for difference in _differ(one[slot], other[slot], slot, slot):
                    told = difference
                    if name != "default":
                        told = Lack(f"{difference} (block {name})", difference.cost)
                    if told not in said:
                        said.add(told)
                        yield told


def _differ(ours: Any, theirs: Any, kind: str, where: str) -> Iterator[Lack]:
    if isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) != len(theirs):
            names = ", ".join(one["use"] for one in ours) or "none"
            yield Lack(f"{len(ours)} parts of kind {kind} ({names})", 10)
            return
        for one, other in zip(ours, theirs, strict=True):
            yield from _differ(one, other, kind, where)
    elif isinstance(ours, dict) and isinstance(theirs, dict):
        if ours.get("use") != theirs.get("use"):
            yield Lack(f"{kind} {ours.get('use', ours)}", 10)
            return
        here = f"{where} {ours['use']}" if "use" in ours else where
        for key in ours.keys() | theirs.keys():
            if key not in TRAINING_ONLY:
                yield from _differ(ours.get(key), theirs.get(key), f"{kind}.{key}", f"{here} with {key}")
    elif not same(ours, theirs):
        if ours is None and where == kind:
            yield Lack(f"a model without {kind}", 10)
        else:
            yield Lack(f"{where}: {shown(ours)}")


def shown(value: Any) -> str:
    """A value in a message; of a part its name."""
    return str(value["use"]) if isinstance(value, dict) and "use" in value else str(value)


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are equal, numbers but for rounding."""
    if isinstance(one, bool) or isinstance(other, bool) or not isinstance(one, int | float):
        if isinstance(one, list) and isinstance(other, list):
            return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
        if isinstance(one, dict) and isinstance(other, dict):
            return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
        return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
    if not isinstance(other, int | float):
        return False
    return one == other or abs(one - other) <= 1e-12 * max(abs(one), abs(other)) < math.inf
