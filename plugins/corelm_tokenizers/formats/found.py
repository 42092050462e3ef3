"""What a file of somebody else's says about a tokenizer, and how to say that it can't be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from corelm.errors import UserError

COPY_AGAIN: Final = "Copy the file again, or make it anew."


@dataclass(frozen=True)
class Found:
    """A tokenizer in the words of ``tokenizer.json``, and what those have no words for.

    Attributes:
        description: the schema of ``tokenizer.json``, with the types ``SentencePiece…`` beside the library's own.
        end_of_text: spelling of the token that ends a text, where the file says which.
        chat_template: as the file has it (Jinja, never run here); None: it has none.
        text: the description as it stands in a file, if it stands in one.
    """

    description: dict[str, Any]
    end_of_text: str | None = None
    chat_template: str | None = None
    text: str | None = None


def damaged(path: Path, place: str, what: str, remedy: str = COPY_AGAIN) -> UserError:
    """The error for a file that is not as its format has it.

    Args:
        path: the file.
        place: line, byte, key or id.
        what: what is wrong there.
        remedy: what to do instead.
    """
    return UserError(f"{path}, {place}: {what}", remedy=remedy, code="tokenizer-file-damaged")


def refused(path: Path, what: str, remedy: str) -> UserError:
    """The error for a file that is whole, but says what can't be represented exactly."""
    return UserError(f"{path}: {what}", remedy=remedy, code="tokenizer-not-representable")
