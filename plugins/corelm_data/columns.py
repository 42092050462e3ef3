"""Rows of named values, from JSON or a table, to records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import Field, model_validator

from corelm.kinds import (
    Choice,
    ComponentConfig,
    Conversation,
    Labelled,
    Message,
    Preference,
    Record,
    RecordName,
    Text,
)
from corelm.kinds.records import RoleName
from corelm_data.reading import Broken

FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "text": ("text",),
    "conversation": ("messages", "system", "prompt", "input", "response"),
    "preference": ("messages", "system", "prompt", "input", "chosen", "rejected"),
    "labelled": ("text", "label"),
    "choice": ("context", "endings", "gold"),
}
"""What a record of each type is made of; each is read from the column of the same name unless ``columns`` says else."""


JOINED: Final = frozenset({"text", "system", "prompt", "input", "response", "chosen", "rejected", "context"})
"""Fields of one text, which may be put together from several columns."""

_ROLES: Final[dict[str, RoleName]] = {role: role for role in get_args(RoleName)}

Columns = str | Annotated[list[str], Field(min_length=2)]


class RowError(ValueError):
    """A row that is no such record; the message says why."""


class TableConfig(ComponentConfig):
    """What a source that reads rows can be told about its columns."""

    yields: RecordName = Field("text", description="Type of the records: text, conversation, preference, …")
    columns: dict[str, Columns] = Field(
        default_factory=dict,
        description="Where a field of the record is found: {field: column}, or {field: [column, column]} for a text "
        "that is put together from several. Fields of text: text; of conversation: "
        "messages (a list of {role, content}), or prompt, response and where wanted system, input (put after the "
        "prompt); of preference: messages or prompt …, chosen, rejected (texts, or lists of turns that end with the "
        "answer and may begin with the prompt); of labelled: text, label; of choice: context "
        "(a text, or one per ending), endings (a list, or one text for all contexts), gold (number of the right one).",
    )
    separator: str = Field(" ", description="What stands between the texts of columns that are put together.")
    classes: list[str] = Field(
        default_factory=list, description="Names of classes, in the order of their numbers, where labels are names."
    )

    turn: dict[Literal["role", "content"], str] = Field(
        default_factory=dict,
        description="What a turn in a list calls its parts, where not role and content: {role: from, content: value}.",
    )
    roles: dict[str, RoleName] = Field(
        default_factory=dict,
        description="What roles are called in lists of turns, where not system, user and assistant: {human: user, "
        "gpt: assistant}.",
    )

    @model_validator(mode="after")
    def _known_fields(self) -> Self:
        wrong = [field for field in self.columns if field not in FIELDS[self.yields]]
        if wrong:
            known = ", ".join(FIELDS[self.yields])
            raise ValueError(f"columns: a record of type {self.yields} has no field {wrong[0]!r}; fields: {known}")
        whole = [field for field, column in self.columns.items() if isinstance(column, list) and field not in JOINED]
        if whole:
            raise ValueError(f"columns: {whole[0]} is read from one column; texts can be put together from several")
        if self.classes and self.yields != "labelled":
            raise ValueError("classes are for yields: labelled")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: a name comes twice")
        return self


def record_of(row: object, config: TableConfig, name: str) -> Record:
    """Make a record of a row.

    Raises:
        RowError: a column is missing, or holds something else than it should.
    """
    if not isinstance(row, Mapping):
        raise RowError(f"expected an object with named values, found {_shown(row)}")
    return _MAKERS[config.yields](_Row(row, config), name)


def made_of(row: object, config: TableConfig, name: str, *, code: str = "broken-row") -> Record:
    """``record_of`` in a source of files.

    Raises:
        Broken: what ``record_of`` raises, with a remedy.
    """
    try:
        return record_of(row, config, name)
    except RowError as error:
        raise Broken(str(error), remedy=expected(config), code=code) from error


def expected(config: TableConfig) -> str:
    """What to do about a row that is no record."""
    return f"Mend the row, or set columns; a {config.yields} is expected."


def needed(config: TableConfig) -> list[str]:
    """Columns that the config names itself, and must be there in every row."""
    named = config.columns.values()
    return list(
        dict.fromkeys(column for columns in named for column in ([columns] if isinstance(columns, str) else columns))
    )


def usual(config: TableConfig) -> list[str]:
    """Columns that a record may be made of: those that the config names, and those named like a field."""
    return list(dict.fromkeys([*needed(config), *(f for f in FIELDS[config.yields] if f not in config.columns)]))


class _Row:
    """A row, read by field; errors name the column."""

    def __init__(self, row: Mapping[str, Any], config: TableConfig) -> None:
        self.row, self.config = row, config

    def columns(self, field: str) -> list[str]:
        named = self.config.columns.get(field, field)
        return [named] if isinstance(named, str) else named

    def column(self, field: str) -> str:
        return self.columns(field)[0]

    def __contains__(self, field: str) -> bool:
        # A column that the recipe names must be there; one that is only usual may be missing.
        return field in self.config.columns or self.row.get(field) is not None

    def value(self, field: str) -> Any:
        columns = self.columns(field)
        for column in columns:
            if column not in self.row:
                raise RowError(f"no column {column!r}; the row has {', '.join(map(repr, self.row)) or 'none'}")
        if len(columns) == 1:
            return self.row[columns[0]]
        return self.config.separator.join(_text(self.row[column], f"column {column!r}") for column in columns)

    def text(self, field: str) -> str:
        return _text(self.value(field), f"column {self.column(field)!r}")

    def texts(self, field: str) -> tuple[str, ...]:
        value, where = self.value(field), f"column {self.column(field)!r}"
        if isinstance(value, str):
            return (_text(value, where),)
        if not isinstance(value, list | tuple) or not value:
            raise RowError(f"{where}: expected text or a list of texts, found {_shown(value)}")
        return tuple(_text(item, where) for item in value)

    def number(self, field: str) -> int:
        value = self.value(field)
        if isinstance(value, str) and value.isascii() and value.isdigit():
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise RowError(f"column {self.column(field)!r}: expected a whole number, found {_shown(value)}")
        return value

    def messages(self) -> tuple[Message, ...]:
        """The turns, from ``messages`` or from prompt and kin (without the answer)."""
        if "messages" in self:
            return self._listed()
        turns = [Message("system", self.text("system"))] if "system" in self and self.text("system") else []
        asked = self.text("prompt")
        more = self.text("input") if "input" in self else ""
        return (*turns, Message("user", f"{asked}\n\n{more}" if more else asked))

    def _listed(self, field: str = "messages") -> tuple[Message, ...]:
        column, turns = self.column(field), self.value(field)
        if not isinstance(turns, list) or not turns:
            raise RowError(f"column {column!r}: expected a list of turns, found {_shown(turns)}")
        role_key, content_key = self.config.turn.get("role", "role"), self.config.turn.get("content", "content")
        roles: Mapping[str, RoleName] = {**_ROLES, **self.config.roles}
        messages = []
        for number, turn in enumerate(turns):
            where = f"column {column!r}, turn {number}"
            role = turn.get(role_key) if isinstance(turn, Mapping) else None
            if not isinstance(role, str) or role not in roles:
                raise RowError(
                    f"{where}: expected {{{role_key}: {_alternatives(roles)}, {content_key}}}, found {_shown(turn)}"
                )
            messages.append(Message(roles[role], _text(turn.get(content_key), f"{where}, {content_key}")))
        return tuple(messages)

    def answer(self, field: str) -> tuple[tuple[Message, ...], str]:
        """An answer, with the turns that come before it where the column is a list of turns."""
        if not isinstance(self.value(field), list):
            return (), self.text(field)
        *before, last = self._listed(field)
        if last.role != "assistant":
            raise RowError(f"column {self.column(field)!r}: the last turn is the answer, but it is the {last.role}'s")
        return tuple(before), last.content


def _conversation(row: _Row, name: str) -> Record:
    if "messages" in row:
        return Conversation(row.messages(), name)
    return Conversation((*row.messages(), Message("assistant", row.text("response"))), name)


def _preference(row: _Row, name: str) -> Record:
    (before, chosen), (other, rejected) = row.answer("chosen"), row.answer("rejected")
    if before != other:
        raise RowError("the two answers come after different turns")
    return Preference(before or row.messages(), chosen, rejected, name)


def _labelled(row: _Row, name: str) -> Record:
    classes = row.config.classes
    if not classes:
        label = row.number("label")
        if label < 0:
            raise RowError(f"column {row.column('label')!r}: a class is a number from 0 on, found {label}")
        return Labelled(row.text("text"), label, name)
    label_name = row.text("label")
    if label_name not in classes:
        raise RowError(f"column {row.column('label')!r}: {label_name!r} is none of the classes {', '.join(classes)}")
    return Labelled(row.text("text"), classes.index(label_name), name)


def _choice(row: _Row, name: str) -> Record:
    contexts, endings = row.texts("context"), row.texts("endings")
    if len(endings) == 1:
        endings = endings * len(contexts)
    if len(contexts) not in (1, len(endings)):
        raise RowError(f"{len(contexts)} contexts for {len(endings)} endings; expected one, or one per ending")
    # A single ending is right by itself (as in LAMBADA), and needs no column that says so.
    gold = 0 if len(endings) == 1 and "gold" not in row else row.number("gold")
    if not 0 <= gold < len(endings):
        raise RowError(f"column {row.column('gold')!r}: {gold} is not the number of one of {len(endings)} endings")
    return Choice(contexts, endings, gold, name)


_MAKERS: Final[dict[str, Callable[[_Row, str], Record]]] = {
    "text": lambda row, name: Text(row.text("text"), name),
    "conversation": _conversation,
    "preference": _preference,
    "labelled": _labelled,
    "choice": _choice,
}


def _alternatives(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise RowError(f"{where}: expected text, found {_shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowError(f"{where}: half of a surrogate pair at character {error.start}") from error
    return value


def _shown(value: object) -> str:
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 60 else shown[:57] + '…'}"
