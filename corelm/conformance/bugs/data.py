"""Sources, cleaners and templates that are wrong in one way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from corelm.conformance.planted import plant, reference
from corelm.kinds.cleaner import Cleaner
from corelm.kinds.records import Message, Record, Text
from corelm.kinds.source import Source
from corelm.kinds.template import Rendered, Template
from corelm.kinds.tokenizer import END_OF_TEXT, Tokenizer


@reference
class Lines(Source):
    """A few lines."""

    lines: tuple[str, ...] = ("one", "two", "three", "four")

    def name(self, number: int) -> str:
        """Where a line is."""
        return f"line {number}"

    def records(self, start: int = 0) -> Iterator[Record]:
        """From a position on."""
        for number, line in enumerate(self.lines):
            if number >= start:
                yield Text(line, self.name(number))

    def fingerprint(self) -> str:
        """Fixed."""
        return "".join(self.lines)


@plant("typed_and_named", "records without a name")
class Nameless(Lines):
    """Nobody can point at them."""

    def name(self, number: int) -> str:
        return ""


@plant("resumes_by_position", "the position is off by one")
class SkipsOneMore(Lines):
    """Loses a record."""

    def records(self, start: int = 0) -> Iterator[Record]:
        return super().records(start + 1 if start else 0)


@plant("fingerprint_is_stable", "the object's address is in the digest")
class AddressInDigest(Lines):
    """Another one each time."""

    kept: list[Any] = []

    def fingerprint(self) -> str:
        self.kept.append(self)
        return str(id(self))


@plant("nothing_is_doubled", "every line twice")
class Twice(Lines):
    """Doubled."""

    lines = ("one", "two")

    def name(self, number: int) -> str:
        return "line"


@plant("notes_are_sentences", "an empty note")
class EmptyNote(Lines):
    """Says nothing."""

    def notes(self) -> list[str]:
        return [""]


@reference
class Squeezer(Cleaner):
    """Joins double spaces, drops what is empty or has come before."""

    def rewrite(self, text: str) -> str:
        """Spaces."""
        while "  " in text:
            text = text.replace("  ", " ")
        return text

    def unwanted(self, text: str, seen: set[str]) -> str:
        """Why a text is dropped."""
        return "" if text not in seen else "duplicate"

    def clean(self, documents: Iterable[Text]) -> Iterator[Text]:
        """One by one."""
        seen: set[str] = set()
        for document in documents:
            self.report.seen += 1
            text = self.rewrite(document.text)
            reason = self.unwanted(text, seen)
            if reason:
                self.note(reason, document, None)
                continue
            if text != document.text:
                self.note("spaces", document, text)
            seen.add(text)
            self.report.kept += 1
            yield Text(text, document.name)

    def note(self, reason: str, document: Text, text: str | None = None) -> None:
        """Count."""
        if text is None:
            self.note_dropped(document, reason)
        else:
            self.note_rewritten(document, text, {reason: 1})


@plant("idempotent", "double spaces once, so that four become two")
class SqueezesOnce(Squeezer):
    """Not a fixed point."""

    def rewrite(self, text: str) -> str:
        return text.replace("  ", " ").replace("..", ".") + " "


@plant("order_is_kept", "documents come out sorted")
class Sorts(Squeezer):
    """Another order."""

    def clean(self, documents: Iterable[Text]) -> Iterator[Text]:
        return iter(sorted(super().clean(documents), key=lambda d: (d.text, d.name)))


@plant("report_adds_up", "drops in silence")
class Silent(Squeezer):
    """Counts nothing."""

    def note(self, reason: str, document: Text, text: str | None = None) -> None:
        pass


@plant("it_streams", "the whole corpus is read into a list first")
class ReadsAll(Squeezer):
    """Waits for the end."""

    def clean(self, documents: Iterable[Text]) -> Iterator[Text]:
        yield from super().clean(list(documents))


@plant("the_rest_changes_nothing", "the last of equal documents is kept")
class KeepsTheLast(Squeezer):
    """Looks ahead."""

    def clean(self, documents: Iterable[Text]) -> Iterator[Text]:
        every = list(documents)
        last = {d.text: d.name for d in every}
        yield from super().clean([d for d in every if last[d.text] == d.name])


@reference
class Turns(Template):
    """Role, line break, content, end of text."""

    @classmethod
    def specials(cls, config: Any) -> tuple[str, ...]:
        """The end of text."""
        return (END_OF_TEXT,)

    def head(self, role: str, tokenizer: Tokenizer) -> list[int]:
        """What opens a turn."""
        return [tokenizer.end_of_text, *tokenizer.encode(f"{role}\n")]

    def content(self, text: str, tokenizer: Tokenizer) -> list[int]:
        """The text."""
        return tokenizer.encode(text)

    def mask(self, role: str, head: int, text: int) -> list[bool]:
        """What is learnt of a turn."""
        return [False] * head + [role == "assistant"] * (text + 1)

    def turn(self, message: Message, tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
        """One turn."""
        head, text = self.head(message.role, tokenizer), self.content(message.content, tokenizer)
        return [*head, *text, tokenizer.end_of_text], self.mask(message.role, len(head), len(text))

    def render(self, messages: Sequence[Message], tokenizer: Tokenizer) -> Rendered:
        """All turns."""
        turns = [self.turn(message, tokenizer) for message in messages]
        return Rendered(tuple(i for ids, _ in turns for i in ids), tuple(b for _, learn in turns for b in learn))

    def prompt(self, messages: Sequence[Message], tokenizer: Tokenizer) -> tuple[int, ...]:
        """Up to the answer."""
        return (*self.render(messages, tokenizer).ids, *self.head("assistant", tokenizer))

    def stop(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """The end of text."""
        return (tokenizer.end_of_text,)


@plant("prefix_preserving", "the last turn is rendered otherwise")
class LastIsSpecial(Turns):
    """Not a prefix."""

    def render(self, messages: Sequence[Message], tokenizer: Tokenizer) -> Rendered:
        rendered = super().render(messages, tokenizer)
        return Rendered((*rendered.ids, *tokenizer.encode("\n")), (*rendered.learn, False))


@plant("learns_the_answer", "the mask begins one token late")
class MaskShifted(Turns):
    """Off by one."""

    def mask(self, role: str, head: int, text: int) -> list[bool]:
        return [False, *super().mask(role, head, text)[:-1]]


@plant("prompt_leads_to_the_answer", "the prompt lacks the line break")
class NoLineBreak(Turns):
    """Training has one."""

    def prompt(self, messages: Sequence[Message], tokenizer: Tokenizer) -> tuple[int, ...]:
        return super().prompt(messages, tokenizer)[:-1]


@plant("content_stays_content", "content is encoded with special tokens")
class Injectable(Turns):
    """Content may end the turn."""

    def content(self, text: str, tokenizer: Tokenizer) -> list[int]:
        return tokenizer.encode(text, allow_special=True)


@plant("specials_are_declared", "stops at a line break")
class StopsAtAnything(Turns):
    """No special token."""

    def stop(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        return (tokenizer.encode("\n")[0],)


@plant("roles_differ", "system and user look alike")
class SystemIsUser(Turns):
    """Roles are lost."""

    def head(self, role: str, tokenizer: Tokenizer) -> list[int]:
        return super().head("user" if role == "system" else role, tokenizer)
