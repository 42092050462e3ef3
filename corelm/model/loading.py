"""Model folders: self-describing, verified when they are read.

``model.json`` (the resolved model section, what was replaced in it, who its parts are from, the digest of the
tensors), ``model.safetensors`` (canonical names, tied tensors once), ``tokenizer/`` and ``template.json`` where there
are such.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import ValidationError
from pydantic_core import PydanticCustomError
from safetensors.torch import save_file
from torch import Tensor

from corelm import registration
from corelm.errors import UserError
from corelm.files import publish, read_json, sha256, sync, write_json, writing
from corelm.kinds.component import Spec, nested_specs, plain_names_are_ours
from corelm.kinds.interchange import Imported
from corelm.kinds.template import Template
from corelm.kinds.tensor_files import TensorFile, write_tensors
from corelm.kinds.tokenizer import (
    Tokenizer,
    read_tokenizer_files,
    read_tokenizers_json,
    write_tokenizer_files,
)
from corelm.model import transforms
from corelm.model.assemble import assemble
from corelm.model.config import ModelConfig
from corelm.model.language_model import LanguageModel

FORMAT = 1

VOCABULARIES: Final = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "spm.model",
    "encoder.json",
    "vocab.json",
    "vocab.txt",
)
"""Files in which other people's folders keep a vocabulary, the one that says most first."""


def save(
    model: LanguageModel, folder: Path, *, template: Template | None = None, dtype: torch.dtype | None = None
) -> None:
    """Write a model's folder; one that is there already keeps its other files.

    Args:
        model: with its tokenizer and template, where it has them.
        folder: where to; made when missing, and then whole or not there.
        template: instead of the model's own.
        dtype: of floating-point parameters in the file; None: as they are.
    """
    if folder.exists():
        _write(model, folder, template or model.template, dtype)
        return
    made = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(made, ignore_errors=True)
    with writing(folder):
        made.mkdir(parents=True)
    try:
        _write(model, made, template or model.template, dtype)
        publish(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _write(model: LanguageModel, folder: Path, template: Template | None, dtype: torch.dtype | None) -> None:
    path, made = folder / "model.safetensors", folder / ".model.safetensors.new"
    with writing(path):
        # Under another name first, so that a kill or a full disk leaves the old tensors as they were.
        try:
            save_file(tensors_of(model, dtype), made, metadata={"format": "pt"})
            sync(made)
            made.replace(path)
        finally:
            made.unlink(missing_ok=True)
    _describe(model, folder, template)


def _describe(model: LanguageModel, folder: Path, template: Template | None) -> None:
    """Write what stands beside the tensors, their digest last."""
    if model.has_tokenizer:
        (folder / "tokenizer").mkdir(exist_ok=True)
        save_tokenizer(model.tokenizer, folder / "tokenizer")
    if template is not None:
        write_json(folder / "template.json", spec_of("template", template).dump())
    facts = {
        "format": FORMAT,
        "model": model.config.model_dump(mode="json"),
        "vocab_size": model.vocab_size,
        "transforms": model.transforms,
        "made_with": _origins(model.config),
        "sha256": sha256(folder / "model.safetensors"),
    }
    write_json(folder / "model.json", facts)


def _origins(config: ModelConfig) -> dict[str, str]:
    """Which distribution each part of a model is from."""
    records = [spec.record for _, spec in nested_specs(config)]
    return {f"{record.kind}/{record.name}": f"{record.distribution} {record.version}" for record in records}


def tensors_of(model: LanguageModel, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Everything that is saved, by canonical name; tied tensors once."""
    seen: set[tuple[int, int]] = set()
    tensors: dict[str, Tensor] = {}
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tensor.numel())
        if tensor.numel() and place in seen:
            continue
        seen.add(place)
        cast = dtype is not None and name in parameters  # the steps of codes keep their type
        tensors[name] = (tensor.to(dtype) if cast else tensor).detach().cpu().contiguous()
    return tensors


def load(
    folder: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> LanguageModel:
    """Read a model's folder, in evaluation mode.

    Raises:
        UserError: no model there, a part that isn't installed, or tensors that were truncated or altered.
    """
    folder = Path(folder)
    if not (folder / "model.json").is_file():
        raise UserError(
            f"{folder} is no model folder (it has no model.json)",
            remedy="Other formats are read by `corelm import FORMAT SOURCE --out FOLDER`.",
            code="no-model-folder",
        )
    facts = _facts(folder / "model.json")
    path = folder / "model.safetensors"
    if not path.is_file():
        raise UserError(f"{path} is missing", remedy="Copy it again, or make the folder anew.", code="model-damaged")
    if sha256(path) != facts["sha256"]:
        raise damaged(path)
    try:
        tensors = TensorFile(path)
    except UserError as error:
        raise damaged(path) from error
    with _reading(folder, facts):
        model = assemble(ModelConfig.model_validate(facts["model"]), facts["vocab_size"])
    for record in facts["transforms"]:
        transforms.reapply(model, record)
        model.record_transform(record)
    fill(model, tensors, str(path))
    tokenizer = load_tokenizer(folder / "tokenizer") if (folder / "tokenizer").is_dir() else None
    template: Template | None = None
    if (folder / "template.json").exists():
        with _reading(folder / "template.json"):
            template = Spec.read("template", read_json(folder / "template.json")).build()
    model.attach(tokenizer, template)
    return model.to(device=device, dtype=dtype).eval()


def _facts(path: Path) -> dict[str, Any]:
    """What ``model.json`` says."""
    facts = read_json(path)
    if not isinstance(facts, dict) or "format" not in facts:
        raise UserError(f"{path}: not a description of a model", remedy="Copy it again.", code="file-damaged")
    if facts["format"] != FORMAT:
        raise UserError(
            f"{path}: its format is {facts['format']!r}, this corelm reads {FORMAT}",
            remedy="Update corelm.",
            code="model-format",
        )
    missing = sorted({"model", "vocab_size", "transforms", "sha256"} - set(facts))
    if missing:
        raise UserError(f"{path}: {', '.join(missing)} missing", remedy="Copy it again.", code="file-damaged")
    return facts


@contextlib.contextmanager
def _reading(where: Path, facts: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Turn "no such part" and "no such option" into a message that says what is to be installed."""
    try:
        with plain_names_are_ours():
            yield
    except (ValidationError, PydanticCustomError) as error:
        reasons = [str(error)]
        if isinstance(error, ValidationError):
            reasons = [".".join(map(str, one["loc"])) + f": {one['msg']}" for one in error.errors()]
        origins = sorted(set((facts or {}).get("made_with", {}).values()))
        raise UserError(
            f"{where} can't be read here: {'; '.join(reasons)}",
            remedy=f"It was made with {', '.join(origins)}." if origins else "Install the package that it came with.",
            code="model-part-missing",
        ) from error


def fill(model: LanguageModel, tensors: Mapping[str, Tensor], source: str) -> None:
    """Put copies of tensors into a model, in the dtype that they have.

    Raises:
        UserError: names or shapes don't fit.
    """
    _fitting(model, _described(tensors), source)
    # Tensors from a file begin anywhere; matrix products round differently there than in memory that torch has aligned.
    own = {name: tensors[name].clone(memory_format=torch.contiguous_format) for name in tensors}
    model.load_state_dict(own, strict=False, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())


def _fitting(model: LanguageModel, described: Mapping[str, Tensor], source: str) -> None:
    """Raise ``UserError`` unless names and shapes are those of the model's tensors; tied ones are there once."""
    own = {id(tensor): (name, tensor) for name, tensor in reversed(model.state_dict(keep_vars=True).items())}
    expected = dict(own.values())
    wrong = sorted(set(expected) ^ set(described)) or [
        name for name in expected if expected[name].shape != described[name].shape
    ]
    if wrong:
        raise UserError(f"{source} does not fit the model: {', '.join(wrong[:5])}", code="tensors-do-not-fit")


def save_imported(imported: Imported, folder: Path) -> None:
    """Write a model's folder tensor by tensor: never more than one place of the source's files is in memory.

    Args:
        imported: what an interchange part has read.
        folder: where to; must not exist yet, and is then whole or not there.

    Raises:
        UserError: the tensors don't fit the model.
    """
    config = ModelConfig.model_validate(imported.model)
    model = assemble(config, config.vocab_size or 0, device="meta")
    model.attach(imported.tokenizer)
    tensors = imported.tensors
    described = _described(tensors)
    _fitting(model, described, "the imported tensors")
    made = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(made, ignore_errors=True)
    with writing(folder):
        made.mkdir(parents=True)
        try:
            path = made / "model.safetensors"
            write_tensors(path, described, tensors.__getitem__)
            sync(path)
            _describe(model, made, None)
            publish(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _described(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Shape and type of every tensor, on the ``meta`` device."""
    meta = getattr(tensors, "meta", None)
    return {name: meta(name) if meta is not None else tensors[name].to("meta") for name in tensors}


def from_imported(imported: Imported) -> LanguageModel:
    """The model that an interchange part has read."""
    config = ModelConfig.model_validate(imported.model)
    model = assemble(config, config.vocab_size or 0)
    fill(model, imported.tensors, "the imported tensors")
    model.attach(imported.tokenizer)
    return model.eval()


def damaged(path: Path) -> UserError:
    """The error for tensors that are not what was written."""
    return UserError(
        f"{path}: truncated or altered (its digest does not match model.json)",
        remedy="Copy it again, or remove the stage's folder to have it made again.",
        code="model-damaged",
    )


def spec_of(kind: str, part: Any) -> Spec[Any]:
    """The spec that a built part came from."""
    for record in registration.active().parts(kind):
        if record.target.endswith(f":{type(part).__qualname__}") and record.load() is type(part):
            return Spec(record, part.config)
    raise UserError(f"{type(part).__name__} is no registered {kind}", remedy="Register it in a plugin.")


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write a tokenizer into an existing folder: which part it is, and its own files."""
    tokenizer.save(folder)
    write_json(folder / "part.json", spec_of("tokenizer", tokenizer).dump())


def find_tokenizer(path: Path) -> Path | None:
    """What below ``path`` tells of a tokenizer: a folder of ours, or a file of somebody else's; None: nothing does."""
    for folder in (path, path / "tokenizer"):
        if (folder / "part.json").is_file():
            return folder
    if not path.is_dir():
        return path if path.is_file() else None
    return next((path / name for name in VOCABULARIES if (path / name).is_file()), None)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Read a tokenizer: a folder of ours, or somebody else's file or folder that some installed tokenizer knows.

    Files are known by their content: ``tokenizer.json``, GPT-2's ``encoder.json`` and ``vocab.bpe``, ``vocab.txt``,
    SentencePiece's ``.model``, tiktoken's ranks, GGUF.

    Raises:
        UserError: nothing there that can be read, or it is damaged.
    """
    path = Path(path)
    found = find_tokenizer(path)
    if found is not None and found.is_dir():
        with _reading(found / "part.json"):
            spec = Spec.read("tokenizer", read_json(found / "part.json"))
        return spec.part.load(spec.config, found)  # type: ignore[no-any-return]
    read = read_tokenizer_files(path)
    if read is None and found is not None:
        read = read_tokenizers_json(found.read_text(encoding="utf-8", errors="replace"))
    if read is not None:
        return read
    raise UserError(
        f"{path} holds no tokenizer that can be read",
        remedy="Give a tokenizer folder, a model folder, a tokenizer.json, vocab.json + merges.txt, vocab.txt, "
        "a SentencePiece .model, a .tiktoken or a .gguf.",
        code="no-tokenizer-there",
    )


def write_tokenizer(tokenizer: Tokenizer, path: str | Path) -> list[Path]:
    """Write a tokenizer in the format that the file's name is of, for others to read.

    Args:
        tokenizer: what to write.
        path: ends in ``tokenizer.json``, ``encoder.json`` or ``vocab.json`` (merges come beside it), ``vocab.txt``,
            ``.model``, ``.tiktoken`` or ``.gguf`` (a vocabulary without tensors).

    Returns:
        the files that were written.

    Raises:
        UserError: the format can't say exactly what the tokenizer does.
    """
    return write_tokenizer_files(tokenizer, Path(path))
