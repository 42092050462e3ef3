"""One family of models: its config to a model section, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

from pydantic import ValidationError

from corelm.errors import UserError
from corelm.kinds import LayerConfig
from corelm_interchange.expressions import Found, Unifier, evaluate, holds, mistaken
from corelm_interchange.family_file import FamilyFile, family_files
from corelm_interchange.fields import WITHOUT_EFFECT, ConfigField, Plain, Values
from corelm_interchange.layers import unify_layers
from corelm_interchange.normal import WHOLE, Lack, differences, in_normal_form, normal_form, same, shown

SLOTS: Final = tuple(LayerConfig.model_fields)


class UnsayableError(UserError):
    """The format has no words for this."""


class Family:
    """One family.

    Attributes:
        name: of its file.
        file: what the file says.
        fields: by name, those of rotary positions and the elements of lists included.
        lists: names of fields that stand for the elements of a list.
    """

    def __init__(self, name: str, file: FamilyFile) -> None:
        self.name, self.file = name, file
        self.fields: dict[str, ConfigField] = dict(file.config)
        self.lists: dict[str, list[str]] = {}
        for name, field in file.config.items():
            if field.elements:
                self.lists[name] = [f"{name}.{one}" for one in field.elements]
                self.fields |= {
                    one: ConfigField(default=default)
                    for one, default in zip(self.lists[name], field.default, strict=True)
                }
        if file.rope is not None:
            for label in [*file.rope.labels] or [""]:
                prefix = f"rope.{label}" if label else "rope"
                self.fields |= {f"{prefix}.{key}": ConfigField() for key in ("theta", "fraction", "scaling")}

    def mistakes(self) -> list[str]:
        """Holes without a field, expressions that there aren't, conditions on fields that there aren't."""
        file = self.file
        places: list[Any] = [file.model, [one.default for one in file.config.values()]]
        places += [[rule.experts, *(layout.steps for layout in rule.layouts)] for rule in file.tensors]
        conditions: list[Any] = [one.when for one in file.refuses] + [rule.when for rule in file.tensors]
        conditions += [rule.bias for rule in file.tensors if isinstance(rule.bias, dict)]
        found = [one for place in places for one in mistaken(place, self.fields)]
        return found + [one for when in conditions for one in mistaken({"$case": [{"when": when}]}, self.fields)]

    def read_config(self, config: Mapping[str, Any]) -> tuple[Values, list[str]]:
        """Values of the fields, and what is to be told about those that are not known.

        Raises:
            UserError: a field has a value that can't be read.
        """
        given: dict[str, Any] = {}
        notes = []
        if (whole := config.get("model_type")) in self.file.inside:
            notes.append(f"config.json: of the {whole} only the language model was read")
            shared = {key: config[key] for key in ("tie_word_embeddings",) if key in config}
            config = {**shared, **config.get(self.file.inside[whole], {})}
        rope = self.file.rope.names() if self.file.rope else set()
        aliases = {alias: name for name, field in self.file.config.items() for alias in field.aliases}
        for key, value in config.items():
            name = aliases.get(key, key)
            if name in self.file.config:
                if name in given and key != name:
                    continue
                if value is not None or self.file.config[name].nullable:
                    given[name] = value
            elif name in self.file.requires:
                self._required(name, value)
            elif name not in rope and name not in WITHOUT_EFFECT and name not in self.file.ignored:
                notes.append(f"config.json: the field {name!r} was not understood")
        for name, elements in self.lists.items():
            if name in given:
                given |= dict(zip(elements, given.pop(name), strict=True))
        if self.file.rope is not None:
            given |= self.file.rope.read(config, "config.json")
        return Values(self.fields, given), sorted(notes)

    def refused(self, values: Values) -> str | None:
        """Why these values can't be together; None: they can."""
        return next((one.because for one in self.file.refuses if holds(one.when, Plain(values))), None)

    def _required(self, name: str, value: Any) -> None:
        wanted = self.file.requires[name]
        allowed = wanted if isinstance(wanted, list) else [wanted]
        if value is not None and not any(same(value, one) for one in allowed):
            raise UserError(
                f"config.json: {name}: {value!r} can't be read in a model of the family {self.name}",
                remedy=f"What can: {name}: {' or '.join(str(one).lower() for one in allowed)}.",
                code="config-value-unknown",
            )

    def section(self, values: Values) -> dict[str, Any]:
        """The model section of a config.

        Raises:
            UserError: a field is missing, or garbled, or our parts lack what it says.
        """
        try:
            if (reason := self.refused(values)) is not None:
                raise UserError(f"config.json can't be read: {reason}", code="config-combination")
            section: dict[str, Any] = evaluate(self.file.model, values)
            normal_form(section)
        except KeyError as error:
            raise UserError(f"config.json lacks or garbles {error}", code="config-incomplete") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(
                f"config.json lacks or garbles what model.{where} needs: {first['msg']}", code="config-incomplete"
            ) from error
        except (TypeError, ValueError, ArithmeticError) as error:
            raise UserError(f"config.json garbles a number: {error}", code="config-incomplete") from error
        return section

    def solve(self, form: Mapping[str, Any]) -> tuple[Values | None, list[str]]:
        """Fields of a model in normal form; or None, and what this family has no words for."""
        if not form["stack"]:
            return None, ["a model without layers"]
        reasons: list[str] | None = None
        for found in self._proposals(form):
            values = Values(self.fields, found.fields)
            try:
                section = evaluate(self.file.model, values)
                missing: list[str] = list(differences(form, normal_form(section)))
                missing += [reason] if (reason := self.refused(values)) else []
            except (KeyError, UserError, ValidationError, TypeError, ValueError, ArithmeticError) as error:
                missing = [f"its sizes ({error})"]
            if not missing:
                return self._completed(values), []
            if reasons is None or _cost(missing) < _cost(reasons):
                reasons = missing
        return None, reasons if reasons is not None else self._plainly_missing(form)

    def _proposals(self, form: Mapping[str, Any]) -> Iterator[Found]:
        unifier = Unifier(Values(self.fields, {}), lambda given: Plain(Values(self.fields, given, defaults=False)))
        template = self.file.model
        whole = {key: template[key] for key in WHOLE if key in template}
        for start in unifier.unify(whole, {key: form[key] for key in whole}, Found()):
            for found in unify_layers(unifier, template, form["stack"], start):
                closed = unifier.close(found)
                if closed is not None:
                    yield closed

    def _plainly_missing(self, form: Mapping[str, Any]) -> list[str]:
        """The slots that alone keep the model from fitting the template."""
        unifier = Unifier(Values(self.fields, {}), lambda given: Plain(Values(self.fields, given, defaults=False)))
        template = self.file.model
        if "blocks" not in template and any(layer != form["stack"][0] for layer in form["stack"]):
            return [Lack("layers that differ", 10)]
        found = Found()
        for key in [*WHOLE, *SLOTS]:
            if key in template:
                found = unifier.nearest(template[key], form[key] if key in form else form["stack"][0][key], found)
        closed = unifier.close(found)
        try:
            near = normal_form(self.section(Values(self.fields, closed.fields if closed else found.fields)))
            if different := list(differences(form, near)):
                return list(different)
        except UserError:
            pass  # its fields can't be found at all; then the parts that don't fit are told
        missing: list[str] = []
        for key in WHOLE:
            if key in template:
                missing += _lacks(unifier, key, [template[key]], form[key])
        for slot in SLOTS:
            alike = {str(layer[slot]): layer[slot] for layer in form["stack"]}
            nodes = [template[slot]] if slot in template else []
            nodes += [block[slot] for block in template.get("blocks", {}).values() if slot in block]
            for value in alike.values():
                missing += _lacks(unifier, slot, nodes, value) if nodes else []
        return missing or [Lack("layers that differ, or options that contradict each other", 10)]

    def _completed(self, values: Values) -> Values:
        """With the defaults written out."""
        given = dict(values.given)
        for name, field in self.fields.items():
            if name.startswith("rope.") or name in self.lists:
                continue
            if name not in given and field.default is not None:
                given[name] = values.theirs(name)
        return Values(self.fields, given)

    def config(self, values: Values) -> dict[str, Any]:
        """What ``config.json`` says."""
        said = {name: values.given[name] for name in self.file.config if name in values.given}
        said |= {name: [values.theirs(one) for one in elements] for name, elements in self.lists.items()}
        fixed = {key: one[0] if isinstance(one, list) else one for key, one in self.file.requires.items()}
        rope = self.file.rope.write(values.given) if self.file.rope else {}
        names = {"architectures": [self.file.architecture], "model_type": self.file.model_types[0]}
        return {**names, **fixed, **rope, **said}


def _lacks(unifier: Unifier, kind: str, nodes: list[Any], value: Any) -> list[str]:
    """Why a value fits none of these pieces of a template: its options where the part is right, or the part."""
    if any(next(unifier.unify(node, value, Found()), None) is not None for node in nodes):
        return []
    if isinstance(value, list) and len(value) == 1:
        nodes = [one for node in nodes for one in (node if isinstance(node, list) else [node])]
        return _lacks(unifier, kind, nodes, value[0])
    for node in nodes:
        node = in_normal_form(node, value)
        if isinstance(node, dict) and isinstance(value, dict) and node.get("use", 0) == value.get("use"):
            wrong = [
                key
                for key, inner in node.items()
                if key in value and next(unifier.unify(inner, value[key], Found()), None) is None
            ]
            if wrong:
                return [Lack(f"{kind} {value['use']} with {key}: {shown(value[key])}") for key in wrong]
    return [Lack(_named(kind, value), 10)]


def _named(kind: str, value: Any) -> str:
    if value is None:
        return f"a model without {kind}"
    if isinstance(value, list):
        return " and ".join(_named(kind, one) for one in value) if value else f"no {kind}"
    if not isinstance(value, dict):
        return f"{kind} {value}"
    shown = ", ".join(
        f"{key}: {one['use'] if isinstance(one, dict) and 'use' in one else one}"
        for key, one in value.items()
        if key != "use"
    )
    return f"{kind} {value.get('use', '')}" + (f" ({shown})" if shown else "")


def _cost(missing: Sequence[str]) -> int:
    """How far a model is from a family."""
    return sum(getattr(lack, "cost", 10) for lack in missing)


@cache
def families() -> dict[str, Family]:
    """Every family by name, in the order in which they are tried when a model is written."""
    return {name: Family(name, file) for name, file in family_files().items()}


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a config.

    Raises:
        UserError: none of ours.
    """
    wanted = config.get("model_type")
    for family in families().values():
        if wanted in (*family.file.model_types, *family.file.inside):
            return family
    files = [family.file for family in families().values()]
    known = ", ".join(sorted(kind for file in files for kind in (*file.model_types, *file.inside)))
    raise UserError(
        f"models of type {wanted!r} can't be read",
        remedy=f"Types that can: {known}. docs/families.md says how a family is added.",
        code="unknown-architecture",
    )


def family_for(form: Mapping[str, Any], only: str | None = None) -> tuple[Family, Values]:
    """The first family that has words for a model, and its fields.

    Args:
        form: the model's normal form.
        only: the name of the one that is wanted.

    Raises:
        UnsayableError: none has; says what the nearest lacks.
    """
    chosen = families()
    if only is not None:
        if only not in chosen:
            raise UserError(
                f"there is no family {only!r}", remedy=f"Families: {', '.join(chosen)}.", code="unknown-family"
            )
        chosen = {only: chosen[only]}
    nearest: tuple[str, list[str]] | None = None
    for name, family in chosen.items():
        values, missing = family.solve(form)
        if values is not None:
            return family, values
        if nearest is None or _cost(missing) < _cost(nearest[1]):
            nearest = name, missing
    name, missing = nearest or ("", [])
    raise UnsayableError(
        f"no family that is written for Hugging Face has words for this model; the nearest, {name}, has no "
        f"counterpart for {'; '.join(missing[:3])}",
        remedy=f"Families: {', '.join(chosen)}. docs/families.md says how one is added.",
        code="no-family",
    )
