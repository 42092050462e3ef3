"""Properties of packers: which documents an epoch has, how they are cut, and what they are read from."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator

import numpy as np

from corelm.conformance.bench import same_bits
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.laws.packer.bench import END, epoch, fitting, ready, valid
from corelm.kinds.batch import Batch
from corelm.kinds.packer import Outline, Tokens, token_store


def _real(batches: list[Batch]) -> Iterator[list[int]]:
    """The tokens of each row, without padding and ends."""
    for batch in batches:
        for ids, real in zip(batch.ids, valid(batch), strict=True):
            yield [token for token in ids[real].tolist() if token != END]


@property_of(
    "packer",
    statement="Every epoch has every document once, however many there are.",
    formula="order(seed, epoch) is a permutation of 0 … n − 1, ∀ n",
    catches="an order drawn with replacement, or by a hash modulo the number of documents: some come twice, some never",
    tier="bit",
    examples=30,
)
def every_document_comes_once(part: PartUnderTest, draw: Draw) -> None:
    """Up to two hundred documents of one token, two epochs."""
    packer, inputs = ready(part, draw)
    count = draw.integer("documents", 1, 200)
    inputs["store"] = [Tokens(np.array([number + 1]), name=str(number)) for number in range(count)]
    found = Counter(token for row in _real(epoch(packer, inputs, epochs=2)) for token in row)
    other = {token - 1: times for token, times in found.items() if times != 2}
    missing = sorted(set(range(1, count + 1)) - set(found))
    assert not other and not missing, f"of {count} documents in two epochs, times: {other}; never: {missing}"


@property_of(
    "packer",
    statement="A packer says that it keeps documents whole if and only if one that fits, its end included, always comes "
    "in one row.",
    formula="keeps_whole ⇔ (|d| + 1 ≤ time ⇒ all tokens of d are in one row)",
    catches="a fit that counts without the end, a document that is cut to fill what room was left",
    tier="bit",
    examples=30,
)
def what_fits_stays_whole(part: PartUnderTest, draw: Draw) -> None:
    """Documents shorter and longer than a row; those that it may cut are not looked at."""
    packer, inputs = ready(part, draw)
    time = inputs["time"]
    if not part.cls.keeps_whole:
        # Rows that are filled to the end have to cut some of these.
        inputs["store"] = [Tokens(np.arange(100 * n + 1, 100 * n + time - 1), name=str(n)) for n in range(40)]
        rows = list(_real(epoch(packer, inputs)))
        whole = sum(len(row) == time - 2 for row in rows)
        assert whole < 40, "none of 40 documents was cut: then let it declare `keeps_whole`"
        return
    fitting(part, inputs)
    # One that fits to the token, and one that leaves room for it alone.
    inputs["store"] += [Tokens(np.arange(1000, 1000 + time - 1), name="full"), Tokens(np.array([2000]), name="one")]
    rows = list(_real(epoch(packer, inputs)))
    for document in inputs["store"]:
        if 0 < len(document.ids) < time:
            holding = [row for row in rows if set(row) & set(document.ids.tolist())]
            assert len(holding) == 1, (
                f"{document.name} of {len(document.ids)} tokens is in {len(holding)} rows of {time}"
            )


class _OnDisk:
    """What a store on disk can do, and nothing that a list can besides; its arrays are not to be written to."""

    def __init__(self, documents: list[Tokens]) -> None:
        self._known = token_store(documents)
        self.tokens = self._known.tokens

    def __len__(self) -> int:
        return len(self._known)

    def __getitem__(self, index: int) -> Tokens:
        if not isinstance(index, int):
            raise TypeError(f"documents are read one by one, not by {index!r}")
        if not 0 <= index < len(self):
            raise IndexError(index)
        return copy.deepcopy(self._known[index])

    def outline(self, indices: np.ndarray) -> Outline:
        found = [self._known[index] for index in indices.tolist()]
        columns: tuple[list[int], ...] = (
            [len(d.ids) for d in found],
            [int(d.ids[-1]) if len(d.ids) else -1 for d in found],
            [d.group for d in found],
            [d.label for d in found],
        )
        return Outline(*(np.array(column, dtype=np.int64) for column in columns))

    def read(
        self, documents: np.ndarray, starts: np.ndarray, stops: np.ndarray
    ) -> list[tuple[np.ndarray, np.ndarray | None]]:
        found = [(ids.astype(np.uint16), learn) for ids, learn in self._known.read(documents, starts, stops)]
        for ids, _ in found:
            ids.flags.writeable = False
        return found

    def names(self, indices: np.ndarray) -> list[str]:
        return self._known.names(indices)


@property_of(
    "packer",
    statement="Documents on disk give the batches that the same documents in memory do.",
    formula="stream(store on disk) = stream(list of its documents)",
    catches="slices and negative numbers that only a list understands, arithmetic in the small unsigned type of a file",
    tier="bit",
    examples=15,
)
def stores_are_read_alike(part: PartUnderTest, draw: Draw) -> None:
    """A store with the methods of the interface and no others; its tokens are unsigned, 16 bits."""
    packer, inputs = ready(part, draw)
    learn = np.array([True, draw.integer("learnt", 0, 1) > 0])
    inputs["store"] += [
        Tokens(np.zeros(0, dtype=np.int64), name="empty"),
        Tokens(np.array([65_535, 7]), learn, "last"),
    ]

    def plain() -> list[list[object]]:
        return [[b.ids, b.targets, b.documents, b.valid, b.names] for b in epoch(packer, inputs, epochs=2)]

    listed = plain()
    known, everything = token_store(inputs["store"]), np.arange(len(inputs["store"]))
    inputs["store"] = _OnDisk(inputs["store"])
    assert same_bits(inputs["store"].outline(everything), known.outline(everything)), "a list is outlined otherwise"
    assert same_bits(plain(), listed), "other batches than from a list"


class _Counting(_OnDisk):
    """Counts the tokens that it hands out."""

    handed = 0

    def __getitem__(self, index: int) -> Tokens:
        document = super().__getitem__(index)
        self.handed += len(document.ids)
        return document

    def read(
        self, documents: np.ndarray, starts: np.ndarray, stops: np.ndarray
    ) -> list[tuple[np.ndarray, np.ndarray | None]]:
        found = super().read(documents, starts, stops)
        self.handed += sum(len(ids) for ids, _ in found)
        return found


@property_of(
    "packer",
    statement="An epoch reads about as many tokens as it has: a long document isn't read anew for each of its rows.",
    formula="Σ tokens read ≤ 3 Σ |d|",
    catches="a store on disk that is read document by document, whole, for lengths or for every piece",
    tier="io",
    examples=6,
)
def reading_is_linear(part: PartUnderTest, draw: Draw) -> None:
    """A long document among short ones."""
    packer, inputs = ready(part, draw)
    inputs["store"].append(Tokens(np.arange(2_000, 2_000 + 40 * inputs["time"]), name="long"))
    store = inputs["store"] = _Counting(inputs["store"])
    epoch(packer, inputs)
    assert store.handed <= 3 * store.tokens, f"{store.handed} tokens read in an epoch of {store.tokens}"


@property_of(
    "packer",
    statement="Rows are mixed within windows of as many as the option shuffle says, whole batches of them, and nowhere "
    "else; where none are mixed, each document is read from its first token to its last.",
    formula="rows(shuffle = s) of a window = π(rows(shuffle = 1) of it), window = ⌈s / batch⌉ · batch rows",
    catches="mixing where none was asked for, a window that is larger than what is held in memory, none at all",
    tier="bit",
    examples=16,
    excuse=lambda part: None if "shuffle" in part.cls.Config.model_fields else "it has no option shuffle",
)
def mixing_keeps_to_its_window(part: PartUnderTest, draw: Draw) -> None:
    """One epoch, mixed and not."""
    subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    batch, time = inputs["batch"], inputs["time"]
    inputs["store"] += [Tokens(np.arange(start, start + 15 * time), name=str(start)) for start in (1_000, 2_000)]

    def rows(shuffle: int) -> list[list[int]]:
        config = subject.config.model_copy(update={"shuffle": shuffle})
        return list(_real(epoch(part.cls(config), inputs)))

    plain = rows(1)
    read = [token for row in plain for token in row]
    for document in inputs["store"]:
        ids = document.ids.tolist()
        at = read.index(ids[0]) if ids else 0
        assert read[at : at + len(ids)] == ids, f"{document.name} isn't in one piece, though no rows are mixed"
    wanted = draw.choice("shuffle", [4, 2, 5, 7, 1_000])
    mixed, window = rows(wanted), -(-wanted // batch) * batch
    for start in range(0, len(plain), window):
        here = slice(start, start + window)
        assert sorted(mixed[here]) == sorted(plain[here]), f"rows {start} and on come from outside of their window"
    assert mixed != plain or window == 1, "no rows are mixed"


@property_of(
    "packer",
    statement="Of a document that is too long, a part that truncates keeps one stretch that fills a row; shorter ones are "
    "kept whole.",
    formula="truncates ⇒ kept(d) = d[a : b], min(|d|, time) − 1 ≤ b − a ≤ time, all of d where |d| < time",
    catches="a cut at the wrong end of the wrong length, long documents that vanish, pieces that are sewn together",
    tier="bit",
    examples=20,
    excuse=lambda part: None if part.cls.truncates else "it truncates nothing",
)
def what_is_kept_is_one_stretch(part: PartUnderTest, draw: Draw) -> None:
    """Documents shorter and longer than a row."""
    packer, inputs = ready(part, draw)
    time = inputs["time"]
    for number, length in enumerate((time - 1, time, time + 1, draw.integer("length", time + 2, 3 * time))):
        start = 1_000 * (number + 1)
        inputs["store"].append(Tokens(np.arange(start, start + length), name=f"of {length}"))
    tokens = [token for row in _real(epoch(packer, inputs)) for token in row]
    for document in inputs["store"]:
        ids = document.ids.tolist()
        kept = [token for token in tokens if token in set(ids)]
        fewest = len(ids) if len(ids) < time else time - 1
        assert fewest <= len(kept) <= time, f"{document.name}: {len(kept)} of {len(ids)} tokens kept, rows of {time}"
        first = ids.index(kept[0]) if kept else 0
        assert kept == ids[first : first + len(kept)], f"{document.name}: what is kept, {kept}, is no stretch of it"
