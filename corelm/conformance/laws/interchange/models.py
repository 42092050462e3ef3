"""Properties of interchange formats on models as they are published: small ones of each make."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

from corelm.conformance.bench import close, initialise
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.interchange.published import GLU, PUBLISHED, TIED
from corelm.conformance.tiny import MODEL, Silent, refused, tiny
from corelm.errors import UserError
from corelm.kinds.parameters import Linear
from corelm.kinds.quantized_linear import QuantizedLinear
from corelm.kinds.quantizer import Codes, consecutive
from corelm.model.loading import from_imported

SAY_ALL: Final = frozenset({"hugging-face"})
"""Formats, by their names of the field, that have words for all of these makes."""


def name_of(part: PartUnderTest) -> str:
    """The name of the field that a part takes."""
    return str(getattr(part.cls, "formula", part.name))


def _renamed(section: Mapping[str, Any]) -> dict[str, Any]:
    """The same model, whose blocks have names of somebody's own."""
    written = json.dumps(section)
    for number, name in enumerate(section.get("blocks", {})):
        written = written.replace(f'"{name}"', f'"kind-{number}"')
    renamed: dict[str, Any] = json.loads(written)
    return renamed


@property_of(
    "interchange",
    statement="Of the makes of model that are published, those that it can say come back as they were: tensors to the bit, "
    "and the same logits. The format of Hugging Face can say all of them.",
    formula="refuses(m) = None ⇒ read(write(m)) = m, for each m that is published; hugging-face: refuses(m) = None",
    catches="joined maps that are cut elsewhere, a scaling that is lost, layers in another order, a table of words that is "
    "read the wrong way round, tensors that are found by the name that a recipe gives to a block",
    tier="bit",
    tolerance="tensors are equal; another order of sums may be chosen for logits",
    examples=2,
    needs=("round_trip",),
)
def published_models_come_back(part: PartUnderTest, draw: Draw) -> None:
    """Each of them through a folder, in one file or in several."""
    exchange = part.bench.subject(part, draw, compared=10**9).part
    said, loud, renamed = [], draw.choice("logits", [1.0, 30.0]), draw.choice("names of blocks", ["usual", "own"])
    for make, usual in PUBLISHED.items():
        changes = _renamed(usual) if renamed == "own" else usual
        model = tiny(draw.seed(), dtype=torch.float32, vocab=64, **changes)
        with torch.no_grad():
            next(iter(model.head.parameters()), model.embedding.table).mul_(loud)
        reason = exchange.refuses(model.section)
        if reason is not None:
            assert name_of(part) not in SAY_ALL, f"its name promises {make}, which it refuses: {reason}"
            continue
        said.append(make)
        with tempfile.TemporaryDirectory() as name:
            exchange.write(model, Path(name), watch := Silent())
            again = from_imported(exchange.read(Path(name))).eval()
        library = name_of(part) in SAY_ALL and importlib.util.find_spec("transformers")
        version = importlib.metadata.version("transformers") if library else ""
        assert any(version in note for note in watch.notes), f"{make}: transformers {version} is here, and not asked"
        mine, theirs = dict(model.module.named_parameters()), dict(again.module.named_parameters())
        assert mine.keys() == theirs.keys(), f"{make}: {sorted(mine.keys() ^ theirs.keys())[:3]} on one side only"
        wrong = [tensor for tensor in mine if not torch.equal(mine[tensor], theirs[tensor])]
        assert not wrong, f"{make}: {', '.join(wrong[:3])} came back with other bits"
        ids = draw.ids(2, 12, 64)
        close(again.logits(ids), model.logits(ids), f"logits of {make} before and after", 1e-5)
    draw.note("said", said)
    if not said:
        raise NotApplicable("it can say none of the makes that the kit knows")


@property_of(
    "interchange",
    statement="Folders of Hugging Face are read as older versions wrote them: a base beside the config's other fields, "
    "tables of angles among the tensors, nothing where a family has angles of its own; but no tensor that nobody knows.",
    formula="read(older spelling of m) = m; a stray tensor, one that is lost ⇒ UserError",
    catches="a default where a field has another name, angles of all families where a config is silent, weights of another "
    "model that are left unread",
    tier="bit",
    examples=1,
    excuse=lambda part: None if name_of(part) in SAY_ALL else "nothing is known of its older spellings",
    needs=("round_trip",),
)
def older_folders_are_read(part: PartUnderTest, draw: Draw) -> None:
    """A Llama of 2023, then one with a tensor too many; a gpt-oss that leaves its angles to the family."""
    exchange = part.bench.subject(part, draw, compared=0, shard=10**9).part
    _silent(exchange, draw)
    model = tiny(draw.seed(), dtype=torch.float32, vocab=64, **{**PUBLISHED["Llama 3"], "position": "rope"})
    with tempfile.TemporaryDirectory() as name:
        folder, table = Path(name), {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}
        exchange.write(model, folder, Silent())
        section = exchange.read(folder).model
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        older = {key: value for key, value in config.items() if key != "rope_parameters"}
        (folder / "config.json").write_text(json.dumps(older), encoding="utf-8")
        tensors = load_file(folder / "model.safetensors")
        save_file({**tensors, **table}, folder / "model.safetensors")
        again = exchange.read(folder)
        assert again.model == section, f"in older words it is read as {again.model}"
        assert set(again.tensors) == set(dict(model.module.named_parameters())), "other tensors than the model has"
        lost = draw.choice("lost", sorted(tensors))
        save_file({key: value for key, value in tensors.items() if key != lost}, folder / "model.safetensors")
        error = refused(lambda: exchange.read(folder))
        assert error is not None and lost in str(error), (
            f"without {lost} it is read, or refused for something else: {error}"
        )
        save_file({**tensors, "model.layers.0.surprise": torch.ones(2)}, folder / "model.safetensors")
        error = refused(lambda: exchange.read(folder))
        assert error is not None and "surprise" in str(error), f"a tensor that nobody knows is passed over: {error}"


def _silent(exchange: Any, draw: Draw) -> None:
    """A config without a word of angles means those that its family is published with; a scaling without its original
    context that of the model.
    """
    scaling: dict[str, Any] = {"use": "yarn", "factor": 4.0, "original_context": 16}
    _reread(
        exchange, draw, {**PUBLISHED["Llama 3"], "position": {"use": "rope", "scaling": scaling}}, _without_original
    )
    scaling = {"use": "yarn", "factor": 32.0, "original_context": 4096, "truncate": False}
    position = {"use": "rope", "theta": 150_000.0, "scaling": scaling}
    _reread(
        exchange,
        draw,
        {**PUBLISHED["gpt-oss"], "position": position},
        lambda said: {key: value for key, value in said.items() if not key.startswith("rope_")},
    )


def _without_original(said: dict[str, Any]) -> dict[str, Any]:
    """As before there was rope_parameters."""
    angles = dict(said.pop("rope_parameters"))
    del angles["original_max_position_embeddings"]
    base, kind = angles.pop("rope_theta"), angles.pop("rope_type")
    return {**said, "rope_theta": base, "rope_scaling": {"type": kind, **angles}}


def _reread(
    exchange: Any, draw: Draw, changes: Mapping[str, Any], older: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """What is written is read alike when its config is said in older words."""
    model = tiny(draw.seed(), dtype=torch.float32, vocab=64, **changes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        exchange.write(model, folder, Silent())
        section, config = exchange.read(folder).model, json.loads((folder / "config.json").read_text("utf-8"))
        (folder / "config.json").write_text(json.dumps(older(config)), encoding="utf-8")
        again = exchange.read(folder).model
    assert again == section, f"in older words {section} is read as {again}"


@property_of(
    "interchange",
    statement="A model with quantized and adapted maps is written as what it computes, or refused for them.",
    formula="logits(read(write(m))) = logits(m), or write(m) raises UserError(… adapted, quantized …)",
    catches="an addition that is left behind, codes that are written as if they were weights",
    tier="num",
    tolerance="Float32: products with weights that were merged and with both summands, some units in the last place.",
    examples=1,
    needs=("round_trip",),
)
def writes_what_it_computes(part: PartUnderTest, draw: Draw) -> None:
    """One map adapted, the next quantized."""
    from corelm.conformance.bugs.learning import LowRank

    exchange = part.bench.subject(part, draw, compared=0).part
    model = tiny(draw.seed(), dtype=torch.float32, vocab=64, **{**PUBLISHED["Llama 3"], "context": 64})
    if exchange.refuses(model.section) is not None:
        raise NotApplicable("it can't say the kit's model")
    maps = [name for name, one in model.module.named_modules() if isinstance(one, Linear) and "layers.0" in name]
    adapter = LowRank(LowRank.Config())
    wrapped = adapter.wrap(model.module.get_submodule(maps[0]), maps[0], draw.generator())
    initialise(wrapped, draw.seed(), generic=True)
    model.module.set_submodule(maps[0], wrapped)
    model.module.set_submodule(maps[1], _quantized(model.module.get_submodule(maps[1]), draw))
    ids = draw.ids(2, 8, 64)
    with tempfile.TemporaryDirectory() as name, torch.no_grad():
        expected = model.logits(ids)
        error = refused(lambda: exchange.write(model, Path(name), Silent()))
        if error is not None:
            why = str(error)
            assert "quantiz" in why or "adapt" in why, f"it is refused without a word of what was done to it: {why}"
        else:
            again = from_imported(exchange.read(Path(name))).eval()
            close(again.logits(ids), expected, "logits before and after", 1e-4)


def _quantized(linear: Linear, draw: Draw) -> QuantizedLinear:
    """A map of codes in the place of one of weights."""
    shape = (linear.outputs, linear.inputs)
    codes = torch.randint(16, shape, generator=draw.generator()).to(torch.uint8)
    scale = torch.rand(shape[0], 1, generator=draw.generator()) * 0.1 + 0.01
    middle = torch.full((shape[0], 1), 8, dtype=torch.uint8)
    groups = consecutive(linear.inputs, 0, torch.device("cpu"))
    return QuantizedLinear.from_codes(Codes(codes, scale, middle, groups, 4), linear.bias)


class _Stops(Silent):
    """A watch that has enough at the first word."""

    def note(self, message: str) -> None:
        """Stop."""
        raise UserError("stopped by the kit")


@property_of(
    "interchange",
    statement="An export that is broken off leaves nothing behind.",
    formula="write raises ⇒ folder = ∅",
    catches="half of a model that looks like a whole one",
    tier="io",
    examples=1,
    needs=("round_trip",),
)
def leaves_nothing_half_done(part: PartUnderTest, draw: Draw) -> None:
    """The watch raises as soon as it is told something."""
    exchange = part.bench.subject(part, draw).part
    for changes in ({"head": TIED, "feedforward": GLU}, *PUBLISHED.values()):
        model = tiny(draw.seed(), dtype=torch.float32, vocab=64, **{**MODEL, **changes})
        if exchange.refuses(model.section) is not None:
            continue
        with tempfile.TemporaryDirectory() as name:
            error = refused(lambda model=model, name=name: exchange.write(model, Path(name), _Stops()))
            assert error is not None, "what the watch raises is swallowed"
            left = sorted(path.name for path in Path(name).rglob("*"))
            assert not left, f"it was broken off, and left {', '.join(left)}"
        return
    raise NotApplicable("it can say none of the kit's models")
