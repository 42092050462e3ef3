"""Types and bounds of options, as they are said to people."""

from __future__ import annotations

import collections.abc
import json
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from corelm.kinds.component import Count, LocalPath, Spec

_NAMES: Final = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    NoneType: "null",
    Any: "anything",
}
_SIGNS: Final = {"Gt": ">", "Ge": "≥", "Lt": "<", "Le": "≤", "MinLen": "at least", "MaxLen": "at most"}


def type_name(annotation: Any) -> str:
    """A type, e.g. ``list of path``, ``"first" or "all"``, ``norm part or null``."""
    if annotation in (Count, LocalPath):
        return "count" if annotation is Count else "path"
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(inner[0])
    if origin is Literal:
        return " or ".join(json.dumps(value, ensure_ascii=False) for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(type_name, inner)))
    if origin is Spec:
        return f"{inner[0].kind} part"
    if origin in (dict, collections.abc.Mapping):
        return f"map of {type_name(inner[1])}"
    if origin in (list, tuple, set, frozenset, collections.abc.Sequence):
        return f"list of {' and '.join(dict.fromkeys(type_name(one) for one in inner if one is not ...))}"
    return _NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def bound_name(bound: Any) -> str:
    """A bound, e.g. ``≥ 1`` or ``at least 2 long``; '' for what is none."""
    name = type(bound).__name__
    if not type(bound).__module__.startswith("annotated_types") or name not in _SIGNS:
        return ""
    value = getattr(bound, next(iter(type(bound).__dataclass_fields__)))
    return f"{_SIGNS[name]} {value}{' long' if name.endswith('Len') else ''}"
