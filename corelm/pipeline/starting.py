"""What a run starts from: a tokenizer or a model made elsewhere, or the recipe's model before any training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from corelm import registration
from corelm.errors import UserError
from corelm.files import digest, folder_digest, sha256
from corelm.kinds.interchange import Imported, Interchange
from corelm.kinds.trainer import Watch
from corelm.model import loading
from corelm.model.language_model import LanguageModel
from corelm.pipeline.context import StageContext
from corelm.recipe.checks import model_alone

_BESIDE: Final = (
    "merges.txt",
    "vocab.bpe",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
"""Files that say more of a tokenizer than its vocabulary does."""


def copy_tokenizer(context: StageContext, source: Path) -> dict[str, float]:
    """Take an existing tokenizer."""
    tokenizer = loading.load_tokenizer(source)
    loading.save_tokenizer(tokenizer, context.folder)
    return {"vocabulary": tokenizer.vocab_size}


def copy_model(context: StageContext, source: Path, tokenized: bool) -> dict[str, float]:
    """Take an existing model, ours or of any format that an installed part reads.

    Args:
        context: of the run.
        source: the model's folder.
        tokenized: whether the run has a tokenizer, which is then the model's.
    """
    model = read_model(source, context.watch)
    if tokenized:
        model.attach(context.tokenizer(), model.template)
    context.save_model(model)
    return {"parameters": float(sum(p.numel() for p in model.parameters()))}


def draw_model(context: StageContext) -> dict[str, float]:
    """Write the recipe's model as it is before any training."""
    model = context.new_model()
    context.save_model(model)
    return {"parameters": float(sum(p.numel() for p in model.module.parameters()))}


def read_foreign(part: Interchange, source: Path, note: Callable[[str], None]) -> Imported:
    """Read a model of another format; notes are told.

    Raises:
        UserError: it can't be read, or its parts don't fit together.
    """
    imported = part.read(source)
    for line in imported.notes:
        note(line)
    for path, problem in model_alone(imported.model):
        where = ".".join(map(str, path))
        raise UserError(f"{source}: {where}: {problem.message}", remedy=problem.remedy, code=problem.code)
    return imported


def read_model(source: Path, watch: Watch) -> LanguageModel:
    """Read a model folder of any format.

    Raises:
        UserError: no format that can be read here.
    """
    if (source / "model.json").is_file():
        return loading.load(source)
    formats = registration.active().parts("interchange")
    for record in formats:
        part: Interchange = record.load()(record.load().Config())
        if part.recognises(source):
            return loading.from_imported(read_foreign(part, source, watch.note))
    raise UserError(
        f"{source} holds no model that can be read",
        remedy=f"Ours has a model.json; other formats: {', '.join(record.name for record in formats) or 'none'}.",
        code="no-model-folder",
    )


def model_digest(source: Path) -> str:
    """Digest of a model made elsewhere; of ours by its description, which holds the digest of its tensors."""
    if not (source / "model.json").is_file():
        return folder_digest(source)
    described = [source / "model.json", source / "template.json"]
    return digest([sha256(path) for path in described if path.is_file()] + [tokenizer_digest(source)])


def tokenizer_digest(source: Path) -> str | None:
    """Digest of a tokenizer made elsewhere."""
    found = loading.find_tokenizer(source)
    if found is None:
        return None
    if found.is_dir():
        return folder_digest(found)
    beside = [path for name in _BESIDE if (path := found.with_name(name)).is_file()]
    return digest([sha256(path) for path in (found, *beside)]) if beside else sha256(found)
