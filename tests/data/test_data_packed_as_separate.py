"""What a packer puts side by side, a model reads as if each document stood alone."""

import itertools

import numpy as np
import pytest
import torch
from corelm_data.best_fit import BestFit
from corelm_data.blocks import Blocks
from corelm_data.padded import Padded

from corelm.kinds import IGNORE, Spec, Tokens
from corelm.model.assemble import assemble, initialise
from corelm.model.config import ModelConfig

VOCABULARY, END = 19, 18
PACKERS = {
    "blocks": Blocks(Blocks.Config(shuffle=3)),
    "best-fit": BestFit(BestFit.Config(window=4)),
    "padded": Padded(Padded.Config()),
    "padded-filled": Padded(Padded.Config(best_fit=True)),
}


@pytest.fixture(scope="module", params=["rope", "learned", "alibi"])
def model(request):
    config = ModelConfig.model_validate(
        {
            "dim": 16,
            "layers": 2,
            "context": 16,
            "position": request.param,
            "attention": {"use": "gqa", "heads": 2},
            "feedforward": {"use": "swiglu", "width": 24},
        }
    )
    made = assemble(config, VOCABULARY, dtype=torch.float64)
    initialise(made, 0)
    return made.eval()


@pytest.fixture(scope="module")
def store():
    draw = np.random.default_rng(0)
    lengths = draw.choice([1, 2, 3, 5, 8, 13, 15, 16, 17, 40], 40)
    return [Tokens(draw.integers(0, END, length), name=str(number)) for number, length in enumerate(lengths)]


@pytest.mark.parametrize("name", PACKERS)
@torch.no_grad()
def test_logits_and_loss_are_those_of_each_stretch_of_a_document_alone(name, model, store):
    stream = PACKERS[name].stream(store, batch=3, time=16, seed=1, end_of_text=END, epochs=1)
    objective = Spec.read("objective", "next-token").build()
    packed = alone = 0.0
    for batch in stream:
        together = model.head(model.hidden(batch.ids, valid=batch.valid, documents=batch.documents))
        packed += float(objective.evaluate(model, batch).total)
        for row, ids in enumerate(batch.ids):
            real = torch.ones(len(ids), dtype=torch.bool) if batch.valid is None else batch.valid[row]
            numbers = torch.zeros_like(ids) if batch.documents is None else batch.documents[row]
            columns = range(int(real.sum()))
            for _, run in itertools.groupby(columns, key=lambda column: int(numbers[column])):
                here = list(run)
                logits = model.head(model.hidden(ids[None, here]))[0]
                assert torch.allclose(together[row, here], logits, atol=1e-10, rtol=0)
                targets = batch.targets[row, here]
                alone += float(
                    torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")
                )
    assert packed == pytest.approx(alone, rel=1e-9)


@torch.no_grad()
def test_rows_whose_documents_are_not_told_apart_are_read_otherwise(model, store):
    """That the test above can fail."""
    batch = next(PACKERS["best-fit"].stream(store, batch=3, time=16, seed=1, end_of_text=END, epochs=1))
    told = model.hidden(batch.ids, valid=batch.valid, documents=batch.documents)
    untold = model.hidden(batch.ids, valid=batch.valid)
    assert not torch.allclose(told, untold, atol=1e-3)
