"""Repair of text that was decoded wrongly."""

from __future__ import annotations

from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from corelm.kinds import ComponentConfig, library
from corelm_data.one_by_one import OneByOne, Verdict, settled

PASSES: Final = 8
"""Repairs in a row after which a text that still changes is left as it was."""


class UnicodeRepair(OneByOne):
    """Rewrites documents whose characters were decoded wrongly, by the library ftfy.

    UTF-8 read as Latin-1 or as a Windows code page ("schÃ¶n") is turned back where that is beyond doubt, however often
    it happened; HTML entities outside of markup are replaced by their characters, line breaks are made ``\\n``, and
    control characters and byte order marks, which no text has, are taken out (Speer, 2019, doi:10.5281/zenodo.2591652).
    Rewritten documents are counted as ``repaired``. Text without such damage stays as it is, but for what the options
    ask for.
    """

    writes: ClassVar[None] = None

    class Config(ComponentConfig):
        """What is repaired besides the decoding."""

        entities: bool = Field(True, description="Replace HTML entities in documents that hold no markup.")
        quotes: bool = Field(False, description="Make curly quotation marks straight.")
        ligatures: bool = Field(False, description="Replace ligatures such as ﬁ by their letters.")
        form: Literal["NFC", "NFD", "NFKC", "NFKD"] | None = Field(
            None, description="Unicode normalisation form of the result; null: as it is."
        )

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._ftfy: Any = None

    def judge(self, text: str) -> Verdict | None:
        """Rewrite what is damaged."""
        if self._ftfy is None:
            self._ftfy = library("ftfy", extra="data", by="cleaner unicode-repair")
        repaired = settled(self._repair, text, PASSES)
        return None if repaired == text else Verdict(repaired, {"repaired": 1})

    def _repair(self, text: str) -> str:
        fixed: str = self._ftfy.fix_text(
            text,
            unescape_html="auto" if self.config.entities else False,
            uncurl_quotes=self.config.quotes,
            fix_latin_ligatures=self.config.ligatures,
            fix_character_width=False,
            normalization=self.config.form,
        )
        return fixed
