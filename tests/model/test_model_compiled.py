"""A training step without state is one graph: nothing in it looks at the values of a tensor."""

import pytest
import torch
from model_helpers import model_of, tokens

CHUNKED = ["causal", "documents", {"use": "chunk", "size": 3}]
LONG = {"use": "rope", "scaling": {"use": "dynamic", "factor": 2.0, "original_context": 4}}


@pytest.fixture(autouse=True)
def fresh():
    dynamo = pytest.importorskip("torch._dynamo")
    if not dynamo.is_dynamo_supported():  # tracing alone needs no compiler of C++
        pytest.skip("torch can't trace on this machine")
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize(
    "options",
    [{}, {"position": "learned"}, {"position": ["alibi", "query-temperature"]}, {"position": LONG, "mask": CHUNKED}],
    ids=["rope", "learned", "alibi", "lengths-chunks"],
)
def test_a_training_step_is_one_graph(options, packed):
    model, ids = model_of(**options).train(), tokens(2, 9)
    documents = (torch.arange(8) > 4).long().expand(2, -1).contiguous() if packed else None

    def loss(ids):
        return -model.logprobs(ids[:, :-1], ids[:, 1:], documents=documents).mean()

    results = []
    for step in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        value = step(ids)
        value.backward()
        results.append([value.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    for plain, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, plain)


def test_a_compiled_lookup_beyond_the_learned_positions_still_fails():
    model, ids = model_of(position="learned"), tokens(1, 14)
    with pytest.raises((IndexError, RuntimeError), match="index|bounds"):
        torch.compile(model.hidden, fullgraph=True, backend="eager")(ids)
