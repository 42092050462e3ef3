"""Choice of documents by their language."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from pydantic import Field, field_validator

from corelm.kinds import ComponentConfig, Count, library
from corelm_data.one_by_one import OneByOne, Verdict, dropped

KNOWN: Final = frozenset({
    "ace", "af", "am", "an", "ar", "ary", "arz", "as", "az", "ba", "bcl", "be", "bg", "bn", "br", "bs", "ca", "crh",
    "cs", "cy", "da", "de", "dz", "el", "en", "eo", "es", "et", "eu", "ext", "fa", "fi", "fo", "fr", "fuv", "fy",
    "ga", "gcf", "gcr", "gd", "gl", "gom", "grc", "gu", "gug", "guw", "ha", "hbo", "he", "hi", "hr", "ht", "hu",
    "hy", "id", "ig", "is", "it", "ja", "jv", "ka", "kab", "kik", "kk", "km", "kn", "ko", "ku", "ky", "la", "lb",
    "lg", "lij", "ln", "lo", "lt", "ltg", "lv", "mg", "mk", "ml", "mn", "mr", "ms", "mt", "my", "ne", "nl", "nn",
    "no", "nso", "oc", "om", "or", "pa", "pcm", "pl", "ps", "pt", "qu", "ro", "ru", "rw", "sa", "sdh", "se", "si",
    "sk", "sl", "sn", "so", "sq", "sr", "st", "sv", "sw", "ta", "te", "tg", "th", "tk", "tl", "tr", "tt", "ug",
    "uk", "ur", "uz", "uzs", "vec", "vi", "vo", "wa", "wuu", "xh", "yo", "yue", "zh", "zu", "zxx",
})  # fmt: skip
"""Codes of the languages that are told apart; zxx: none."""


class LanguageChoice(OneByOne):
    """Keeps documents in some languages, or drops those in some.

    Languages are told apart by py3langid: naive Bayes over byte n-grams that were chosen across domains (Lui & Baldwin,
    2012, https://aclanthology.org/P12-3005), about 140 of them, named by ISO 639 codes. A document that is dropped is
    counted under its language, as ``language-de``; one whose language isn't sure enough as ``uncertain``.

    Measured on the Universal Declaration of Human Rights (54 languages; pieces of 8 lines and single lines of 50
    characters and more; one thread):

    =============== ========= ============ ============ ========== ======= ========
    library         languages pieces       lines        MB/s       loading memory
    =============== ========= ============ ============ ========== ======= ========
    py3langid 0.4   140       92.2 (97.6)  91.2 (96.7)  2.2 to 3.0 1.3 s   133 MB
    lingua 2.1 low  75        77.0 (98.1)  75.6 (97.0)  0.5 to 0.8 1.3 s   110 MB
    lingua 2.1      75        77.0 (98.1)  76.2 (97.8)  0.3 to 0.8 29 s    1,320 MB
    =============== ========= ============ ============ ========== ======= ========

    Shares are per cent of all, in brackets of those in languages that the library knows. Half of py3langid's mistakes
    are polytonic Greek, which it takes for ancient Greek; the others are mostly Indonesian taken for Malay.
    """

    class Config(ComponentConfig):
        """Which languages, and how sure it must be."""

        languages: list[str] = Field(min_length=1, description="ISO 639 codes, e.g. [en, de].")
        drop: bool = Field(False, description="Drop these languages instead of keeping only them.")
        confidence: float = Field(
            0.5,
            ge=0,
            le=1,
            description="Least probability of the language; below it the document counts as uncertain.",
        )
        uncertain: bool = Field(False, description="Keep documents whose language is uncertain.")
        characters: Count = Field(10_000, ge=1, description="So much of a document's beginning is looked at.")

        @field_validator("languages")
        @classmethod
        def _codes(cls, value: list[str]) -> list[str]:
            unknown = [code for code in value if code not in KNOWN]
            if unknown:
                raise ValueError(f"{unknown[0]!r} is no language that can be told; known: {' '.join(sorted(KNOWN))}")
            return value

    def judge(self, text: str) -> Verdict | None:
        """Drop what is in another language, or in none for sure."""
        language, confidence = _identifier().classify(text[: self.config.characters])
        shown = f"{language}, {confidence:.2f}"
        if confidence < self.config.confidence:
            return None if self.config.uncertain else dropped("uncertain", shown)
        named = language in self.config.languages
        return dropped(f"language-{language}", shown) if named == self.config.drop else None


@cache
def _identifier() -> Any:
    """The library's model, read once: it takes longer than many documents, and nothing changes it."""
    module = library("py3langid.langid", extra="data", by="cleaner language")
    return module.LanguageIdentifier.from_model_file(module.MODEL_FILE, norm_probs=True)
