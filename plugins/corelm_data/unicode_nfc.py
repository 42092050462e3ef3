"""Unicode normalisation of documents."""

from __future__ import annotations

import unicodedata
from typing import ClassVar, Literal

from pydantic import Field

from corelm.kinds import ComponentConfig
from corelm_data.one_by_one import OneByOne, Verdict


class UnicodeNormalisation(OneByOne):
    """Rewrites documents in a Unicode normalisation form.

    The same text can be written in several ways, e.g. é as one code point or as e and an accent; afterwards there is
    one way (Unicode Standard Annex 15). NFKC and NFKD also replace ligatures, full-width forms and the like by what
    they look like, which loses information. Rewritten documents are counted as ``rewritten``.
    """

    writes: ClassVar[None] = None
    local: ClassVar[bool] = True

    class Config(ComponentConfig):
        """The form."""

        form: Literal["NFC", "NFD", "NFKC", "NFKD"] = Field("NFC", description="Normalisation form.")

    def judge(self, text: str) -> Verdict | None:
        """Rewrite what is in another form."""
        if unicodedata.is_normalized(self.config.form, text):
            return None
        return Verdict(unicodedata.normalize(self.config.form, text), {"rewritten": 1})
