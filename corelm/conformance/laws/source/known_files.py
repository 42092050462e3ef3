"""Known files of formats of text and of tables."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import io
import json
import lzma
from collections.abc import Callable, Sequence
from typing import Any, Final

from corelm.conformance.laws.source.known import Known

CHUNK: Final = 2**20
"""Bytes after which most readers ask for more."""

MARK: Final = b"\xef\xbb\xbf"
"""Byte order mark of UTF-8."""

LINES: Final = '"quoted", with a\nline break'


def _jsonl(*rows: Any) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def text_files() -> list[Known]:
    """Order, hidden files, members of gzip, byte order marks, separators anywhere about the end of a chunk."""
    folder = {
        "z.txt": MARK + "first é".encode(),
        "a/2.txt.gz": gzip.compress(b"one ") + gzip.compress(b"two") + b"\0" * 3,
        "a/1.txt": b"\r\nkept as it is\r\n",
        "a/.hidden/3.txt": b"not this",
        "a/.4.txt": b"nor this",
        "a/b/5.txt": b"below",
    }
    came = [
        ("text-files: z.txt", "first é"),
        ("text-files: 1.txt", "\r\nkept as it is\r\n"),
        ("text-files: 2.txt.gz", "one two"),
        ("text-files: b/5.txt", "below"),
    ]
    starred = [("text-files: 1.txt", "\r\nkept as it is\r\n"), ("text-files: 2.txt.gz", "one two")]
    cut = [
        Known(
            {"rows.txt": MARK + b"x" * (CHUNK - 4 - shift) + b"<|>\n\n<|> \n<|>y\r\n<|>z"},
            [
                ("text-files: rows.txt#1", "x" * (CHUNK - 4 - shift)),
                ("text-files: rows.txt#2", "y"),
                ("text-files: rows.txt#3", "z"),
            ],
            {"separator": "<|>"},
            paths=("rows.txt",),
        )
        for shift in (-1, 0, 1, 2)
    ]
    torn = b"a" * (CHUNK - 1) + "é".encode() + b"b\xff"
    return [
        Known(folder, came, paths=("z.txt", "a", "z.txt")),
        Known(folder, starred, paths=("a/*.*",)),
        *cut,
        *_packed(),
        Known({"a.txt": torn}, [], paths=("a.txt",), refused=("a.txt", f"byte {CHUNK + 2} ")),
        Known({"a.txt": b"fine", "b.txt": b" \n"}, [("text-files: a.txt", "fine")], refused=("b.txt", "no text")),
        Known({"a.txt": b"12345"}, [], {"longest": 4}, refused=("a.txt", "more than 4 characters")),
        Known({"a.txt": b"1234"}, [("text-files: a.txt", "1234")], {"longest": 4}),
    ]


def _packed() -> list[Known]:
    """Compressed files of several members and pieces; those that break off, or begin with something else."""
    text = "".join(f"{number:x} é " for number in range(CHUNK // 8))
    first, second = text[: CHUNK // 4].encode(), text[CHUNK // 4 :].encode()
    packers: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
    if importlib.util.find_spec("zstandard"):
        packers["zst"] = importlib.import_module("zstandard").ZstdCompressor().compress
    found = []
    for ending, pack in packers.items():
        name = f"a.txt.{ending}"
        whole = pack(first) + pack(second)
        found += [
            Known({name: whole}, [(f"text-files: {name}", text)]),
            Known({name: whole[:-9]}, [], refused=(name, "broken off or damaged")),
            Known({name: whole + b"and more"}, [], refused=(name, "broken off or damaged")),
        ]
    zeros = b"\0" * 2**17 + gzip.compress(first)
    return [*found, Known({"a.txt.gz": zeros}, [], refused=("a.txt.gz", "broken off or damaged"))]


def _records() -> list[Known]:
    """Every type of record, by its own names or others, and what is wrong with one."""
    turns = [{"from": "system", "value": "S"}, {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    calls = {"turn": {"role": "from", "content": "value"}, "roles": {"human": "user", "gpt": "assistant"}}
    asked = (("system", "S"), ("user", "Q"))
    rows: list[tuple[dict[str, Any], dict[str, Any], Any]] = [
        ({"title": "T", "body": "B"}, {"columns": {"text": ["title", "body"]}, "separator": ": "}, "T: B"),
        ({"messages": turns}, {"yields": "conversation", **calls}, ((*asked, ("assistant", "A")),)),
        (
            {"system": "S", "instruction": "Q", "input": "I", "response": "A"},
            {"yields": "conversation", "columns": {"prompt": "instruction"}},
            ((("system", "S"), ("user", "Q\n\nI"), ("assistant", "A")),),
        ),
        (
            {"system": "", "prompt": "Q", "input": "", "response": "A"},
            {"yields": "conversation"},
            ((("user", "Q"), ("assistant", "A")),),
        ),
        ({"prompt": "Q", "chosen": "A", "rejected": "B"}, {"yields": "preference"}, ((("user", "Q"),), "A", "B")),
        (
            {"chosen": turns, "rejected": [*turns[:2], {"from": "gpt", "value": "B"}]},
            {"yields": "preference", **calls},
            (asked, "A", "B"),
        ),
        ({"text": "T", "label": "2"}, {"yields": "labelled"}, ("T", 2)),
        ({"text": "T", "label": "bad"}, {"yields": "labelled", "classes": ["good", "bad"]}, ("T", 1)),
        ({"context": "C", "endings": ["A", "B"], "gold": 1}, {"yields": "choice"}, (("C",), ("A", "B"), 1)),
        ({"context": ["C", "D"], "endings": "E", "gold": 0}, {"yields": "choice"}, (("C", "D"), ("E", "E"), 0)),
        ({"context": "C", "endings": ["E"]}, {"yields": "choice"}, (("C",), ("E",), 0)),
    ]
    wrong: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"prompt": "Q", "chosen": turns, "rejected": "B"}, {"yields": "preference", **calls}, "different turns"),
        ({"chosen": turns[:2], "rejected": turns}, {"yields": "preference", **calls}, "the last turn"),
        ({"text": "T", "label": -1}, {"yields": "labelled"}, "from 0 on"),
        ({"text": "T", "label": "so"}, {"yields": "labelled", "classes": ["good", "bad"]}, "good, bad"),
        ({"context": "C", "endings": ["A", "B"], "gold": 2}, {"yields": "choice"}, "2 is not"),
        ({"context": ["C", "D", "E"], "endings": ["A", "B"], "gold": 1}, {"yields": "choice"}, "3 contexts"),
        ({"context": "C", "endings": ["A", "B"]}, {"yields": "choice"}, "gold"),
        ({"messages": [*turns, {"from": "tool", "value": "x"}]}, {"yields": "conversation", **calls}, "turn 3"),
        ({"text": 5}, {}, "int 5"),
    ]
    return [
        *(Known({"rows.jsonl": _jsonl(row)}, [("jsonl: rows.jsonl:1", came)], given) for row, given, came in rows),
        *(
            Known({"rows.jsonl": _jsonl(row)}, [], given, refused=("rows.jsonl:1", said))
            for row, given, said in wrong
        ),
    ]


def json_lines() -> list[Known]:
    """Records, empty lines, byte order marks, lists, and where something is broken."""
    name = "jsonl: rows.jsonl"
    one, three = (f"{name}:1", "one"), (f"{name}:3", "three")
    begun = MARK + b'{"text": "one"}\n \t\r\n'
    return [
        *_records(),
        Known({"rows.jsonl": begun + b'{"text": "three", "more": [1]}'}, [one, three]),
        Known({"rows.jsonl": begun + b'{"text" "three"}\n'}, [one], refused=("rows.jsonl:3", "column 9")),
        Known({"rows.jsonl": begun + MARK + b'{"text": "three"}\n'}, [one], refused=("rows.jsonl:3", "not JSON")),
        Known(
            {"rows.jsonl": begun + b'{"text": \xff}\n{"text": "four"}\n[]\n' + b"x" * 99 + b'\n{"text": "seven"}'},
            [one, (f"{name}:4", "four"), (f"{name}:7", "seven")],
            {"broken": "skip", "longest": 40},
            {"not-utf8": 1, "broken-line": 1, "line-too-long": 1},
        ),
        Known(
            {"rows.json": MARK + json.dumps([{"text": "one"}, {"text": "two"}]).encode(), "rows.txt": b"no rows"},
            [("jsonl: rows.json: row 1", "one"), ("jsonl: rows.json: row 2", "two")],
        ),
        Known({"rows.json": b'[{"text": "one"},\n {"text": two}]'}, [], refused=("rows.json", "line 2, column 11")),
        Known({"rows.json": b'{"text": "one"}'}, [], refused=("rows.json", "found dict")),
    ]


def separated_values() -> list[Known]:
    """Quotes, line breaks inside of them, tabs, encodings, headers that are said, and the line where a row begins."""
    quoted = b'number,text\r\n1,"""quoted"", with a\nline break"\r\n\r\n2,plain\r\n'
    came = [("csv: a.csv:2", LINES), ("csv: a.csv:5", "plain")]
    return [
        Known({"a.csv": MARK + quoted}, came),
        Known({"a.csv": quoted + b"3,4,5\n"}, came, refused=("a.csv:6", "3 values for 2 columns")),
        Known({"a.csv": quoted + b'3,"open'}, came, refused=("a.csv", "line 6")),
        Known({"a.csv": quoted + b"3,\xff\n"}, came, refused=("a.csv", "line 6", "byte 2 ")),
        Known({"a.csv": b"text,text\n1,2\n"}, [], refused=("a.csv", "two columns are named 'text'")),
        Known({"a.csv": b"text\n" + b"x" * 50 + b"\n"}, [], {"longest": 40}, refused=("a.csv", "line 2")),
        Known(
            {"b.tsv": b"one, two\t\x80\n"},
            [("csv: b.tsv:1", "one, two/€")],
            {"header": ["x", "y"], "columns": {"text": ["x", "y"]}, "separator": "/", "encoding": "cp1252"},
        ),
        Known(
            {"c.csv": b"text;n\n'it\\'s; so';1\n"},
            [("csv: c.csv:2", "it's; so")],
            {"delimiter": ";", "quote": "'", "escape": "\\"},
        ),
        Known({"d.csv": b'text\n"so"\n'}, [("csv: d.csv:2", '"so"')], {"quote": None}),
    ]


def tables() -> list[Known]:
    """Groups of more rows than are read at once, columns besides, columns that lack."""
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    def written(rows: dict[str, Any], **options: Any) -> bytes:
        file = io.BytesIO()
        parquet.write_table(pyarrow.table(rows), file, **options)
        return file.getvalue()

    long = [letter * (2 * CHUNK) for letter in "abcde"]
    first = written({"text": long, "n": list(range(5))}, row_group_size=5, use_dictionary=False)
    second = written({"n": [1, 2, 3], "text": ["x", "y", "z"]}, row_group_size=2)
    names = [
        *(f"parquet: 0.parquet, row {row}" for row in range(5)),
        *(f"parquet: b/1.parquet, row {row}" for row in range(3)),
    ]
    came = list(zip(names, [*long, "x", "y", "z"], strict=True))
    return [
        Known({"0.parquet": first, "b/1.parquet": second, "b/_SUCCESS": b""}, came),
        Known({"0.parquet": written({"n": [1], "body": ["B"]})}, [], refused=("0.parquet", "lacks text", "n, body")),
        Known(
            {"0.parquet": written({"n": [1, 2], "body": ["B", None]})},
            [("parquet: 0.parquet, row 0", "B")],
            {"columns": {"text": "body"}},
            refused=("0.parquet, row 1", "'body'"),
        ),
    ]


def markdown() -> list[Known]:
    """What no reader sees is taken off, once, and not where it is code."""
    page = (
        b"---\ntitle: T\n---\n\n# Head\n\nText<!-- note --> goes on `<!-- code -->`.\n\n<!-- of\nlines -->\n\n"
        b"```html\n<!-- code -->\n```\n\n---\n\nend\n---\n"
    )
    seen = "# Head\n\nText goes on `<!-- code -->`.\n\n\n```html\n<!-- code -->\n```\n\n---\n\nend\n---\n"
    kept = page.decode().replace("<!-- note -->", "").replace("<!-- of\nlines -->\n", "")
    files = {"a.md": page, "b/c.MD": b"plain", "b/.d.md": b"hidden", "e.txt": b"no page"}
    toml = b"+++\r\nx = 1\r\n+++\r\nText"
    between = b"One<!-- x -->\n\ntwo <!-- y -->\n\na <!-- z --> b\n"
    noted = b"---\na: 1\n---\nText <!-- note -->"
    return [
        Known(files, [("markdown: a.md", seen), ("markdown: b/c.MD", "plain")]),
        Known({"a.md": page}, [("markdown: a.md", kept)], {"keep": ["front-matter"]}),
        Known({"a.md": noted}, [("markdown: a.md", "Text <!-- note -->")], {"keep": ["comments"]}),
        Known({"a.md": toml}, [("markdown: a.md", "Text")]),
        Known({"a.md": between}, [("markdown: a.md", "One\n\ntwo \n\na b\n")]),
        Known({"a.md": b"---\na: 1\n---\n"}, [], refused=("a.md", "no text")),
    ]


def programs() -> list[Known]:
    """Languages by ending, name and first line; the nearest licence; and the rules by which files are left out."""
    files = {
        "LICENSE": b"MIT License\n\nPermission is hereby granted, free of charge, to any person\nobtaining a copy\n"
        b"The above copyright notice and this permission notice shall be included\n",
        "a.py": b"print(1)\n",
        "b.H": b"int b;\n",
        "lib/LICENSE-APACHE": b"Apache License\nVersion 2.0, January 2004\nGrant of Patent License.\n",
        "lib/Makefile": b"all:\n",
        "lib/deep/run": b"#!/usr/bin/env python3\nprint(2)\n",
        "lib/said.go": b"// SPDX-License-Identifier: BSD-3-Clause\npackage said\n",
        "lib/tests/a.py": b"print(3)\n",
        "lib/made.go": b"// Code generated by hand. DO NOT EDIT.\n",
        "m_pb2.py": b"print(4)\n",
        "node_modules/x.js": b"x\n",
        "picture.c": b"\0\1",
        "prose.txt": b"words\n",
        "words": b"just words\n",
    }  # fmt: skip
    mit, apache = "Python, MIT", "Apache-2.0"
    came = {
        f"a.py ({mit})": "print(1)\n",
        "b.H (C, MIT)": "int b;\n",
        f"lib/Makefile (Makefile, {apache})": "all:\n",
        f"lib/deep/run (Python, {apache})": "#!/usr/bin/env python3\nprint(2)\n",
        f"lib/made.go (Go, {apache})": "// Code generated by hand. DO NOT EDIT.\n",
        "lib/said.go (Go, BSD-3-Clause)": "// SPDX-License-Identifier: BSD-3-Clause\npackage said\n",
        f"lib/tests/a.py (Python, {apache})": "print(3)\n",
        f"m_pb2.py ({mit})": "print(4)\n",
        "node_modules/x.js (JavaScript, MIT)": "x\n",
    }
    usual = {
        name: text for name, text in came.items() if not any(s in name for s in ("made", "tests", "pb2", "node"))
    }
    always = {"licence-file": 2, "binary": 1, "language": 2}
    left = {**always, "tests": 1, "generated": 2, "vendored": 1}
    both = {"LICENSE": files["LICENSE"], "COPYING": files["lib/LICENSE-APACHE"], "a.py": b"1\n"}
    return [
        Known(files, [(f"code: {name}", text) for name, text in usual.items()], left_out=left),
        Known(files, [(f"code: {name}", text) for name, text in came.items()], {"without": []}, always),
        Known(
            files,
            [(f"code: {name}", text) for name, text in usual.items() if "Go" in name],
            {"languages": ["Go"]},
            {"licence-file": 2, "binary": 1, "language": 9, "generated": 1},
        ),
        Known(
            files,
            [(f"code: {name}", text) for name, text in usual.items() if "MIT" in name],
            {"licences": ["MIT"]},
            {**left, "licence": 3},
        ),
        Known(both, [("code: a.py (Python, Apache-2.0 OR MIT)", "1\n")], left_out={"licence-file": 2}),
        Known({"a.py": b"1\n"}, [("code: a.py (Python, NOASSERTION)", "1\n")]),
    ]


def mixtures() -> list[Known]:
    """Two parts of unlike length, twice."""
    files = {
        f"{part}/{number}.txt": f"{part}{number}".encode()
        for part, last in (("a", 3), ("b", 2))
        for number in range(1, last + 1)
    }
    once, again = "a1 b1 a2 b2 a3", "b1 a1 b2 a2 a3"

    def named(text: str, epoch: int) -> tuple[str, str]:
        more = f" (epoch {epoch})" if epoch > 1 else ""
        return f"mixture: {text[0]}: text-files: {text[1]}.txt{more}", text

    every = [*(named(text, 1) for text in once.split()), *(named(text, 2) for text in again.split())]
    weights = {"a": 1.0, "b": 1.0}
    return [
        Known(files, every, {"epochs": 2, "ends": "all"}, weights=weights),
        Known(files, every[:-1], {"epochs": 2, "ends": "first"}, weights=weights),
        Known(files, [named(text, 1) for text in once.split()], {"ends": "all"}, weights=weights),
    ]  # fmt: skip


KNOWN: Final[dict[str, Callable[[], Sequence[Known]]]] = {
    "text-files": text_files,
    "jsonl": json_lines,
    "csv": separated_values,
    "parquet": tables,
    "markdown": markdown,
    "code": programs,
    "mixture": mixtures,
}
"""By the name of a format."""
