"""``corelm chat``: talk with a model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from corelm.cli.parts import add_writing

if TYPE_CHECKING:
    from corelm.kinds.records import Message
    from corelm.model.language_model import LanguageModel

EPILOG = """examples:
  corelm chat runs/quickstart/preferred
  corelm chat MODEL --sampler "{use: temperature, value: 0.8}" --sampler "{use: top-p, p: 0.9}"

Each line is your turn; the model sees the conversation so far. An empty line begins a new conversation, Ctrl-D ends.
"""


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "chat", help="talk with a model", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder of a model that was tuned on conversations")
    add_writing(parser, tokens=128)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read a line, answer it, until the input ends."""
    from corelm.cli.models import conversational, open_model
    from corelm.cli.parts import read_part
    from corelm.kinds.records import Message

    samplers = [read_part("sampler", text, "--sampler").build() for text in args.sampler]
    model = conversational(open_model(args.model, writes=True), args.model)
    messages: list[Message] = []
    for turn, line in enumerate(lines()):
        if not line.strip():
            messages = []
            print("new conversation", file=sys.stderr)
            continue
        messages.append(Message("user", line))
        ids = prompt(model, messages, args.tokens)
        answer = ""
        for piece in model.pieces(ids, args.tokens, samplers, args.seed + turn):
            answer += piece
            print(piece, end="", flush=True)
        print()
        messages.append(Message("assistant", answer.strip()))
    return 0


def lines() -> Iterator[str]:
    """What is typed, or piped in, line by line; asks only where somebody types."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", flush=True, file=sys.stderr)
        line = sys.stdin.readline()
        if not line:
            return
        yield line.rstrip("\n")


def prompt(model: LanguageModel, messages: list[Message], tokens: int) -> tuple[int, ...]:
    """Ids of the conversation; its oldest turns are forgotten (also in ``messages``) until the answer has room."""
    assert model.template is not None
    while True:
        ids = model.template.prompt(messages, model.tokenizer)
        if len(ids) + tokens <= model.context or len(messages) == 1:
            return tuple(ids)
        del messages[:2]
        print(f"(forgot the oldest turn: the model's context is {model.context} tokens)", file=sys.stderr)
