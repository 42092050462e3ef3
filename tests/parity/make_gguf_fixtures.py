"""Write tests/fixtures/tokenizers/llama_cpp.json: the ids that llama.cpp gives on the vocabularies of gguf_cases.

    pip install --target there xllamacpp==2026.10.11549
    python tests/parity/make_gguf_fixtures.py there/xllamacpp/xllamacpp.abi3.so 72

The library holds llama.cpp and shows its C interface. The number is the place of ``vocab_only`` in the parameters of a
model, which changes between versions: the first truth value behind the pointers.
"""

from __future__ import annotations

import ctypes
import json
import sys
import tempfile
from pathlib import Path

from gguf_cases import TEXTS, digest, vocabularies

OUT = Path(__file__).parents[1] / "fixtures" / "tokenizers" / "llama_cpp.json"
INT = ctypes.c_int32


class Parameters(ctypes.Structure):
    """Of a model; larger than in any version."""

    _fields_ = [("bytes", ctypes.c_ubyte * 512)]  # noqa: RUF012


def interface(path: str) -> ctypes.CDLL:
    """The C functions that are needed."""
    library = ctypes.CDLL(path)
    library.llama_model_default_params.restype = Parameters
    library.llama_model_load_from_file.restype = ctypes.c_void_p
    library.llama_model_load_from_file.argtypes = [ctypes.c_char_p, Parameters]
    library.llama_model_get_vocab.restype = ctypes.c_void_p
    library.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
    library.llama_tokenize.argtypes = [
        *(ctypes.c_void_p, ctypes.c_char_p, INT, ctypes.POINTER(INT), INT, ctypes.c_bool, ctypes.c_bool)
    ]
    library.llama_backend_init()
    return library


def ids(library: ctypes.CDLL, vocabulary: int, text: str) -> list[int]:
    """Of a text, nothing put around it, nothing special in it."""
    data = text.encode()
    room = len(data) + 16
    found = (INT * room)()
    count = library.llama_tokenize(vocabulary, data, len(data), found, room, False, False)
    assert count >= 0, text
    return found[:count]


def main() -> None:
    """Ask, and write."""
    library, place = interface(sys.argv[1]), int(sys.argv[2])
    answers: list[list[list[int]]] = []
    named: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, path in vocabularies(Path(folder)):
            parameters = library.llama_model_default_params()
            parameters.bytes[place] = 1
            model = library.llama_model_load_from_file(str(path).encode(), parameters)
            assert model, f"{name} is not read"
            vocabulary = library.llama_model_get_vocab(model)
            answer = [ids(library, vocabulary, text) for text in TEXTS]
            if answer not in answers:
                answers.append(answer)
            named[name] = {"answer": answers.index(answer), "sha256": digest(path)}
    OUT.parent.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(answer, separators=(",", ":")) for answer in answers)
    OUT.write_text(
        f'{{"xllamacpp": "2026.10.11549",\n"named": {json.dumps(named, indent=0)},\n"answers": [\n{lines}]}}\n'
    )


if __name__ == "__main__":
    main()
