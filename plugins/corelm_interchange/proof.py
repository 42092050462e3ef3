"""What shows that a written folder holds the model: other readers must compute the same from it."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from corelm.errors import UserError
from corelm.kinds import LanguageModel, Position, Tokenizer

TOLERANCE = 1e-4
"""Largest difference of logits, in parts of their spread."""
TRAPS = (
    "def f(x):\n    return x + 1  # a comment\n\n",
    "It's 2024, don't  double   spaces; e\u0301 é — 北京 \U0001f469‍\U0001f680.",
    "\tTabs\r\nand lines\n\n\n<|endoftext|> 12345 CamelCase snake_case",
)


def same_tensors(written: Mapping[str, Tensor], read: Mapping[str, Tensor]) -> str | None:
    """How two sets of tensors differ; None: not in one bit."""
    if set(written) != set(read):
        return f"other tensors: {sorted(set(written) ^ set(read))[:3]}"
    for name, tensor in written.items():
        other = read[name]
        if tensor.dtype != other.dtype or not torch.equal(tensor.cpu(), other):
            return f"the tensor {name} differs"
    return None


def transformers_version() -> str | None:
    """Version of transformers, None where it isn't installed."""
    if importlib.util.find_spec("transformers") is None:
        return None
    import transformers

    return str(transformers.__version__)


@torch.no_grad()
def same_answers(model: LanguageModel, folder: Path) -> None:
    """Raise ``UserError`` unless transformers computes the same logits and continues greedily with the same ids."""
    with (
        _quiet(),
        torch.random.fork_rng(devices=[]),
    ):  # some of its models draw before they load, or say what they lack
        _compare(model, folder)


def _compare(model: LanguageModel, folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    module = model.module
    if any(parameter.dtype != torch.float32 for parameter in module.parameters()):
        model = copy.deepcopy(module).to("cpu", torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    schemes = [part for part in module.modules() if isinstance(part, Position)]
    # Beyond these lengths one call and several may rightly differ.
    limits = [scheme.constant_up_to for scheme in schemes if scheme.constant_up_to is not None]
    length = min([model.context, 32, *limits])
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.vocab_size, (2, length), generator=generator)
    ours, other = model.logits(ids.to(model.device)).float().cpu(), theirs(ids).logits
    difference, spread = float((ours - other).abs().max()), float(ours.max() - ours.min())
    most = TOLERANCE * spread
    if not difference <= most:
        raise UserError(f"transformers computes other logits: they differ by {difference:g}, spread {spread:g}")
    start, steps = ids[:1, : max(1, length // 2)], min(8, length - max(1, length // 2))
    if steps > 0:
        made = model.generate_ids(start.to(model.device), max_new_tokens=steps).cpu()
        _greedy(theirs, start, made, most)


def _greedy(theirs: torch.nn.Module, start: Tensor, made: Tensor, tie: float) -> None:
    """Raise ``UserError`` unless each id is the likeliest in transformers, or as likely but for rounding."""
    logits = theirs(torch.cat([start, made], dim=1)).logits[:, start.shape[1] - 1 : -1].float()
    best = logits.max(-1)
    missing = best.values - logits.gather(-1, made[..., None])[..., 0]
    if not bool((missing <= tie).all()):
        there, here = best.indices[0].tolist(), made[0].tolist()
        raise UserError(f"transformers continues greedily with {there}, corelm with {here}")


def same_tokens(tokenizer: Tokenizer, folder: Path) -> None:
    """Raise ``UserError`` unless transformers encodes and decodes the same."""
    from transformers import AutoTokenizer

    with _quiet():  # texts longer than the model's context make it warn
        theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        for text in TRAPS:
            ours, other = tokenizer.encode(text, allow_special=True), theirs.encode(text, add_special_tokens=False)
            if ours != other:
                raise UserError(f"transformers encodes {text!r} as {other}, corelm as {ours}")
            if theirs.decode(other) != tokenizer.decode(ours):
                raise UserError(f"transformers decodes {other} as {theirs.decode(other)!r}")


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars or warnings of theirs; as it was afterwards."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
