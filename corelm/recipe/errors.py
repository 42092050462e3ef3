"""What is wrong with a recipe: one shape for every problem, all of them at once, in the order of the file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from corelm.errors import UserError


@dataclass(frozen=True)
class Mark:
    """A place in a recipe.

    Attributes:
        file: as the user named it; ``override model.dim=3`` for a value of the command line.
        line, column: counted from 1; line 0 where the file as a whole (or an override) is meant.
        length: how many characters the culprit has on its line.
        excerpt: that line.
    """

    file: str
    line: int = 0
    column: int = 0
    length: int = 1
    excerpt: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True)
class RecipeProblem:
    """One thing that is wrong.

    Attributes:
        code: a stable name for machines, e.g. ``unknown-key``.
        path: keys from the top of the recipe to the culprit.
        message: what is wrong.
        mark: where.
        suggestion: the nearest right name, where there is one.
        remedy: what to do instead, allowed values included.
    """

    code: str
    path: tuple[str | int, ...]
    message: str
    mark: Mark
    suggestion: str | None = None
    remedy: str = ""

    @property
    def dotted(self) -> str:
        """The path as it is written on the command line."""
        return dotted(self.path)

    def render(self) -> str:
        """The problem as people read it: place, message, the line with a caret, remedy."""
        told = not self.path or str(self.mark) == f"override {self.dotted}"
        lines = [f"{self.mark}: {'' if told else self.dotted + ': '}{self.message}"]
        if self.mark.line and self.mark.excerpt.strip():
            number = f"{self.mark.line:>5}"
            caret = " " * (self.mark.column - 1) + "^" * max(1, self.mark.length)
            hint = f" did you mean {self.suggestion!r}?" if self.suggestion else ""
            lines += [f"{number} | {self.mark.excerpt}", f"{' ' * len(number)} | {caret}{hint}"]
        elif self.suggestion:
            lines.append(f"  did you mean {self.suggestion!r}?")
        lines += [f"  {line.strip()}" for line in self.remedy.splitlines() if line.strip()]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The problem as machines read it."""
        return {
            "code": self.code,
            "path": self.dotted,
            "file": self.mark.file,
            "line": self.mark.line or None,
            "column": self.mark.column or None,
            "message": self.message,
            "suggestion": self.suggestion,
            "remedy": self.remedy,
        }


def dotted(path: Sequence[str | int]) -> str:
    """``("model", "mask", 0)`` as ``model.mask.0``."""
    return ".".join(str(key) for key in path)


class RecipeError(UserError):
    """A recipe can't be used; ``problems`` holds everything that is wrong with it, sorted by place."""

    def __init__(self, problems: Iterable[RecipeProblem]) -> None:
        unique: dict[tuple[Mark, str], RecipeProblem] = {}
        for problem in problems:
            unique.setdefault((problem.mark, problem.message), problem)
        self.problems = sorted(
            unique.values(), key=lambda p: (p.mark.line == 0, p.mark.file, p.mark.line, p.mark.column)
        )
        super().__init__("\n".join(problem.render() for problem in self.problems), code="recipe")

    def as_json(self) -> list[dict[str, Any]]:
        """All problems as machines read them."""
        return [problem.as_json() for problem in self.problems]
