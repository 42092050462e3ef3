"""The fields in which configs have kept rotary positions over the years, both ways, for all families.

Today there is ``rope_parameters``, one map or one per type of layer. Before, there were ``rope_theta``,
``rope_scaling`` (``type``, later ``rope_type``) and several names for the rotated part. Families see three fields
instead, in the words of our parts: ``rope.theta``, ``rope.fraction``, ``rope.scaling``; with types of layers
``rope.LABEL.theta`` and so on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import Field

from corelm.errors import UserError
from corelm.kinds import ComponentConfig

FRACTIONS: Final = ("partial_rotary_factor", "rotary_pct")
THETAS: Final = ("rope_theta", "rotary_emb_base")
ALIASES: Final = {"su": "longrope"}
ORIGINAL: Final = "original_max_position_embeddings"
SCALINGS: Final[dict[str, dict[str, str]]] = {
    "linear": {"factor": "factor"},
    "dynamic": {"factor": "factor", ORIGINAL: "original_context"},
    "yarn": {
        "factor": "factor",
        ORIGINAL: "original_context",
        "attention_factor": "attention_factor",
        "beta_fast": "beta_fast",
        "beta_slow": "beta_slow",
        "mscale": "mscale",
        "mscale_all_dim": "mscale_all_dim",
        "truncate": "truncate",
    },
    "llama3": {
        "factor": "factor",
        ORIGINAL: "original_context",
        "low_freq_factor": "low_factor",
        "high_freq_factor": "high_factor",
    },
    "longrope": {
        "factor": "factor",
        ORIGINAL: "original_context",
        "attention_factor": "attention_factor",
        "short_factor": "short_factor",
        "long_factor": "long_factor",
    },
}
"""Options of each scaling: their name, and that of our part."""


class Label(ComponentConfig):
    """The rotary positions of one type of layer."""

    theta: float | None = Field(None, description="Base where the config has none; default: the family's.")
    theta_fields: list[str] = Field([], description="Older names of the base of this type of layer.")
    scaled: bool = Field(True, description="Whether an older rope_scaling meant this type of layer, too.")


class RopeFields(ComponentConfig):
    """What a family says of its rotary positions."""

    theta: float = Field(10_000.0, description="Base where the config has none.")
    fraction: float = Field(1.0, description="Rotated part where the config says none.")
    scalings: list[str] = Field(list(SCALINGS), description="Scalings that the family's reference has.")
    labels: dict[str, Label] = Field({}, description="Types of layers with rotary positions of their own.")
    parameters: dict[str, Any] | None = Field(None, description="rope_parameters where the config has none.")
    context: str = Field("max_position_embeddings", description="Field that stands in for the original context.")
    examples: list[dict[str, Any]] = Field([], description="Values of rope_parameters that tests draw from.")

    def names(self) -> set[str]:
        """Fields of a config that are read here."""
        older = {name for label in self.labels.values() for name in label.theta_fields}
        return {"rope_parameters", "rope_scaling", *FRACTIONS, *THETAS, *older}

    def read(self, config: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The family's fields out of a config, whichever spelling it has.

        Raises:
            UserError: a scaling, or an option of one, that is not known.
        """
        today, older = config.get("rope_parameters"), config.get("rope_scaling")
        if today is None and older is None:
            today = self.parameters
        shared = {"rope_theta": _first(config, THETAS), "partial_rotary_factor": _first(config, FRACTIONS)}
        fields: dict[str, Any] = {}
        for name, label in (self.labels or {"": Label()}).items():
            own = (today or {}).get(name) if name else None
            flat = today if today and not any(key in today for key in self.labels) else None
            given = own or flat or (older if label.scaled else None) or {}
            # Layers with a field of their own never had the base of the others.
            merged = {
                "rope_theta": _first(config, label.theta_fields) if label.theta_fields else shared["rope_theta"],
                "partial_rotary_factor": shared["partial_rotary_factor"],
                **{key: value for key, value in given.items() if value is not None},
            }
            if merged["rope_theta"] is None:
                merged["rope_theta"] = label.theta or self.theta
            if merged["partial_rotary_factor"] is None:
                merged["partial_rotary_factor"] = self.fraction
            prefix = f"rope.{name}" if name else "rope"
            fields |= {f"{prefix}.{key}": value for key, value in self._ours(merged, config, where)}
        return fields

    def _ours(self, merged: dict[str, Any], config: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
        yield "theta", float(merged.pop("rope_theta"))
        yield "fraction", float(merged.pop("partial_rotary_factor"))
        kind, older = merged.pop("rope_type", None), merged.pop("type", None)
        kind = kind or older or "default"
        kind = ALIASES.get(kind, kind)
        if kind == "default":
            yield "scaling", None
            return
        if kind not in self.scalings or kind not in SCALINGS:
            raise UserError(
                f"{where}: rotary positions scaled by {kind!r} can't be read",
                remedy=f"Scalings that can: {', '.join(self.scalings)}.",
                code="rope-scaling-unknown",
            )
        words = SCALINGS[kind]
        strange = sorted(set(merged) - set(words))
        if strange:
            raise UserError(
                f"{where}: the scaling {kind!r} of rotary positions has no option {strange[0]!r}",
                remedy=f"Options: {', '.join(words)}.",
                code="rope-option-unknown",
            )
        if ORIGINAL in words and kind != "dynamic":
            merged.setdefault(ORIGINAL, config.get(ORIGINAL) or config.get(self.context))
        elif kind == "dynamic":
            merged[ORIGINAL] = config.get(self.context)  # the reference reads no other
        yield "scaling", {"use": kind, **{words[key]: value for key, value in merged.items()}}

    def write(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The config's fields: today's spelling, and the older one where it can say the same."""
        if self.labels:
            named = [name for name in self.labels if f"rope.{name}.theta" in fields]
            return {"rope_parameters": {name: _theirs(fields, f"rope.{name}", self.fraction) for name in named}}
        if "rope.theta" not in fields:
            return {}  # a model of the family without rotary positions
        parameters = _theirs(fields, "rope", self.fraction)
        older = {"rope_theta": parameters["rope_theta"]}
        scaling = {key: v for key, v in parameters.items() if key not in ("rope_theta", "partial_rotary_factor")}
        if scaling["rope_type"] != "default":
            older["rope_scaling"] = scaling
        if "partial_rotary_factor" in parameters:
            older["partial_rotary_factor"] = parameters["partial_rotary_factor"]
        return {"rope_parameters": parameters, **older}


def _theirs(fields: Mapping[str, Any], prefix: str, usual: float) -> dict[str, Any]:
    scaling = fields.get(f"{prefix}.scaling") or {"use": "default"}
    words = {ours: theirs for theirs, ours in SCALINGS.get(scaling["use"], {}).items()}
    said = {words[key]: value for key, value in scaling.items() if key != "use" and value is not None}
    if scaling["use"] == "dynamic":
        said.pop(ORIGINAL, None)
    parameters = {"rope_type": scaling["use"], "rope_theta": fields[f"{prefix}.theta"], **said}
    fraction = fields.get(f"{prefix}.fraction", usual)
    return parameters if fraction == usual == 1.0 else {**parameters, "partial_rotary_factor": fraction}


def _first(config: Mapping[str, Any], names: Any) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)
