"""``corelm generate``: let a model write."""

from __future__ import annotations

import argparse
from typing import Any

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
    what.add_argument("--prompt", help="a text to continue, as it is")
    what.add_argument("--ask", help="a question, put through the model's template")
    parser.add_argument("--tokens", type=int, default=64, help="most new tokens (default 64)")
    parser.add_argument(
        "--sampler",
        action="append",
        default=[],
        metavar="PART",
        help="filters of the next token, in order; none: greedy",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sampling")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write, piece by piece."""
    from corelm.cli.parts import read_part
    from corelm.kinds.records import Message
    from corelm.model.loading import load

    model = load(args.model)
    samplers = [read_part("sampler", text).build() for text in args.sampler]
    if args.ask is not None:
        print(model.answer([Message("user", args.ask)], args.tokens, samplers, seed=args.seed))
        return 0
    print(args.prompt, end="", flush=True)
    for piece in model.generate(args.prompt, args.tokens, samplers, seed=args.seed, stream=True):
        print(piece, end="", flush=True)
    print()
    return 0
