"""The layers of a model against the template of a family: which layer is which block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from corelm.kinds import LayerConfig, overlay
from corelm_interchange.expressions import Found, Unifier, hole, operator

Parts = Mapping[str, Any]


def unify_layers(
    unifier: Unifier, template: Mapping[str, Any], stack: Sequence[Parts], found: Found
) -> Iterator[Found]:
    """All ways in which the template's layers can be these.

    Args:
        unifier: that finds fields.
        template: of a model section.
        stack: the parts of each layer, in normal form; equal layers are one object.
        found: what is known of the fields.
    """
    distinct = list({id(layer): layer for layer in stack}.values())
    blocks: Mapping[str, Parts] = template.get("blocks", {})
    changed = {slot for block in blocks.values() for slot in block}
    shared = {slot: template[slot] for slot in LayerConfig.model_fields if slot in template and slot not in changed}
    axes = list(template.get("patterns", {}).values()) or [template.get("pattern")]
    for start in _all_alike(unifier, shared, distinct, found):
        if not blocks:
            yield from _all_alike(unifier, {s: template[s] for s in changed if s in template}, distinct, start)
        else:
            yield from _axes(unifier, template, axes, stack, start)


def _all_alike(unifier: Unifier, parts: Parts, layers: Sequence[Parts], found: Found) -> Iterator[Found]:
    """All layers have these parts."""
    if not layers:
        yield found
        return
    for one in unifier.unify(dict(parts), {slot: layers[0][slot] for slot in parts}, found):
        yield from _all_alike(unifier, parts, layers[1:], one)


def _axes(
    unifier: Unifier, template: Mapping[str, Any], axes: Sequence[Any], stack: Sequence[Parts], found: Found
) -> Iterator[Found]:
    """Each pattern on its own: the names of its blocks, then the fields of the pattern."""
    if not axes:
        yield found
        return
    form, rest = axes[0], axes[1:]
    mentioned = _mentioned(unifier, form, template["blocks"])
    candidates = {name: template["blocks"].get(name, {}) for name in mentioned}
    whole = {slot: template[slot] for block in candidates.values() for slot in block if slot in template}
    names: list[str] = []
    known: dict[int, str] = {}
    for layer in stack:
        if id(layer) not in known:
            for name, block in candidates.items():
                parts = overlay(whole, block)
                fitting = next(unifier.unify(parts, {slot: layer[slot] for slot in parts}, found), None)
                if fitting is not None:
                    known[id(layer)], found = name, fitting
                    break
            else:
                return
        names.append(known[id(layer)])
    for one in unify_pattern(unifier, form, names, found):
        yield from _axes(unifier, template, rest, stack, one)


def _mentioned(unifier: Unifier, form: Any, blocks: Mapping[str, Parts]) -> list[str]:
    """Blocks that a pattern can name: those that it or its field's table writes out, else all."""
    if operator(form) == "$case":
        named = [name for case in form["$case"] for name in _mentioned(unifier, case["then"], blocks)]
        return list(dict.fromkeys(named))
    if isinstance(form, dict) and "use" in form:
        return [form["use"], form["otherwise"]]
    if isinstance(form, dict) and "letters" in form:
        return list(form["names"].values())
    if isinstance(form, list) and all(isinstance(name, str) and not name.startswith("$") for name in form):
        return list(dict.fromkeys(form))
    words = unifier.codecs.words(hole(form))
    return list(blocks) if words is None else list(dict.fromkeys(words.values()))


def unify_pattern(unifier: Unifier, form: Any, names: list[str], found: Found) -> Iterator[Found]:
    """Fields with which a pattern of the recipe grammar gives these names."""
    if operator(form) == "$case":
        for case in form["$case"]:
            for assumed in unifier.assume(case.get("when", {}), found):
                yield from unify_pattern(unifier, case["then"], names, assumed)
        return
    if not isinstance(form, dict) or not {"use", "letters", "runs"} & set(form):
        yield from (unifier.unify(form, names, found) if isinstance(form, str | dict) else [found])
        return
    if "letters" in form:
        letters = {name: letter for letter, name in form["names"].items()}
        yield from unifier.unify(form["letters"], "".join(letters[name] for name in names), found)
        return
    if "runs" in form:
        yield found
        return
    chosen = [index for index, name in enumerate(names) if name == form["use"]]
    if "at" in form:
        yield from unifier.unify(form["at"], chosen, found)
    elif "first" in form:
        count = next((index for index, name in enumerate(names) if name != form["use"]), len(names))
        yield from unifier.unify(form["first"], count, found)
    else:
        distance = chosen[1] - chosen[0] if len(chosen) > 1 else max(len(names), 1)
        first = chosen[0] if chosen else len(names)
        # A distance or an offset that the file fixes is compared by the caller: few layers may not show it.
        for one in unifier.unify(_unless_fixed(form["every"]), distance, found):
            yield from unifier.unify(_unless_fixed(form.get("offset", 0)), first, one)


def _unless_fixed(node: Any) -> Any:
    return None if isinstance(node, int) else node
