"""What tokenizers share that were made elsewhere and come as a ``tokenizer.json``, whoever runs it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from pydantic import Field

from corelm.errors import UserError
from corelm.kinds import END_OF_TEXT, ComponentConfig, Tokenizer
from corelm_tokenizers.decoding import Decoding

FILE: Final = "tokenizer.json"
ENDS: Final = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<|im_end|>", "[SEP]")
"""Special tokens that models end a text with, the usual first."""

Frame = tuple[tuple[int, ...], tuple[int, ...]]


class Described(Tokenizer):
    """Base of parts that hold a ``tokenizer.json``.

    A part says how it reads the file and how it encodes; everything else is here. Texts come back as the file's
    normaliser leaves them, see ``Decoding``.
    """

    lossy: ClassVar[bool] = True
    trainable: ClassVar[bool] = False

    class Config(ComponentConfig):
        """What the file doesn't say."""

        end_of_text: str | None = Field(
            None, description="The special token that ends a text; null: the first usual one that there is."
        )
        chat_template: str | None = Field(
            None, description="The chat template that the file came with (Jinja), kept as it is; nothing runs it."
        )

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._text = ""
        self._decoding = Decoding(None, (), {})
        self._frame: Frame = (), ()

    @abstractmethod
    def _set(self, text: str) -> None:
        """Take a file's text: sets ``_decoding`` and ``_frame``, and ``_text`` last."""

    def train(self, documents: Iterable[str], specials: Sequence[str] = (END_OF_TEXT,)) -> None:
        """Refuse.

        Raises:
            UserError: always.
        """
        raise UserError(
            "a tokenizer.json holds a tokenizer that was trained elsewhere",
            remedy="Take it by `tokenizer: {load: PATH}`, or train bpe.",
            code="tokenizer-not-trainable",
        )

    @classmethod
    def trained_size(cls, config: Any, specials: Sequence[str] = (END_OF_TEXT,)) -> int:
        """Nothing: it can't be trained."""
        return 0

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        self._loaded()
        return len(self._decoding)

    @property
    def specials(self) -> dict[str, int]:
        """Special tokens and their ids."""
        self._loaded()
        return dict(self._decoding.specials)

    @property
    def frame(self) -> Frame:
        """Ids that the file's post-processor puts before and after one text."""
        self._loaded()
        return self._frame

    @property
    def end_of_text(self) -> int:
        """Id of the token that ends a text.

        Raises:
            UserError: none of the special tokens is known to do that.
        """
        wanted = ENDS if self.config.end_of_text is None else (self.config.end_of_text,)
        found = next((self.specials[name] for name in wanted if name in self.specials), None)
        if found is None:
            raise UserError(
                f"the tokenizer has no special token {' or '.join(wanted)} to end a text with",
                remedy=f"Set end_of_text to one of its own: {', '.join(self.specials) or 'it has none'}.",
                code="no-end-of-text",
            )
        return found

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Ids to bytes; special tokens give their spelling.

        Raises:
            UserError: an id is outside the vocabulary.
        """
        self._loaded()
        return self._decoding.decode_bytes(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text; bytes that are no UTF-8 become U+FFFD."""
        self._loaded()
        return self._decoding.decode(ids)

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Decode piece by piece; a piece ends at a character's end."""
        self._loaded()
        return self._decoding.stream(ids)

    def normalise(self, text: str) -> str:
        """What is left of a text once it has been encoded."""
        return self.decode(self.encode(text))

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``, as it came."""
        self._loaded()
        (folder / FILE).write_text(self._text, encoding="utf-8", newline="")

    @classmethod
    def load(cls, config: Any, folder: Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            UserError: the file is missing or can't be read as such.
        """
        path, made = folder / FILE, cls(config)
        try:
            made._set(path.read_bytes().decode("utf-8"))
        except Exception as error:  # the library tokenizers raises nothing more special
            raise UserError(
                f"{path}: not a tokenizer that can be read: {error}",
                remedy="Restore the file.",
                code="tokenizer-unreadable",
            ) from error
        return made

    def as_tokenizers_json(self) -> str | None:
        """The file's text."""
        self._loaded()
        return self._text

    def _loaded(self) -> None:
        if not self._text:
            raise UserError("the tokenizer has no vocabulary yet", remedy="Load one.", code="tokenizer-untrained")


def frame_of(said: Mapping[str, Any] | None) -> Frame:
    """Ids that a post-processor puts before and after one text.

    Raises:
        UserError: it does something else.
    """
    match said and said["type"]:
        case None | "ByteLevel":
            return (), ()
        case "BertProcessing" | "RobertaProcessing" if said:
            return (said["cls"][1],), (said["sep"][1],)
        case "Sequence" if said:
            before: tuple[int, ...] = ()
            after: tuple[int, ...] = ()
            for one in said["processors"]:
                outer = frame_of(one)
                before, after = (*outer[0], *before), (*after, *outer[1])
            return before, after
        case "TemplateProcessing" if said:
            return _template(said)
    raise UserError(
        f"the post-processor {said and said['type']} can't be run exactly",
        remedy="Take post_processor out of the file: encoding adds nothing around a text anyway.",
        code="tokenizer-not-representable",
    )


def _template(said: Mapping[str, Any]) -> Frame:
    before: list[int] = []
    after: list[int] = []
    texts = 0
    for item in said["single"]:
        if "Sequence" in item:
            texts += 1
        else:
            name = item["SpecialToken"]["id"]
            (after if texts else before).extend(said["special_tokens"][name]["ids"])
    if texts != 1:
        raise UserError(
            f"the template for one text names the text {texts} times",
            remedy="Take post_processor out of the file: encoding adds nothing around a text anyway.",
            code="tokenizer-not-representable",
        )
    return tuple(before), tuple(after)
