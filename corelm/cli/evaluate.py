"""``corelm evaluate``: measure a model on its own."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corelm.kinds.component import Spec

EPILOG = """examples:
  corelm evaluate runs/quickstart/base --task perplexity --data "{use: text-files, paths: [book.txt]}"
  corelm evaluate MODEL --task "{use: multiple-choice, limit: 100}" --data "{use: jsonl, path: hs.jsonl, yields: choice}"
  corelm evaluate MODEL --task last-word --data … --json
"""


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "evaluate", help="measure a model", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a model's folder")
    parser.add_argument(
        "--task", action="append", required=True, metavar="PART", help="an evaluator; may be repeated"
    )
    parser.add_argument("--data", metavar="PART", help="a source, for tasks that bring no data of their own")
    parser.add_argument("--judge", help="folder of a reward model, for tasks that need one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


class Quiet:
    """Tells notes on standard error, and nothing else."""

    stopping = False

    def step(self, step: int, total: int, figures: Mapping[str, float]) -> None:
        """Nothing."""

    def note(self, message: str) -> None:
        """Print it."""
        print(message, file=sys.stderr)


def run(args: argparse.Namespace) -> int:
    """Measure."""
    from corelm.cli.models import open_model
    from corelm.cli.parts import read_part
    from corelm.errors import UserError
    from corelm.kinds.data import DataConfig
    from corelm.pipeline.cleaning import stream

    model = open_model(args.model)
    source = read_part("source", args.data, "--data") if args.data else None
    tasks: dict[str, tuple[Spec[Any], Any]] = {}
    for text in args.task:
        task = read_part("evaluator", text, "--task")
        data = getattr(task.config, "data", None) or (DataConfig(source=source) if source else None)
        if data is None:
            raise UserError(
                f"--task {text} has no data", remedy="Give --data, e.g. '{use: text-files, paths: [a.txt]}'."
            )
        if task.part.judged and not args.judge:
            raise UserError(f"--task {text} needs a reward model", remedy="Give --judge FOLDER.")
        tasks[text if task.name in tasks else task.name] = (task, data)
    judge = open_model(args.judge) if args.judge else None
    results: dict[str, dict[str, float]] = {}
    for name, (task, data) in tasks.items():
        more = {"judge": judge} if task.part.judged else {}
        results[name] = task.build().evaluate(model, stream(data, "all"), Quiet(), **more)
    if args.json:
        print(json.dumps(results, indent=1, sort_keys=True))
        return 0
    for name, metrics in results.items():
        print(name)
        for metric, value in metrics.items():
            print(f"  {metric:<28}{value:.4f}")
    return 0
