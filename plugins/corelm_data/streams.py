"""What the streams of packers share: documents and their ends, ranks, and a position of a few numbers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Bool, Int

from corelm.errors import UserError
from corelm.kinds import IGNORE, Batch, BatchStream, Packer, Tokens, TokenStore, token_store


@dataclass(frozen=True)
class Ended:
    """A document and the end-of-text token after it, unless it ends with one or none is wanted.

    Shape: ``tokens.ids`` is ``(tokens,)``; the length counts the token that is added, which is never copied in.
    """

    tokens: Tokens
    end_of_text: int | None

    @classmethod
    def of(cls, tokens: Tokens, end_of_text: int) -> Ended:
        """A document with its end; a document of no tokens has none."""
        needless = len(tokens.ids) == 0 or int(tokens.ids[-1]) == end_of_text
        return cls(tokens, None if needless else end_of_text)

    def __len__(self) -> int:
        return len(self.tokens.ids) + (self.end_of_text is not None)

    def ids(self, start: int, stop: int) -> Int[np.ndarray, " tokens"]:
        """Tokens ``start … stop − 1``."""
        ids = np.asarray(self.tokens.ids[start:stop], dtype=np.int64)
        if self.end_of_text is not None and start <= len(self.tokens.ids) < stop:
            ids = np.append(ids, self.end_of_text)
        return ids

    def targets(self, start: int, stop: int) -> Int[np.ndarray, " tokens"]:
        """For each of the tokens ``start … stop − 1`` the next one of the document, or IGNORE."""
        targets = np.full(stop - start, IGNORE, dtype=np.int64)
        following = self.ids(start + 1, min(stop + 1, len(self)))
        targets[: len(following)] = np.where(self._learn(start + 1, start + 1 + len(following)), following, IGNORE)
        return targets

    def _learn(self, start: int, stop: int) -> Bool[np.ndarray, " tokens"]:
        marks = self.tokens.learn
        if marks is None:
            return np.ones(stop - start, dtype=bool)
        # The added end is learnt only where everything is: elsewhere the document says what ends an answer.
        known = np.asarray(marks[start:stop], dtype=bool)
        return np.append(known, np.zeros(stop - start - len(known), dtype=bool))


def joined(names: Sequence[str], count: int) -> str:
    """A row of ``count`` documents, the first three of which have these names."""
    told = ", ".join(dict.fromkeys(names))
    return f"{told} and {count - 3} more" if count > 3 else told


class RankedStream:
    """A stream of batches of which this one yields every ``world``-th, from the ``rank``-th on.

    The position is kept at the border of rounds of ``world`` batches, so it is the same number on every rank, and a
    stream of another ``world`` can go on from it.

    Raises:
        UserError: there are no tokens at all.
    """

    elastic: ClassVar[bool] = True

    def __init__(
        self,
        config: Any,
        store: Sequence[Tokens] | TokenStore,
        *,
        batch: int,
        time: int,
        seed: int,
        end_of_text: int,
        epochs: int | None,
        rank: int,
        world: int,
    ) -> None:
        if not 0 <= rank < world or min(batch, time) < 1 or (epochs is not None and epochs < 0):
            raise ValueError(f"rank {rank} of {world}, batch {batch}, time {time}, epochs {epochs}")
        self.store = token_store(store)
        self.tokens = self.store.tokens
        if self.tokens == 0:
            raise UserError(
                f"there is nothing to learn from: {len(store)} documents without a token",
                remedy="Check the source and its cleaners.",
                code="no-documents",
            )
        self.config, self.batch, self.time, self.end_of_text = config, batch, time, end_of_text
        self.seed, self.epochs, self.rank, self.world = seed, epochs, rank, world

    @abstractmethod
    def _advance(self, build: bool) -> Batch | bool | None:
        """Go past one batch; the batch if ``build``, else True; None at the end."""

    @abstractmethod
    def _position(self) -> dict[str, int]:
        """Where the stream is."""

    @abstractmethod
    def _go_to(self, position: dict[str, int]) -> None:
        """Be there."""

    def __iter__(self) -> Self:
        """Go on from the current position."""
        return self

    def __next__(self) -> Batch:
        """The next batch of this rank."""
        mine: Batch | None = None
        for member in range(self.world):
            made = self._advance(member == self.rank)
            if made is None:
                break
            if isinstance(made, Batch):
                mine = made
        if mine is None:
            raise StopIteration
        return mine

    def count(self) -> int:
        """Go to the end; how many batches all ranks together had left."""
        count = 0
        while self._advance(False) is not None:
            count += 1
        return count

    def state_dict(self) -> dict[str, Any]:
        """The position, and what it is a position in."""
        return {**self._position(), "documents": len(self.store), "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a position.

        Raises:
            UserError: it is a position in other data.
        """
        if (state["documents"], state["seed"]) != (len(self.store), self.seed):
            raise UserError(
                f"the saved position is one among {state['documents']} documents with seed {state['seed']}; "
                f"here are {len(self.store)} with seed {self.seed}",
                remedy="Start the stage anew, or give it the data and the seed that it had.",
                code="position-in-other-data",
            )
        self._go_to({name: int(value) for name, value in state.items() if name not in ("documents", "seed")})


class RankedPacker(Packer):
    """Base of packers whose streams are ranked; what one refuses stands in its own description."""

    @classmethod
    @abstractmethod
    def _stream_class(cls) -> type[RankedStream]:
        """The class of its streams; a method, since a part stands before its stream in the module."""

    def stream(
        self,
        store: Sequence[Tokens] | TokenStore,
        *,
        batch: int,
        time: int,
        seed: int,
        end_of_text: int,
        epochs: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> BatchStream:
        """Batches of at most ``batch`` rows of at most ``time`` tokens.

        Raises:
            UserError: there are no tokens at all, or documents that the packer refuses.
        """
        return self._stream_class()(
            self.config,
            store,
            batch=batch,
            time=time,
            seed=seed,
            end_of_text=end_of_text,
            epochs=epochs,
            rank=rank,
            world=world,
        )
