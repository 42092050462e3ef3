"""Mutants run in copies of a process in which everything has been imported."""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import gc
import json
import math
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mutating import Mutant, mutated
from tqdm import tqdm

from corelm.conformance import running
from corelm.conformance.framework import PartUnderTest, Property
from corelm.conformance.running import hold

Job = tuple[PartUnderTest, Property, float]
"""A part, a property, and the factor on the property's number of examples."""

MEMORY: Final = 6 * 2**30
"""Bytes that a mutant may take beyond what the warm process has."""

STARTED: Final = str(Path(__file__).parent / "started")

SILENCE: Final = 900.0
"""After so many seconds without a word a mutant hangs, even if it needs no processor for it."""


@dataclass
class Ran:
    """What came of running properties in a copy of the process.

    Attributes:
        status: ``survived``, ``killed`` (a property failed, or the process broke), ``hung``, ``refused`` (can't be run).
        by: the property that failed or hung, and what it said.
        seconds: of processor time per job, for those that were finished.
        failed: jobs that ended with a failure.
        reached: places of the functions that each job called, where that is noted.
    """

    status: str = "survived"
    by: str = ""
    reason: str = ""
    seconds: dict[int, float] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    reached: dict[int, frozenset[str]] = field(default_factory=dict)


class Sources:
    """The functions that live in this process, by where their code was written, and that code."""

    def __init__(self, files: Sequence[tuple[str, Path]]) -> None:
        """Read the modules' files (name of the module, its path) and find their functions."""
        self.module = {str(path): name for name, path in files}
        self.text = {str(path): path.read_text(encoding="utf-8") for _, path in files}
        self.live: dict[tuple[str, str, int], list[types.FunctionType]] = {}
        self._written: dict[tuple[str, str, int], types.CodeType | None] = {}
        for thing in gc.get_objects():
            if type(thing) is types.FunctionType and thing.__code__.co_filename in self.text:
                code = thing.__code__
                self.live.setdefault((code.co_filename, code.co_qualname, code.co_firstlineno), []).append(thing)

    def plantable(self, mutant: Mutant) -> bool:
        """Whether the code that is to be changed is loaded, and as it stands in the file."""
        if not mutant.outer:
            return mutant.file in self.text
        before = self._as_written(mutant)
        after = _code(mutated(self.text[mutant.file], mutant), mutant) if before is not None else None
        return before is not None and after is not None and len(after.co_freevars) == len(before.co_freevars)

    def _as_written(self, mutant: Mutant) -> types.CodeType | None:
        """The code of the function that is to be changed; None where another is loaded, or none."""
        key = mutant.file, mutant.function, mutant.outer
        if key not in self._written:
            live, code = self.live.get(key, []), _code(ast.parse(self.text[mutant.file]), mutant)
            self._written[key] = code if live and all(f.__code__ == code for f in live) else None
        return self._written[key]

    def plant(self, mutant: Mutant) -> None:
        """Change this very process: every function made from the code has the mutant's from now on."""
        tree = mutated(self.text[mutant.file], mutant)
        self._forget()
        if mutant.outer:
            for function in self.live[mutant.file, mutant.function, mutant.outer]:
                function.__code__ = _code(tree, mutant)
        else:
            _put_constant(self.module[mutant.file], mutant.function, tree)

    def _forget(self) -> None:
        """Empty what functions have kept of their results: the mutant's may be others."""
        for name in self.module.values():
            _emptied(name)

    def note_calls(self) -> set[str]:
        """Change this very process: from now on each of the functions puts its place into what is returned."""
        self._forget()
        reached = builtins.__reached__ = set[str]()  # type: ignore[attr-defined]
        codes: dict[tuple[str, str, int], types.CodeType] = {}
        for file, text in self.text.items():
            waiting: list[Any] = [compile(_Noting(file).visit(ast.parse(text)), file, "exec", dont_inherit=True)]
            while waiting:
                code = waiting.pop()
                codes[file, code.co_qualname, code.co_firstlineno] = code
                waiting += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]
        for key, live in self.live.items():
            for function in live:
                if key in codes and codes[key].co_freevars == function.__code__.co_freevars:
                    function.__code__ = codes[key]
        return reached

    def announce(self, mutant: Mutant, folder: Path) -> None:
        """Processes that this one starts have the mutant too."""
        written = folder / "mutant.py"
        written.write_text(ast.unparse(mutated(self.text[mutant.file], mutant)), encoding="utf-8")
        os.environ["CORELM_MUTANT"] = f"{self.module[mutant.file]}={written}"
        os.environ["PYTHONPATH"] = os.pathsep.join([STARTED, *filter(None, [os.environ.get("PYTHONPATH")])])


class _Noting(ast.NodeTransformer):
    """Puts before the first statement of each function one that notes the function's place."""

    def __init__(self, file: str) -> None:
        self.file = file

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """A function, and those inside of it."""
        self.generic_visit(node)
        note = ast.parse(f"__reached__.add({place(self.file, _begin(node))!r})").body[0]
        for part in ast.walk(note):
            ast.copy_location(part, node.body[0])
        node.body.insert(1 if ast.get_docstring(node) is not None else 0, note)
        return node


def _begin(statement: ast.stmt) -> int:
    """The first line of a statement, with its decorators."""
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(decorator.lineno for decorator in decorators)])


def place(file: str, line: int) -> str:
    """Where a function begins."""
    return f"{file}:{line}"


def _code(tree: ast.Module, mutant: Mutant) -> Any:
    """The code of the function that a mutant is in, out of its module's."""
    # Compiling the whole module takes ten times as long. What is called on an imported module is compiled otherwise.
    around = [
        statement
        for statement in tree.body
        if isinstance(statement, ast.Import | ast.ImportFrom | ast.If | ast.Try)
        or _begin(statement) <= mutant.outer <= (statement.end_lineno or 0)
    ]
    waiting = [compile(ast.Module(around, []), mutant.file, "exec", dont_inherit=True)]
    while waiting:
        code = waiting.pop()
        if code.co_qualname == mutant.function and code.co_firstlineno == mutant.outer:
            return code
        waiting += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]
    return None


def _put_constant(module: str, path: str, tree: ast.Module) -> None:
    """Give a constant of a module or class its new value, in modules that imported it as well."""
    *owners, name = path.split(".")
    holder: Any = sys.modules[module]
    body: Any = tree.body
    for owner in owners:
        holder = getattr(holder, owner)
        body = next(s.body for s in body if isinstance(s, ast.ClassDef) and s.name == owner)
    written = next(
        s for s in body if isinstance(s, ast.Assign | ast.AnnAssign) and name in ast.unparse(s).partition("=")[0]
    )
    old, new = getattr(holder, name), eval(compile(ast.Expression(written.value), module, "eval"), {})
    # Of modules that load what they are asked for, only what is there is looked at.
    others = [m for m in sys.modules.values() if getattr(m, "__dict__", {}).get(name) is old]
    for other in [holder] if owners else others:
        setattr(other, name, new)
    if owners and name in getattr(holder, "__dataclass_fields__", {}):
        _put_default(holder.__init__, name, new)


def _put_default(function: types.FunctionType, name: str, new: Any) -> None:
    """Give an argument another default: a data class has those of its fields there, once it has been made."""
    code, usual = function.__code__, function.__defaults__ or ()
    named = code.co_varnames[code.co_argcount - len(usual) : code.co_argcount]
    function.__defaults__ = tuple(new if n == name else one for n, one in zip(named, usual, strict=True))
    if name in (function.__kwdefaults__ or {}):
        function.__kwdefaults__ = {**(function.__kwdefaults__ or {}), name: new}


def run(
    jobs: Sequence[Job],
    *,
    sources: Sources | None = None,
    mutant: Mutant | None = None,
    limits: Sequence[float] | None = None,
    through: bool = False,
    noting: bool = False,
) -> Ran:
    """Hold parts to properties in a copy of this process, with a mutant planted there if one is given.

    Args:
        jobs: in this order.
        sources, mutant: what is planted.
        limits: seconds of processor time that each job may take.
        through: go on after a failure.
        noting: note which of the sources' functions each job calls.
    """
    folder = Path(tempfile.mkdtemp(prefix="mutant-"))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _in_the_copy(jobs, sources, mutant, limits, (through, noting), writing, folder)
    os.close(writing)
    try:
        lines, silent = _listen(reading)
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
        _, code = os.waitpid(child, 0)
        shutil.rmtree(folder, ignore_errors=True)
    return _judged(jobs, lines, silent, os.waitstatus_to_exitcode(code))


def _judged(jobs: Sequence[Job], lines: Sequence[dict[str, Any]], silent: bool, code: int) -> Ran:
    """What the copy's words and its end mean."""
    ran, begun, ended = Ran(), None, False
    for line in lines:
        if "begun" in line:
            begun = line["begun"]
        elif "refused" in line:
            return Ran("refused", reason=line["refused"])
        elif "end" in line:
            ended = True
        else:
            job, begun = line["job"], None
            ran.seconds[job] = line["seconds"]
            ran.reached[job] = frozenset(line["reached"])
            if line["reason"]:
                ran.failed[job] = line["reason"]
    if ran.failed:
        first = min(ran.failed)
        ran.status, ran.by, ran.reason = "killed", jobs[first][1].name, ran.failed[first]
    elif not ended:
        hung = silent or code in (-signal.SIGPROF, -signal.SIGKILL, -signal.SIGXCPU)
        ran.status, ran.by = "hung" if hung else "killed", "" if begun is None else jobs[begun][1].name
        ran.reason = "it took too long" if hung else f"the process ended with {code}"
    return ran


def _listen(reading: int) -> tuple[list[dict[str, Any]], bool]:
    """The lines that the copy writes, and whether it fell silent; a pause of this process counts as one tick only."""
    text, ticks = b"", 0
    while ticks < SILENCE:
        ready, _, _ = select.select([reading], [], [], 1.0)
        if not ready:
            ticks += 1
            continue
        more = os.read(reading, 2**16)
        if not more:
            break
        text, ticks = text + more, 0
    return [json.loads(line) for line in text.decode().splitlines()], ticks >= SILENCE


def _in_the_copy(
    jobs: Sequence[Job],
    sources: Sources | None,
    mutant: Mutant | None,
    limits: Sequence[float] | None,
    ways: tuple[bool, bool],
    writing: int,
    folder: Path,
) -> None:
    """All that the copy does; it never returns."""

    def say(**words: Any) -> None:
        os.write(writing, (json.dumps(words) + "\n").encode())

    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        tempfile.tempdir = str(folder)
        tqdm.monitor_interval = 0  # or a library's first progress bar leaves a thread that the kit complains about
        running.DRAW_SECONDS = math.inf  # type: ignore[misc]  # processor time is limited, not the clock's
        resource.setrlimit(resource.RLIMIT_AS, (_size() + MEMORY, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if mutant is not None and sources is not None:
            try:
                sources.plant(mutant)
                sources.announce(mutant, folder)
            except Exception as error:
                say(refused=repr(error))
                return
        through, noting = ways
        reached = sources.note_calls() if noting and sources is not None else set()
        for index, job in enumerate(jobs):
            if noting:
                _forget()
            reached.clear()
            say(begun=index)
            signal.setitimer(signal.ITIMER_PROF, limits[index] if limits else 0)
            began = time.process_time()
            reason = failure(job)
            signal.setitimer(signal.ITIMER_PROF, 0)
            say(job=index, seconds=time.process_time() - began, reason=reason, reached=sorted(reached))
            if reason and not through:
                break
        say(end=True)
    finally:
        os._exit(0)


def _forget() -> None:
    """Empty what the kit keeps for later, so that a job calls all that it depends on."""
    for name in list(sys.modules):
        if name.startswith("corelm.conformance."):
            _emptied(name)


def _emptied(module: str) -> None:
    for thing in vars(sys.modules[module]).values():
        if isinstance(thing, functools._lru_cache_wrapper):
            thing.cache_clear()


def failure(job: Job) -> str:
    """What the property says against the part; '' where it passes or says nothing."""
    part, prop, factor = job
    try:
        examples = max(1, round(prop.examples * factor))
        outcome = hold(part, prop, examples=examples, shrink=False, seconds=SILENCE)
    except BaseException as error:
        return f"it raised {error!r}"
    return (outcome.reason or "it failed") if outcome.status == "failed" else ""


def _size() -> int:
    """Bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
