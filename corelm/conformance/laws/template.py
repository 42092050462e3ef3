"""Properties of templates."""

from __future__ import annotations

from functools import cache
from typing import Any

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.texts import text
from corelm.kinds.records import Message, RoleName
from corelm.kinds.tokenizer import Tokenizer

MINIMUM = 4
"""So many of these properties must say something about every part of the kind, and hold."""

ROLES: tuple[RoleName, ...] = ("system", "user", "assistant", "user", "assistant")
MARKERS = ("assistant\n", "<|im_start|>assistant\n", "<|im_end|>", "<|endoftext|>", "Answer:\n", "user\n", "\n\n")


class TemplateBench(Bench):
    """A tokenizer of bytes and the template's special tokens; headings with letters of all planes, quotes and braces."""

    kind = "template"
    hints = {
        "system": ("Instructions:", 'Règles "1" \U0001f600:'),
        "user": ("Question:", "\u554f:"),
        "assistant": ("Answer:", "\\n{{ \U0001f916 }}"),
    }

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """A conversation."""
        return {"messages": conversation(draw)}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Render."""
        rendered = subject.part.render(inputs["messages"], _tokenizer(subject))
        return [len(rendered.ids), float(sum(rendered.ids)), list(rendered.ids), list(rendered.learn)]


@cache
def _bytes(specials: tuple[str, ...]) -> Tokenizer:
    """The kit's own tokenizer: bytes, then special tokens."""
    from corelm.conformance.bugs.tokenizer import Pairs

    tokenizer = Pairs(Pairs.Config(vocab_size=256 + len(specials)))
    tokenizer.train((), specials)
    return tokenizer


def _tokenizer(subject: Subject) -> Tokenizer:
    return _bytes(tuple(type(subject.part).specials(subject.config)))


def conversation(draw: Draw) -> tuple[Message, ...]:
    """A few turns; contents spell whatever could open a role."""
    start, count = draw.integer("first", 0, 1), draw.integer("turns", 1, 3)
    return tuple(Message(role, _content(draw, role)) for role in ROLES[start : start + count + 1])


def _content(draw: Draw, role: str) -> str:
    """Text and perhaps a marker; now and then nothing at all."""
    marker = draw.choice("marker", ("", *MARKERS, None))
    return "" if marker is None else f"{text(draw, role)}{marker} {draw.seed() % 1000}"


def _ready(part: PartUnderTest, draw: Draw) -> tuple[Any, Tokenizer, tuple[Message, ...]]:
    subject = part.bench.subject(part, draw)
    return subject.part, _tokenizer(subject), conversation(draw)


@property_of(
    "template",
    statement="Rendering the first messages is a prefix of rendering them all.",
    formula="render(m[:n]) is a prefix of render(m)",
    catches="a template that looks at the whole conversation, so that a cache is never hit",
    tier="bit",
    examples=25,
)
def prefix_preserving(part: PartUnderTest, draw: Draw) -> None:
    """Any number of messages."""
    template, tokenizer, messages = _ready(part, draw)
    n = draw.integer("n", 1, len(messages))
    first, whole = template.render(messages[:n], tokenizer), template.render(messages, tokenizer)
    assert whole.ids[: len(first.ids)] == first.ids, f"the first {n} messages are rendered otherwise"
    assert whole.learn[: len(first.learn)] == first.learn, f"the first {n} messages are learnt otherwise"


@property_of(
    "template",
    statement="Exactly the assistant's text and its stop token are learnt.",
    formula="learnt tokens = Σ over assistant turns: encode(content) ⧺ stop",
    catches="a mask that is shifted by the header, a stop token that is never learnt",
    tier="bit",
    examples=25,
)
def learns_the_answer(part: PartUnderTest, draw: Draw) -> None:
    """Learnt tokens, read back."""
    template, tokenizer, messages = _ready(part, draw)
    rendered = template.render(messages, tokenizer)
    assert len(rendered.ids) == len(rendered.learn), "ids and learn differ in length"
    stop = template.stop(tokenizer)
    learnt = [i for i, learn in zip(rendered.ids, rendered.learn, strict=True) if learn]
    answers = [message.content for message in messages if message.role == "assistant"]
    expected = [i for answer in answers for i in (*tokenizer.encode(answer), stop[0])]
    assert learnt == expected, f"learnt is {tokenizer.decode(learnt)!r}, the answers are {answers!r} with a stop each"


@property_of(
    "template",
    statement="prompt is what comes before the assistant's text in a whole conversation.",
    formula="prompt(m) ⧺ encode(a) ⧺ stop is a prefix of render(m ⧺ a)",
    catches="a space or a line break that training has and generation lacks",
    tier="bit",
    examples=25,
)
def prompt_leads_to_the_answer(part: PartUnderTest, draw: Draw) -> None:
    """Prompt + answer + stop is a prefix of the rendering."""
    template, tokenizer, messages = _ready(part, draw)
    before = tuple(m for m in messages if m.role != "assistant")[:2]
    answer = Message("assistant", _content(draw, "answer"))
    prompt = template.prompt(before, tokenizer)
    whole = template.render((*before, answer), tokenizer)
    wanted = (*prompt, *tokenizer.encode(answer.content), template.stop(tokenizer)[0])
    assert whole.ids[: len(wanted)] == wanted, "prompt, answer and stop are no prefix of the rendering"


@property_of(
    "template",
    statement="Content never opens a role or ends a turn: it adds no special token, whatever it spells.",
    formula="specials(render(m)) = specials(render(m with harmless content)); content ⊂ decode(render(m))",
    catches="template injection",
    tier="bit",
    examples=50,
)
def content_stays_content(part: PartUnderTest, draw: Draw) -> None:
    """As many special tokens as with harmless content; the content is all there."""
    template, tokenizer, messages = _ready(part, draw)
    special = set(tokenizer.specials.values())
    spelt = draw.choice("special", sorted(tokenizer.specials))
    messages = (*messages[:-1], Message(messages[-1].role, f"{messages[-1].content}{spelt}!"))
    harmless = tuple(Message(message.role, "x") for message in messages)
    found, expected = (
        [i for i in template.render(each, tokenizer).ids if i in special] for each in (messages, harmless)
    )
    assert found == expected, f"special tokens {found} with this content, {expected} with harmless content"
    rendered = tokenizer.decode_bytes(template.render(messages, tokenizer).ids)
    for message in messages:
        assert message.content.encode() in rendered, f"the content {message.content!r} is not there as it is"


@property_of(
    "template",
    statement="Special tokens it writes are declared, and stop tokens end the assistant's turn.",
    formula="∅ ≠ stop ⊂ specials",
    catches="a token that the tokenizer was never given",
    tier="io",
    examples=8,
)
def specials_are_declared(part: PartUnderTest, draw: Draw) -> None:
    """Stops are among the special tokens."""
    template, tokenizer, _ = _ready(part, draw)
    stops = template.stop(tokenizer)
    assert stops, "nothing stops the assistant"
    assert set(stops) <= set(tokenizer.specials.values()), f"stop ids {stops} are no special tokens"
    prompt = template.prompt((Message("user", "x"),), tokenizer)
    assert prompt and prompt[-1] not in stops, "the prompt ends with a stop token"


@property_of(
    "template",
    statement="Roles are told apart.",
    formula="r ≠ r′ ⇒ render(r, c) ≠ render(r′, c)",
    catches="a system message that reads as the user's",
    tier="bit",
    examples=5,
)
def roles_differ(part: PartUnderTest, draw: Draw) -> None:
    """The same content in other roles."""
    template, tokenizer, _ = _ready(part, draw)
    roles: tuple[RoleName, ...] = ("system", "user", "assistant")
    rendered = {role: template.render((Message(role, "x"), Message("user", "y")), tokenizer).ids for role in roles}
    assert len(set(rendered.values())) == 3, "two roles are rendered alike"


@property_of(
    "template",
    statement="As a chat template of Hugging Face's it writes the same text, and the same prompt.",
    formula="jinja(messages) = decode(render(messages)), jinja(messages, add_generation_prompt) = decode(prompt(messages))",
    catches="an exported model that is asked in another layout than it was taught in",
    tier="bit",
    examples=20,
)
def exported_equals_rendered(part: PartUnderTest, draw: Draw) -> None:
    """Rendered by jinja2 as the transformers library sets it up."""
    template, tokenizer, messages = _ready(part, draw)
    told = template.as_jinja()
    if told is None:
        raise NotApplicable("it can't be said as a chat template")
    try:
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise NotApplicable("jinja2 is not installed") from None
    layout = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(told)
    given = [{"role": message.role, "content": message.content} for message in messages]
    for ids, ask in (
        (template.render(messages, tokenizer).ids, False),
        (template.prompt(messages, tokenizer), True),
    ):
        ours, theirs = tokenizer.decode(ids), layout.render(messages=given, add_generation_prompt=ask)
        assert theirs == ours, f"as a chat template it writes {theirs!r}, here it writes {ours!r}"
