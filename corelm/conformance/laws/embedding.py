"""Properties of embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject, close
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.kinds.parameters import declared

MINIMUM = 3
"""So many of these properties must say something about every part of the kind, and hold."""


class EmbeddingBench(Bench):
    """Ids in, vectors out, and the way back for tied heads."""

    kind = "embedding"
    module = True
    activations = False

    def arguments(self, part: PartUnderTest, config: Any, context: Any, draw: Draw) -> tuple[Any, ...]:
        """Built with the model's sizes."""
        return (context,)

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """Ids."""
        return {
            "ids": draw.ids(2, 6, subject.context.vocab_size),
            "hidden": draw.normal(2, 6, subject.context.dim),
        }

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Both ways."""
        return [subject.part(inputs["ids"]), subject.part.unproject(inputs["hidden"])]

    def reference(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """``reference(ids)`` is what the ids become."""
        return [subject.part.reference(inputs["ids"]), subject.part.unproject(inputs["hidden"])]


def _embedding(part: PartUnderTest, draw: Draw) -> tuple[Any, Tensor, Any]:
    subject = part.bench.subject(part, draw)
    return subject.part, draw.ids(2, 6, subject.context.vocab_size), subject.context


@property_of(
    "embedding",
    statement="Equal ids give equal vectors wherever they stand.",
    formula="id_s = id_t ⇒ v_s = v_t",
    catches="positions or statistics mixed in",
)
def by_id_only(part: PartUnderTest, draw: Draw) -> None:
    """Permute places."""
    embedding, ids, _ = _embedding(part, draw)
    order = draw.permutation(6)
    close(embedding(ids[:, order]), embedding(ids)[:, order], "permuted ids")
    close(embedding(ids[:1, :1]), embedding(ids)[:1, :1], "one id alone")


@property_of(
    "embedding",
    statement="Different ids have different vectors, of the model's width.",
    formula="i ≠ j ⇒ v_i ≠ v_j",
    catches="rows that are shared or missing",
    tolerance="10⁻⁹ is far above rounding in float64.",
    examples=8,
)
def ids_are_told_apart(part: PartUnderTest, draw: Draw) -> None:
    """All ids."""
    embedding, _, context = _embedding(part, draw)
    vectors = embedding(torch.arange(context.vocab_size)[None])[0]
    assert vectors.shape == (context.vocab_size, context.dim), f"shape {tuple(vectors.shape)}"
    distances = torch.cdist(vectors, vectors) + 9 * torch.eye(context.vocab_size, dtype=vectors.dtype)
    assert float(distances.detach().min()) > 1e-9, "two ids have the same vector"


@property_of(
    "embedding",
    statement="table is a declared parameter with one row per id; an id's vector depends on its row only.",
    formula="∂v_i/∂table_j ≠ 0 ⇔ i = j",
    catches="a table that isn't the one that is used, so that a tied head learns nothing",
    examples=10,
)
def table_is_the_table(part: PartUnderTest, draw: Draw) -> None:
    """Gradient of one id's vector."""
    embedding, _, context = _embedding(part, draw)
    assert embedding.table.shape[0] == context.vocab_size, f"table of {tuple(embedding.table.shape)}"
    assert any(p is embedding.table and i.role == "embedding" for _, p, i in declared(embedding)), "no declared table"
    chosen = draw.integer("id", 0, context.vocab_size - 1)
    vector = embedding(torch.tensor([[chosen]]))
    (gradient,) = torch.autograd.grad((vector * draw.normal(context.dim)).sum(), embedding.table)
    rows = gradient.abs().sum(1).nonzero().flatten().tolist()
    assert rows == [chosen], f"the vector of id {chosen} depends on rows {rows}"


@property_of(
    "embedding",
    statement="unproject maps hidden states to the table's width, token by token and linearly.",
    formula="unproject(2a + b) = 2 unproject(a) + unproject(b) up to a constant",
    catches="a projection for one direction only",
    examples=10,
)
def unprojects_to_the_table(part: PartUnderTest, draw: Draw) -> None:
    """Width and linearity."""
    embedding, _, context = _embedding(part, draw)
    a, b = draw.normal(2, 3, context.dim), draw.normal(2, 3, context.dim)
    y = embedding.unproject(a)
    assert y.shape == (2, 3, embedding.table.shape[1]), f"unproject gives {tuple(y.shape)}"
    zero = embedding.unproject(torch.zeros_like(a))
    close(embedding.unproject(2 * a + b) - zero, 2 * (y - zero) + embedding.unproject(b) - zero, "unproject(2a + b)")
