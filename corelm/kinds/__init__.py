"""The kinds of parts: one interface per file, its contract in its docstring.

This package is all that a plugin sees of the core (besides ``corelm.hookimpl``). Importing it imports no torch;
a name below is loaded from its file when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from corelm.errors import Interrupted, UserError
from corelm.hookspecs import hookimpl

if TYPE_CHECKING:
    from corelm.registration import Registrar

KINDS: Final[tuple[tuple[str, str, str], ...]] = (
    ("source", "source:Source", "yields typed records, resumable by position"),
    ("cleaner", "cleaner:Cleaner", "drops or rewrites documents"),
    ("tokenizer", "tokenizer:Tokenizer", "text to ids and back; trains on text"),
    ("template", "template:Template", "conversations to tokens and a mask of what is learnt"),
    ("packer", "packer:Packer", "tokenized documents to batches"),
    ("embedding", "embedding:Embedding", "token ids to vectors"),
    ("position", "position:Position", "how a model knows the order of its tokens"),
    ("scaling", "position:Scaling", "option of position: frequencies of a rotation for longer sequences"),
    ("mask", "mask:Mask", "which tokens a token may look at, as a description"),
    ("attention", "attention:Attention", "mixes tokens: softmax, latent, recurrent, linear"),
    ("norm", "norm:Norm", "normalises features"),
    ("feedforward", "feedforward:FeedForward", "per-token transform, dense or mixture of experts"),
    ("activation", "feedforward:Activation", "option of feedforward: elementwise function or gated pair"),
    ("router", "feedforward:Router", "option of feedforward: scores experts for each token"),
    ("block", "block:Block", "wires sub-layers and the residual stream"),
    ("connection", "block:Connection", "option of block: how sub-layers read and write the residual stream"),
    ("head", "head:Head", "hidden states to logits, classes, a value or a reward"),
    ("init", "init:Init", "draws parameters by role"),
    ("optimizer", "optimizer:Optimizer", "update rule by parameter role"),
    ("schedule", "optimizer:Schedule", "learning rate over steps"),
    ("objective", "objective:Objective", "what is minimised, a pure function of the model's answer"),
    ("trainer", "trainer:Trainer", "the loop: gradients, accumulation, clipping, steps, checkpoints"),
    ("adapter", "adapter:Adapter", "wraps linear maps with small trainable additions"),
    ("aligner", "aligner:Aligner", "supplies experience and an objective from preferences or rewards"),
    ("quantizer", "quantizer:Quantizer", "weights to few bits"),
    ("kernel", "quantizer:Kernel", "option of quantizer: multiplies activations with codes"),
    ("sampler", "sampler:Sampler", "one filter of the next token's logits"),
    ("evaluator", "evaluator:Evaluator", "a model and records to named metrics"),
    ("interchange", "interchange:Interchange", "models to and from other formats"),
    ("stage", "stage:Stage", "one step of a pipeline"),
    ("tracker", "tracker:Tracker", "watches a run"),
)
"""Name, where the base class is, one line. Option kinds say whose option they are."""

_EXPORTS: Final = {
    "adapter": "AdaptedLinear Adapter",
    "aligner": "Aligner Alignment AlignmentJob ModelRole",
    "arithmetic": "float32_products has_bf16",
    "attention": "Attention Heads",
    "batch": "IGNORE Batch BatchStream Stateful pad_rows",
    "block": "Block BlockParts Connection",
    "carriers": "LayerContext LayerStep ModelContext Slot SlotSpec SlotView Step",
    "cleaner": "Cleaner",
    "component": "Component ComponentConfig Count LocalPath Problem RecipeText Spec nested_specs use",
    "cost": "Cost Work cost_of parameter_count plain_cost state_bytes",
    "data": "DataConfig",
    "embedding": "Embedding",
    "evaluator": "Evaluator Metrics",
    "feedforward": "Activation FeedForward Router Routing",
    "head": "Head",
    "init": "Init",
    "interchange": "Imported Interchange",
    "language_model": "LanguageModel Likelihood Request Scorer State",
    "libraries": "library",
    "logprobs": "last_real token_logprobs",
    "mask": "Mask MaskFacts MaskView",
    "model_section": "LayerConfig ModelConfig overlay pattern_names settle",
    "norm": "Norm",
    "objective": "Answered Objective Terms",
    "one_row": "linear",
    "optimizer": "Optimizer Schedule",
    "packer": "Outline Packer TokenStore Tokens token_store",
    "papers": "Paper cited",
    "parameters": "Linear ParameterInfo Role declare declared together",
    "position": "Ladder Position PositionGeometry PositionView Scaling no_positions",
    "quantizer": "Codes Kernel Quantizer Statistics consecutive",
    "records": "Choice Conversation Labelled Message Preference Record RecordName Report Sample Text texts_of",
    "sampler": "Sampler",
    "source": "Source",
    "stage": "Artifact ArtifactType RunContext SectionUse Stage",
    "template": "Rendered Template",
    "tensor_files": "TensorFile write_tensors",
    "tokenizer": "END_OF_TEXT PADDING Piece Tokenizer spans_of_bytes utf8",
    "tracker": "StageSummary Tracker",
    "trainer": "Checkpoints NotFinite Processes Trainer TrainingJob TrainingResult Watch",
}
_WHERE: Final = {name: module for module, names in _EXPORTS.items() for name in names.split()}

__all__ = ["KINDS", "Interrupted", "UserError", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'corelm.kinds' has no attribute {name!r}")
    return getattr(importlib.import_module(f"corelm.kinds.{_WHERE[name]}"), name)


@hookimpl
def corelm_register(registry: Registrar) -> None:
    """Register the core's own kinds, as any plugin would."""
    for name, target, summary in KINDS:
        registry.add_kind(name, f"corelm.kinds.{target}", summary=summary)
