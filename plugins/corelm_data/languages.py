"""Which programming language a file is written in, by its name or its first line."""

from __future__ import annotations

import re
from typing import Final

LANGUAGES: Final[dict[str, str]] = {
    "Ada": ".adb .ads",
    "Assembly": ".asm .s",
    "Batch": ".bat .cmd",
    "C": ".c .h",
    "C#": ".cs",
    "C++": ".cc .cpp .cxx .hh .hpp .hxx .ipp",
    "CMake": ".cmake CMakeLists.txt",
    "CSS": ".css .less .sass .scss",
    "CUDA": ".cu .cuh",
    "Clojure": ".clj .cljc .cljs",
    "Common Lisp": ".lisp .lsp .cl",
    "D": ".d",
    "Dart": ".dart",
    "Dockerfile": ".dockerfile Dockerfile Containerfile",
    "Elixir": ".ex .exs",
    "Elm": ".elm",
    "Emacs Lisp": ".el",
    "Erlang": ".erl .hrl",
    "F#": ".fs .fsi .fsx",
    "Fortran": ".f .f03 .f08 .f90 .f95 .for",
    "GLSL": ".frag .glsl .vert",
    "Go": ".go",
    "GraphQL": ".gql .graphql",
    "Groovy": ".gradle .groovy",
    "HTML": ".htm .html .xhtml",
    "Haskell": ".hs .lhs",
    "Java": ".java",
    "JavaScript": ".cjs .js .jsx .mjs",
    "Julia": ".jl",
    "Kotlin": ".kt .kts",
    "Lua": ".lua",
    "Makefile": ".mak .mk Makefile makefile GNUmakefile",
    "Nim": ".nim",
    "Nix": ".nix",
    "OCaml": ".ml .mli",
    "Objective-C": ".m .mm",
    "PHP": ".php",
    "Pascal": ".dpr .pas",
    "Perl": ".pl .pm",
    "PowerShell": ".ps1 .psm1",
    "Prolog": ".pro .prolog",
    "Protocol Buffers": ".proto",
    "Python": ".py .pyi .pyx",
    "R": ".r",
    "Racket": ".rkt",
    "Ruby": ".rb Gemfile Rakefile",
    "Rust": ".rs",
    "SQL": ".sql",
    "Scala": ".sbt .scala",
    "Scheme": ".scm .ss",
    "Shell": ".bash .sh .zsh",
    "Solidity": ".sol",
    "Swift": ".swift",
    "SystemVerilog": ".sv .svh",
    "Tcl": ".tcl",
    "TeX": ".cls .sty .tex",
    "Terraform": ".tf",
    "TypeScript": ".mts .ts .tsx",
    "VHDL": ".vhd .vhdl",
    "Verilog": ".v",
    "Vim Script": ".vim",
    "Vue": ".vue",
    "Zig": ".zig",
}
"""Endings and whole names of files of each language. Data (JSON, YAML, XML) and prose (Markdown) are none."""

_BY_NAME: Final = {name: language for language, names in LANGUAGES.items() for name in names.split()}

_INTERPRETERS: Final = {
    "bash": "Shell",
    "dash": "Shell",
    "node": "JavaScript",
    "perl": "Perl",
    "php": "PHP",
    "python": "Python",
    "ruby": "Ruby",
    "sh": "Shell",
    "tclsh": "Tcl",
    "zsh": "Shell",
}

_INTERPRETER: Final = re.compile(rb"#![^\n]*?([a-z]+)[0-9.]*[ \t]*(?:-[^\n]*)?(?:\r?\n|\Z)")


def language_of(name: str, beginning: bytes) -> str | None:
    """The language of a file; None where it isn't known as a program.

    Args:
        name: of the file, without folders.
        beginning: its first bytes, whose first line may name an interpreter.
    """
    _, dot, ending = name.rpartition(".")
    known = _BY_NAME.get(name) or (_BY_NAME.get(f".{ending.lower()}") if dot else None)
    if known or dot:
        return known
    interpreter = _INTERPRETER.match(beginning)
    return _INTERPRETERS.get(interpreter[1].decode()) if interpreter else None
