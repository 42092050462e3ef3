"""The schema of a family's file, and reading it."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Any, Final

import yaml
from pydantic import Field, field_validator

from corelm.kinds import ComponentConfig
from corelm_interchange.fields import ConfigField
from corelm_interchange.operations import known
from corelm_interchange.rope import RopeFields

Condition = dict[str, Any]


class Layout(ComponentConfig):
    """One way in which files hold the tensors of a rule."""

    theirs: list[str] = Field(description="Names, with the holes <layer> and <expert>; `*` is weight and bias.")
    steps: list[dict[str, Any]] = Field([], description="Operations from our layout to theirs, in order.")

    @field_validator("steps")
    @classmethod
    def _known(cls, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        known(steps)
        return steps


class Rule(ComponentConfig):
    """Tensors of ours, and where files keep them."""

    ours: list[str] = Field(description="Canonical names, with the holes <layer> and <expert>; `*` as in theirs.")
    layouts: list[Layout] = Field(min_length=1, description="Ways in which files hold them; the first is written.")
    when: Condition = Field({}, description="Fields for which the tensors exist.")
    bias: Condition | bool = Field(False, description="Fields for which `*` includes a bias.")
    blocks: list[str] | None = Field(None, description="Blocks whose layers have the tensors; default: all.")
    experts: Any = Field(None, description="Number that <expert> runs to.")


class Refusal(ComponentConfig):
    """Fields that can't be together."""

    when: Condition
    because: str


class FamilyFile(ComponentConfig):
    """A family: its config, its model, its tensors."""

    title: str = Field(description="Name, for people.")
    papers: list[str] = Field([], description="Where it is described.")
    model_types: list[str] = Field(description="model_type of its configs; the first is written.")
    inside: dict[str, str] = Field(
        {},
        description="model_type of larger models that have one of the family in them, and the field of its config.",
    )
    architecture: str = Field(description="Class of the reference that is written into configs.")
    rank: int = Field(50, description="Families of lower rank are tried first when a model is written.")
    config: dict[str, ConfigField] = Field(description="Fields that say what the model is.")
    rope: RopeFields | None = Field(None, description="Rotary positions, in whatever spelling.")
    ignored: list[str] = Field([], description="Further fields that don't change an evaluated model.")
    requires: dict[str, Any] = Field({}, description="Fields that may only have one value (or one of a list).")
    refuses: list[Refusal] = Field([], description="Combinations that the parts, or the reference, don't have.")
    model: dict[str, Any] = Field(description="Template of the model section.")
    tensors: list[Rule] = Field(description="Where files keep the tensors.")
    also: dict[str, list[str]] = Field({}, description="Beginnings of names, and others that files have instead.")
    unused: list[str] = Field([], description="Names (with *) of tensors that files may have and nobody reads.")

    @field_validator("tensors", mode="before")
    @classmethod
    def _abbreviated(cls, rules: Any) -> Any:
        return _rules(rules)


def _rules(rules: Any, ours: str = "", theirs: str = "") -> Any:
    """Rules in full; ``{within: [ours, theirs], rules: [...]}`` says the beginnings of several rules' names."""
    if not isinstance(rules, list):
        return rules
    written: list[Any] = []
    for rule in rules:
        if isinstance(rule, dict) and "within" in rule:
            written += _rules(rule["rules"], ours + rule["within"][0], theirs + rule["within"][1])
        else:
            written.append(_rule(rule, ours, theirs))
    return written


def _rule(rule: Any, ours: str, theirs: str) -> Any:
    """``[ours, theirs]``, and a rule with one layout, in full."""
    if isinstance(rule, list) and len(rule) == 2:
        rule = {"ours": rule[0], "theirs": rule[1]}
    if not isinstance(rule, dict):
        return rule
    rule = {**rule, "ours": [f"{ours}{name}" for name in _listed(rule.get("ours"))]}
    single = {key: rule.pop(key) for key in ("theirs", "steps") if key in rule}
    layouts = rule.pop("layouts", [single])
    named = [{**one, "theirs": [f"{theirs}{name}" for name in _listed(one.get("theirs"))]} for one in layouts]
    return {**rule, "layouts": named}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of 1.2: ``1e-5`` is a number, ``no`` and ``on`` are words."""


_Loader.yaml_implicit_resolvers = {}
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.inf$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("(true|false)$"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("(null|~|)$"), ["n", "~", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile("[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


@cache
def family_files() -> dict[str, FamilyFile]:
    """Every family by name, in the order in which they are tried when a model is written."""
    found = {}
    for entry in files("corelm_interchange").joinpath("families").iterdir():
        if entry.name.endswith(".yaml"):
            found[entry.name.removesuffix(".yaml")] = read(entry.read_text(encoding="utf-8"))
    return dict(sorted(found.items(), key=lambda one: (one[1].rank, one[0])))


def read(text: str) -> FamilyFile:
    """A family from the text of its file.

    Raises:
        pydantic.ValidationError: it doesn't follow the schema.
    """
    file: FamilyFile = FamilyFile.model_validate(plain_data(text))
    return file


def plain_data(text: str) -> Any:
    """What a YAML text says."""
    return yaml.load(text, _Loader)
