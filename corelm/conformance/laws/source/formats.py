"""Properties of sources that take a format's name: known files read back exactly, those written out by hand."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.laws.source import known_dumps as source_known_dumps
from corelm.conformance.laws.source import known_files as source_known_files
from corelm.conformance.laws.source.known import Known
from corelm.errors import UserError
from corelm.kinds.records import Text
from corelm.kinds.source import SHOWN

KNOWN: Final[dict[str, Callable[[], Sequence[Known]]]] = {**source_known_files.KNOWN, **source_known_dumps.KNOWN}


def _format(part: PartUnderTest) -> str:
    return str(getattr(part.cls, "format", part.name))


@property_of(
    "source",
    statement="A part that takes the name of a format reads known files of it as the format says: contents, names, places "
    "of what is broken, and what a rule leaves out.",
    formula="records(file by hand) = records by hand; report = counts by hand; records(k) = records()[k:]",
    catches="a separator that is lost where two chunks meet, an encoding that is guessed though it was declared, an "
    "answer that goes to another question, a refusal that names the wrong line",
    tier="bit",
    examples=1,
    excuse=lambda part: (
        None if _format(part) in KNOWN else f"{_format(part)!r} is no name of a format that the kit has files of"
    ),
)
def format_of_its_name(part: PartUnderTest, draw: Draw) -> None:
    """All files that the kit has of it, from every position."""
    for number, known in enumerate(KNOWN[_format(part)]()):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "data"
            known.write(folder)
            draw.note("files", f"{number}: {', '.join(known.files)}")
            config = part.cls.Config(**known.given(part.cls.Config.model_fields, folder))
            if known.refused:
                _refused(part, config, known)
            else:
                _read(part, config, known)


def _read(part: PartUnderTest, config: Any, known: Known) -> None:
    source = part.cls(config)
    came = [(record.name, content(record)) for record in source.records()]
    for index, (found, expected) in enumerate(itertools.zip_longest(came, known.came)):
        assert found == expected, f"record {index}: {_short(found)} came, {_short(expected)} is in {[*known.files]}"
    assert source.report.left_out == dict(known.left_out), (
        f"left out are {source.report.left_out}, expected {dict(known.left_out)}"
    )
    _places(source.report, known)
    for start in range(1, len(came) + 1):
        later = [record.name for record in part.cls(config).records(start)]
        assert later == [name for name, _ in came[start:]], f"records({start}) are {later}"


def _places(report: Any, known: Known) -> None:
    """The first few of what was left out are named, each by its file, and told."""
    told = " ".join(report.sentences())
    for reason, count in report.left_out.items():
        shown = report.places[reason]
        assert len(shown) == min(count, SHOWN), f"{count} are left out as {reason}, places are {shown}"
        for place in shown:
            assert place.startswith(tuple(known.files)), f"{place!r} is the place of what is left out as {reason}"
        more = f" and {count - len(shown):,} more" if count > len(shown) else ""
        sentence = f"{reason}: {count:,} ({', '.join(shown)}{more})"
        assert sentence in told, f"{sentence!r} isn't told: {told}"


def _refused(part: PartUnderTest, config: Any, known: Known) -> None:
    came: list[tuple[str, Any]] = []
    try:
        for record in part.cls(config).records():
            came.append((record.name, content(record)))
    except UserError as error:
        lacking = [said for said in known.refused if said not in str(error)]
        assert not lacking, f"the refusal doesn't say {lacking}: {error}"
        assert came == list(known.came), f"before the refusal came {_short(came)}, expected {_short(known.came)}"
        return
    raise AssertionError(f"{[*known.files]}: {_short(came)} came of what is broken, expected {known.refused}")


def content(record: Any) -> Any:
    """What a record holds besides its name: a document's text, or the values of other records in their order."""
    if isinstance(record, Text):
        return record.text
    values = {each.name: getattr(record, each.name) for each in fields(record) if each.name != "name"}
    return tuple(_plain(value) for value in values.values())


def _plain(value: Any) -> Any:
    if not isinstance(value, tuple):
        return value
    return tuple((each.role, each.content) if hasattr(each, "role") else each for each in value)


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) < 400 else f"{shown[:200]} … {shown[-200:]}"
