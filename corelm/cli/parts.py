"""Parts named on the command line: a bare name, or a map in YAML's flow style."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from corelm.errors import UserError
from corelm.kinds.component import Spec


def read_part(kind: str, text: str) -> Spec[Any]:
    """Read ``NAME`` or ``{use: NAME, option: value}``.

    Raises:
        UserError: no such part, or options that it doesn't take.
    """
    from corelm.recipe.yaml import parse

    value = parse(text, f"--{kind}", Path.cwd()).data
    try:
        return Spec.read(kind, value)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, detail['loc'])) or kind}: {detail['msg']}" for detail in error.errors()]
        raise UserError(f"--{kind} {text}: {'; '.join(problems)}", remedy=f"See: corelm list {kind}") from error
    except PydanticCustomError as error:
        remedy = (error.context or {}).get("remedy") or f"See: corelm list {kind}"
        raise UserError(f"--{kind} {text}: {error.message()}", remedy=str(remedy)) from error
