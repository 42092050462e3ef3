"""Conversations between special tokens."""

from __future__ import annotations

from typing import Any, Final

from corelm.kinds import ComponentConfig, Tokenizer
from corelm_data.turns import TurnTemplate, special

START: Final = "<|im_start|>"
END: Final = "<|im_end|>"


class ChatTemplate(TurnTemplate):
    """Conversations with a pair of special tokens around each turn.

    The layout known as ChatML::

        <|im_start|>user
        What is it?<|im_end|>
        <|im_start|>assistant
        It is.<|im_end|>

    with a line break after each turn. Content is encoded without special tokens, so it can't open or end a turn. The
    assistant's ``<|im_end|>`` is learnt, the line break after it isn't.
    """

    class Config(ComponentConfig):
        """There is nothing to choose."""

    @classmethod
    def specials(cls, config: Any) -> tuple[str, ...]:
        """The pair of special tokens."""
        return (START, END)

    def heading(self, role: str, tokenizer: Tokenizer) -> list[int]:
        """The start token, the role and a line break."""
        return [special(START, tokenizer, "chatml"), *tokenizer.encode(f"{role}\n")]

    def stop(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """The end token."""
        return (special(END, tokenizer, "chatml"),)

    def gap(self, tokenizer: Tokenizer) -> list[int]:
        """A line break."""
        return tokenizer.encode("\n")

    def as_jinja(self) -> str:
        """The layout as a chat template."""
        return (
            "{% for message in messages %}"
            f"{{{{ '{START}' + message['role'] + '\\n' + message['content'] + '{END}\\n' }}}}"
            "{% endfor %}"
            f"{{% if add_generation_prompt %}}{{{{ '{START}assistant\\n' }}}}{{% endif %}}"
        )
