import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parts_helpers import positions_of

from corelm.kinds import MaskFacts, MaskView, Spec


def rule(value):
    return Spec.read("mask", value).build()


@settings(max_examples=50, deadline=None)
@given(
    total=st.integers(1, 9),
    size=st.integers(1, 6),
    first_query=st.integers(0, 8),
    first_key=st.integers(0, 8),
    documents=st.none() | st.lists(st.integers(0, 2), min_size=9, max_size=9).map(sorted),
)
def test_every_rule_is_its_definition_on_every_slice(total, size, first_query, first_key, documents):
    query = torch.arange(min(first_query, total - 1), total)
    key = torch.arange(min(first_key, total - 1), total)
    given_documents = None if documents is None else torch.tensor([documents[:total], [0] * total])
    facts = MaskFacts(documents=given_documents)
    laws = {
        "causal": lambda row, q, k: k <= q,
        "documents": lambda row, q, k: documents is None or bool(given_documents[row, q] == given_documents[row, k]),
        "window": lambda row, q, k: q - size < k <= q,
    }
    for name, law in laws.items():
        allowed = rule({"use": name, "size": size} if name == "window" else name).allows(query, key, facts)
        assert allowed.dtype == torch.bool
        for row in range(2):
            for i, q in enumerate(query.tolist()):
                for j, k in enumerate(key.tolist()):
                    assert bool(allowed[row % len(allowed), i, j]) == law(row, q, k), (name, row, q, k)


def test_rules_say_when_they_forbid_nothing():
    documents = MaskFacts(documents=torch.zeros(1, 4, dtype=torch.long))
    assert rule("causal").trivial(documents)
    assert rule("documents").trivial(MaskFacts())
    assert not rule("documents").trivial(documents)
    for name in ("window", "chunk"):
        mask = rule({"use": name, "size": 4})
        assert [mask.trivial(MaskFacts(total=total)) for total in (None, 4, 5)] == [False, True, False]


@settings(max_examples=50, deadline=None)
@given(
    size=st.integers(1, 5),
    past=st.integers(0, 5),
    pads=st.integers(0, 6),
    starts=st.none() | st.lists(st.booleans(), min_size=9, max_size=9),
)
def test_chunks_count_real_tokens_of_each_document(size, past, pads, starts):
    total = 9
    documents = None if starts is None else torch.tensor([starts]).long().cumsum(1)
    valid = (torch.arange(total) >= pads)[None]
    positions = positions_of(valid, documents, 1, total)
    facts = MaskFacts(documents, valid, positions, total)
    allowed = rule({"use": "chunk", "size": size}).allows(torch.arange(past, total), torch.arange(total), facts)
    for q in range(max(past, pads), total):
        for k in range(pads, total):
            same = documents is None or bool(documents[0, q] == documents[0, k])
            begin = pads if documents is None else max(pads, documents[0].tolist().index(int(documents[0, q])))
            law = same and k <= q and (q - begin) // size == (k - begin) // size
            assert bool(allowed[0, q - past, k]) == law, (q, k)


def test_chunks_are_those_of_transformers():
    masking = pytest.importorskip("transformers.masking_utils")
    pads = torch.tensor([0, 3])
    valid = torch.arange(11) >= pads[:, None]
    facts = MaskFacts(None, valid, positions_of(valid, None, 2, 11), 11)
    index = torch.arange(11)
    found = MaskView([rule("causal"), rule({"use": "chunk", "size": 4})], facts).dense(index, index)
    theirs = masking.chunked_causal_mask_function(4, pads)
    for row in range(2):
        for q in range(int(pads[row]), 11):
            for k in range(int(pads[row]), 11):
                assert bool(found[row, 0, q, k]) == bool(theirs(row, 0, torch.tensor(q), torch.tensor(k)))


def test_a_chunk_never_reaches_further_back_than_its_size_over_padding_inside():
    valid = torch.tensor([[True, False, False, False, True, True]])
    facts = MaskFacts(None, valid, positions_of(valid, None, 1, 6), 6)
    allowed = rule({"use": "chunk", "size": 3}).allows(torch.arange(6), torch.arange(6), facts)[0]
    assert allowed[4].tolist() == [False, False, True, True, True, False]


def test_a_mask_is_kept_for_layers_that_ask_with_the_same_indices():
    view, index = MaskView([rule("causal")]), torch.arange(4)
    assert view.dense(index, index) is view.dense(index, index)
    assert view.dense(index[2:], index) is not view.dense(index[2:], index)


def test_a_view_of_causal_and_documents_is_plain_without_facts():
    rules = [rule("causal"), rule("documents")]
    assert MaskView(rules).plain
    assert MaskView(rules).window is None
    assert not MaskView([rule("documents")]).plain
    assert MaskView([rule({"use": "window", "size": 7}), rule({"use": "window", "size": 3})]).window == 3
    assert MaskView([rule({"use": "window", "size": 7})]).causal
