"""A small recipe as text, and what tests do to it."""

from __future__ import annotations

from pathlib import Path

from corelm.recipe.errors import RecipeError, RecipeProblem
from corelm.recipe.reader import Recipe

SMALL = """\
corelm: 1
name: small
seed: 7
corpus:
  source: {use: python-stdlib}
  clean: [unicode-nfc]
  holdout: 0.1
tokenizer: bytes
template: chatml
model:
  dim: 32
  layers: 2
  context: 64
  norm: {use: rmsnorm, eps: 1e-6}
  position: rope
  attention: {use: gqa, heads: 4, kv_heads: 2}
  feedforward: {use: swiglu, width: 64}
stages:
  base:
    use: pretrain
    tokens: 8k
    batch: 4
    optimizer: {use: adamw, learning_rate: 2e-3}
  tuned:
    use: finetune
    data: {source: {use: stdlib-docstrings, yields: conversation}}
  judge:
    use: reward-model
    from: tuned
    data: {source: {use: stdlib-docstrings, yields: preference}}
  scores:
    use: evaluate
    from: [base, tuned]
    tasks: [perplexity]
"""


def write(folder: Path, text: str, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, text: str, *overrides: str) -> Recipe:
    return Recipe.read(write(folder, text), overrides)


def problems(folder: Path, text: str, *overrides: str) -> list[RecipeProblem]:
    try:
        read(folder, text, *overrides)
    except RecipeError as error:
        return error.problems
    return []


GOOD = """\
corelm: 1
name: good
seed: 3
corpus: {source: {use: python-stdlib}}
tokenizer: bytes
template: chatml
model:
  dim: 32
  layers: 2
  context: 64
  position: rope
  attention:
    use: gqa
    heads: 4
    kv_heads: 2
  feedforward: swiglu
stages:
  base: {use: pretrain, tokens: 8k, batch: 4}
"""
