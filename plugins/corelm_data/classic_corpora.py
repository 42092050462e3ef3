"""The corpora that the field trains on, by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from corelm.kinds import LocalPath, Record
from corelm_data.hugging_face import HuggingFaceData
from corelm_data.reading import CarefulSource, ReadingConfig


@dataclass(frozen=True)
class Corpus:
    """Where a corpus is published and how its rows are read.

    Attributes:
        repository: on the Hugging Face hub.
        configuration: of it, where it has several; ``revision``: branch, where the main one holds no data.
        split: with the training text; ``column``: that holds the text.
        licence: what the publisher says, as an SPDX identifier where there is one; a licence of the collection isn't
            one of each text in it.
        about: one line.
    """

    repository: str
    configuration: str | None
    split: str
    column: str
    licence: str
    about: str
    revision: str | None = None


Name = Literal["wikipedia", "bookcorpus", "openwebtext", "c4", "fineweb", "tinystories"]

CORPORA: Final[dict[Name, Corpus]] = {
    "wikipedia": Corpus(
        "wikimedia/wikipedia",
        "20231101.en",
        "train",
        "text",
        "CC-BY-SA-3.0 AND GFDL-1.3-or-later",
        "articles without markup; one configuration per day and language: 20231101.de",
    ),
    "bookcorpus": Corpus(
        "bookcorpus/bookcorpus",
        "plain_text",
        "train",
        "text",
        "NOASSERTION",
        "sentences of about 11,000 unpublished books, in small letters, whose authors keep their rights",
        revision="refs/convert/parquet",
    ),
    "openwebtext": Corpus(
        "Skylion007/openwebtext",
        None,
        "train",
        "text",
        "CC0-1.0",
        "pages that were linked from Reddit, as GPT-2 read",
    ),
    "c4": Corpus(
        "allenai/c4", "en", "train", "text", "ODC-By-1.0", "Common Crawl of April 2019, cleaned; also realnewslike"
    ),
    "fineweb": Corpus(
        "HuggingFaceFW/fineweb",
        "sample-10BT",
        "train",
        "text",
        "ODC-By-1.0",
        "Common Crawl since 2013, filtered; sample-10BT of 10 billion tokens, default is all",
    ),
    "tinystories": Corpus(
        "roneneldan/TinyStories",
        None,
        "train",
        "text",
        "CDLA-Sharing-1.0",
        "short stories in the words of small children",
    ),
}
"""Each corpus as it is published (the licences as their pages state them in 2025)."""


class ClassicCorpus(CarefulSource):
    """A corpus that the field trains on, by its name.

    wikipedia, bookcorpus, openwebtext, c4, fineweb or tinystories: where each is published, in which configuration,
    split and column, and under which licence, stands in ``CORPORA``. Rows stream from the Hugging Face hub through the
    ``datasets`` library; ``files`` names a copy of the repository on this machine instead, made where there is a network
    with ``hf download REPOSITORY --repo-type dataset --local-dir FOLDER``. Without either, the error says so.
    """

    class Config(ReadingConfig):
        """Which corpus, and which part of it."""

        corpus: Name = Field(description="wikipedia, bookcorpus, openwebtext, c4, fineweb, tinystories.")
        configuration: str | None = Field(
            None, min_length=1, description="Of the corpus, e.g. 20231101.de of wikipedia; by default the usual one."
        )
        split: str | None = Field(
            None, min_length=1, description="Which split; by default that with the training text."
        )
        revision: str | None = Field(
            None, min_length=1, description="Branch, tag or commit on the hub; a commit never changes."
        )
        files: LocalPath | None = Field(None, description="Folder on this machine with a copy of the repository.")

    called: ClassVar[str] = "classic"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        corpus = CORPORA[config.corpus]
        here = config.files is not None
        self._rows = _Rows(
            _Rows.Config(
                path=None if here else corpus.repository,
                files=config.files,
                name=config.configuration or corpus.configuration,
                split=config.split or corpus.split,
                revision=None if here else config.revision or corpus.revision,
                columns={"text": corpus.column},
                broken=config.broken,
            )
        )
        self._rows.named = config.corpus
        # What is left out there is left out here.
        self._rows.report = self.report

    def records(self, start: int = 0) -> Iterator[Record]:
        """Yield records from position ``start`` on.

        Raises:
            UserError: the corpus can't be had or read; a row, named by its number, holds no text.
        """
        return self._rows.records(start)

    def fingerprint(self) -> str:
        """Digest of the copy on this machine, or name and revision on the hub."""
        return self._rows.fingerprint()

    def notes(self) -> list[str]:
        """The licence."""
        corpus = CORPORA[self.config.corpus]
        terms = "no licence is stated" if corpus.licence == "NOASSERTION" else f"licence {corpus.licence}"
        return [f"corpus {self.config.corpus} ({corpus.repository}): {terms}; {corpus.about}"]

    @classmethod
    def example(cls, folder: Path, texts: Sequence[str]) -> dict[str, Any]:
        """A copy of a corpus without configurations."""
        (folder / "data").mkdir()
        half = len(texts) // 2
        for number, part in enumerate((texts[:half], texts[half:])):
            rows = "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in part)
            name = f"train-{number:05}-of-00002.jsonl"
            (folder / "data" / name).write_text(rows, encoding="utf-8")
        return {"files": str(folder), "corpus": "tinystories", "configuration": None, "split": None}


class _Rows(HuggingFaceData):
    """The rows of a repository, in the name of the corpus."""

    called: ClassVar[str] = ClassicCorpus.called
