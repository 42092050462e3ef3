"""Each family against the reference library, on tiny models with random weights."""

from __future__ import annotations

import copy
import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

transformers = pytest.importorskip("transformers")

from architectures import (
    CASES,
    LENGTH,
    REFERENCES,
    case_config,
    case_model,
    drawn_configs,
    family_of,
    reference_model,
)
from corelm_interchange.family import families
from corelm_interchange.hugging_face import HuggingFace
from corelm_interchange.proof import same_tensors
from corelm_interchange.weights import Files

from corelm.conformance.tiny import Silent
from corelm.model.loading import from_imported

LOGITS, GRADIENTS = 1e-4, 1e-3
PART = HuggingFace(HuggingFace.Config(compared=0))
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def read(model):
    """The model as ours, and the tensors as the reference writes them."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        imported = PART.read(Path(folder))
        files = Files(Path(folder))
        assert imported.notes == ["the folder has no tokenizer"]
        return from_imported(imported), {name: files.tensor(name) for name in files}


@cache
def case_read(case):
    return read(case_model(case))


def ours_of(case):
    return case_read(case)[0]


def tokens(model, rows=2, time=LENGTH, seed=7):
    return torch.randint(0, model.config.vocab_size, (rows, time), generator=torch.Generator().manual_seed(seed))


def stateless(ours):
    """Tokens up to which a call and several give the same, by the contract of position schemes."""
    limits = [scheme.constant_up_to for scheme in ours.positions.values() if scheme.constant_up_to is not None]
    return min([LENGTH, *limits])


@torch.no_grad()
def expected(model, ids):
    # A copy: dynamic frequencies in the reference remember the longest text that they have seen.
    return copy.deepcopy(model)(ids, use_cache=False).logits.float()


def distance(ours, reference):
    """Largest difference in parts of the reference's spread."""
    return float((ours - reference).abs().max() / (reference.max() - reference.min()))


def within(found, bound, record_property):
    record_property("difference", found)
    assert found <= bound


@pytest.mark.parametrize("case", CASES)
def test_import(case, record_property):
    model = case_model(case)
    ids = tokens(model)
    within(distance(ours_of(case).logits(ids), expected(model, ids)), LOGITS, record_property)


@pytest.mark.parametrize("case", CASES)
def test_cached(case, record_property):
    model, ours = case_model(case), ours_of(case)
    ids = tokens(model, time=stateless(ours))
    within(distance(ours.logits(ids, cached=True), expected(model, ids)), LOGITS, record_property)


@pytest.mark.parametrize("case", CASES)
def test_greedy(case, record_property):
    model, ours = case_model(case), ours_of(case)
    length = stateless(ours)
    start = length // 3
    ids = tokens(model, rows=3, time=start, seed=3)
    made = torch.cat([ids, ours.generate_ids(ids, max_new_tokens=length - start)], 1)
    logits = expected(model, made)[:, start - 1 : -1]
    likeliest = logits.max(-1)
    chosen = logits.gather(-1, made[:, start:, None])[..., 0]
    ties = made[:, start:] != likeliest.indices
    # After a near tie the texts go on from different tokens; the reference then judges our text.
    gap = (likeliest.values - chosen)[ties] / (logits.max() - logits.min())
    record_property("ties", int(ties.sum()))
    within(float(gap.max()) if ties.any() else 0.0, LOGITS, record_property)


@pytest.mark.parametrize(
    "case", [case for case in CASES if REFERENCES[case.partition("/")[0]].pads(case_config(case))]
)
def test_padding(case, record_property):
    model, ours, pads = case_model(case), ours_of(case), 5
    ids = tokens(model, time=stateless(ours) - pads)
    reference = expected(model, ids)
    padded = torch.cat([torch.zeros(len(ids), pads, dtype=torch.long), ids], 1)
    mask = torch.cat([torch.zeros(len(ids), pads, dtype=torch.long), torch.ones_like(ids)], 1)
    with torch.no_grad():
        theirs = model(padded, attention_mask=mask, use_cache=False).logits[:, pads:].float()
    assert distance(theirs, reference) <= LOGITS, "the reference is not neutral to padding itself"
    within(distance(ours.logits(padded, mask)[:, pads:], reference), LOGITS, record_property)


@pytest.mark.parametrize("case", CASES)
def test_export(case, tmp_path, record_property):
    model, (ours, tensors) = case_model(case), case_read(case)
    PART.write(ours, tmp_path, Silent())
    files = Files(tmp_path)
    assert same_tensors(tensors, {name: files.tensor(name) for name in files}) is None
    implementation = REFERENCES[case.partition("/")[0]].attention(case_config(case))
    again = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, attn_implementation=implementation
    )
    ids = tokens(model)
    within(distance(expected(again.eval(), ids), expected(model, ids)), LOGITS, record_property)


@pytest.mark.parametrize("case", CASES)
def test_gradients(case, record_property):
    model, ours = copy.deepcopy(case_model(case)), copy.deepcopy(ours_of(case))
    ids = tokens(model)
    logits = model(ids[:, :-1], use_cache=False).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    # Written like weights and imported, the reference's gradients have our names and layouts.
    reference = {name: gradient.detach() for name, gradient in read(model)[0].named_parameters()}
    (-ours.logprobs(ids[:, :-1], ids[:, 1:]).mean()).backward()
    largest = max(float(gradient.abs().max()) for gradient in reference.values())
    worst = 0.0
    for name, parameter in ours.named_parameters():
        if not parameter.requires_grad:
            continue
        # The gradient of a key's bias is rounding alone: softmax doesn't see it.
        scale = max(float(reference[name].abs().max()), 1e-3 * largest)
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        worst = max(worst, float((found - reference[name]).abs().max()) / scale)
    within(worst, GRADIENTS, record_property)


def any_config(name, draw_from):
    """One drawn config through import, cache and export."""
    family = families()[name]
    config = draw_from.draw(drawn_configs(family))
    assume(family.refused(family.read_config(config)[0]) is None)
    model = reference_model(name, config)
    ours, tensors = read(model)
    ids = tokens(model)
    assert distance(ours.logits(ids), expected(model, ids)) <= LOGITS
    short = ids[:, : stateless(ours)]
    assert distance(ours.logits(short, cached=True), expected(model, short)) <= LOGITS
    with tempfile.TemporaryDirectory() as folder:
        PART.write(ours, Path(folder), Silent())
        files = Files(Path(folder))
        assert same_tensors(tensors, {one: files.tensor(one) for one in files}) is None


@pytest.mark.parametrize("name", REFERENCES)
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_drawn_configs(name, data):
    any_config(name, data)


@pytest.mark.heavy
@pytest.mark.parametrize("name", REFERENCES)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_many_drawn_configs(name, data):
    any_config(name, data)


def test_every_family_is_tested():
    assert set(REFERENCES) == set(families())
    assert {case.partition("/")[0] for case in CASES} == set(families())
    assert all(family_of(case).file.architecture for case in CASES)
