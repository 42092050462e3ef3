"""Likelihoods of texts: what evaluators ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from corelm.kinds.batch import IGNORE, pad_rows
from corelm.kinds.language_model import Likelihood, Request
from corelm.kinds.logprobs import UNTRAINED_ELEMENTS, token_logprobs
from corelm.model.generation import require_vocabulary

if TYPE_CHECKING:
    from corelm.model.language_model import LanguageModel

BATCH_TOKENS = 8192
"""Tokens, padding included, that are scored at once."""


@dataclass
class Window:
    """Tokens of which the last ``scored`` are to be predicted; ``number`` says whose they are."""

    number: int
    ids: list[int]
    scored: int


def loglikelihood(model: LanguageModel, requests: Sequence[Request]) -> list[Likelihood]:
    """Score continuations.

    White space at the end of a context belongs to the continuation; the ids of both together are split where the
    context's own ids end. Of what is too long, the beginning is dropped. An empty context is the end-of-text token.
    """
    windows = []
    for number, request in enumerate(requests):
        context = request.context.rstrip()
        continuation = request.context[len(context) :] + request.continuation
        start = model.tokenize(context)
        both = model.tokenize(context + continuation)
        # Where the boundary's tokens merge differently, the split is by count, as is the custom.
        ids = both if start else [model.tokenizer.end_of_text, *both]
        scored = len(both) - len(start)
        windows.append(Window(number, ids[-(model.context + 1) :], min(scored, model.context)))
    return _likelihoods(model, windows, len(requests))


def rolling(model: LanguageModel, texts: Sequence[str]) -> list[Likelihood]:
    """Score whole texts in windows of the model's context.

    Every token is scored exactly once; the first follows the end-of-text token. All windows but the last are full
    and adjoin, the last reaches back as far as fits.
    """
    windows = []
    for number, text in enumerate(texts):
        ids = [model.tokenizer.end_of_text, *model.tokenize(text)]
        for end in range(1, len(ids), model.context):
            last = min(end + model.context, len(ids))
            windows.append(Window(number, ids[max(0, last - model.context - 1) : last], last - end))
    return _likelihoods(model, windows, len(texts))


def _likelihoods(model: LanguageModel, windows: list[Window], count: int) -> list[Likelihood]:
    require_vocabulary(model)
    sums, greedy, tokens = [0.0] * count, [True] * count, [0] * count
    for batch in _batches(windows):
        for window, (logprob, likeliest) in zip(batch, _score(model, batch), strict=True):
            sums[window.number] += logprob
            greedy[window.number] &= likeliest
            tokens[window.number] += window.scored
    return [Likelihood(*answer) for answer in zip(sums, greedy, tokens, strict=True)]


def _batches(windows: list[Window]) -> Iterator[list[Window]]:
    """Windows of similar length together, as many as the budget of tokens allows."""
    ordered = sorted((w for w in windows if w.scored > 0), key=lambda w: (-len(w.ids), w.number))
    at = 0
    while at < len(ordered):
        rows = max(1, BATCH_TOKENS // len(ordered[at].ids))
        yield ordered[at : at + rows]
        at += rows


def _score(model: LanguageModel, batch: list[Window]) -> Iterator[tuple[float, bool]]:
    ids, valid = pad_rows([window.ids[:-1] for window in batch])
    targets = torch.full_like(ids, IGNORE)
    for row, window in enumerate(batch):
        end = len(window.ids) - 1
        targets[row, end - window.scored : end] = torch.tensor(window.ids[-window.scored :])
    ids, valid, targets = (tensor.to(model.device) for tensor in (ids, valid, targets))
    hidden = model.hidden(ids, valid=None if bool(valid.all()) else valid)
    logprobs = token_logprobs(hidden, model.head, targets).double().sum(1).tolist()
    missed = _missed(model, hidden, targets)
    yield from zip(logprobs, (~missed).tolist(), strict=True)


def _missed(model: LanguageModel, hidden: Tensor, targets: Tensor) -> Tensor:
    """Rows in which some target is not the likeliest token; of rows that miss the first, no more is looked at."""
    wanted = targets != IGNORE
    first = wanted & (wanted.cumsum(1) == 1)
    wrong = _wrong(model, hidden, targets, first).any(1)
    return wrong | _wrong(model, hidden, targets, wanted & ~first & ~wrong[:, None]).any(1)


def _wrong(model: LanguageModel, hidden: Tensor, targets: Tensor, places: Tensor) -> Tensor:
    """Where, among these places, the likeliest token is another than the target."""
    found = torch.zeros_like(places)
    rows = max(1, UNTRAINED_ELEMENTS // model.head.outputs)
    likeliest = [model.head(piece).argmax(-1) for piece in hidden[places].split(rows)]
    found[places] = torch.cat(likeliest) != targets[places]
    return found


def until(model: LanguageModel, prompt: str, stops: Sequence[str], max_new_tokens: int) -> str:
    """Greedy continuation of a prompt up to, and without, the first stop string.

    Of a prompt that leaves no room for the new tokens, the beginning is dropped.
    """
    ids = model.tokenize(prompt)[-max(1, model.context - max_new_tokens) :] or [model.tokenizer.end_of_text]
    text = ""
    for piece in model.pieces(ids, max_new_tokens):
        text += piece
        found = [text.index(stop) for stop in stops if stop in text]
        if found:
            return text[: min(found)]
    return text
