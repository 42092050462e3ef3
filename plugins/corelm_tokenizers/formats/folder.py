"""A model's folder as transformers keeps it: the vocabulary in one file, what else is to be known in others beside it.

``tokenizer.json`` is whole; without it the vocabulary comes from a ``.model``, from GPT-2's two files or from
``vocab.txt``. ``tokenizer_config.json``, ``special_tokens_map.json`` and ``added_tokens.json`` add tokens to it, say
which are special, which one ends a text and what stands around it; the chat template is kept as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final

from corelm_tokenizers.formats import checks, gpt2, schema, sentencepiece_model, tiktoken_ranks, vocab_txt
from corelm_tokenizers.formats.found import Found, damaged, refused

JSON: Final = "tokenizer.json"
CONFIG: Final = "tokenizer_config.json"
SENTENCES: Final = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model")
"""Names under which a ``.model`` stands in a folder."""

_NAMED: Final = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS: Final = ("additional_special_tokens", "extra_special_tokens")
_FLAGS: Final = ("single_word", "lstrip", "rstrip", "normalized", "special")
_BEGINS: Final = frozenset(("Llama", "CodeLlama", "Gemma"))
_SAME_IDS: Final = _BEGINS | {"T5"}
_EXTRA_IDS: Final = 100


def config_of(folder: Path) -> schema.Json:
    """What ``tokenizer_config.json`` says; nothing where there is none."""
    path = folder / CONFIG
    return checks.read_json(path) if path.is_file() else {}


def describe(folder: Path) -> Found | None:
    """Read a folder; None: no file in it is known.

    Raises:
        UserError: a file is damaged, two contradict each other, or they say what can't be represented.
    """
    config = config_of(folder)
    found = _vocabulary(folder, config)
    if found is None:
        return None
    special = folder / "special_tokens_map.json"
    named = (checks.read_json(special) if special.is_file() else {}) | {
        key: value for key, value in config.items() if key in (*_NAMED, *_LISTS) and value
    }
    said = _with_added(folder, found.description, config, named)
    end = _content(named.get("eos_token")) or found.end_of_text
    if end is None:
        end = _content(named.get("sep_token"))
    if "add_bos_token" in config or "add_eos_token" in config:
        said = said | {"post_processor": _frame(said, config, named)}
    template = _chat_template(folder, config) or found.chat_template
    return Found(said, end, template, found.text if said == found.description else None)


def describe_json(path: Path, said: schema.Json) -> Found:
    """Read a ``tokenizer.json``.

    Args:
        path: the file.
        said: the object in it.

    Raises:
        UserError: it is damaged, two tokens claim an id, or merges have gaps.
    """
    text = path.read_bytes().decode("utf-8-sig")
    model = said.get("model")
    if not isinstance(model, dict):
        raise damaged(path, "model", "it has none; a tokenizer.json of the tokenizers library has")
    entries = model.get("vocab")
    if not isinstance(entries, dict):
        return Found(said, text=text)
    vocabulary = checks.ids_of(path, entries)
    merges = model.get("merges")
    if isinstance(merges, list) and not model.get("continuing_subword_prefix"):
        # All that is checked, seen at once where all is well.
        usual = all(type(merge) is list and len(merge) == 2 for merge in merges)
        usual = usual and set(map(type, chain.from_iterable(merges))) <= {str}
        pairs = merges if usual else [_pair(path, number, merge) for number, merge in enumerate(merges, 1)]
        checks.check_merges(path, pairs, vocabulary, once=False)
    return Found(said, text=text)


def _pair(path: Path, number: int, merge: Any) -> tuple[str, str]:
    """A merge: a list of two, or in older files one text with a space in it."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
        raise damaged(path, f"merge {number}", f"two tokens are expected, not {merge!r}")
    return parts[0], parts[1]


def _vocabulary(folder: Path, config: schema.Json) -> Found | None:
    """The vocabulary, from the file that says most."""
    if (folder / JSON).is_file():
        return describe_json(folder / JSON, checks.read_json(folder / JSON))
    sentences = next((folder / name for name in SENTENCES if (folder / name).is_file()), None)
    if sentences is not None:
        return _sentences(sentences, config)
    pair = gpt2.partner(folder)
    if pair is not None:
        return gpt2.describe(*pair, config)
    if (folder / "vocab.txt").is_file():
        return vocab_txt.describe(folder / "vocab.txt", config)
    return None


def _sentences(path: Path, config: schema.Json) -> Found:
    """A ``.model`` as the class that the config names uses it."""
    if is_ranks(path):
        return tiktoken_ranks.describe(path)
    found = sentencepiece_model.describe(path)
    class_name = str(config.get("tokenizer_class") or "")
    family = class_name.removesuffix("Fast").removesuffix("Tokenizer")
    if not family:
        return found
    if family not in _SAME_IDS:
        raise refused(
            path,
            f"{CONFIG} names {class_name}, which gives the pieces of its .model other ids or changes texts first",
            "Give the model's tokenizer.json, or the .model alone for the ids that sentencepiece gives.",
        )
    said = found.description
    ids = ids_in(said)
    if family in _BEGINS:
        begin = _content(config.get("bos_token")) or "<s>"
        frame = schema.frame([(begin, ids[begin])] if begin in ids else [], [])
        return Found(said | {"post_processor": frame}, found.end_of_text)
    extra = config.get("extra_ids", _EXTRA_IDS)
    last = len(ids) + extra - 1
    more = [schema.added_token(last - number, f"<extra_id_{number}>") for number in reversed(range(extra))]
    added = [*said["added_tokens"], *(token for token in more if token["content"] not in ids)]
    end = found.end_of_text
    frame = schema.frame([], [(end, ids[end])] if end else [])
    return Found(said | {"added_tokens": added, "post_processor": frame}, end)


def is_ranks(path: Path) -> bool:
    """Whether a file begins as tiktoken's rank files do: base64, a space, a number."""
    with path.open("rb") as file:
        line = file.read(4096).split(b"\n")[0].strip(b"\r")
    coded, space, rank = line.partition(b" ")
    return bool(space) and rank.isdigit() and len(coded) % 4 == 0 and coded.rstrip(b"=").isascii() and _coded(coded)


def _coded(coded: bytes) -> bool:
    letters = set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
    return bool(coded) and letters.issuperset(coded)


def ids_in(description: schema.Json) -> dict[str, int]:
    """Ids of a description's tokens, by spelling."""
    model = description["model"]
    entries = model.get("vocab", model.get("pieces", []))
    ids = dict(entries) if isinstance(entries, dict) else {entry[0]: at for at, entry in enumerate(entries)}
    for token in description.get("added_tokens") or []:
        ids.setdefault(token["content"], token["id"])
    return ids


def _with_added(folder: Path, said: schema.Json, config: Mapping[str, Any], named: Mapping[str, Any]) -> schema.Json:
    """The description with the tokens that other files add.

    Raises:
        UserError: two files say different things of one id or one token.
    """
    ids = ids_in(said)
    owners = {number: (content, "the vocabulary") for content, number in ids.items()}
    added = {token["content"]: dict(token) for token in said.get("added_tokens") or []}
    special = {content for content in _named_contents(named)}
    before = len(added)
    for file, number, content, flags in _more(folder, config):
        where = f"id {number} ({content!r})"
        other, whose = owners.setdefault(number, (content, file))
        if other != content:
            raise damaged(folder / file, where, f"{whose} has {other!r} there", "Keep the file that is right.")
        if ids.setdefault(content, number) != number:
            raise damaged(
                folder / file, where, f"the vocabulary has it at {ids[content]}", "Keep the file that is right."
            )
        is_special = flags.pop("special", content in special)
        if content not in added:
            added[content] = schema.added_token(number, content, special=is_special, **flags)
    for content, flags in _named_contents(named).items():
        if content not in ids:
            ids[content] = max(ids.values(), default=-1) + 1
        if content not in added:
            added[content] = schema.added_token(ids[content], content, **(flags | {"special": True}))
        added[content]["special"] = True
    if len(added) > before:
        checks.check_no_holes(folder, [*ids.values(), *(token["id"] for token in added.values())])
    return said | {"added_tokens": sorted(added.values(), key=lambda token: token["id"])}


def _more(folder: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, int, str, dict[str, bool]]]:
    """Tokens that other files add: which file, id, spelling, flags."""
    path = folder / "added_tokens.json"
    listed = checks.ids_of(path, checks.read_json(path)) if path.is_file() else {}
    for content, number in sorted(listed.items(), key=lambda entry: entry[1]):
        yield path.name, number, content, {}
    decoder = config.get("added_tokens_decoder") or {}
    for number, token in decoder.items():
        if not number.isdigit() or not isinstance(token, dict) or not isinstance(token.get("content"), str):
            raise damaged(folder / CONFIG, f"added_tokens_decoder {number!r}", "an id and a token are expected")
    for number, token in sorted(decoder.items(), key=lambda entry: int(entry[0])):
        yield CONFIG, int(number), token["content"], {flag: bool(token[flag]) for flag in _FLAGS if flag in token}


def _named_contents(named: Mapping[str, Any]) -> dict[str, dict[str, bool]]:
    """Spelling and flags of the tokens that have a name (``eos_token`` …) or are listed as special."""
    values = [named.get(key) for key in _NAMED]
    for key in _LISTS:
        more = named.get(key) or []
        values += more.values() if isinstance(more, dict) else more
    return {
        content: {flag: bool(value[flag]) for flag in _FLAGS if flag in value} if isinstance(value, dict) else {}
        for value in values
        if (content := _content(value))
    }


def _content(token: Any) -> str | None:
    """A token's spelling; files write it alone or with flags."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) and token else None


def _frame(said: schema.Json, config: Mapping[str, Any], named: Mapping[str, Any]) -> schema.Json | None:
    """What ``add_bos_token`` and ``add_eos_token`` put around a text."""
    ids = ids_in(said)

    def side(flag: str, name: str) -> list[tuple[str, int]]:
        content = _content(named.get(name))
        return [(content, ids[content])] if config.get(flag) and content in ids else []

    return schema.frame(side("add_bos_token", "bos_token"), side("add_eos_token", "eos_token"))


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The chat template: a file of its own, or in the config; of several the one named default."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    template = config.get("chat_template")
    if template is None and (folder / "chat_template.json").is_file():
        template = checks.read_json(folder / "chat_template.json").get("chat_template")
    if isinstance(template, list):
        named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None
