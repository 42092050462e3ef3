"""What every part has in common: a config, a kind, declared capabilities, and a way to be named in a recipe."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from corelm import registration
from corelm.kinds.papers import Paper, cited

_SUFFIX = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def _read_count(value: object) -> object:
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT])", value)
        if match is None:
            raise PydanticCustomError(
                "count", "'{value}' is not a count; write a whole number, or 64k, 2M, 1.5G", {"value": value}
            )
        exact = float(match[1]) * _SUFFIX[match[2]]
        if exact != int(exact):
            raise PydanticCustomError("count", "'{value}' is not a whole number", {"value": value})
        return int(exact)
    return value


Count = Annotated[int, BeforeValidator(_read_count, json_schema_input_type=int | str)]
"""A whole number that may be written ``64k``, ``2M`` or ``1.5G`` (powers of ten)."""


class RecipeText(str):
    """A string out of a recipe's file; remembers the folder that relative paths in it start from."""

    folder: Path

    def __new__(cls, text: str, folder: Path = Path()) -> RecipeText:
        """Make one."""
        made = super().__new__(cls, text)
        made.folder = folder
        return made


def _read_path(value: object) -> object:
    if isinstance(value, RecipeText):
        return os.path.normpath(value.folder / Path(str(value)).expanduser())
    return value


_BY_NAME: ContextVar[bool] = ContextVar("paths_by_name", default=False)


@contextmanager
def paths_by_name() -> Iterator[None]:
    """Dump configs with the last name of each path, for what doesn't depend on where files are."""
    token = _BY_NAME.set(True)
    try:
        yield
    finally:
        _BY_NAME.reset(token)


LocalPath = Annotated[
    str,
    BeforeValidator(_read_path, json_schema_input_type=str),
    PlainSerializer(lambda path: Path(path).name if _BY_NAME.get() else path, return_type=str),
]
"""A path on this machine. In a recipe it starts from the folder of the file that names it; then it is absolute."""


class ComponentConfig(BaseModel):
    """Base of every part's config: strict types, no unknown keys, no infinities, immutable.

    Give each field bounds and a ``description``: they become schema, documentation and error messages.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        validate_default=True,
        serialize_by_alias=True,
    )


@dataclass(frozen=True)
class Problem:
    """Why a config can't be used in its place; the recipe reader turns it into an error with file and line.

    Attributes:
        path: keys from the part's own map to the culprit, e.g. ``("heads",)``.
        message: what is wrong, with the numbers.
        remedy: what to do instead.
        code: a stable name for machines, e.g. ``heads-do-not-divide``.
    """

    path: tuple[str | int, ...]
    message: str
    remedy: str = ""
    code: str = "impossible-combination"


class Component:
    """Base of every part of every kind.

    A part is built as ``Part(config, …)``; what follows the config is the kind's business and stands in the
    kind's contract. Building draws no random numbers and reads no files.

    Attributes:
        kind: name of the kind; set once, by the kind's base class.
        Config: the part's own config class, defined inside the part.
        elementary: whether the part needs no paper: anybody would write the same.
        revision: raise it when the part's results change; pipelines then redo what was made by it.
        only_speed: options that change how fast results come, and no result.
        one_graph: whether torch.compile makes a single graph of a module; False where it looks at values.

    A part may say how many parameters it has and what a pass takes: see ``corelm.kinds.cost``.

    A part may bring ``reference``: what it computes, by definition, for readers and for the conformance kit, which holds
    the part to it. It takes what the part's main method takes (each kind says which), may use sub-parts as they are,
    and is written as plain loops in float64; nobody calls it to get work done.
    """

    kind: ClassVar[str] = ""
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig
    revision: ClassVar[int] = 1
    only_speed: ClassVar[frozenset[str]] = frozenset()
    one_graph: ClassVar[bool] = True
    elementary: ClassVar[bool] = False

    @classmethod
    def papers(cls) -> tuple[Paper, ...]:
        """Where the part comes from: what its docstring cites as ``authors, year, arXiv:…`` (``doi:…``, ``https://…``)."""
        return cited(cls.__doc__)

    @classmethod
    def offers(cls, config: Any) -> frozenset[str]:
        """Capabilities that this part has under ``config``; the kind's contract lists what can be offered."""
        return frozenset()

    @classmethod
    def needs(cls, config: Any) -> frozenset[str]:
        """Capabilities that this part's neighbours must offer, as ``kind:capability``."""
        return frozenset()

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """Yield what makes ``config`` unusable in its place.

        ``context`` is a ``ModelContext`` for the parts of a model, the resolved recipe as plain data for stages
        and the parts that they name.
        """
        yield from ()

    @classmethod
    def settled(cls, config: Any, context: Any) -> Any:
        """``config`` with those defaults written out that follow from its place, e.g. a width from ``dim``.

        Two configs that mean the same model are equal then. ``context`` is as in ``check``.
        """
        return config


PartT = TypeVar("PartT", bound=Component)


class Spec(Generic[PartT]):
    """A part that a recipe has chosen, not built yet: its record and its validated config.

    In a config, ``norm: Spec[Norm]`` is a slot that any installed norm fits. In YAML it is written
    ``{use: rmsnorm, eps: 1e-6}``, or just ``rmsnorm``.
    """

    __slots__ = ("config", "record")

    def __init__(self, record: registration.Record, config: ComponentConfig) -> None:
        self.record = record
        self.config = config

    @classmethod
    def read(cls, kind: str, value: object) -> Spec[Any]:
        """Validate ``value`` (a name, or a map with ``use``) against the installed parts of ``kind``.

        Raises:
            pydantic.ValidationError, PydanticCustomError: each with the path below this value.
        """
        if isinstance(value, Spec):
            return _of_kind(value, kind)
        if isinstance(value, str):
            value = {"use": value}
        if not isinstance(value, dict) or not isinstance(value.get("use"), str):
            raise PydanticCustomError(
                "part_expected",
                "expected a part of kind {kind}: a name, or a map with the key 'use'",
                {"kind": kind, "names": [r.name for r in registration.active().parts(kind)]},
            )
        try:
            own = isinstance(value["use"], OwnName) or _PLAIN_IS_OURS.get()
            record = registration.active().find(kind, value["use"], prefer="corelm" if own else "")
            part = record.load()
        except registration.RegistrationError as error:
            context = {"message": error.message, "remedy": error.remedy, "kind": kind, **error.details}
            raise PydanticCustomError(f"part_{error.code.replace('-', '_')}", "{message}", context) from error
        options = {key: option for key, option in value.items() if key != "use"}
        return cls(record, part.Config.model_validate(options))

    @property
    def kind(self) -> str:
        """Name of the part's kind."""
        return self.record.kind

    @property
    def name(self) -> str:
        """Plain name of the part."""
        return self.record.name

    @property
    def part(self) -> type[PartT]:
        """The part's class."""
        return self.record.load()

    def build(self, *context: Any, **more: Any) -> PartT:
        """Build the part: ``Part(config, *context)`` as the kind's contract says."""
        part: type[Any] = self.record.load()
        built: PartT = part(self.config, *context, **more)
        return built

    def offers(self) -> frozenset[str]:
        """Capabilities that the part has under its config."""
        return self.part.offers(self.config)

    def needs(self) -> frozenset[str]:
        """Capabilities that the part's neighbours must offer."""
        return self.part.needs(self.config)

    def dump(self) -> dict[str, Any]:
        """Plain data that ``read`` takes back, defaults written out."""
        name = self.name if self.record.distribution == "corelm" else self.record.qualified
        return {"use": name, **self.config.model_dump(mode="json")}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and (self.record, self.config) == (other.record, other.config)

    def __hash__(self) -> int:
        return hash((self.record, repr(self.dump())))

    def __repr__(self) -> str:
        return f"Spec({self.kind}/{self.name}, {self.config!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        kind = _kind_of(source)
        return core_schema.no_info_plain_validator_function(
            lambda value: cls.read(kind, value),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda spec: spec.dump()),
            metadata={"corelm_kind": kind},
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        metadata: Any = schema.get("metadata") or {}
        return {"x-kind": metadata["corelm_kind"]}


@cache
def _kind_of(source: Any) -> str:
    arguments = get_args(source)
    if len(arguments) != 1 or not getattr(arguments[0], "kind", ""):
        raise TypeError(f"{source}: write Spec[Norm] with the base class of a kind")
    kind: str = arguments[0].kind
    return kind


def _of_kind(spec: Spec[Any], kind: str) -> Spec[Any]:
    if spec.kind != kind:
        raise PydanticCustomError(
            "part_wrong_kind",
            "'{name}' is of kind {found}, not {kind}",
            {"name": spec.name, "found": spec.kind, "kind": kind},
        )
    return spec


class OwnName(str):
    """A part's name in our own code: where others claim it as well, ours is meant."""

    __slots__ = ()


def use(name: str, **options: Any) -> Any:
    """Default value for a field of type ``Spec[…]``: the part ``name``, resolved when a config is made."""
    return {"use": OwnName(name), **options}


_PLAIN_IS_OURS: ContextVar[bool] = ContextVar("plain_is_ours", default=False)


@contextmanager
def plain_names_are_ours() -> Iterator[None]:
    """Read files that we wrote: there, a plain name means the part that corelm itself brings."""
    token = _PLAIN_IS_OURS.set(True)
    try:
        yield
    finally:
        _PLAIN_IS_OURS.reset(token)


def nested_specs(config: ComponentConfig) -> Iterator[tuple[tuple[str | int, ...], Spec[Any]]]:
    """Yield every part named inside a config, however deep, with its path."""

    def walk(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Spec[Any]]]:
        if isinstance(value, Spec):
            yield path, value
            for inner, spec in nested_specs(value.config):
                yield path + inner, spec
        elif isinstance(value, BaseModel):
            for name, info in type(value).model_fields.items():
                yield from walk(getattr(value, name), (*path, info.alias or name))
        elif isinstance(value, dict):
            for key, item in value.items():
                yield from walk(item, (*path, key))
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                yield from walk(item, (*path, index))

    yield from walk(config, ())
