"""Unicode normalisation of documents."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal

from pydantic import Field

from corelm.kinds import Cleaner, ComponentConfig, Text


class UnicodeNormalisation(Cleaner):
    """Rewrites documents in a Unicode normalisation form.

    The same text can be written in several ways, e.g. é as one code point or as e and an accent; afterwards there is
    one way (Unicode Standard Annex 15). NFKC and NFKD also replace ligatures, full-width forms and the like by what
    they look like, which loses information. Rewritten documents are counted as ``rewritten``.
    """

    class Config(ComponentConfig):
        """The form."""

        form: Literal["NFC", "NFD", "NFKC", "NFKD"] = Field("NFC", description="Normalisation form.")

    def clean(self, documents: Iterable[Text]) -> Iterator[Text]:
        """Yield every document, rewritten where needed."""
        for document in documents:
            self.report.seen += 1
            self.report.kept += 1
            if not unicodedata.is_normalized(self.config.form, document.text):
                self.report.count("rewritten", document.name)
                document = replace(document, text=unicodedata.normalize(self.config.form, document.text))
            yield document
