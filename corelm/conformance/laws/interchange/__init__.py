"""Properties of interchange formats."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from corelm.conformance.bench import Bench, close
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.interchange import folders, models
from corelm.conformance.tiny import MODEL, Silent, refused, tiny
from corelm.model.loading import from_imported

MINIMUM = 3
"""So many of these properties must say something about every part of the kind, and hold."""

__all__ = ["folders", "models"]

SHAPES: tuple[dict[str, Any], ...] = (
    {"feedforward": {"use": "swiglu", "width": 12}, "head": {"use": "language-model", "tied": True}, "context": 16},
    {"feedforward": {"use": "swiglu", "width": 12}, "head": {"use": "language-model", "tied": False}, "layers": 2},
    {"feedforward": {"use": "mlp", "width": 12}, "position": "learned"},
    {"feedforward": {"use": "mlp", "activation": "sigmoid"}, "norm": "layernorm", "position": "alibi"},
)
"""Models that formats may or may not be able to say."""


class InterchangeBench(Bench):
    """Tiny models in float32; formats that cut tensors into several files now and then do."""

    kind = "interchange"
    hints = {"shard": (5 * 10**9, 3000)}


def _writable(part: PartUnderTest, draw: Draw) -> tuple[Any, Any]:
    """A part and a model that it doesn't refuse."""
    exchange = part.bench.subject(part, draw).part
    for shape in SHAPES:
        section = {**MODEL, **shape}
        model = tiny(draw.seed(), dtype=torch.float32, vocab=64, **shape)
        if exchange.refuses(model.section if hasattr(model, "section") else section) is None:
            return exchange, model
    raise NotApplicable("it can say none of the kit's models")


@property_of(
    "interchange",
    statement="Exported and imported again, every tensor has the same bits and the logits are equal.",
    formula="read(write(m)) = m in bits, logits too",
    catches="a transposed or permuted matrix, a tensor that is lost, a wrong eps",
    tier="bit",
    tolerance="tensors are equal; another order of sums may be chosen for logits",
    examples=1,
)
def round_trip(part: PartUnderTest, draw: Draw) -> None:
    """Through a folder."""
    exchange, model = _writable(part, draw)
    with tempfile.TemporaryDirectory() as name:
        folder, watch = Path(name), Silent()
        exchange.write(model, folder, watch)
        assert any(folder.iterdir()), "nothing was written"
        assert exchange.recognises(folder), "it doesn't recognise what it wrote"
        imported = exchange.read(folder)
        again = from_imported(imported)
    assert watch.notes, "it doesn't say which reader proved the export"
    for (name, mine), (other, theirs) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert name == other and torch.equal(mine, theirs), f"{name} came back as {other}, or with other bits"
    ids = draw.ids(2, 6, 64)
    close(again.eval().logits(ids), model.logits(ids), "logits before and after", 1e-6)


@property_of(
    "interchange",
    statement="A tensor is what was announced of it, and the same however often and in whatever order it is asked for.",
    formula="meta(t) = shape, type of t; t = t, in any order",
    catches="a cache of the wrong tensor, a shape before its layout was changed, a file that is read once only",
    tier="bit",
    examples=1,
)
def announces_what_it_reads(part: PartUnderTest, draw: Draw) -> None:
    """Forwards, backwards, announced."""
    exchange, model = _writable(part, draw)
    with tempfile.TemporaryDirectory() as name:
        exchange.write(model, Path(name), Silent())
        tensors = exchange.read(Path(name)).tensors
        names = list(tensors)
        assert len(names) == len(tensors) == len(set(names)), "names that are there twice, or not counted"
        there = {one: tensors[one] for one in names}
        for one in reversed(names):
            again = tensors[one]
            assert torch.equal(again, there[one]), f"{one} is another tensor the second time"
            announced = tensors.meta(one) if hasattr(tensors, "meta") else again
            assert (announced.shape, announced.dtype) == (again.shape, again.dtype), f"{one} isn't what was announced"


@property_of(
    "interchange",
    statement="A folder of something else is not recognised.",
    formula="recognises(folder) = False for ∅, notes, nothing",
    catches="a format that claims every folder",
    tier="io",
    examples=1,
)
def knows_its_own(part: PartUnderTest, draw: Draw) -> None:
    """Empty, and full of notes."""
    exchange = part.bench.subject(part, draw).part
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assert not exchange.recognises(folder), "it recognises an empty folder"
        (folder / "notes.txt").write_text("nothing")
        assert not exchange.recognises(folder), "it recognises a folder of notes"
        assert not exchange.recognises(folder / "missing"), "it recognises a folder that isn't there"


def _words(value: Any) -> set[str]:
    """Names of slots, options and parts in a section."""
    if isinstance(value, dict):
        return set(value) | {word for inner in value.values() for word in _words(inner)}
    if isinstance(value, list):
        return {word for inner in value for word in _words(inner)}
    return {value} if isinstance(value, str) else set()


@property_of(
    "interchange",
    statement="What can't be said is refused by name, in refuses and in write, and nothing is left behind.",
    formula="refuses(m) ≠ None ⇒ write(m) raises, folder = ∅",
    catches="a model that comes out as another one",
    tier="io",
    examples=1,
)
def refuses_by_name(part: PartUnderTest, draw: Draw) -> None:
    """The shapes that it refuses."""
    exchange = part.bench.subject(part, draw).part
    for shape in SHAPES:
        model = tiny(draw.seed(), dtype=torch.float32, vocab=64, **shape)
        reason = exchange.refuses(model.section)
        if reason is None:
            continue
        assert len(reason) > 10, f"refused with {reason!r}"
        assert any(word in reason for word in _words(model.section)), f"{reason!r} names nothing that the model has"
        with tempfile.TemporaryDirectory() as name:
            error = refused(lambda model=model, name=name: exchange.write(model, Path(name), Silent()))
            assert error is not None, f"refuses says {reason!r}, but write wrote it"
            assert not any(Path(name).iterdir()), "refused, but files are left behind"
        return
    raise NotApplicable("it can say all of the kit's models")


@property_of(
    "interchange",
    statement="What is broken off is refused when it is read, not filled up.",
    formula="read(half of the largest file) raises UserError, or one of its tensors does",
    catches="missing tensors that stay as they were drawn, a download that broke off",
    tier="io",
    examples=1,
)
def damage_is_refused(part: PartUnderTest, draw: Draw) -> None:
    """Cut the largest file in half."""
    exchange, model = _writable(part, draw)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        exchange.write(model, folder, Silent())
        largest = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
        content = largest.read_bytes()
        largest.write_bytes(content[: len(content) // 2])

        def read_all() -> None:
            tensors = exchange.read(folder).tensors
            for one in tensors:
                tensors[one].sum()

        error = refused(read_all)
        assert error is not None, f"{largest.name} is half as long as it was, and was read without a word"


@property_of(
    "interchange",
    statement="What it writes is plain data, the same bytes each time: no pickle, no time, no path.",
    formula="write(m) = write(m) in bytes; no file runs code when it is opened",
    catches="torch.save, a date in a header, the order of a set",
    tier="bit",
    examples=1,
)
def writes_plain_data(part: PartUnderTest, draw: Draw) -> None:
    """Twice, into folders of other names."""
    exchange, model = _writable(part, draw)
    found = []
    with tempfile.TemporaryDirectory() as name:
        for place in ("first", "second"):
            folder = Path(name) / place
            folder.mkdir()
            exchange.write(model, folder, Silent())
            found.append({str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    assert set(found[0]) == set(found[1]), f"other files the second time: {sorted(set(found[0]) ^ set(found[1]))}"
    for file, content in found[0].items():
        pickled = content[:1] == b"\x80" and content[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
        assert not pickled and content[:2] != b"PK", f"{file} is a pickle, or an archive that may hold one"
        assert content == found[1][file], f"{file} is another one the second time"
