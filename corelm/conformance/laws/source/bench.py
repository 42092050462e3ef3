"""How sources are built for their properties: on data that they say themselves how to write."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, PartUnderTest
from corelm.conformance.texts import CORPUS

FIRST = 12
"""Records looked at; sources may be long."""

DRAWN = ("broken",)
"""Options that are drawn beside those of an example; the others may change what its data are."""


@cache
def files() -> dict[str, tuple[Any, ...]]:
    """Small files of each format that sources read from this machine, by the option that names them."""
    places = _usual(Path(tempfile.mkdtemp(prefix="corelm-kit-")), CORPUS)
    part = {"source": {"use": "text-files", "paths": places["paths"]}}
    return {"parts": ({"one": part},), **{name: (value,) for name, value in places.items()}}


def _usual(folder: Path, texts: Sequence[str]) -> dict[str, Any]:
    """The same texts as rows of JSON and as a folder of plain files."""
    rows = [json.dumps({"text": text, "label": number % 2}, ensure_ascii=False) for number, text in enumerate(texts)]
    (folder / "rows.jsonl").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    (folder / "texts").mkdir()
    for number, content in enumerate(texts):
        (folder / "texts" / f"{number:03}.txt").write_bytes(content.encode())
    return {"path": str(folder / "rows.jsonl"), "paths": [str(folder / "texts")], "files": str(folder / "rows.jsonl")}


def written(part: PartUnderTest, folder: Path, texts: Sequence[str] = CORPUS) -> dict[str, Any] | None:
    """Write texts as data of a source's kind; the options that read them, or None where it reads nothing of one's own."""
    fields = part.cls.Config.model_fields
    options = part.cls.example(folder, texts)
    if options is None:
        usual = {name: value for name, value in _usual(folder, texts).items() if name in fields}
        if "files" in usual:
            usual["path"] = None
        if not usual:
            return None
        options = usual
    else:
        defaults = {name: info.get_default() for name, info in fields.items() if not info.is_required()}
        options = {name: value for name, value in defaults.items() if name not in DRAWN} | options
    return {**options, "yields": "text"} if "yields" in fields else options


@cache
def standing(cls: Any) -> dict[str, Any] | None:
    """The same for the kit's corpus, written once for each part."""
    folder = Path(tempfile.mkdtemp(prefix="corelm-kit-"))
    return written(PartUnderTest("source", cls.__name__, given=cls), folder)


class SourceBench(Bench):
    """Sources that read files are given some."""

    kind = "source"
    pins = {"limit_bytes": None, "columns": {}, "split": "train", "revision": None, "name": None}

    def __init__(self) -> None:
        self.hints = files()

    def subject(self, part: PartUnderTest, draw: Draw, **pins: Any) -> Subject:
        """Point the source to the kit's data, unless it is told where its data are."""
        return super().subject(part, draw, **{**(standing(cast(Any, part.cls)) or {}), **pins})


def no_files(part: PartUnderTest) -> str | None:
    """Why properties of data of one's own say nothing about a source."""
    return "it reads no data of one's own" if standing(cast(Any, part.cls)) is None else None


def reading(part: PartUnderTest, draw: Draw, folder: Path, texts: Sequence[str] = CORPUS, **pins: Any) -> Any:
    """A source of texts that are put into an empty folder."""
    folder.mkdir()
    known = {name: value for name, value in pins.items() if name in part.cls.Config.model_fields}
    return part.bench.subject(part, draw, **{**(written(part, folder, texts) or {}), **known}).part


def first_records(source: Any, start: int = 0) -> list[Any]:
    """Some records of a source."""
    return list(itertools.islice(source.records(start), FIRST))


def last_file(folder: Path) -> Path:
    """The file that is read last, if files are read in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())[-1]


def marked(count: int, length: int = 8) -> list[str]:
    """Texts that begin with a word of their own."""
    return [f"number{index:04}end " + "word " * (length // 5) for index in range(count)]


def marks(records: Sequence[Any]) -> list[int | None]:
    """Numbers of the texts that records are made of; None: of none."""
    return [_mark(record) for record in records]


def _mark(record: Any) -> int | None:
    _, found, rest = record.text.partition("number")
    return int(rest[:4]) if found and rest[4:7] == "end" else None


def counts(report: Any) -> Mapping[str, int]:
    """How many were left out, by reason, parts included."""
    found = dict(report.left_out)
    for part in report.parts.values():
        for reason, count in counts(part).items():
            found[reason] = found.get(reason, 0) + count
    return found


def places(report: Any) -> list[str]:
    """Where they are."""
    own = [place for shown in report.places.values() for place in shown]
    return own + [place for part in report.parts.values() for place in places(part)]
