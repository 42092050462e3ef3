"""Strings that tokenizers trip over, for hypothesis."""

from hypothesis import strategies as st

TRAINING = [
    "def resolve(path, strict=False):\n    return path if strict else None\n" * 3,
    "The quick brown fox, the QUICK brown fox; doesn't, DON'T, we'll.  Two  spaces .\r\n\r\n\tTabs\n",
    "1234567890 12 345 6789 3.14159 $5,000.00 naïve café Straße Ελληνικά привет 你好世界 こんにちは नमस्ते\n",
    "<|endoftext|> <|im_start|>user\n <|im_end|> <|endoftext| 👩‍👩‍👧‍👦 é e\u0301 aaaaaaaaaaaaa abababab\n",
    "import os\nimport sys\n\n\nclass Resolver(object):\n    def __init__(self):\n        self.paths = []\n" * 2,
]
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_start|>user")

_TRAPS = [
    *"  .'\"\n\t\r\v\f\0aabST0129éßſİıẞ\u0301\u00a0\u2028\u3000\x1c\x85\ufeff\ufffd\U0001f469\u200d\ud7ff\ue000\U0010ffff",
    *[
        "  ",
        " .",
        "\r\n",
        "'s",
        "'S",
        "'ll",
        "don't",
        "aaa",
        "aaaa",
        "e\u0301",
        "👩‍👩‍👧",
        "ﬁ",
        "123456",
        "\x1d\x1e ",
        "०१२",
        "Ⅷ",
    ],
    *[
        "\u0558",
        "\u088f",
        "\U000323af",
        "\U0001e6c0",
        "\U00031350",
        "Ꟁ",
        "ᲀ",
        "𞤀",
    ],  # where engines' Unicode versions differ
    *SPECIALS,
    *["<|endoftext", "|>", "<|", "endoftext|>", "<|im_start|>assistant\n"],
]
_SOURCE = "".join(TRAINING)

scalars = st.characters(exclude_categories=("Cs",))
slices = st.builds(
    lambda start, length: _SOURCE[start : start + length], st.integers(0, len(_SOURCE)), st.integers(0, 24)
)
texts = st.one_of(
    st.text(scalars, max_size=40),
    *[st.lists(st.one_of(st.sampled_from(_TRAPS), slices), max_size=12).map("".join)] * 4,
)
