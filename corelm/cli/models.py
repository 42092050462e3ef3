"""Models named on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from corelm.errors import UserError

if TYPE_CHECKING:
    from corelm.model.language_model import LanguageModel


def open_model(path: str | Path, *, writes: bool = False) -> LanguageModel:
    """Load a model's folder.

    Args:
        path: the folder.
        writes: whether it must be a model that writes text, not one that scores it.

    Raises:
        UserError: there is no such model; the message says what is there instead.
    """
    from corelm.model.loading import load

    folder = Path(path)
    if not (folder / "model.json").is_file():
        raise UserError(
            f"no model folder: {folder} {_instead(folder)}", remedy=_remedy(folder), code="no-model-folder"
        )
    model = load(folder)
    if writes and model.head.reads != "vocabulary":
        raise UserError(
            f"{folder} holds a model that scores texts; it can't write any",
            remedy="Name a model that was pretrained, finetuned, aligned or quantized.",
            code="model-cannot-write",
        )
    return model


def conversational(model: LanguageModel, path: str) -> LanguageModel:
    """The model itself.

    Raises:
        UserError: it has no template of conversations.
    """
    if model.template is None:
        raise UserError(
            f"{path} was not tuned on conversations, so it can't be asked",
            remedy="Give it a text to continue: corelm generate --prompt.",
            code="no-template",
        )
    return model


def _instead(folder: Path) -> str:
    if not folder.exists():
        return "does not exist"
    if not folder.is_dir():
        return "is a file"
    if (folder / "recipe.json").is_file():
        return "is a whole run"
    return "holds no model of corelm's (no model.json)"


def _remedy(folder: Path) -> str:
    if folder.is_dir() and (format_ := _recognised(folder)):
        return f"Import it first: corelm import {format_} {folder} --out FOLDER"
    run = next((place for place in (folder, folder.parent) if (place / "recipe.json").is_file()), None)
    if run is not None:
        models = sorted(str(found.parent) for found in run.glob("*/model.json"))
        if models:
            return f"models of this run: {', '.join(models)}"
    return "Name the folder of a stage that makes a model, e.g. runs/quickstart/base."


def _recognised(folder: Path) -> str:
    """Name of the foreign format that a folder seems to be in, or nothing."""
    from corelm.kinds.component import Spec
    from corelm.registration import active

    for record in active().parts("interchange"):
        if Spec.read("interchange", record.qualified).build().recognises(folder):
            return record.name
    return ""
