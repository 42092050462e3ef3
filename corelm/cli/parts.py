"""Parts named on the command line: a bare name, or a map in YAML's flow style."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corelm.errors import UserError

if TYPE_CHECKING:
    from corelm.kinds.component import Spec


def read_part(kind: str, text: str, what: str) -> Spec[Any]:
    """Read ``NAME`` or ``{use: NAME, option: value}``; errors name the argument ``what`` that it was given for.

    Raises:
        UserError: no such part, or options that it doesn't take.
    """
    from pydantic import ValidationError
    from pydantic_core import PydanticCustomError

    from corelm.kinds.component import Spec
    from corelm.recipe.yaml import parse

    value = parse(text, what, Path.cwd()).data
    try:
        return Spec.read(kind, value)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, detail['loc'])) or kind}: {_plain(detail['msg'])}" for detail in error.errors()
        ]
        name = value["use"] if isinstance(value, dict) else value
        raise UserError(
            f"{what} {text}: {'; '.join(problems)}", remedy=f"See: corelm describe {kind}/{name}"
        ) from error
    except PydanticCustomError as error:
        remedy = (error.context or {}).get("remedy") or f"See: corelm list {kind}"
        raise UserError(f"{what} {text}: {error.message()}", remedy=str(remedy)) from error


def _plain(message: str) -> str:
    return message[0].lower() + message[1:]


def add_writing(parser: argparse.ArgumentParser, tokens: int) -> None:
    """Add how a model writes: ``--tokens``, ``--sampler``, ``--seed``."""
    parser.add_argument(
        "--tokens", type=at_least(1), default=tokens, metavar="N", help=f"most new tokens (default {tokens})"
    )
    parser.add_argument(
        "--sampler",
        action="append",
        default=[],
        metavar="PART",
        help="filters of the next token, in order; none: greedy",
    )
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of the sampling (default 0)")


def at_least(least: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number from ``least`` on."""

    def number(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
        return int(text)

    return number
