"""``corelm generate``: let a model write."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from corelm.cli.parts import add_writing

EPILOG = """examples:
  corelm generate runs/quickstart/base --prompt "def parse(" --tokens 64
  corelm generate runs/quickstart/preferred --ask "What does os.walk do?"
  corelm generate MODEL --prompt "Once" --sampler "{use: temperature, value: 0.8}" --sampler "{use: top-p, p: 0.9}"
"""


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "generate", help="let a model write", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a model's folder")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", metavar="TEXT", help="a text to continue, as it is; empty: begin a document")
    what.add_argument("--ask", metavar="TEXT", help="a question, put through the model's template")
    add_writing(parser, tokens=64)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write, piece by piece."""
    from corelm.cli.models import conversational, open_model
    from corelm.cli.parts import read_part
    from corelm.kinds.records import Message

    samplers = [read_part("sampler", text, "--sampler").build() for text in args.sampler]
    model = open_model(args.model, writes=True)
    if args.ask is not None:
        conversational(model, args.model)
        print(model.answer([Message("user", args.ask)], args.tokens, samplers, seed=args.seed))
        return 0
    length = len(model.tokenize(args.prompt)) + args.tokens
    if length > model.context:
        print(f"note: {length} tokens in all; the model was made for {model.context}", file=sys.stderr)
    pieces = model.generate(args.prompt, args.tokens, samplers, seed=args.seed, stream=True)
    first = next(pieces, "")  # what can't be continued is refused before anything is printed
    print(args.prompt, end=first, flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    return 0
