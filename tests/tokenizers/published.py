"""Folders of exactly the structure that published tokenizers have, small: what their files say, with little vocabularies.

Each builder writes a folder and says nothing else; the oracle is transformers' AutoTokenizer on that folder.
"""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXT = [
    "The quick brown fox jumps over the lazy dog, and it isn't 2024 any more; they'll see 12345 of them.",
    "Hello world! Hello, worlds...  two  spaces\tand a tab\nnew line\r\n\r\nend of it",
    "def main(args):\n    return [x ** 2 for x in range(100)]  # code\n\n\n",
    "Ünïcödé naïve café — „Straße“, élève, 北京欢迎你 こんにちは 안녕하세요 مرحبا नमस्ते ไทย 🙂👩‍👩‍👧 ﬁ ① ½",
] * 3

QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)


def special(content: str, **options: bool) -> dict[str, Any]:
    """A token as ``tokenizer_config.json`` writes it."""
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {"__type": "AddedToken", "content": content} | flags | options


def save(folder: Path, library: tokenizers.Tokenizer, **config: Any) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    library.save(str(folder / "tokenizer.json"))
    added = {
        str(number): json.loads(token.__getstate__())
        if isinstance(token.__getstate__(), bytes)
        else token.__getstate__()
        for number, token in sorted(library.get_added_tokens_decoder().items())
    }
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": added} | config
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def byte_pairs(cut: pre_tokenizers.PreTokenizer, size: int = 420, **options: Any) -> tokenizers.Tokenizer:
    """Byte-level pairs, trained."""
    library = tokenizers.Tokenizer(models.BPE(**options))
    library.pre_tokenizer = cut
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    library.train_from_iterator(TEXT, trainer)
    return library


def split_bytes(pattern: str, *before: pre_tokenizers.PreTokenizer) -> pre_tokenizers.Sequence:
    return pre_tokenizers.Sequence(
        [
            *before,
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def sentence_pairs(first: list[str], size: int = 700) -> tokenizers.Tokenizer:
    """Pairs of characters with bytes to fall back on, as Llama 2's ids lie: specials, bytes, pieces."""
    teacher = tokenizers.Tokenizer(models.BPE())
    teacher.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    teacher.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=size - 259, show_progress=False))
    learnt = json.loads(teacher.to_str())["model"]
    pieces = [*first, *(f"<0x{value:02X}>" for value in range(256))]
    pieces += sorted(learnt["vocab"], key=learnt["vocab"].get)
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    merges = [tuple(pair) for pair in learnt["merges"]]
    library = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return library


def framed(library: tokenizers.Tokenizer, template: str, *names: str) -> None:
    ids = [(name, library.token_to_id(name)) for name in names]
    library.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)


def llama2(folder: Path) -> None:
    library = sentence_pairs(["<unk>", "<s>", "</s>"])
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    library.add_special_tokens([AddedToken(name, normalized=False) for name in ("<unk>", "<s>", "</s>")])
    framed(library, "<s> $A", "<s>")
    save(
        folder,
        library,
        bos_token=special("<s>"),
        eos_token=special("</s>"),
        unk_token=special("<unk>"),
        chat_template="{% for message in messages %}[INST] {{ message['content'] }} [/INST]{% endfor %}",
    )


def mistral_v3(folder: Path) -> None:
    control = ["[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"]
    library = sentence_pairs(["<unk>", "<s>", "</s>", *control])
    library.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    library.add_special_tokens([AddedToken(name, normalized=False) for name in ("<unk>", "<s>", "</s>", *control)])
    framed(library, "<s> $A", "<s>")
    save(
        folder, library, bos_token="<s>", eos_token="</s>", unk_token="<unk>", add_bos_token=True, add_eos_token=False
    )


def gemma(folder: Path) -> None:
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    library = sentence_pairs(names)
    library.normalizer = normalizers.Replace(" ", "▁")
    library.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    library.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    library.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    library.add_tokens([AddedToken(text, normalized=False) for text in ("\n\n", "\n\n\n", "▁▁", "▁▁▁▁", "\t")])
    framed(library, "<bos> $A", "<bos>")
    save(folder, library, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", pad_token="<pad>")


def llama3(folder: Path) -> None:
    library = byte_pairs(split_bytes(LLAMA3), ignore_merges=True)
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    library.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    framed(library, "<|begin_of_text|> $A", "<|begin_of_text|>")
    bytes_last = processors.ByteLevel(trim_offsets=False, add_prefix_space=True)
    library.post_processor = processors.Sequence([bytes_last, library.post_processor])
    save(folder, library, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")


def qwen2(folder: Path) -> None:
    library = byte_pairs(split_bytes(QWEN))
    library.normalizer = normalizers.NFC()
    library.add_special_tokens([AddedToken(name, normalized=False) for name in ("<|endoftext|>", "<|im_start|>")])
    library.add_special_tokens([AddedToken("<|im_end|>", normalized=False)])
    library.add_tokens([AddedToken(name, normalized=False) for name in ("<tool_call>", "</tool_call>")])
    library.post_processor = processors.ByteLevel(trim_offsets=False)
    save(
        folder,
        library,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        add_bos_token=False,
        bos_token=None,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=[{"name": "default", "template": "{{ messages }}"}, {"name": "tool_use", "template": "x"}],
    )


def gpt_neox(folder: Path) -> None:
    library = byte_pairs(pre_tokenizers.ByteLevel(add_prefix_space=False))
    library.normalizer = normalizers.NFC()
    library.add_special_tokens([AddedToken("<|endoftext|>", normalized=False), AddedToken("<|padding|>")])
    library.add_tokens([AddedToken(" " * size, normalized=True) for size in range(24, 1, -1)])
    library.post_processor = processors.ByteLevel(trim_offsets=True)
    save(folder, library, bos_token="<|endoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>")


def falcon(folder: Path) -> None:
    cut = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Punctuation("contiguous"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            pre_tokenizers.Digits(individual_digits=False),
            pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
        ]
    )
    library = byte_pairs(cut)
    library.add_special_tokens([">>TITLE<<", ">>ABSTRACT<<", "<|endoftext|>"])
    save(folder, library, eos_token="<|endoftext|>", add_prefix_space=False)


def bloom(folder: Path) -> None:
    library = byte_pairs(split_bytes(r" ?[^(\s|[.,!?…。，、।۔،])]+"))
    library.add_special_tokens(["<unk>", "<s>", "</s>", "<pad>"])
    library.post_processor = processors.ByteLevel(trim_offsets=False)
    save(folder, library, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def deepseek_v3(folder: Path) -> None:
    marks = (
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    digits = pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated")
    chinese = pre_tokenizers.Split(Regex("[一-龥\u3040-ゟ゠-ヿ]+"), "isolated")
    library = byte_pairs(split_bytes(marks, digits, chinese))
    library.normalizer = normalizers.Sequence([])
    library.add_special_tokens(["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"])
    library.add_tokens([AddedToken("<｜User｜>", normalized=False), AddedToken("<think>", normalized=False)])
    framed(library, "<｜begin▁of▁sentence｜> $A", "<｜begin▁of▁sentence｜>")
    save(
        folder,
        library,
        bos_token=special("<｜begin▁of▁sentence｜>"),
        eos_token=special("<｜end▁of▁sentence｜>"),
        add_bos_token=True,
        add_eos_token=False,
    )


def unigram(first: list[str]) -> tokenizers.Tokenizer:
    library = tokenizers.Tokenizer(models.Unigram())
    library.normalizer = normalizers.NFKC()
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=first, unk_token="<unk>", show_progress=False, max_piece_length=8
    )
    library.train_from_iterator(TEXT, trainer)
    library.decoder = decoders.Metaspace()
    return library


def charsmap() -> bytes:
    """A small map of characters, as it stands in a model that sentencepiece trains."""
    import io

    import sentencepiece
    from corelm_tokenizers.formats.sentencepiece_model import read

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT),
        model_writer=written,
        vocab_size=200,
        hard_vocab_limit=False,
        minloglevel=4,
        num_threads=1,
    )
    return read(written.getvalue()).charsmap


def precompiled(blob: bytes) -> normalizers.Normalizer:
    said = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(blob).decode()}
    whole = tokenizers.Tokenizer(models.BPE())
    return tokenizers.Tokenizer.from_str(json.dumps(json.loads(whole.to_str()) | {"normalizer": said})).normalizer


def t5(folder: Path) -> None:
    library = unigram(["<pad>", "</s>", "<unk>"])
    library.normalizer = normalizers.Sequence(
        [precompiled(charsmap()), normalizers.Strip(left=False), normalizers.Replace(Regex(" {2,}"), "▁")]
    )
    library.add_special_tokens(["<pad>", "</s>", "<unk>"])
    library.add_special_tokens([AddedToken(f"<extra_id_{number}>") for number in range(5, -1, -1)])
    framed(library, "$A </s>", "</s>")
    extra = [f"<extra_id_{number}>" for number in range(6)]
    save(folder, library, eos_token="</s>", unk_token="<unk>", pad_token="<pad>", additional_special_tokens=extra)


def xlm_roberta(folder: Path) -> None:
    library = unigram(["<s>", "<pad>", "</s>", "<unk>"])
    library.normalizer = normalizers.Sequence([precompiled(charsmap()), normalizers.Replace(Regex(" {2,}"), " ")])
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    library.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)])
    framed(library, "<s> $A </s>", "<s>", "</s>")
    save(folder, library, bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>", unk_token="<unk>")


def albert(folder: Path) -> None:
    names = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    library = unigram(names)
    library.normalizer = normalizers.Sequence(
        [
            normalizers.Replace("``", '"'),
            normalizers.Replace("''", '"'),
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            precompiled(charsmap()),
        ]
    )
    library.add_special_tokens(names)
    framed(library, "[CLS] $A [SEP]", "[CLS]", "[SEP]")
    save(folder, library, cls_token="[CLS]", sep_token="[SEP]", unk_token="<unk>", mask_token="[MASK]")


@cache  # the library breaks ties otherwise every time
def word_pieces(lower: bool) -> tokenizers.Tokenizer:
    library = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(lowercase=lower)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    library.train_from_iterator(
        TEXT, trainers.WordPieceTrainer(vocab_size=260, special_tokens=names, show_progress=False)
    )
    framed(library, "[CLS] $A [SEP]", "[CLS]", "[SEP]")
    return library


def distilbert(folder: Path) -> None:
    library = word_pieces(lower=True)
    save(folder, library, do_lower_case=True, unk_token="[UNK]", sep_token="[SEP]", cls_token="[CLS]")


FAMILIES = {
    build.__name__: build
    for build in (
        llama2,
        llama3,
        mistral_v3,
        gemma,
        qwen2,
        gpt_neox,
        t5,
        xlm_roberta,
        albert,
        deepseek_v3,
        falcon,
        bloom,
        distilbert,
    )
}
