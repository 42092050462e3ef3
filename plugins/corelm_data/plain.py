"""Conversations as plain text."""

from __future__ import annotations

import json
from typing import Any, Self

from pydantic import Field, model_validator

from corelm.kinds import END_OF_TEXT, ComponentConfig, Tokenizer
from corelm_data.turns import TurnTemplate, special


class PlainTemplate(TurnTemplate):
    """Conversations as headed paragraphs of text.

    Each turn is a heading on a line of its own, the content and the end-of-text token::

        Question:
        What is it?<|endoftext|>Answer:
        It is.<|endoftext|>

    Needs no special token of its own. A role can only open after an end-of-text token, which no content can write, so
    content that spells a heading stays content. The assistant's end-of-text token is learnt.
    """

    class Config(ComponentConfig):
        """The headings."""

        system: str = Field("Instructions:", min_length=1, description="Heading of the system's turn.")
        user: str = Field("Question:", min_length=1, description="Heading of a user's turn.")
        assistant: str = Field("Answer:", min_length=1, description="Heading of the assistant's turn.")

        @model_validator(mode="after")
        def _tell_apart(self) -> Self:
            if len({self.system, self.user, self.assistant}) < 3:
                raise ValueError("the three headings must differ")
            return self

    @classmethod
    def specials(cls, config: Any) -> tuple[str, ...]:
        """The end-of-text token."""
        return (END_OF_TEXT,)

    def heading(self, role: str, tokenizer: Tokenizer) -> list[int]:
        """The role's heading and a line break."""
        return tokenizer.encode(f"{getattr(self.config, role)}\n")

    def stop(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """The end-of-text token."""
        return (special(END_OF_TEXT, tokenizer, "plain"),)

    def as_jinja(self) -> str:
        """The layout as a chat template."""
        headings = json.dumps(self.config.model_dump(), ensure_ascii=False)
        return (
            f"{{% set headings = {headings} %}}"
            "{% for message in messages %}"
            f"{{{{ headings[message['role']] + '\\n' + message['content'] + '{END_OF_TEXT}' }}}}"
            "{% endfor %}"
            "{% if add_generation_prompt %}{{ headings['assistant'] + '\\n' }}{% endif %}"
        )
