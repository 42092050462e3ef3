"""Folders that Hugging Face's transformers reads and writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from corelm.errors import UserError
from corelm.kinds import (
    END_OF_TEXT,
    AdaptedLinear,
    ComponentConfig,
    Count,
    Imported,
    Interchange,
    LanguageModel,
    Tokenizer,
)
from corelm.kinds.quantized_linear import QuantizedLinear
from corelm.kinds.tokenizer import read_tokenizer_files
from corelm.kinds.trainer import Watch
from corelm_interchange.family import Family, UnsayableError, family_for, family_of
from corelm_interchange.normal import differences, normal_form
from corelm_interchange.proof import same_answers, same_tensors, same_tokens, transformers_version
from corelm_interchange.tensors import Reading, Writing
from corelm_interchange.weights import Files, read_json, write_json, write_shards, write_text


class HuggingFace(Interchange):
    """Folders of Hugging Face transformers, for every family that a file describes.

    Reads any dtype, one file or several, tied and untied heads, older and newer spellings of configs. Writes every
    tensor as it is; quantized maps as the weights that they stand for and adapters merged, since the format has no
    words for either. What was written is read again and compared bit by bit; where transformers is installed, its
    logits, greedy continuation and token ids are compared as well.
    """

    class Config(ComponentConfig):
        """Options."""

        family: str | None = Field(
            None, description="Family to write as; default: the first that has words for the model."
        )
        shard: Count = Field(5 * 10**9, gt=0, description="Largest file of tensors that is written, in bytes.")
        compared: Count = Field(
            2 * 10**9, ge=0, description="Largest model, in bytes, that is run in transformers to compare the logits."
        )

    def recognises(self, source: Path) -> bool:
        """A folder whose config.json names a type of model."""
        path = source / "config.json"
        return path.is_file() and isinstance(config := read_json(path), dict) and "model_type" in config

    def refuses(self, recipe_model: dict[str, Any]) -> str | None:
        """Why a model with this resolved section can't be written; None: it can."""
        try:
            family_for(normal_form(recipe_model, vocab_size=1), self.config.family)
        except UnsayableError as error:
            return error.message
        return None

    def read(self, source: Path) -> Imported:
        """Read a model, and its tokenizer where an installed part can be it; tensors are read when asked for.

        Raises:
            UserError: another architecture, pickled or damaged tensors, tensors that the architecture lacks.
        """
        config = read_json(source / "config.json")
        family = family_of(config)
        if quantized := config.get("quantization_config"):
            raise UserError(
                f"{source}: its tensors are quantized ({quantized.get('quant_method', 'somehow')}), which can't be read",
                remedy="Load it where it came from, with weights of bfloat16 or float32, and save it again.",
                code="tensors-quantized",
            )
        values, notes = family.read_config(config)
        section = family.section(values)
        names = normal_form(section)["names"]
        tensors = Reading(family, values, names, Files(source), str(source))
        tokenizer = None
        try:
            tokenizer = read_tokenizer_files(source)
            if tokenizer is None:
                notes.append("the folder has no tokenizer")
        except UserError as error:
            notes.append(f"no tokenizer: {error.message}")
        return Imported(section, tensors, tokenizer, notes)

    def write(self, model: LanguageModel, folder: Path, watch: Watch) -> None:
        """Write a model into an existing, empty folder, and prove it.

        Raises:
            UserError: no family has words for the model, or a reader finds something else than was written; then
                the folder is empty again.
        """
        if any(folder.iterdir()):
            raise UserError(f"{folder} is not empty", remedy="Export to a new folder.", code="folder-not-empty")
        try:
            self._write(model, folder, watch)
        except BaseException:
            for path in folder.iterdir():
                path.unlink()
            raise

    def _write(self, model: LanguageModel, folder: Path, watch: Watch) -> None:
        form = normal_form(model.section, model.vocab_size)
        family, values = family_for(form, self.config.family)
        ours = {name: tensor.detach() for name, tensor in plain_tensors(model.module)}
        # Rules of tensors know blocks by the names that the family's own model gives them.
        names = normal_form(family.section(values))["names"]
        config, writing = family.config(values), Writing(family, values, names, ours)
        tokenizer = _tokenizer(model)
        ends = _ends(model, tokenizer)
        common = {"bos_token_id": None, "eos_token_id": ends or None, "pad_token_id": ends[0] if ends else None}
        dtype = str(model.embedding.table.dtype).removeprefix("torch.")
        write_json(folder / "config.json", {**config, **common, "torch_dtype": dtype, "use_cache": True})
        write_json(folder / "generation_config.json", {**common, "do_sample": False})
        write_text(folder / "README.md", _card(model, family))
        write_shards(folder, writing.described, writing.tensor, self.config.shard)
        described = tokenizer.as_tokenizers_json() if tokenizer else None
        if tokenizer and described:
            write_text(folder / "tokenizer.json", described)
            write_json(folder / "tokenizer_config.json", _tokenizer_config(model, tokenizer))
        else:
            watch.note("the folder has no tokenizer: " + ("its part can't be said" if tokenizer else "there is none"))
        for note in _replaced(model.module):
            watch.note(note)
        self._prove(model, ours, folder, described is not None, watch)

    def _prove(
        self, model: LanguageModel, ours: Mapping[str, Tensor], folder: Path, tokens: bool, watch: Watch
    ) -> None:
        again = self.read(folder)
        wrong = same_tensors(ours, again.tensors)
        if wrong:
            raise UserError(f"{folder}: re-reading what was written gave {wrong}", code="export-mismatch")
        form = normal_form(model.section, model.vocab_size)
        if list(differences(form, normal_form(again.model))):
            raise UserError(f"{folder}: re-reading config.json gave another model", code="export-mismatch")
        watch.note("proved by corelm's own reader: every tensor is equal bit for bit")
        version = transformers_version()
        if version is None:
            watch.note('not compared with transformers, which is not installed: pip install "corelm[hf]"')
            return
        size = sum(tensor.nbytes for tensor in ours.values())
        if size > self.config.compared:
            watch.note(
                f"not compared with transformers: {size / 1e9:.1f} GB are more than the option compared, "
                f"{self.config.compared / 1e9:.1f} GB"
            )
            return
        same_answers(model, folder)
        if tokens:
            same_tokens(model.tokenizer, folder)
        equal = "logits, greedy ids and token ids" if tokens else "logits and greedy ids"
        watch.note(f"proved by transformers {version}: equal {equal}")


def plain_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Canonical names and tensors as if nothing were quantized or adapted."""
    inside: tuple[str, ...] = ()
    for prefix, child in module.named_modules():
        if prefix.startswith(inside):
            continue
        held: list[tuple[str, Tensor | None]] = list(child.named_parameters(recurse=False))
        kept = child.named_buffers(recurse=False)
        held += [(name, tensor) for name, tensor in kept if name not in child._non_persistent_buffers_set]
        if isinstance(child, AdaptedLinear | QuantizedLinear):
            inside = (*inside, f"{prefix}.")
            plain = child.merged() if isinstance(child, AdaptedLinear) else None
            weight = plain.weight if plain is not None else child.canonical().dequantize()
            held = [("weight", weight), ("bias", plain.bias if plain is not None else child.bias)]
        for name, tensor in held:
            if tensor is not None:
                yield f"{prefix}.{name}" if prefix else name, tensor


def _replaced(module: nn.Module) -> Iterator[str]:
    kinds = {type(child) for child in module.modules()}
    if any(issubclass(kind, QuantizedLinear) for kind in kinds):
        yield "quantized maps were written as the weights that their codes stand for"
    if any(issubclass(kind, AdaptedLinear) for kind in kinds):
        yield "adapters were merged into the maps that they adapt"


def _tokenizer(model: LanguageModel) -> Tokenizer | None:
    try:
        return model.tokenizer
    except UserError:
        return None


def _ends(model: LanguageModel, tokenizer: Tokenizer | None) -> list[int]:
    """Ids at which generation stops: the end of the text, and of the assistant's turn."""
    if tokenizer is None:
        return []
    turn = model.template.stop(tokenizer) if model.template else ()
    ends = [tokenizer.specials[END_OF_TEXT]] if END_OF_TEXT in tokenizer.specials else []
    return list(dict.fromkeys([*ends, *turn]))


def _tokenizer_config(model: LanguageModel, tokenizer: Tokenizer) -> dict[str, Any]:
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.context,
        "clean_up_tokenization_spaces": False,
    }
    if END_OF_TEXT in tokenizer.specials:
        config |= {"eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT}
    jinja = model.template.as_jinja() if model.template else None
    return {**config, "chat_template": jinja} if jinja else config


def _card(model: LanguageModel, family: Family) -> str:
    return (
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n"
        f"A language model of the {family.file.title} family, {model.depth} layers of width {model.dim}, "
        "made with corelm.\n\n"
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained("folder")\n'
        'tokenizer = AutoTokenizer.from_pretrained("folder")\n```\n'
    )
