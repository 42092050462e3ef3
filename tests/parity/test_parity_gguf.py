"""A vocabulary in a GGUF has the ids that llama.cpp gives, for every name of a way to cut text."""

import json
from pathlib import Path

import pytest
from corelm_tokenizers import formats
from gguf_cases import TEXTS, digest, vocabularies

FIXTURE = Path(__file__).parents[1] / "fixtures" / "tokenizers" / "llama_cpp.json"


def test_every_vocabulary_has_the_ids_that_llama_cpp_gives(tmp_path):
    golden = json.loads(FIXTURE.read_text(encoding="utf-8"))
    seen = []
    for name, path in vocabularies(tmp_path):
        expected = golden["named"][name]
        assert digest(path) == expected["sha256"], f"{name} is another vocabulary than llama.cpp was asked about"
        tokenizer = formats.load(path)
        for text, ids in zip(TEXTS, golden["answers"][expected["answer"]], strict=True):
            assert tokenizer.encode(text) == ids, (name, text)
        seen.append(name)
    assert sorted(seen) == sorted(golden["named"])


@pytest.mark.parametrize("kind", ["byte", "user_defined"])
def test_what_llama_cpp_does_otherwise_is_refused(kind, tmp_path):
    from corelm.errors import UserError

    *_, (_, path) = vocabularies(tmp_path)
    said = formats.read(path).description
    model = said["model"]
    if kind == "byte":
        model = model | {"type": "SentencePieceUnigram"}
    else:
        model = model | {"pieces": [*model["pieces"], ["<user>", 0.0, "user_defined"]]}
        said["normalizer"]["user_defined"] = ["<user>"]
    with pytest.raises(UserError, match="falls back to bytes" if kind == "byte" else "user-defined pieces"):
        formats.write(formats.Found(said | {"model": model}, None), tmp_path / "written.gguf")
    assert not (tmp_path / "written.gguf").exists()
