"""Packers that are wrong in one way."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from corelm.conformance.planted import plant, reference
from corelm.kinds.batch import IGNORE, Batch, BatchStream
from corelm.kinds.packer import Packer, Tokens, TokenStore

ENDLESS = 4
"""Epochs of a stream without an end; nobody looks further."""


@reference
class Rows(Packer):
    """One document per row, cut into pieces that overlap in no token, padded on the right."""

    keeps_whole = True

    @classmethod
    def keeps_apart(cls, config: Any) -> bool:
        """A row is of one document."""
        return True

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
        """All batches, made at once."""
        rows: list[list[Any]] = []
        documents = [store[i] for i in range(len(store))]
        for epoch in range(epochs or ENDLESS):
            rows += self.rows(self.ordered(documents, seed, epoch), time, end_of_text)
        bundles = self.bundles(rows, batch)
        return _Made([self.rectangle(bundle, end_of_text) for bundle in bundles], rank, world, self)

    def share(self, bundles: list[Any], rank: int, world: int) -> list[Any]:
        """One process's batches."""
        return bundles[rank::world]

    def bundles(self, rows: list[list[Any]], batch: int) -> list[list[Any]]:
        """Rows that are one batch; groups are not torn."""
        found: list[list[Any]] = [[]]
        at = 0
        while at < len(rows):
            group = rows[at][4]
            end = at + 1
            while group >= 0 and end < len(rows) and rows[end][4] == group:
                end += 1
            if len(found[-1]) + end - at > batch and found[-1]:
                found.append([])
            found[-1] += rows[at:end]
            at = end
        return [bundle for bundle in found if bundle]

    def ordered(self, documents: list[Tokens], seed: int, epoch: int) -> list[Tokens]:
        """Units shuffled by seed and epoch."""
        units: list[list[Tokens]] = []
        for document in documents:
            if units and document.group >= 0 and units[-1][0].group == document.group:
                units[-1].append(document)
            else:
                units.append([document])
        self.shuffle(units, seed, epoch)
        return [document for unit in units for document in unit]

    def shuffle(self, units: list[list[Tokens]], seed: int, epoch: int) -> None:
        """In place."""
        random.Random(f"{seed} {epoch}").shuffle(units)

    def rows(self, documents: list[Tokens], time: int, end_of_text: int) -> list[list[Any]]:
        """(ids, targets, document, name, group, label) of every piece."""
        rows: list[list[Any]] = []
        for number, document in enumerate(documents):
            ids = document.ids.tolist()
            for start in range(0, len(ids), time):
                stop = min(len(ids), start + time)
                following = self.targets(document, start, stop)
                rows.append([ids[start:stop], following, number, document.name, document.group, document.label])
        return rows

    def targets(self, document: Tokens, start: int, stop: int) -> list[int]:
        """The next tokens where they are learnt."""
        following = [*document.ids[start + 1 : stop + 1].tolist()]
        learn = np.ones(len(document.ids), bool) if document.learn is None else document.learn
        kept = [t if learn[start + 1 + n] else IGNORE for n, t in enumerate(following)]
        return kept + [IGNORE] * (stop - start - len(kept))

    def rectangle(self, rows: list[list[Any]], end_of_text: int) -> Batch:
        """Pad."""
        width = max(len(row[0]) for row in rows)
        ids = torch.full((len(rows), width), end_of_text)
        targets, valid = torch.full((len(rows), width), IGNORE), torch.zeros(len(rows), width, dtype=torch.bool)
        for n, (own, following, *_) in enumerate(rows):
            ids[n, : len(own)], valid[n, : len(own)] = torch.tensor(own), True
            targets[n, : len(own)] = torch.tensor(following)
        labels = self.labels(rows)
        extra = {"labels": torch.tensor(labels)} if max(labels) >= 0 else {}
        return Batch(ids, targets, self.documents(rows, width), valid, extra, names=[row[3] for row in rows])

    def labels(self, rows: list[list[Any]]) -> list[int]:
        """Classes of the rows."""
        return [row[5] for row in rows]

    def documents(self, rows: list[list[Any]], width: int) -> torch.Tensor | None:
        """One per row."""
        return None

    def state(self, position: int) -> int:
        """What is saved."""
        return position

    def done(self, rounds: int, world: int) -> int:
        """Batches that all processes together have taken after some rounds."""
        return rounds * world


class _Made:
    """One process's share of a list of batches, from a position on."""

    def __init__(self, batches: list[Batch], rank: int, world: int, owner: Rows) -> None:
        self.batches, self.rank, self.world, self.owner = batches, rank, world, owner
        self.start = self.rounds = 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        mine = self.owner.share(self.batches[self.start :], self.rank, self.world)
        if self.rounds == len(mine):
            raise StopIteration
        self.rounds += 1
        found: Batch = mine[self.rounds - 1]
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.owner.state(self.start + self.owner.done(self.rounds, self.world))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start, self.rounds = state["position"], 0


@plant("batches_are_counted", "rows are taken for documents")
class CountsDocuments(Rows):
    """As if each document had a row of its own."""

    def batches(self, store: Sequence[Tokens] | TokenStore, **how: Any) -> int:
        """Documents by batch."""
        return -(-len(store) * int(how["epochs"]) // int(how["batch"])) + 1


@plant("says_whether_it_keeps_apart", "it keeps documents apart, and doesn't say so")
class ApartInSilence(Rows):
    """Stages that need it would refuse it."""

    @classmethod
    def keeps_apart(cls, config: Any) -> bool:
        return False


@plant("epochs_come_in_turn", "rows of all epochs are mixed")
class MixesEpochs(Rows):
    """A draw with replacement, nearly."""

    def bundles(self, rows: list[list[Any]], batch: int) -> list[list[Any]]:
        return super().bundles(random.Random(len(rows)).sample(rows, len(rows)), batch)


@plant("tokens_are_conserved", "the last piece of a document is dropped unless it is full")
class DropsTails(Rows):
    """Floor."""

    def rows(self, documents: list[Tokens], time: int, end_of_text: int) -> list[list[Any]]:
        rows = super().rows(documents, time, end_of_text)
        return [row for row in rows if len(row[0]) == time] or rows[:1]


@plant("tokens_are_conserved", "the last batch is made when the next one begins, and so never")
class LosesTheLastBlock(Rows):
    """What is still being filled at the end is forgotten."""

    def bundles(self, rows: list[list[Any]], batch: int) -> list[list[Any]]:
        found = super().bundles(rows, batch)
        return found[:-1] or found


@plant("targets_are_the_next_tokens", "the target at the end of a row is lost")
class LosesTheEdge(Rows):
    """Inside of a document."""

    def targets(self, document: Tokens, start: int, stop: int) -> list[int]:
        return [*super().targets(document, start, stop)[:-1], IGNORE]


@plant("learn_is_honoured", "the mask is that of the token, not of its target")
class MaskOfTheToken(Rows):
    """Shifted by one."""

    def targets(self, document: Tokens, start: int, stop: int) -> list[int]:
        plain = super().targets(Tokens(document.ids), start, stop)
        learn = np.ones(len(document.ids), bool) if document.learn is None else document.learn
        return [t if learn[start + n] else IGNORE for n, t in enumerate(plain)]


@plant("documents_are_told_apart", "two documents share a row and a number (nanoVLM#201)")
class OneNumber(Rows):
    """Packed, but not told apart."""

    def rows(self, documents: list[Tokens], time: int, end_of_text: int) -> list[list[Any]]:
        rows = super().rows(documents, time, end_of_text)
        for first, second in zip(rows[::2], rows[1::2], strict=False):
            if len(first[0]) + len(second[0]) <= time:
                first[0] += second[0]
                first[1] += second[1]
                second[0] = []
        return [row for row in rows if row[0]]


@plant("resumes_anywhere", "the position is one ahead of what was used (datasets#7538)")
class OneAhead(Rows):
    """Loses a batch."""

    def state(self, position: int) -> int:
        return position + 1


@plant("order_is_drawn", "all epochs in the same order")
class SameOrder(Rows):
    """Epoch is ignored."""

    def shuffle(self, units: list[list[Tokens]], seed: int, epoch: int) -> None:
        super().shuffle(units, seed, 0)


@plant("ranks_partition", "the documents that don't share out evenly are dropped (datasets#8568)")
class DropsTheRemainder(Rows):
    """Equal shares."""

    def share(self, bundles: list[Any], rank: int, world: int) -> list[Any]:
        return bundles[: len(bundles) // world * world][rank::world]


@plant("shapes_are_bounded", "rows of one token too many")
class OneTooWide(Rows):
    """time + 1."""

    def rows(self, documents: list[Tokens], time: int, end_of_text: int) -> list[list[Any]]:
        return super().rows(documents, time + 1, end_of_text)


@plant("groups_stay_together", "pairs are torn by the shuffle")
class TearsPairs(Rows):
    """Documents one by one."""

    def ordered(self, documents: list[Tokens], seed: int, epoch: int) -> list[Tokens]:
        units = [[document] for document in documents]
        self.shuffle(units, seed, epoch)
        return [document for unit in units for document in unit]
