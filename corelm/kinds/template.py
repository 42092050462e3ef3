"""Kind ``template``: conversations to tokens, with a mask of what is to be learnt."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from corelm.kinds.component import Component
from corelm.kinds.records import Message
from corelm.kinds.tokenizer import Tokenizer


@dataclass(frozen=True)
class Rendered:
    """A conversation as tokens.

    Attributes:
        ids: all tokens.
        learn: same length; True where the token is the assistant's (its stop token included).
    """

    ids: tuple[int, ...]
    learn: tuple[bool, ...]


class Template(Component):
    """Renders conversations.

    Built as ``Part(config)``.

    Contract:
        * Prefix-preserving: rendering the first n messages is a prefix of rendering them all.
        * ``prompt(messages)`` is a prefix of ``render(messages + an assistant's turn)``, up to where the
          assistant's text begins.
        * The assistant's text and its stop token are learnt, nothing else is.
        * Content never opens a role: it is encoded without special tokens, whatever it spells.
        * ``specials`` are the tokens that the tokenizer must have; the trainer of the tokenizer adds them.
    """

    kind: ClassVar[str] = "template"

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    @abstractmethod
    def specials(cls, config: Any) -> tuple[str, ...]:
        """Special tokens that the template writes."""

    @abstractmethod
    def render(self, messages: Sequence[Message], tokenizer: Tokenizer) -> Rendered:
        """Tokens of a whole conversation."""

    @abstractmethod
    def prompt(self, messages: Sequence[Message], tokenizer: Tokenizer) -> tuple[int, ...]:
        """Tokens after which the assistant's answer begins."""

    def as_jinja(self) -> str | None:
        """The same text as a chat template of Hugging Face's; None where it can't be said.

        Ids may differ where a turn's content begins or ends with white space, since other readers tokenize the whole
        text at once, and such readers let content spell special tokens.
        """
        return None

    @abstractmethod
    def stop(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """Ids that end the assistant's turn."""
