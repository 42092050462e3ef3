"""Properties of sources of one's own data, which a source writes itself as an example of its format."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.source.bench import (
    counts,
    first_records,
    last_file,
    marked,
    marks,
    no_files,
    places,
    reading,
)
from corelm.conformance.texts import CORPUS
from corelm.errors import UserError

LONG, LETTERS = 32, 2**20
"""Records of a long file, and how many letters each of them has."""

LONGEST, MANY = 2**16, 2**23
"""Most letters of a record, and how many one has that is too long."""

HALF = b'{"text": "\xe6\x97'
"""Half of a character in half of a row."""

SHARED = 60
"""Records of a mixture."""


@property_of(
    "source",
    statement="All that was written comes, in order, once: also the last record, with or without a line break after it.",
    formula="records(write(t_1 … t_n)) = t_1 … t_n",
    catches="a last line without a line break that is lost, a second file that is never opened, a batch that is cut off",
    tier="bit",
    examples=2,
    excuse=no_files,
)
def everything_comes(part: PartUnderTest, draw: Draw) -> None:
    """Texts with a word of their own."""
    count = draw.integer("records", 5, 9)
    with tempfile.TemporaryDirectory() as name:
        found = marks(list(reading(part, draw, Path(name) / "data", marked(count)).records()))
    assert found == list(range(count)), f"of the texts 0 … {count - 1} came {found}"


@property_of(
    "source",
    statement="The fingerprint changes when the data do: a letter, the order of records, one record more.",
    formula="data ≠ data′ ⇒ fingerprint ≠ fingerprint′",
    catches="a digest of names and sizes alone, so that a corrected file is taken for the old one",
    tier="bit",
    examples=2,
    excuse=no_files,
)
def fingerprint_follows_the_data(part: PartUnderTest, draw: Draw) -> None:
    """Another letter, same length; two records swapped; one more."""
    first, *rest = CORPUS
    others = {
        "another letter": (first.replace("cat", "cot", 1), *rest),
        "another order": (*rest[::-1], first),
        "one more": (*CORPUS, "One more."),
    }
    with tempfile.TemporaryDirectory() as name:
        before = reading(part, draw, Path(name) / "before").fingerprint()
        for what, texts in others.items():
            after = reading(part, draw, Path(name) / what, texts).fingerprint()
            assert after != before, f"{what}, and the fingerprint is as before"


@property_of(
    "source",
    statement="Where the data are makes no difference: moved, they have the same records, names and fingerprint.",
    formula="records(move(data)) = records(data), names included",
    catches="an absolute path in a name, so that samples and splits change on another machine",
    tier="bit",
    examples=2,
    excuse=no_files,
)
def place_does_not_matter(part: PartUnderTest, draw: Draw) -> None:
    """The same files in two folders of other names."""
    with tempfile.TemporaryDirectory() as name:
        here, there = (reading(part, draw, Path(name) / place) for place in ("here", "elsewhere"))
        assert first_records(here) == first_records(there), "moved, the data give other records, or other names"
        assert here.fingerprint() == there.fingerprint(), "moved, the data have another fingerprint"


@property_of(
    "source",
    statement="What is broken off or damaged raises an error that names the file; the epoch doesn't just end early.",
    formula="records(data ⧺ half a record) raises, naming the file",
    catches="a truncated shard that is read up to where it breaks, letters that are replaced by question marks",
    tier="io",
    examples=1,
    excuse=no_files,
)
def damage_is_named(part: PartUnderTest, draw: Draw) -> None:
    """Half of a character in half of a row, at the end of the last file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "broken"
        source = reading(part, draw, folder, broken="refuse")
        damaged = _damage(folder)
        try:
            count = len(list(source.records()))
        except UserError as error:
            assert damaged in str(error), f"the file {damaged} is not named: {error}"
            return
    raise AssertionError(f"{count} records were read in silence; the last of them is broken off")


@property_of(
    "source",
    statement="Where broken records are to be skipped, they are counted with their place, and what is whole comes as ever.",
    formula="broken = skip: records(data ⧺ half a record) ⊑ records(data), Σ left out ≥ 1",
    catches="a record that is lost in silence, a report that doesn't say in which file",
    tier="io",
    examples=1,
    excuse=lambda part: (
        no_files(part) or (None if "broken" in part.cls.Config.model_fields else "it skips nothing that is broken")
    ),
)
def skipping_is_counted(part: PartUnderTest, draw: Draw) -> None:
    """The same damage; a source may also refuse to go on, in the usual way."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "broken"
        source = reading(part, draw, folder, broken="skip")
        whole, before = list(source.records()), sum(counts(source.report).values())
        damaged = _damage(folder)
        source = part.cls(source.config)
        try:
            left = list(source.records())
        except UserError as error:
            assert damaged in str(error), f"the file {damaged} is not named: {error}"
            return
        rest = iter(whole)
        assert all(record in rest for record in left), "what was skipped changed the other records, or their order"
        lost = sum(counts(source.report).values()) - before
        assert lost >= 1, f"{len(left)} of {len(whole)} records came, and none is counted as left out"
        assert any(damaged in place for place in places(source.report)), (
            f"the report doesn't name {damaged}: {places(source.report)}"
        )


@property_of(
    "source",
    statement="It streams: its memory doesn't grow with the data.",
    formula="peak memory of records(2n) < 1.5 · that of records(n)",
    catches="read() of the whole file, a list of all records",
    tier="io",
    tolerance="16 and 32 records of a mebibyte: what holds them all doubles, what holds some records or a chunk doesn't",
    examples=1,
    excuse=no_files,
)
def it_streams(part: PartUnderTest, draw: Draw) -> None:
    """Objects of Python's alone are counted, which is where lists of records would be."""
    peaks = []
    with tempfile.TemporaryDirectory() as name:
        for count in (LONG // 2, LONG):
            source = reading(part, draw, Path(name) / str(count), marked(count, LETTERS))
            came, peak = _peak(lambda source=source: sum(1 for _ in source.records()))  # type: ignore[misc]
            peaks.append(peak)
            assert came == count, f"{came} of {count} records came"
    assert peaks[1] < 1.5 * peaks[0], (
        f"{peaks[0] >> 10} KiB for {LONG // 2} records of {LETTERS >> 10} KiB, {peaks[1] >> 10} for {LONG}"
    )


@property_of(
    "source",
    statement="longest is a bound: a record that is longer is refused by file, and is never held as a whole.",
    formula="|r| > longest ⇒ raises, naming the file; peak memory < |r| / 2",
    catches="a gigabyte on one line that is read before anybody looks how long it is",
    tier="io",
    tolerance=f"A record of {MANY >> 20} MiB where {LONGEST >> 10} KiB are allowed: a chunk is a mebibyte at most.",
    examples=1,
    excuse=lambda part: (
        no_files(part) or (None if "longest" in part.cls.Config.model_fields else "it has no option longest")
    ),
)
def longest_is_a_bound(part: PartUnderTest, draw: Draw) -> None:
    """The last of three records."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "long"
        source = reading(part, draw, folder, (*marked(2), *marked(1, MANY)), longest=LONGEST, broken="refuse")
        error, peak = _peak(lambda: _refusal(source))
        assert error is not None, f"a record of {MANY:,} letters came, and longest is {LONGEST:,}"
        assert last_file(folder).name in str(error), f"the file is not named: {error}"
        assert peak < MANY / 2, f"{peak >> 10} KiB were held before a record of {MANY >> 10} KiB was refused"


@property_of(
    "source",
    statement="A mixture keeps to its shares at every moment, not only in the end.",
    formula="|count_i(n) − n · p_i| ≤ 1.5 for all n as long as no part has ended",
    catches="weights that are ignored, that drift, or hold only on average",
    tier="bit",
    tolerance="Turns can be taken with less than one record of difference (Tijdeman, 1980); 1.5 allows for simpler ways.",
    examples=2,
    excuse=no_files,
)
def shares_are_kept(part: PartUnderTest, draw: Draw) -> None:
    """Half of the example's records, in which no part ends; then parts of drawn weights."""
    with tempfile.TemporaryDirectory() as name:
        source = reading(part, draw, Path(name) / "parts", marked(SHARED))
        if not source.shares():
            raise NotApplicable("it is no mixture")
        _keeps_to_shares(source)
        if "parts" in part.cls.Config.model_fields:
            _keeps_to_shares(_mixed(part, draw, Path(name) / "mixed"))


def _mixed(part: PartUnderTest, draw: Draw, folder: Path) -> Any:
    """A mixture of folders, all of which last."""
    weights = [draw.integer(f"weight {index}", 1, 9) for index in range(draw.integer("parts", 4, 7))]
    parts = {}
    for index, weight in enumerate(weights):
        place = folder / str(index)
        place.mkdir(parents=True)
        for number, text in enumerate(marked(SHARED // 2)):
            (place / f"{number:02}.txt").write_text(text, encoding="utf-8")
        parts[f"p{index}"] = {"source": {"use": "text-files", "paths": [str(place)]}, "weight": weight}
    source = part.cls(part.cls.Config(parts=parts))
    for index, weight in enumerate(weights):
        share = source.shares()[f"p{index}"]
        assert abs(share - weight / sum(weights)) < 1e-9, (
            f"of weights {weights} the share of number {index} is {share}"
        )
    return source


def _keeps_to_shares(source: Any) -> None:
    shares = source.shares()
    assert abs(sum(shares.values()) - 1) < 1e-6, f"shares {dict(shares)} don't add up to one"
    for number, _ in zip(range(1, SHARED // 2 + 1), source.read(), strict=False):
        for key, share in shares.items():
            given = source.report.parts[key].records
            assert abs(given - number * share) <= 1.5, (
                f"of {number} records {given} are from {key}, whose share is {share:.3f}"
            )


def _damage(folder: Path) -> str:
    """Put half a record at the end of the last file; its name."""
    path = last_file(folder)
    path.write_bytes(path.read_bytes() + HALF)
    return path.name


def _refusal(source: Any) -> UserError | None:
    try:
        for _ in source.records():
            pass
    except UserError as error:
        return error
    return None


def _peak(work: Callable[[], Any]) -> tuple[Any, int]:
    tracemalloc.start()
    try:
        return work(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
