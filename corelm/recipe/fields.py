"""Finds the config class that a path of a recipe leads to: what keys there are, what they mean, their defaults."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from corelm import registration
from corelm.kinds.component import Spec
from corelm.model.config import ModelConfig
from corelm.recipe.schema import Load, RecipeConfig
from corelm.recipe.stages import StageNode

Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    """A map of the recipe and the config class that reads it.

    Attributes:
        config: the class; None where the part can't be known.
        label: as messages call it, e.g. ``attention gqa`` or ``model``.
        part: ``kind/name`` where it is a part.
        extra: keys that are read besides the fields, e.g. ``use``.
    """

    config: type[BaseModel] | None
    label: str
    part: str = ""
    extra: tuple[str, ...] = ()

    @property
    def keys(self) -> list[str]:
        """Keys that may stand here."""
        return [*self.extra, *(info.alias or name for name, info in fields_of(self.config))]

    def field(self, key: str | int) -> FieldInfo | None:
        """The field that a key sets."""
        return next((info for name, info in fields_of(self.config) if key in (name, info.alias)), None)


def fields_of(config: type[BaseModel] | None) -> list[tuple[str, FieldInfo]]:
    """Names and fields of a config class."""
    return list(config.model_fields.items()) if config else []


def place(data: Any, path: Path_) -> Place:
    """The map at ``path`` of the recipe ``data`` (raw or resolved)."""
    here, annotation, value = Place(RecipeConfig, "a recipe", extra=("extends",)), None, data
    for depth, key in enumerate(path):
        value = _step(value, key)
        if annotation is None:
            info = here.field(key)
            annotation = _element(_annotation(info), value) if info else None
        else:
            annotation = _inner(annotation, key)
        here, annotation = _enter(annotation, value, path[: depth + 1])
    return here


def _step(value: Any, key: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(key)
    if isinstance(value, list) and isinstance(key, int) and key < len(value):
        return value[key]
    return value if key == 0 else None


def _annotation(info: FieldInfo) -> Any:
    return info.annotation


def _element(annotation: Any, value: Any) -> Any:
    """Choose the member of a union that this value would be read as, and drop ``Annotated``."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        members = [m for m in get_args(annotation) if m is not type(None)]
        if Load in members:
            loads = isinstance(value, dict) and "load" in value
            members = [Load] if loads else [m for m in members if m is not Load]
        return _element(members[0], value) if members else None
    return annotation


def _inner(annotation: Any, key: str | int) -> Any:
    arguments = get_args(annotation)
    if get_origin(annotation) is dict and len(arguments) == 2:
        return _element(arguments[1], None)
    if get_origin(annotation) in (list, tuple) and arguments:
        return _element(arguments[0], None)
    return None


def _enter(annotation: Any, value: Any, path: Path_) -> tuple[Place, Any]:
    """The place behind an annotation; the annotation is kept where the next key still needs it."""
    name = str(path[-1])
    if annotation is StageNode:
        return _part("stage", value, ("use", "from")), None
    if get_origin(annotation) is Spec or (isinstance(annotation, type) and issubclass(annotation, Spec)):
        return _part(get_args(annotation)[0].kind, value, ("use",)), None
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        label = "the section model" if annotation is ModelConfig else name
        return Place(annotation, label), None
    if get_origin(annotation) in (list, tuple) and get_args(annotation) and not isinstance(value, list):
        inner = _element(get_args(annotation)[0], value)
        return _enter(inner, value, path)[0], annotation
    return Place(None, name), annotation


def _part(kind: str, value: Any, extra: tuple[str, ...]) -> Place:
    name = value.get("use") if isinstance(value, dict) else value
    try:
        record = registration.active().find(kind, str(name))
        return Place(record.load().Config, f"{kind} {record.name}", f"{kind}/{record.name}", extra)
    except registration.RegistrationError:
        return Place(None, kind, extra=extra)


def leaves(data: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every scalar (and empty map or list) of plain data, with its path."""
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from leaves(value, (*path, key))
    elif isinstance(data, list) and data:
        for index, value in enumerate(data):
            yield from leaves(value, (*path, index))
    else:
        yield path, data
