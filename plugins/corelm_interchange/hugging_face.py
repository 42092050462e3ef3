"""Folders that Hugging Face's transformers reads and writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from corelm.errors import UserError
from corelm.kinds import END_OF_TEXT, AdaptedLinear, Imported, Interchange, LanguageModel, Tokenizer
from corelm.kinds.quantized_linear import QuantizedLinear
from corelm.kinds.tokenizer import read_tokenizers_json
from corelm.kinds.trainer import Watch
from corelm_interchange import llama
from corelm_interchange.proof import same_answers, same_tensors, same_tokens, transformers_version
from corelm_interchange.weights import read_json, read_tensors, write_json, write_tensors, write_text


class HuggingFace(Interchange):
    """Folders of Hugging Face transformers, for models shaped like Llama.

    Reads any dtype, one file or several, tied and untied heads, both spellings of the rotary base. Writes every
    tensor as it is; quantized maps as the weights that they stand for and adapters merged, since the format has no
    words for either. What was written is read again and compared bit by bit; where transformers is installed, its
    logits, greedy continuation and token ids are compared as well.
    """

    def recognises(self, source: Path) -> bool:
        """A folder whose config.json names a type of model."""
        path = source / "config.json"
        return path.is_file() and isinstance(config := read_json(path), dict) and "model_type" in config

    def refuses(self, recipe_model: dict[str, Any]) -> str | None:
        """Why a model with this resolved section can't be written; None: it can."""
        try:
            llama.config_of(recipe_model, vocab_size=1, width=1)
        except llama.UnsayableError as error:
            return error.message
        return None

    def read(self, source: Path) -> Imported:
        """Read a model, and its tokenizer where an installed part can be it.

        Raises:
            UserError: another architecture, pickled or damaged tensors, tensors that the architecture lacks.
        """
        config = read_json(source / "config.json")
        try:
            section, notes = llama.section_of(config)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{source / 'config.json'} lacks or garbles {error}", code="config-incomplete") from error
        theirs = read_tensors(source)
        if section["head"]["tied"]:
            theirs.pop("lm_head.weight", None)  # some writers store the tied table twice
        lacking = sorted(llama.expected(section) - set(theirs))
        if lacking:
            raise UserError(
                f"{source} lacks {len(lacking)} tensors, the first is {lacking[0]}",
                remedy="Is the folder complete, and its config.json its own?",
                code="tensor-missing",
            )
        tensors, strange = llama.renamed(theirs, section["layers"], back=True)
        if strange:
            raise UserError(
                f"{source}: {len(strange)} tensors have no place in a Llama, the first is {strange[0]}",
                remedy="The folder holds another architecture than its config.json says.",
                code="tensor-unknown",
            )
        described = source / "tokenizer.json"
        tokenizer = read_tokenizers_json(described.read_text(encoding="utf-8")) if described.is_file() else None
        if tokenizer is None:
            notes.append(
                "tokenizer.json: no installed tokenizer encodes as it says"
                if described.is_file()
                else "the folder has no tokenizer.json"
            )
        return Imported(section, tensors, tokenizer, notes)

    def write(self, model: LanguageModel, folder: Path, watch: Watch) -> None:
        """Write a model into an existing, empty folder, and prove it.

        Raises:
            UserError: the model isn't shaped like Llama, or a reader finds something else than was written; then
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
        ours = {name: tensor.detach().cpu() for name, tensor in plain_tensors(model.module)}
        gate = ours.get("layers.0.feedforward.gate.weight")
        width = 0 if gate is None else len(gate)
        config = llama.config_of(model.section, vocab_size=model.vocab_size, width=width)
        theirs, strange = llama.renamed(ours, model.depth, back=False)
        if strange:
            raise UserError(f"the tensor {strange[0]} has no place in a Llama", code="tensor-unknown")
        tokenizer = _tokenizer(model)
        ends = _ends(model, tokenizer)
        common = {"bos_token_id": None, "eos_token_id": ends or None, "pad_token_id": ends[0] if ends else None}
        dtype = str(theirs["model.embed_tokens.weight"].dtype).removeprefix("torch.")
        write_json(folder / "config.json", {**config, **common, "torch_dtype": dtype, "use_cache": True})
        write_json(folder / "generation_config.json", {**common, "do_sample": False})
        write_text(folder / "README.md", _card(config))
        write_tensors(folder, theirs)
        described = tokenizer.as_tokenizers_json() if tokenizer else None
        if tokenizer and described:
            write_text(folder / "tokenizer.json", described)
            write_json(folder / "tokenizer_config.json", _tokenizer_config(model, tokenizer))
        else:
            watch.note("the folder has no tokenizer: " + ("its part can't be said" if tokenizer else "there is none"))
        for note in _replaced(model.module):
            watch.note(note)
        self._prove(model, ours, config, folder, described is not None, watch)

    def _prove(
        self,
        model: LanguageModel,
        ours: dict[str, Tensor],
        config: dict[str, Any],
        folder: Path,
        tokens: bool,
        watch: Watch,
    ) -> None:
        again = self.read(folder)
        wrong = same_tensors(ours, again.tensors)
        if wrong:
            raise UserError(f"{folder}: re-reading what was written gave {wrong}", code="export-mismatch")
        back = llama.config_of(again.model, vocab_size=model.vocab_size, width=config["intermediate_size"])
        if back != config:
            raise UserError(f"{folder}: re-reading config.json gave another model", code="export-mismatch")
        watch.note("proved by corelm's own reader: every tensor is equal bit for bit")
        version = transformers_version()
        if version is None:
            watch.note("not compared with transformers, which isn't installed: pip install corelm[hf]")
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
        if prefix.startswith(inside) and inside:
            continue
        held: list[tuple[str, Tensor | None]] = list(child.named_parameters(recurse=False))
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


def _card(config: dict[str, Any]) -> str:
    return (
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n"
        f"A Llama-shaped language model of {config['num_hidden_layers']} layers and width {config['hidden_size']}, "
        "made with corelm.\n\n"
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained("folder")\n'
        'tokenizer = AutoTokenizer.from_pretrained("folder")\n```\n'
    )
