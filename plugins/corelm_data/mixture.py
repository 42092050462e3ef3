"""Several sources in given shares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from corelm.errors import UserError
from corelm.kinds import ComponentConfig, Count, Problem, Record, RecordName, Source, Spec
from corelm_data.even_shares import EvenShares

SMALLEST: Final = 1e-9
"""Least share of a part: less is a mistake, and lost among roundings."""


class MixturePart(ComponentConfig):
    """One of the sources, and how much of it."""

    source: Spec[Source] = Field(description="Where its records come from.")
    weight: float = Field(1.0, gt=0, description="Its share of records, in proportion to the others' weights.")


class Mixture(Source):
    """Several sources, whose records take turns in given shares.

    The share of part i is ``p_i = w_i^(1/T) / Σ_j w_j^(1/T)``: at temperature 1 the weights themselves, above more even,
    below less (Lample and Conneau, 2019, arXiv:1901.07291, for languages). Shares are of records, and no chance is involved:
    after n records part i has given ``n · p_i`` of them to less than one (``even_shares``), and the order follows from
    the config alone.

    A part that has come to its end begins again until it was read ``epochs`` times; then either the mixture ends, or the
    other parts go on in proportion. Records are named by part, and from the second time on by epoch. ``report.parts``
    says how many records and characters each part really gave.

    Resuming at a position takes no reading of what came before: turns are counted, and each part resumes at its own
    position. Parts that had come to their end by then are read once more, to learn how many records they have.
    """

    class Config(ComponentConfig):
        """Which parts, and how they take turns."""

        parts: dict[str, MixturePart] = Field(
            min_length=1, description="{name: {source, weight}}; names are for reports."
        )
        temperature: float = Field(1.0, gt=0, description="Above 1 evens the shares out, below 1 sharpens them.")
        epochs: Count = Field(1, gt=0, description="How often each part is read before it counts as spent.")
        ends: Literal["first", "all"] = Field(
            "first", description="When the mixture ends: when the first part is spent, or when all are."
        )

        @model_validator(mode="after")
        def _everyone_has_a_share(self) -> Self:
            for name, share in _shares(self).items():
                if share < SMALLEST:
                    raise ValueError(f"parts: {name} has a share of {share:.1g}; raise its weight or the temperature")
            return self

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.parts: dict[str, Source] = {name: part.source.build() for name, part in config.parts.items()}
        self.report.parts.update({name: part.report for name, part in self.parts.items()})

    @classmethod
    def yields(cls, config: Any) -> RecordName:
        """What its parts yield."""
        first = next(iter(config.parts.values())).source
        name: RecordName = first.part.yields(first.config)
        return name

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """All parts yield records of one type."""
        expected = cls.yields(config)
        for name, part in config.parts.items():
            found = part.source.part.yields(part.source.config)
            if found != expected:
                yield Problem(
                    ("parts", name, "source"),
                    f"{part.source.name} yields records of type {found}, the first part {expected}",
                    "Set yields, or mix sources of one type.",
                    "mixed-records",
                )

    def shares(self) -> Mapping[str, float]:
        """``p_i`` of each part."""
        return _shares(self.config)

    def records(self, start: int = 0) -> Iterator[Record]:
        """Yield records from position ``start`` on.

        Raises:
            UserError: a part has no records; whatever its parts raise.
        """
        turns = _Turns(self, start)
        while (name := turns.next()) is not None:
            record = next(turns.streams[name], None)
            if record is None:
                turns.ended(name)
                continue
            turns.taken(name)
            self.parts[name].report.count(record)
            epoch = turns.epoch(name)
            again = f" (epoch {epoch})" if epoch > 1 else ""
            yield replace(record, name=f"mixture: {name}: {record.name}{again}")

    def fingerprint(self) -> str:
        """Digest of the parts' names and fingerprints."""
        found = [f"{name}\0{part.fingerprint()}\0" for name, part in self.parts.items()]
        return hashlib.sha256("".join(found).encode()).hexdigest()

    def notes(self) -> list[str]:
        """Those of the parts."""
        return [f"{name}: {note}" for name, part in self.parts.items() for note in part.notes()]

    @classmethod
    def example(cls, folder: Path, texts: Sequence[str]) -> dict[str, Any]:
        """Two folders of text, one of which has every fourth; both end together."""
        weights = {"common": 3.0, "rare": 1.0}
        turns = EvenShares(weights)
        for index, text in enumerate(texts):
            name = turns.next()
            turns.taken(name)
            (folder / name).mkdir(exist_ok=True)
            (folder / name / f"{index:03}.txt").write_bytes(text.encode())
        places = {name: {"use": "text-files", "paths": [str(folder / name)]} for name in weights}
        return {
            "parts": {name: {"source": places[name], "weight": weight} for name, weight in weights.items()},
            "ends": "all",
        }


def _shares(config: Any) -> dict[str, float]:
    highest = max(part.weight for part in config.parts.values())
    # In proportion to the highest, so that a low temperature doesn't overflow.
    powers = {name: (part.weight / highest) ** (1 / config.temperature) for name, part in config.parts.items()}
    return {name: power / sum(powers.values()) for name, power in powers.items()}


class _Turns:
    """Where a mixture is: whose turn it is, how many records each part gave, and the streams that go on from there."""

    def __init__(self, mixture: Mixture, start: int) -> None:
        self._mixture, self._config = mixture, mixture.config
        self._lengths: dict[str, int] = {}
        while not self._resumed(start):
            pass

    def next(self) -> str | None:
        """Whose turn it is; None: the mixture has ended."""
        while self._shares is not None:
            name = self._shares.next()
            length = self._lengths.get(name)
            if length is None or self.drawn[name] < length * self._config.epochs:
                return name
            self._spent(name)
        return None

    def taken(self, name: str) -> None:
        """A part gave a record."""
        assert self._shares is not None
        self._shares.taken(name)
        self.drawn[name] += 1

    def ended(self, name: str) -> None:
        """A part's stream has ended: begin again; whether that may be, ``next`` knows from its length."""
        if name not in self._lengths:
            self._lengths[name] = self._counted(name, self.drawn[name])
        self.streams[name] = self._mixture.parts[name].records()

    def epoch(self, name: str) -> int:
        """Which time of reading a part its newest record is of, from one on."""
        length = self._lengths.get(name)
        return 1 if length is None else (self.drawn[name] - 1) // length + 1

    def _resumed(self, start: int) -> bool:
        """Count ``start`` turns by what is known of the parts' lengths; whether all that were counted can be had."""
        self._left = dict(self._mixture.shares())
        self._shares: EvenShares | None = EvenShares(self._left)
        self.drawn = dict.fromkeys(self._left, 0)
        for _ in range(start):
            name = self.next()
            if name is None:
                break
            self.taken(name)
        self.streams: dict[str, Iterator[Record]] = {}
        for name, part in self._mixture.parts.items():
            drawn = self.drawn[name]
            if name in self._lengths:
                self.streams[name] = part.records(drawn % self._lengths[name])
                continue
            stream = part.records(max(drawn - 1, 0))
            # The last record that it gave must be there; if not, it had ended, and others took its turns.
            if drawn and next(stream, None) is None:
                self._lengths[name] = self._counted(name, sum(1 for _ in self._fresh(name).records()))
                return False
            self.streams[name] = stream
        return True

    def _fresh(self, name: str) -> Source:
        """The part once more, whose report nobody reads."""
        built: Source = self._config.parts[name].source.build()
        return built

    def _counted(self, name: str, length: int) -> int:
        if not length:
            spec = self._config.parts[name].source
            raise UserError(
                f"source mixture: part {name}: source {spec.name} yielded no records",
                remedy="Check its options, or leave the part out.",
                code="corpus-empty",
            )
        return length

    def _spent(self, name: str) -> None:
        del self._left[name]
        ended = not self._left or self._config.ends == "first"
        self._shares = None if ended else EvenShares(self._left)
