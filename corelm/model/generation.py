"""The generation loop: logits, filters, one draw per row, through the state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from corelm.errors import UserError
from corelm.kinds.component import Spec
from corelm.kinds.one_row import quick_rows
from corelm.kinds.sampler import Sampler
from corelm.model.modes import evaluating

if TYPE_CHECKING:
    from corelm.model.language_model import LanguageModel


def steps(
    model: LanguageModel,
    ids: Int[Tensor, "batch time"],
    valid: Bool[Tensor, "batch time"] | None,
    max_new_tokens: int,
    samplers: Sequence[Sampler],
    seeds: Sequence[int] | None,
    stop: Sequence[int],
) -> Iterator[Int[Tensor, " batch"]]:
    """Yield the new tokens column by column; ends when every row has stopped.

    Rows that have stopped repeat their stop token. Padding must be on the left.

    Raises:
        UserError: the result would not fit the positions that the model can represent.
    """
    _check(model, ids, valid, max_new_tokens)
    ids = ids.to(model.device)
    valid = None if valid is None or bool(valid.all()) else valid.to(model.device)
    seeds = range(len(ids)) if seeds is None else seeds
    generators = [torch.Generator().manual_seed(seed) for _, seed in zip(ids, seeds, strict=True)]
    state, modules = model.new_state(len(ids)), list(model.modules())
    seen = _without_padding(ids, valid)
    stops = torch.tensor(list(stop), dtype=torch.long, device=model.device)
    ended: Tensor | None = None
    last = ids.new_zeros(len(ids))
    new = ids
    for _ in range(max_new_tokens):
        # Inference mode saves a seventh of the calls' time; what leaves it is a new tensor, which may be changed.
        with evaluating(model, modules), torch.inference_mode(), quick_rows(model.row_copies):
            logits = model.head(model.hidden(new, valid=valid, state=state)[:, -1])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32), copy=True)
        for sampler in samplers:
            logits = sampler(logits, seen)
        chosen = draw(logits, generators) if samplers else logits.argmax(-1)
        if ended is not None:
            chosen = torch.where(ended, last, chosen)
        yield chosen
        ended, last = torch.isin(chosen, stops), chosen
        if bool(ended.all()):
            return
        new, valid = chosen[:, None], None
        if samplers:
            seen = torch.cat([seen, new], dim=1)


def draw(logits: Float[Tensor, "batch vocab"], generators: Sequence[torch.Generator]) -> Int[Tensor, " batch"]:
    """One token per row from ``softmax(logits)``, with the row's own generator, by inverting the distribution."""
    sums = torch.softmax(logits.double(), dim=-1).cumsum(-1)
    uniform = torch.cat([torch.rand(1, generator=g, dtype=torch.float64) for g in generators]).to(sums.device)
    chosen = (sums <= uniform[:, None] * sums[:, -1:]).sum(-1)
    # A product that rounds up to the whole sum is the last token that has any probability.
    return torch.minimum(chosen, (sums < sums[:, -1:]).sum(-1))


def as_samplers(given: Any) -> list[Sampler]:
    """Samplers from built parts, specs, names or maps; None is an empty list."""
    listed = [] if given is None else given if isinstance(given, list | tuple) else [given]
    return [item if isinstance(item, Sampler) else Spec.read("sampler", item).build() for item in listed]


def _without_padding(ids: Tensor, valid: Tensor | None) -> Tensor:
    """The tokens so far as filters see them: padding repeats the row's last token, which is there anyway."""
    return ids if valid is None else torch.where(valid, ids, ids[:, -1:])


def require_vocabulary(model: LanguageModel) -> None:
    """Refuse to write or score text with a reward model or a classifier."""
    if model.head.reads != "vocabulary":
        raise UserError(
            f"this model's head gives {model.head.reads}, no logits of tokens: it can't write or score text",
            remedy="Take the model that it was made from.",
            code="head-not-vocabulary",
        )


def _check(model: LanguageModel, ids: Tensor, valid: Tensor | None, max_new_tokens: int) -> None:
    require_vocabulary(model)
    if ids.shape[1] == 0:
        raise UserError("there is nothing to continue", remedy="Give at least one token.", code="prompt-empty")
    if valid is not None and not bool(valid[:, -1].all()):
        raise UserError("prompts must be padded on the left", code="padding-right")
    longest = ids.shape[1] if valid is None else int(valid.sum(1).max())
    limit = model.position_limit
    if limit is not None and longest + max_new_tokens - 1 > limit:
        raise UserError(
            f"{longest} tokens and {max_new_tokens} new ones go beyond the {limit} positions of this model",
            remedy=f"Ask for at most {max(limit - longest + 1, 0)} new tokens, or shorten the prompt.",
            code="beyond-positions",
        )
