"""The plain residual connection."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from corelm.kinds import Connection


class Single(Connection):
    """One residual stream, to which results are added.

    He et al., 2015, arXiv:1512.03385.
    """

    def enter(self, embedding: Float[Tensor, "batch time dim"]) -> Tensor:
        """The embeddings are the stream."""
        return embedding

    def read(self, streams: Tensor) -> Float[Tensor, "batch time dim"]:
        """The stream as it is."""
        return streams

    def write(self, streams: Tensor, y: Float[Tensor, "batch time dim"], *, keep: Tensor | None = None) -> Tensor:
        """Add."""
        return (streams if keep is None else keep) + y

    def exit(self, streams: Tensor) -> Float[Tensor, "batch time dim"]:
        """The stream as it is."""
        return streams
