"""The command line: one file per verb, none of which is imported before it is asked for."""

from __future__ import annotations

import argparse
import difflib
import importlib
import io
import os
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import Any, Final

VERBS: Final[dict[str, tuple[str, str]]] = {
    "run": ("run", "run a recipe: what is up to date is skipped, what was cut off goes on"),
    "validate": ("validate", "check a recipe without running it"),
    "plan": ("plan", "what a recipe would do: stages, parameters, memory, tokens"),
    "explain": ("explain", "where each value of a recipe came from"),
    "init": ("init", "write a recipe to start from"),
    "schema": ("schema", "JSON Schema of all installed parts, for editors"),
    "list": ("list_", "what is installed"),
    "describe": ("describe", "a kind's contract, or a part's options"),
    "plugins": ("plugins", "installed plugins, and those that failed to load"),
    "verify": ("verify", "hold installed parts to the properties of their kinds"),
    "generate": ("generate", "let a model write"),
    "chat": ("chat", "talk with a model"),
    "evaluate": ("evaluate", "measure a model"),
    "data": ("data", "look at data as a model will see them"),
    "report": ("report", "what a run did"),
    "compare": ("compare", "metrics of several runs side by side"),
    "import": ("import_", "read a model from another format"),
    "export": ("export", "write a model in another format"),
    "tokenizer": ("tokenizer", "compare tokenizers on texts of yours"),
    "new": ("new", "begin a plugin of your own"),
}
"""Verb → the module of this package that does it, and one line about it."""

EPILOG = """start here:
  corelm init                        writes recipe.yaml, the quickstart to edit
  corelm run recipe.yaml             runs it; a second time it says that everything is up to date
  corelm list attention              what there is to choose from
  corelm describe attention/gqa      what it does and what can be set

exit codes: 0 done, 2 something for you to mend, 1 our mistake (try --debug)
"""


class _Parser(argparse.ArgumentParser):
    """An argument parser that takes no abbreviations and whose errors say where to read on."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> None:  # type: ignore[override]
        self.print_usage(sys.stderr)
        wrong = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if wrong:
            choices = re.findall(r"'([^']*)'", wrong[2])
            message = f"{wrong[1]!r} is not one of {', '.join(choices)}{_nearest(wrong[1], choices)}"
        self.exit(2, f"{self.prog}: {message}\nsee: {self.prog} --help\n")

    def refuse(self, unknown: Sequence[str]) -> None:
        """Say that arguments were not understood, with the nearest option."""
        flag = next((text.partition("=")[0] for text in unknown if text.startswith("-")), "")
        hint = "; write path=value without --set" if flag == "--set" else _nearest(flag, self._option_string_actions)
        self.error(f"not understood: {' '.join(unknown)}{hint}")


def _nearest(text: str, among: Iterable[str]) -> str:
    close = difflib.get_close_matches(text, list(among), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    # Threads that spin long while they wait make a busy machine crawl, threads that don't spin at all make a quiet one
    # wait. It must be said before torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the terminal's encoding lacks is no reason to fail
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _failed(error, debug, "--json" in arguments)


def _run(arguments: list[str]) -> int:
    parser = _Parser(
        prog="corelm",
        description="Build language models out of interchangeable parts.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs", parser_class=_Parser)
    wanted = next((argument for argument in arguments if not argument.startswith("-")), None)
    for verb, (module, line) in VERBS.items():
        if verb == wanted:
            importlib.import_module(f"corelm.cli.{module}").register(subparsers)
        else:
            subparsers.add_parser(verb, help=line)
    args, unknown = parser.parse_known_args(arguments)
    if hasattr(args, "overrides"):
        # argparse takes no positional argument after an option; path=value may stand there all the same.
        args.overrides = [*args.overrides, *(text for text in unknown if not text.startswith("-"))]
        unknown = [text for text in unknown if text.startswith("-")]
    if unknown:
        subparsers.choices.get(args.verb, parser).refuse(unknown)
    if args.verb is None:
        parser.print_help()
        return 0
    code: int = args.run(args)
    return code


def _version() -> str:
    from corelm import __version__

    return f"corelm {__version__}"


def _failed(error: Exception, debug: bool, as_json: bool) -> int:
    """Say what went wrong: a user's mistake without a traceback, ours with a hint at one."""
    from corelm.errors import ToldElsewhere, UserError, exit_code

    if debug:
        traceback.print_exception(error)
    if isinstance(error, ToldElsewhere):
        return exit_code(error)
    if isinstance(error, UserError):
        problems = getattr(error, "as_json", None)
        if as_json and problems is not None:
            import json

            print(json.dumps(problems(), indent=1, ensure_ascii=False))
        print(error, file=sys.stderr)
        return exit_code(error)
    print(f"corelm failed: {type(error).__name__}: {error}", file=sys.stderr)
    print("This is a mistake of ours or of a plugin; --debug shows where.", file=sys.stderr)
    return 1
