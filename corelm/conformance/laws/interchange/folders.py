"""Properties of folders in other formats: what they say of a text's end, and what of them is held in memory."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import torch

from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.interchange.models import SAY_ALL, name_of
from corelm.conformance.laws.interchange.published import GLU, PUBLISHED, UNTIED
from corelm.conformance.tiny import Silent, tiny


@property_of(
    "interchange",
    statement="A folder of Hugging Face says which tokens end a text, in config and generation_config, and pads with one.",
    formula="end of text, end of turn ∈ eos_token_id; pad_token_id ∈ eos_token_id",
    catches="a model that goes on for ever in another library",
    tier="bit",
    examples=1,
    excuse=lambda part: None if name_of(part) in SAY_ALL else "nothing is known of how it says that",
    needs=("round_trip",),
)
def ends_are_said(part: PartUnderTest, draw: Draw) -> None:
    """A model with a tokenizer and a template; one that has neither says nothing."""
    exchange = part.bench.subject(part, draw, compared=0).part
    section = {**PUBLISHED["Llama 3"], "position": "rope"}
    for model in (
        tiny(draw.seed(), dtype=torch.float32, **section),
        tiny(0, dtype=torch.float32, vocab=64, **section),
    ):
        attached = model.vocab_size != 64
        wanted = {model.tokenizer.end_of_text, *model.template.stop(model.tokenizer)} if attached else set()
        with tempfile.TemporaryDirectory() as name:
            exchange.write(model, Path(name), Silent())
            for file in ("config.json", "generation_config.json"):
                said = json.loads((Path(name) / file).read_text(encoding="utf-8"))
                ends = said["eos_token_id"] or []
                assert set(ends if isinstance(ends, list) else [ends]) == wanted, f"{file}: texts end with {ends}"
                assert said["pad_token_id"] in (wanted or {None}), f"{file}: padded with {said['pad_token_id']}"


def _held(folder: Path) -> int | None:
    """Bytes of a folder's files that are in this process's memory; None where that can't be told."""
    maps = Path("/proc/self/smaps")
    if not maps.exists():
        return None
    found, inside = 0, False
    for line in maps.read_text(encoding="utf-8", errors="replace").splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = str(folder) in line
        elif inside and line.startswith("Rss:"):
            found += 1024 * int(line.split()[1])
    return found


@property_of(
    "interchange",
    statement="Reading holds the tensors of one file in memory at a time; files of several are named by their numbers.",
    formula="Σ memory of files ≤ 1½ · the largest; hugging-face: model-00001-of-0000n …",
    catches="files that stay mapped until all have been read: a model that has to fit into memory twice",
    tier="stat",
    tolerance="Beside the one file, the heads of the others, with what the system reads ahead.",
    examples=1,
    needs=("round_trip",),
)
def one_file_at_a_time(part: PartUnderTest, draw: Draw) -> None:
    """Two maps of two megabytes, a file each where the format has several."""
    exchange = part.bench.subject(part, draw, compared=0, shard=10**6).part
    shape: dict[str, Any] = {"feedforward": GLU, "head": UNTIED, "context": 16}
    model = tiny(draw.seed(), dtype=torch.float32, vocab=2**16, **shape)
    if exchange.refuses(model.section) is not None:
        raise NotApplicable("it can't say the kit's model")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        exchange.write(model, folder, Silent())
        tensors = exchange.read(folder).tensors
        for one in tensors:
            tensors[one].sum()
        held, files = _held(folder), sorted(folder.glob("*.safetensors"))
        largest = max(path.stat().st_size for path in folder.iterdir())
    if held is None or len(files) < 2:
        raise NotApplicable("it writes a single file, or nobody knows what is in memory here")
    assert held <= 1.5 * largest, f"of files of {largest:,} bytes at most {held:,} bytes are held when all were read"
    if name_of(part) in SAY_ALL:
        wanted = [f"model-{n:05}-of-{len(files):05}.safetensors" for n in range(1, len(files) + 1)]
        assert [path.name for path in files] == wanted, f"files are named {files[0].name} …"
