"""``corelm verify``: hold installed parts to the properties of their kinds."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corelm.conformance.running import Outcome

HELP = "hold installed parts to the properties of their kinds"


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "verify",
        help=HELP,
        description="Hold installed parts to the mathematical properties of their kinds. Exit code 1: something failed.",
        epilog="examples: corelm verify norm; corelm verify attention/gqa --property causal; "
        "corelm verify --plugin acme-norms --report report.html; corelm verify --mixing 10000",
    )
    parser.add_argument(
        "parts", nargs="*", metavar="KIND[/NAME]", help="kinds, parts or distribution:name; default: all"
    )
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="NAME", help="only this distribution's parts"
    )
    parser.add_argument("--property", action="append", default=[], metavar="P", help="only this property")
    parser.add_argument("--examples", type=_count, metavar="N", help="examples per property")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the draws (default 0)")
    parser.add_argument(
        "--jobs",
        type=_whole,
        default=min(2, os.cpu_count() or 1),
        metavar="N",
        help="processes (default %(default)s); 0: none but this one, e.g. for a debugger",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=30.0,
        metavar="S",
        help="an example that computes for so many seconds counts as one that never ends (default 30)",
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="also write a page that opens in a browser")
    parser.add_argument(
        "--mixing", type=_count, metavar="N", help="instead: draw N random recipes and run what validates"
    )
    parser.add_argument("--json", action="store_true", help="print plain data for scripts")
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def run(args: argparse.Namespace) -> int:
    """Do it; 0 when all is well, 1 when a property failed."""
    import torch

    torch.set_num_threads(1)
    if args.mixing:
        return _mixing(args)
    from corelm.cli.plugins import warn_of_failures
    from corelm.conformance.selection import parts
    from corelm.conformance.selection import run as verify
    from corelm.registration import active

    progress = _Progress(len(parts(args.parts, args.plugin)), quiet=args.json)
    if not args.plugin and args.parts:
        warn_of_failures(active(), sys.stderr)
    report = verify(
        *args.parts,
        plugins=args.plugin,
        names=args.property,
        examples=args.examples,
        seed=args.seed,
        seconds=args.timeout,
        jobs=args.jobs if hasattr(os, "killpg") else 0,
        watch=progress.watch,
        finished=progress.finished,
    )
    if args.report:
        report.write(args.report)
    print(json.dumps(report.data(), indent=2) if args.json else f"\n{report.text()}")
    if args.report and not args.json:
        print(f"page: {args.report}")
    return 0 if report.ok else 1


def _mixing(args: argparse.Namespace) -> int:
    from corelm.conformance.mixing import mix

    result = mix(args.mixing, seed=args.seed, watch=None if args.json else _mixed)
    print(json.dumps(result.data(), indent=2) if args.json else result.text())
    return 0 if result.ok else 1


class _Progress:
    """A line on standard error for each failure and for each part that is done."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        self.total, self.done, self.quiet = total, 0, quiet

    def watch(self, outcome: Outcome) -> None:
        """Say what failed, as soon as it does."""
        if not self.quiet and outcome.status in ("failed", "expected-failed"):
            print(f"{outcome.status}: {outcome.part}::{outcome.prop.name}", file=sys.stderr)

    def finished(self, outcomes: list[Outcome]) -> None:
        """Count the parts."""
        from corelm.conformance.report import Report, shown

        if self.quiet:
            return
        self.done += 1
        counts = {name: n for name, n in Report(outcomes).counts.items() if n and name not in ("applicable", "run")}
        seconds = sum(outcome.seconds for outcome in outcomes)
        print(
            f"[{self.done}/{self.total}] {outcomes[0].part}  {shown(counts)}  {seconds:.1f} s",
            file=sys.stderr,
            flush=True,
        )


def _mixed(done: int, accepted: int) -> None:
    if done % 100 == 0:
        print(f"{done} recipes drawn, {accepted} accepted", file=sys.stderr)
