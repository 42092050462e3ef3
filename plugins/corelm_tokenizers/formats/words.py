"""How published byte-level tokenizers cut text into words, by the names that files give for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

from corelm_tokenizers.formats.schema import Json, byte_level, sequence, split
from corelm_tokenizers.patterns import PatternName, spelt_out

_CONTRACTIONS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SIGNS: Final = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_LINES: Final = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER: Final = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE: Final = r"[^\r\n\p{L}\p{N}]?"

GPT2: Final = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""Radford et al., 2019."""
LLAMA3: Final = rf"{_CONTRACTIONS}|{_BEFORE}\p{{L}}+|\p{{N}}{{1,3}}|{_SIGNS}|{_LINES}"
"""Llama 3; OpenAI's cl100k, but for white space at a text's end."""
CL100K: Final = (
    rf"'(?i:[sdmt]|ll|ve|re)|{_BEFORE}\p{{L}}+|\p{{N}}{{1,3}}|{_SIGNS}|\s+(?![\s\S])|\s*[\r\n]|\s+(?!\S)|\s"
)
"""OpenAI's cl100k_base as tiktoken has it."""
O200K: Final = (
    rf"{_BEFORE}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_BEFORE}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_LINES}"
)
"""OpenAI's o200k_base."""
QWEN2: Final = rf"{_CONTRACTIONS}|{_BEFORE}\p{{L}}+|\p{{N}}|{_SIGNS}|{_LINES}"
"""Qwen, Qwen2, Qwen3."""
TEKKEN: Final = (
    rf"{_BEFORE}{_UPPER}*{_LOWER}+|{_BEFORE}{_UPPER}+{_LOWER}*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_LINES}"
)
"""Mistral NeMo and later."""

_ANY_CASE: Final = "'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])"
_NOT_LOWER: Final = r"(?:(?=\p{L})[^a-z])"
_NOT_UPPER: Final = r"(?:(?=\p{L})[^A-Z])"
_GGML_O200K: Final = (
    rf"{_BEFORE}{_NOT_LOWER}*{_NOT_UPPER}+(?:{_ANY_CASE})?|{_BEFORE}{_NOT_LOWER}+{_NOT_UPPER}*(?:{_ANY_CASE})?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_LINES}"
)
"""What llama.cpp makes of o200k: its engine knows the case of ASCII alone, and marks are signs to it."""
_GGML_TEKKEN: Final = (
    rf"{_BEFORE}{_NOT_LOWER}*{_NOT_UPPER}+|{_BEFORE}{_NOT_LOWER}+{_NOT_UPPER}*"
    rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_LINES}"
)

_DEEPSEEK_MARKS: Final = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_LINES}"
)
_DEEPSEEK_CHINESE: Final = "[一-龥\u3040-ゟ゠-ヿ]+"
_DEEPSEEK_CASED: Final = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481"
    "\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b"
    "\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b"
    "\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
"""Letters of scripts that have two cases, as the first DeepSeek models list them."""
_DEEPSEEK_OTHERS: Final = "[一-龥ࠀ-一가-\ud7ff]+"
_FALCON_MARKS: Final = r"[\p{P}\$\+<=>\^~\|`]+"
_BLOOM: Final = r" ?[^(\s|.,!?…。，、।۔،)]+"
_GROUPED: Final = (r"\p{N}{1,3}", _DEEPSEEK_CHINESE, _DEEPSEEK_MARKS)

_NAMES: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (
        (GPT2,),
        "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert exaone4 "
        "jina-v1-en jina-v2-code roberta-bpe mpt olmo jais trillion granite-docling",
    ),
    (
        (LLAMA3,),
        "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano dbrx smaug-bpe "
        "glm4 chatglm-bpe",
    ),
    ((QWEN2,), "qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 hunyuan solar-open megrez grok-2"),
    ((_GGML_O200K,), "gpt-4o llama4 kanana2 talkie minimax-m2"),
    ((_GGML_TEKKEN,), "tekken"),
    (_GROUPED, "deepseek-v3 hunyuan-dense joyai-llm hy_v4"),
    (("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _DEEPSEEK_OTHERS, r"\p{N}"), "deepseek-coder"),
    (
        (
            "[\r\n]",
            rf"\s?[{_DEEPSEEK_CASED}]+",
            "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
            r"\s+$",
            _DEEPSEEK_OTHERS,
            r"\p{N}+",
        ),
        "deepseek-llm",
    ),
    ((r"\p{N}", GPT2), "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2"),
    ((_FALCON_MARKS, GPT2, "[0-9][0-9][0-9]"), "falcon"),
    ((_BLOOM,), "bloom poro-chat gpt3-finnish"),
    ((_BLOOM, r"\p{N}"), "viking"),
    ((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"), "default"),
)
_WHOLE: Final = "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano tekken"

CUTS: Final[dict[str, tuple[str, ...]]] = {name: steps for steps, names in _NAMES for name in names.split()}
"""Regular expressions by the name that a GGUF has in ``tokenizer.ggml.pre``, applied one inside the other's words."""

WHOLE_WORDS_FIRST: Final = frozenset(_WHOLE.split())
"""Of those: where a word that is a token is that token, whatever merges make of it."""

FRAMED: Final = WHOLE_WORDS_FIRST
"""Of those: where the token that begins a text stands before it unless the file says otherwise."""

SEPARATED: Final = frozenset(("jina-v1-en", "jina-v2-code", "roberta-bpe"))
"""Of those: where a separator stands after a text unless the file says otherwise."""


def byte_words(patterns: Sequence[str]) -> Json:
    """A pre-tokenizer: cut by each pattern in turn, then bytes as characters."""
    if tuple(patterns) == (GPT2,):
        return byte_level(use_regex=True)
    return sequence("pretokenizers", [*map(split, patterns), byte_level()])


def patterns_of(cut: Json | None) -> tuple[str, ...] | None:
    """The patterns by which a pre-tokenizer cuts before it makes bytes characters; None: it does something else.

    Our own parts spell classes of characters out, for one version of Unicode; the names that files have for a pattern
    mean the same with the reader's version.
    """
    steps = (cut or {}).get("pretokenizers", [cut or {}])
    last = steps[-1]
    if not steps or last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    patterns = [_pattern(step) for step in steps[:-1]] + ([GPT2] if last.get("use_regex", True) else [])
    known = [pattern for pattern in patterns if pattern is not None]
    return tuple(known) if len(known) == len(patterns) else None


def _pattern(step: Json) -> str | None:
    """The regular expression by which a step cuts, what it matches being words as well; None: it isn't such a step."""
    if step.get("type") != "Split" or step.get("behavior") != "Isolated" or step.get("invert"):
        return None
    pattern: str | None = step["pattern"].get("Regex")
    return _spelt_out().get(pattern or "", pattern)


@cache
def _spelt_out() -> dict[str, str]:
    """Published patterns by what our own parts write for them."""
    named: dict[PatternName, str] = {"gpt2": GPT2, "cl100k": CL100K, "llama3": LLAMA3, "qwen2": QWEN2, "o200k": O200K}
    return {spelt_out(name): pattern for name, pattern in named.items()}
