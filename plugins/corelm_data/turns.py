"""Joins the pieces of a conversation's turns; each piece is encoded by itself, so that prefixes stay prefixes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from corelm.errors import UserError
from corelm.kinds import Message, Rendered, Template, Tokenizer


class TurnTemplate(Template):
    """Base of templates that write a heading, the content, a stop token and a gap for each turn.

    Headings and content are encoded apart from each other and content without special tokens: what a turn's tokens
    are depends on that turn alone.
    """

    @abstractmethod
    def heading(self, role: str, tokenizer: Tokenizer) -> list[int]:
        """Tokens before a turn's content."""

    @abstractmethod
    def stop(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """The token that ends a turn."""

    def gap(self, tokenizer: Tokenizer) -> list[int]:
        """Tokens between a turn's stop token and the next turn."""
        return []

    def render(self, messages: Sequence[Message], tokenizer: Tokenizer) -> Rendered:
        """Tokens of a whole conversation; learnt are the assistant's content and its stop token."""
        ids: list[int] = []
        learn: list[bool] = []
        for message in messages:
            heading = self.heading(message.role, tokenizer)
            said = [*tokenizer.encode(message.content), *self.stop(tokenizer)]
            gap = self.gap(tokenizer)
            ids += [*heading, *said, *gap]
            learn += [False] * len(heading) + [message.role == "assistant"] * len(said) + [False] * len(gap)
        return Rendered(tuple(ids), tuple(learn))

    def prompt(self, messages: Sequence[Message], tokenizer: Tokenizer) -> tuple[int, ...]:
        """Tokens of the conversation and the heading of the assistant's answer."""
        return (*self.render(messages, tokenizer).ids, *self.heading("assistant", tokenizer))


def special(token: str, tokenizer: Tokenizer, template: str) -> int:
    """Id of a special token.

    Raises:
        UserError: the tokenizer lacks it.
    """
    found = tokenizer.specials.get(token)
    if found is None:
        raise UserError(
            f"template {template}: the tokenizer has no special token {token}",
            remedy="Train the tokenizer in a recipe that names this template, or use the template plain.",
            code="special-token-missing",
        )
    return found
