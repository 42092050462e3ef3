"""Stores of documents that say where each token is from, packers built in one call, and what is in their batches."""

import itertools

import numpy as np
import torch
from corelm_data.best_fit import BestFit
from corelm_data.blocks import Blocks
from corelm_data.padded import Padded
from hypothesis import assume, settings
from hypothesis import strategies as st

from corelm.kinds import IGNORE, Tokens

END = 10_000
many = settings(max_examples=60, deadline=None)


@st.composite
def stores(draw, *, groups=False, labels=False, smallest=1):
    """Documents in which no token occurs twice (but the end), so that each says where it is from."""
    fresh = itertools.count(1)
    store = []
    shared = draw(st.booleans())
    for number in range(draw(st.integers(smallest, 12))):
        length = draw(st.sampled_from([0, 1, 2, 5, 20]))
        members = draw(st.sampled_from([1, 2, 3])) if groups else 1
        for _ in range(members):
            size = max(1, length) if groups and members > 1 else length
            ids = np.array(list(itertools.islice(fresh, size)), dtype=np.uint16)
            if size and draw(st.sampled_from([False, False, True])):
                ids[-1] = END
            learn = draw(st.sampled_from([None, "some"])) if shared else None
            marks = (
                None if learn is None else np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), bool)
            )
            label = draw(st.integers(0, 3)) if labels else -1
            store.append(Tokens(ids, marks, f"doc{len(store)}", number if members > 1 else -1, label))
    assume(any(len(document.ids) for document in store))
    return store


shapes = st.fixed_dictionaries(
    {"batch": st.integers(1, 4), "time": st.integers(2, 9), "seed": st.integers(-3, 10**6)}
)


def blocks(store, shuffle=1, **options):
    return Blocks(Blocks.Config(shuffle=shuffle)).stream(store, end_of_text=END, **options)


def fitting(store, window=3, **options):
    return BestFit(BestFit.Config(window=window)).stream(store, end_of_text=END, **options)


def padded(store, best_fit=False, cut="right", **options):
    return Padded(Padded.Config(best_fit=best_fit, cut=cut)).stream(store, end_of_text=END, **options)


def ended(document, *, always=False):
    """A document with the end that its packer puts after it, and which of its tokens are learnt."""
    ids = [int(token) for token in document.ids]
    learn = [True] * len(ids) if document.learn is None else [bool(mark) for mark in document.learn]
    if ids and ids[-1] != END and (always or (document.learn is None and document.label < 0)):
        ids.append(END)
        learn.append(document.learn is None)
    return ids, learn


def rows(batches):
    """Each row's real tokens, targets and documents."""
    for batch in batches:
        for row in range(len(batch.ids)):
            real = torch.ones_like(batch.ids[row], dtype=torch.bool) if batch.valid is None else batch.valid[row]
            assert (batch.targets[row][~real] == IGNORE).all()
            numbers = torch.zeros_like(batch.ids) if batch.documents is None else batch.documents
            assert real.sum() > 0
            assert not (real[1:] & ~real[:-1]).any(), "padding is not on the right"
            yield batch.ids[row][real].tolist(), batch.targets[row][real].tolist(), numbers[row][real].tolist()


def same(left, right):
    def plain(batch):
        tensors = [batch.ids, batch.targets, batch.documents, batch.valid, *batch.extra.values()]
        return [None if tensor is None else tensor.tolist() for tensor in tensors], batch.names

    return [plain(batch) for batch in left] == [plain(batch) for batch in right]
