"""``corelm tokenizer report``: tokenizers side by side, on texts of yours."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from corelm.errors import UserError

if TYPE_CHECKING:
    from corelm.cli.tokenizer_figures import Figures
    from corelm.kinds.tokenizer import Tokenizer

EPILOG = """examples:
  corelm tokenizer report runs/quickstart --text book.txt
  corelm tokenizer report mine=runs/mine gpt2=encoder.json bytes --text english=en.txt --text code=src/ --html report.html
  corelm tokenizer report runs/quickstart --text languages/ --json

A TOKENIZER is a run, a model's folder, a file of a tokenizer, or a part that needs no training (bytes).
A folder of texts counts each of its files as a text of its own; NAME=FOLDER/ takes them together.
"""

MOST: Final = 50_000_000
"""Characters of one text that are read; what is longer is cut, and the report says so."""


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("tokenizer", help="compare tokenizers on texts of yours")
    deeds = parser.add_subparsers(dest="deed", metavar="WHAT", required=True)
    report = deeds.add_parser(
        "report",
        help="bytes per token, fertility, use of the vocabulary, junk and speed of each",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument("tokenizers", metavar="[NAME=]TOKENIZER", nargs="+", help="what to compare")
    report.add_argument(
        "--text", action="append", required=True, metavar="[NAME=]PATH", help="a file or folder; may be repeated"
    )
    report.add_argument("--html", type=Path, metavar="FILE", help="write a page with pictures")
    report.add_argument("--json", action="store_true", help="print JSON")
    report.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure each tokenizer on each text."""
    from corelm.cli.tokenizer_figures import measure

    texts = read_texts(args.text)
    tokenizers = {name: open_tokenizer(path) for name, path in _named(args.tokenizers)}
    found = []
    for name, tokenizer in tokenizers.items():
        print(f"measuring {name}", file=sys.stderr, flush=True)
        found.append(measure(name, tokenizer, texts))
    if args.json:
        print(json.dumps([_plain(figures) for figures in found], indent=1, ensure_ascii=False))
    else:
        print(render(found))
    if args.html is not None:
        from corelm.cli.tokenizer_page import page
        from corelm.files import writing

        with writing(args.html):
            args.html.write_text(page(found), encoding="utf-8")
        print(f"wrote {args.html}", file=sys.stderr)
    return 0


def _named(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """Name and path of ``NAME=PATH``; a name is made from a path that has none, and is there once."""
    named: dict[str, str] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not equals or Path(argument).exists():
            name, path = _short(argument), argument
        if name in named:
            raise UserError(f"{name} is named twice: {named[name]} and {path}", remedy="Give them names: NAME=PATH.")
        named[name] = path
    return list(named.items())


def _short(path: str) -> str:
    whole = Path(path)
    return whole.stem if whole.is_file() else (whole.name or path)


def open_tokenizer(path: str) -> Tokenizer:
    """A run's, a model's, a file's, or a part's that needs no training.

    Raises:
        UserError: there is none.
    """
    from corelm.cli.parts import read_part
    from corelm.model.loading import load_tokenizer
    from corelm.registration import active

    if Path(path).exists():
        return load_tokenizer(path)
    if path not in {name for record in active().parts("tokenizer") for name in (record.name, record.qualified)}:
        raise UserError(
            f"no tokenizer at {path}", remedy="Name a run, a model's folder, or a file such as tokenizer.json."
        )
    spec = read_part("tokenizer", path, "tokenizer")
    made: Tokenizer = spec.build()
    try:
        made.train([])
    except UserError as error:
        raise UserError(
            f"tokenizer {path} has to be trained first", remedy="Name a folder in which a trained one is."
        ) from error
    return made


def read_texts(arguments: Sequence[str]) -> dict[str, str]:
    """Texts by name, at most ``MOST`` characters of each.

    Raises:
        UserError: nothing there, or no UTF-8.
    """
    texts: dict[str, str] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not equals or Path(argument).exists():
            name, path = "", argument
        whole = Path(path)
        read = _folder(whole) if whole.is_dir() else {whole: _read(whole)}
        found: dict[str, str] = {}
        for file, text in read.items():
            title = name or _short(str(file))
            found[title] = found.get(title, "") + text[: MOST - len(found.get(title, ""))]
        if twice := found.keys() & texts.keys():
            raise UserError(f"two texts are called {min(twice)}", remedy="Give them names: NAME=PATH.")
        texts |= {title: text for title, text in found.items() if text}
    if not texts:
        raise UserError(f"no text in {', '.join(arguments)}", remedy="Name files that hold some.")
    return texts


def _folder(folder: Path) -> dict[Path, str]:
    """Its files that are UTF-8; how many are not is told."""
    read, others = {}, 0
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        try:
            read[file] = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            others += 1
    if others:
        print(f"{folder}: {others} files that are no UTF-8 are left out", file=sys.stderr)
    return read


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", remedy="Name a file or folder of text.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: no UTF-8 at byte {error.start}", remedy="Convert it to UTF-8.") from error


def _plain(figures: Figures) -> dict[str, Any]:
    summary = {name: getattr(figures, name) for name in ("name", "vocab_size", *(name for name, _, _ in SUMMARY))}
    texts = {
        title: {**vars(text), "bytes_per_token": text.bytes_per_token, "fertility": text.fertility}
        for title, text in figures.texts.items()
    }
    return {
        **summary,
        "texts": texts,
        "longest": figures.longest,
        "unreachable": figures.unreachable,
        "partial": figures.partial,
        "invisible": figures.invisible,
    }


SUMMARY: Final = (
    ("bytes_per_token", "bytes per token", "{:.3f}"),
    ("fertility", "tokens per word", "{:.3f}"),
    ("used", "vocabulary used", "{:.1%}"),
    ("efficiency", "Rényi efficiency", "{:.3f}"),
    ("encoding", "encoding, MB/s", "{:.2f}"),
    ("decoding", "decoding, MB/s", "{:.2f}"),
)
"""Figure, what it is called, how it is written."""


def render(found: Sequence[Figures]) -> str:
    """Tables as people read them: the whole, text by text, then what is odd about each vocabulary."""
    names = [figures.name for figures in found]
    whole = [["", *names], ["vocabulary", *(f"{figures.vocab_size:,}" for figures in found)]]
    whole += [[title, *(form.format(getattr(f, name)) for f in found)] for name, title, form in SUMMARY]
    whole += [
        ["tokens never written", *(f"{len(f.unreachable):,}" for f in found)],
        ["tokens of partial characters", *(f"{f.partial:,}" for f in found)],
        ["tokens with control characters", *(f"{len(f.invisible):,}" for f in found)],
    ]
    parts = [_table(whole)]
    for title, of in (("bytes per token", "bytes_per_token"), ("tokens per word", "fertility")):
        rows = [[title, *names]]
        rows += [[text, *(f"{getattr(f.texts[text], of):.3f}" for f in found)] for text in found[0].texts]
        parts.append(_table(rows))
    parts += [f"longest tokens of {f.name}: {' '.join(map(ascii_or_not, f.longest))}" for f in found]
    parts += [
        f"unlike the text: {f.name} does not give back {', '.join(odd)}"
        for f in found
        if (odd := [title for title, text in f.texts.items() if text.unlike])
    ]
    return "\n\n".join(parts)


def ascii_or_not(text: str) -> str:
    """A token's spelling, quoted, with what can't be seen written out."""
    return repr(text) if len(text) <= 40 else f"{text[:36]!r}…({len(text)})"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    )


def by_text(found: Sequence[Figures], of: str) -> Mapping[str, list[float]]:
    """One figure of each text, tokenizer by tokenizer."""
    return {title: [getattr(f.texts[title], of) for f in found] for title in found[0].texts}
