import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
    assert not rule({"use": "window", "size": 4}).trivial(MaskFacts())


def test_a_view_of_causal_and_documents_is_plain_without_facts():
    rules = [rule("causal"), rule("documents")]
    assert MaskView(rules).plain
    assert MaskView(rules).window is None
    assert not MaskView([rule("documents")]).plain
    assert MaskView([rule({"use": "window", "size": 7}), rule({"use": "window", "size": 3})]).window == 3
    assert MaskView([rule({"use": "window", "size": 7})]).causal
