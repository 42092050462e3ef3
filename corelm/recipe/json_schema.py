"""JSON Schema (draft 7) of recipes over all installed parts, in the shape that editors complete from.

Each kind is one definition: a bare name, or a map whose ``use`` decides by ``if``/``then`` which options there are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from corelm import registration
from corelm.files import write_json
from corelm.model.config import ModelConfig
from corelm.recipe.schema import Load, RecipeConfig


def schema() -> dict[str, Any]:
    """The schema of a whole recipe."""
    definitions: dict[str, Any] = {}
    for kind in sorted(registration.active().kinds):
        definitions[f"kind:{kind}"] = _kind(kind, definitions)
    top = _config(RecipeConfig, definitions, skip={"model", "tokenizer", "stages"})
    model = _config(ModelConfig, definitions)
    for name in ("position", "mask"):
        listed = model["properties"][name]
        model["properties"][name] = {"anyOf": [listed, listed["items"], {"type": "null"}]}
    needed = model.pop("required")
    layer = set(model["properties"]) - {"dim", "layers", "context"}
    model["properties"]["blocks"] = {
        "type": "object",
        "description": "Kinds of layers that differ; each says only what differs.",
        "additionalProperties": {
            "type": "object",
            "additionalProperties": False,
            "properties": {name: model["properties"][name] for name in sorted(layer)},
        },
    }
    load = _config(Load, definitions)
    definitions["model"], definitions["load"] = model, load
    has_load: dict[str, Any] = {"type": "object", "required": ["load"]}
    reference: dict[str, Any] = {"$ref": "#/definitions/load"}
    top["properties"] |= {
        "extends": {"type": ["string", "array"], "description": "A recipe to lay this one over, or a list of them."},
        "model": {"if": has_load, "then": reference, "else": {"$ref": "#/definitions/model"}},
        "tokenizer": {"if": has_load, "then": reference, "else": {"$ref": "#/definitions/kind:tokenizer"}},
        "stages": {"type": "object", "additionalProperties": {"$ref": "#/definitions/kind:stage"}},
    }
    if "required" in top:
        del top["required"]  # an extended recipe may have it all
    whole = {"properties": {"model": {"if": has_load, "else": {"required": needed}}}}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "corelm recipe",
        **top,
        "if": {"required": ["extends"]},
        "else": whole,
        "definitions": definitions,
    }


def write_schema(path: Path) -> None:
    """Write the schema to a file."""
    write_json(path, schema())


def _kind(kind: str, definitions: dict[str, Any]) -> dict[str, Any]:
    records = registration.active().parts(kind)
    names = sorted({name for record in records for name in (record.name, record.qualified)})
    branches = []
    for record in records:
        options = _config(record.load().Config, definitions)
        options["properties"] = {"use": {"type": "string", "description": record.summary}, **options["properties"]}
        if kind == "stage":
            options["properties"]["from"] = {"description": "Earlier stages: a name, a list, or role → name."}
        either = {"properties": {"use": {"enum": [record.name, record.qualified]}}, "required": ["use"]}
        branches.append({"if": either, "then": options})
    whole = {
        "type": "object",
        "properties": {"use": {"type": "string", "enum": names, "description": f"Which {kind}."}},
        "allOf": branches,
    }
    if not names:
        return {"not": {}}
    return {"if": {"type": "string"}, "then": {"enum": names}, "else": whole}


class _Draft7(GenerateJsonSchema):
    schema_dialect = "http://json-schema.org/draft-07/schema#"


def _config(
    config: type[Any], definitions: dict[str, Any], skip: frozenset[str] | set[str] = frozenset()
) -> dict[str, Any]:
    """Schema of one config class; definitions of models inside it join the others."""
    made = config.model_json_schema(schema_generator=_Draft7, ref_template="#/definitions/{model}")
    for name, inner in made.pop("$defs", {}).items():
        definitions[name] = _rewritten(inner)
    made = dict(_rewritten(made))
    made.setdefault("properties", {})
    made["properties"] = {name: value for name, value in made["properties"].items() if name not in skip}
    made.pop("title", None)
    return made


def _rewritten(value: Any) -> Any:
    """References, and slots for parts, point to this schema's definitions."""
    if isinstance(value, dict):
        if "x-kind" in value:
            slot = {"allOf": [{"$ref": f"#/definitions/kind:{value['x-kind']}"}]}
            return {**slot, **{key: value[key] for key in ("description",) if key in value}}
        return {
            key: item.replace("#/$defs/", "#/definitions/") if key == "$ref" else _rewritten(item)
            for key, item in value.items()
        }
    return [_rewritten(item) for item in value] if isinstance(value, list) else value
