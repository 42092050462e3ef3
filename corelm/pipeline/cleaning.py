"""A recipe's ``data``: its source, cleaned; and what the source and each cleaner say of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

from corelm.errors import UserError
from corelm.kinds.component import Spec
from corelm.kinds.data import DataConfig
from corelm.kinds.records import Record
from corelm.pipeline.records import Split, held_out


class Cleaned:
    """The records of a ``data`` section, read and cleaned as they are asked for, up to its limit; to be read once.

    Args:
        data: the section.
    """

    def __init__(self, data: DataConfig) -> None:
        self.data = data
        self.source = data.source.build()
        self.cleaners = [spec.build() for spec in data.clean]

    def __iter__(self) -> Iterator[Any]:
        """The records.

        Raises:
            UserError: the source can't be read, or no record is left.
        """
        records = readable(self.data.source, self.source.read())
        for cleaner in self.cleaners:
            records = cleaner.clean(records)
        some = False
        for record in itertools.islice(records, self.data.limit):
            some = True
            yield record
        if not some:
            raise self._nothing_left()

    def reports(self) -> list[dict[str, Any]]:
        """What each cleaner did, as plain data."""
        return [
            {"use": spec.name, **part.report.plain()}
            for spec, part in zip(self.data.clean, self.cleaners, strict=True)
        ]

    def read(self) -> list[str]:
        """In words: what the source left out, and what each part of a mixture gave."""
        told: list[str] = self.source.report.sentences(f"source {self.data.source.name}")
        return told

    def done(self) -> list[str]:
        """In words: what the cleaners dropped and rewrote."""
        named = zip(self.data.clean, (part.report for part in self.cleaners), strict=True)
        return [
            f"cleaner {spec.name}: kept {report.kept:,} of {report.seen:,} ({_counts(report.reasons)})"
            for spec, report in named
            if report.reasons
        ]

    def _nothing_left(self) -> UserError:
        """The error for data without a record: nothing came, or nothing was let through."""
        source = self.data.source
        if not any(part.report.seen > part.report.kept for part in self.cleaners):
            return empty(source, self.source.report.sentences())
        return UserError(
            f"nothing is left of the {self.cleaners[0].report.seen:,} documents of source {source.name}: "
            f"{'; '.join([*self.read(), *self.done()])}",
            remedy="`corelm data preview RECIPE` shows what each cleaner does; loosen its options, or leave it out.",
            code="corpus-all-dropped",
        )


def stream(data: DataConfig, split: Split, note: Callable[[str], None] = lambda sentence: None) -> Iterator[Record]:
    """Read, clean, limit and split the records of a ``data`` section.

    Args:
        data: the section.
        split: which part.
        note: is told at the end what was left out, dropped and rewritten, and what each part of a mixture gave.

    Raises:
        UserError: the source can't be read, or no record is left.
    """
    cleaned = Cleaned(data)
    for record in cleaned:
        if split == "all" or held_out(record, data.holdout) == (split == "holdout"):
            yield record
    for sentence in [*cleaned.read(), *cleaned.done()]:
        note(sentence)


def readable(source: Spec[Any], records: Iterator[Any]) -> Iterator[Any]:
    """The records of a source, whose errors while reading name it."""
    try:
        yield from records
    except OSError as error:
        raise UserError(
            f"source {source.name}: can't be read: {error}",
            remedy=f"Check its options: {_options(source)}",
            code="source-unreadable",
        ) from error


def empty(source: Spec[Any], left_out: list[str]) -> UserError:
    """The error for a source without a single record; ``left_out`` says what it passed over."""
    told = f" ({'; '.join(left_out)})" if left_out else ""
    return UserError(
        f"source {source.name} yielded no records{told}",
        remedy=f"Check its options: {_options(source)}",
        code="corpus-empty",
    )


def _options(source: Spec[Any]) -> str:
    return json.dumps(source.dump(), ensure_ascii=False)


def _counts(reasons: dict[str, int]) -> str:
    return ", ".join(f"{reason} {times:,}" for reason, times in reasons.items())
