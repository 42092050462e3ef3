"""Mistral's ``tekken.json``: tokens' bytes by rank, the pattern that cuts words, special tokens before all others.

The ids are those of Mistral's own library: the special tokens take the first ``default_num_special_tokens`` ids, those
without a name as ``<SPECIAL_n>``; a token's id is its rank after them. Ranks from ``default_vocab_size`` less the
special tokens on are in the file, but not in the vocabulary.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any, Final

from corelm_tokenizers.formats import checks, schema, words
from corelm_tokenizers.formats.found import Found, damaged
from corelm_tokenizers.formats.gpt2 import byte_pairs
from corelm_tokenizers.formats.tiktoken_ranks import merges_of, spelt

_FIRST_NAMES: Final = (
    "<unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS] [TOOL_CALLS] "
    "[IMG] <pad> [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] [SUFFIX] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [TOOL_CONTENT]"
)
"""Special tokens of files that don't list them."""


def describe(path: Path, said: schema.Json) -> Found:
    """Read a ``tekken.json``.

    Args:
        path: the file.
        said: what is in it.

    Raises:
        UserError: it is damaged.
    """
    config = said["config"]
    pattern, size, room = (_of(path, config, *one) for one in _EXPECTED)
    names = _special(path, said.get("special_tokens"), room)
    ranks = _ranks(path, said["vocab"], size - room)
    checks.check_every_byte(path, ranks)
    special = {name: number for number, name in enumerate(names)}
    description = byte_pairs(
        special | {spelt(token): rank + room for token, rank in ranks.items()},
        [(spelt(left), spelt(right)) for left, right in merges_of(ranks)],
        words.byte_words([pattern]),
        ignore_merges=True,
        post_processor=schema.frame([("<s>", special["<s>"])] if "<s>" in special else [], []),
        added=[schema.added_token(number, name) for name, number in special.items()],
    )
    return Found(description, "</s>" if "</s>" in special else None)


_EXPECTED: Final = (("pattern", str), ("default_vocab_size", int), ("default_num_special_tokens", int))


def _of(path: Path, config: Any, name: str, kind: type) -> Any:
    """A value of the config."""
    value = config.get(name) if isinstance(config, dict) else None
    if not isinstance(value, kind):
        raise damaged(path, f"config.{name}", f"{kind.__name__} is expected, not {value!r}")
    return value


def _special(path: Path, listed: Any, room: int) -> list[str]:
    """The special tokens, in the order of ids."""
    names = _FIRST_NAMES.split()[:room]
    if listed is not None:
        try:
            ids = checks.ids_of(path, {token["token_str"]: token["rank"] for token in listed}, "special ")
        except (KeyError, TypeError) as error:
            raise damaged(path, "special_tokens", "a list of tokens with token_str and rank is expected") from error
        checks.check_no_holes(path, ids.values(), "special ids")
        names = list(ids)
    if len(names) > room:
        what = f"{len(names)} are listed, but default_num_special_tokens is {room}"
        raise damaged(path, "special_tokens", what)
    return [*names, *(f"<SPECIAL_{number}>" for number in range(len(names), room))]


def _ranks(path: Path, listed: Any, size: int) -> dict[bytes, int]:
    """Ranks by the tokens' bytes."""
    ranks: dict[bytes, int] = {}
    for number, token in enumerate(listed[:size] if isinstance(listed, list) else []):
        try:
            spelling, rank = base64.b64decode(token["token_bytes"], validate=True), token["rank"]
        except (KeyError, TypeError, binascii.Error) as error:
            raise damaged(path, f"vocab {number}", "rank and token_bytes in base64 are expected") from error
        if rank != number or not spelling:
            raise damaged(path, f"vocab {number}", f"its rank is {rank!r}; ranks stand in order, none left out")
        if ranks.setdefault(spelling, number) != number:
            raise damaged(path, f"vocab {number}", f"{spelling!r} is token {ranks[spelling]} already")
    if len(ranks) != size:
        raise damaged(path, "vocab", f"it has {len(ranks)} tokens, the config says {size} without special ones")
    return ranks
