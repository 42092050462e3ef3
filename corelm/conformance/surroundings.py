"""What a part must leave as it was: the state of the process that everybody else relies on."""

from __future__ import annotations

import builtins
import contextlib
import gc
import io
import locale
import logging
import math
import operator
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch


class Misconduct(AssertionError):  # noqa: N818
    """A part has done to the process what parts must not do, whatever is tested."""


def _values(before: Any, after: Any) -> str:
    return f" from {before} to {after}"


def _names(before: dict[str, Any], after: dict[str, Any]) -> str:
    names = sorted({*before, *after})
    changed = [name for name in names if repr(before.get(name, _untold)) != repr(after.get(name, _untold))]
    return f" ({', '.join(changed[:5])})"


def _untold(before: Any, after: Any) -> str:
    return ""


@dataclass(frozen=True)
class Watched:
    """One piece of state.

    Attributes:
        name: as the report says it.
        get, put: read it, give it back.
        told: the change in words.
        imports: whether libraries may rightly change it when they are first imported.
        advice: what to do instead.
        grows: whether only what was there before counts: submodules are added to modules when they are needed.
    """

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], Any]
    told: Callable[[Any, Any], str] = _values
    imports: bool = False
    advice: str = "pass it where you need it, or put it back"
    grows: bool = False

    def same(self, before: Any, after: Any) -> bool:
        """Whether it is as it was."""
        if self.grows:
            return before is after or all(map(operator.is_, map(after.get, before), before.values()))
        return before is None or bool(before == after)


def _numpy_state() -> tuple[Any, ...]:
    state: Any = np.random.get_state()
    name, keys, *rest = state
    return (name, keys.tobytes(), *rest)


def _numpy_restore(state: tuple[Any, ...]) -> None:
    name, keys, *rest = state
    np.random.set_state((name, np.frombuffer(keys, dtype=np.uint32), *rest))


def _cuda_state() -> bytes | None:
    return torch.cuda.get_rng_state().numpy().tobytes() if torch.cuda.is_initialized() else None


def _cuda_restore(state: bytes | None) -> None:
    if state is not None:
        torch.cuda.set_rng_state(_bytes(state))


def _bytes(state: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(state), dtype=torch.uint8)


def _autocast() -> tuple[Any, ...]:
    return (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled())


def _autocast_restore(state: tuple[Any, ...]) -> None:
    torch.set_autocast_enabled("cpu", state[0])
    torch.set_autocast_dtype("cpu", state[1])
    torch.set_autocast_cache_enabled(state[2])


def _cudnn() -> tuple[bool, bool]:
    return (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)


def _cudnn_restore(state: tuple[bool, bool]) -> None:
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = state


_TINY = torch.tensor(1e-310, dtype=torch.float64)


def _logging() -> dict[str, Any]:
    root = logging.getLogger()
    return {"level": root.level, "handlers": tuple(root.handlers), "disabled": logging.root.manager.disable}


def _logging_restore(state: dict[str, Any]) -> None:
    root = logging.getLogger()
    root.setLevel(state["level"])
    root.handlers[:] = state["handlers"]
    logging.disable(state["disabled"])


def _environment_restore(state: dict[str, str]) -> None:
    for name in set(os.environ) - set(state):
        del os.environ[name]
    os.environ.update(state)


def _folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "a deleted folder"


def _go_back(path: str) -> None:
    if os.path.isdir(path):
        os.chdir(path)


def _filters_restore(filters: tuple[Any, ...]) -> None:
    current: Any = warnings.filters
    current[:] = filters


def _namespace(owner: Any, name: str) -> Watched:
    """Functions that a part might replace by its own."""
    kept: dict[str, Any] = {}

    def get() -> dict[str, Any]:
        """A copy; the one of last time where nothing has changed since, which is nearly always."""
        nonlocal kept
        now = vars(owner)
        if len(now) != len(kept) or not all(map(operator.is_, now.values(), kept.values())):
            kept = dict(now)
        return kept

    def put(state: dict[str, Any]) -> None:
        for key, value in state.items():
            if vars(owner).get(key) is not value:
                setattr(owner, key, value)

    advice = "call your own function, don't replace theirs"
    return Watched(name, get, put, _names, True, advice, grows=True)


_GENERATOR = "use a generator of your own"

WATCHED: Final = (
    Watched("the global random state of random", random.getstate, random.setstate, _untold, True, _GENERATOR),
    Watched("the global random state of numpy", _numpy_state, _numpy_restore, _untold, True, _GENERATOR),
    Watched(
        "the global random state of torch",
        lambda: torch.get_rng_state().numpy().tobytes(),
        lambda state: torch.set_rng_state(_bytes(state)),
        _untold,
        True,
        _GENERATOR,
    ),
    Watched(
        "the global random state of the graphics card",
        _cuda_state,
        _cuda_restore,
        _untold,
        True,
        _GENERATOR,
    ),
    Watched("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Watched(
        "torch's default device",
        torch.get_default_device,
        lambda device: torch.set_default_device(None if device == torch.device("cpu") else device),
    ),
    Watched("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
    Watched("whether gradients are recorded", torch.is_grad_enabled, torch.set_grad_enabled),
    Watched("torch's anomaly detection", torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    Watched(
        "torch's deterministic algorithms", torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode
    ),
    Watched(
        "the precision of matrix products", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    ),
    Watched("autocast", _autocast, _autocast_restore),
    Watched("cudnn's benchmark and deterministic modes", _cudnn, _cudnn_restore),
    Watched("whether tiny numbers become zero", lambda: not bool((_TINY * 1) > 0), torch.set_flush_denormal),
    Watched("numpy's treatment of errors", np.geterr, lambda state: np.seterr(**state)),
    Watched("the current folder", _folder, _go_back),
    Watched("the locale", lambda: locale.setlocale(locale.LC_ALL), lambda v: locale.setlocale(locale.LC_ALL, v)),
    Watched("the limit of recursion", sys.getrecursionlimit, sys.setrecursionlimit, imports=True),
    Watched("whether garbage is collected", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    Watched(
        "what an interrupt does", lambda: signal.getsignal(signal.SIGINT), lambda v: signal.signal(signal.SIGINT, v)
    ),
    Watched("the environment variables", lambda: dict(os.environ), _environment_restore, _names, True),
    Watched("sys.path", lambda: list(sys.path), lambda v: sys.path.__setitem__(slice(None), v), _values, True),
    Watched(
        "the filters of warnings",
        lambda: tuple(warnings.filters),
        _filters_restore,
        _untold,
        True,
        "change them inside warnings.catch_warnings()",
    ),
    Watched("the root logger", _logging, _logging_restore, _names, True, "use logging.getLogger(__name__)"),
    _namespace(builtins, "Python's builtins"),
    _namespace(math, "the module math"),
    _namespace(torch, "the module torch"),
    _namespace(torch.nn.functional, "the module torch.nn.functional"),
    _namespace(torch.Tensor, "the class torch.Tensor"),
    _namespace(torch.nn.Module, "the class torch.nn.Module"),
)


@contextlib.contextmanager
def unchanged(subject: str = "it") -> Iterator[None]:
    """Insist that what is inside leaves everything as it was; in any case everything is as it was afterwards.

    Raises:
        Misconduct: something was left changed; says what, from what to what.
    """
    modules, before = len(sys.modules), [watched.get() for watched in WATCHED]
    try:
        yield
    except Exception as error:
        for change in _undo(before, imported=len(sys.modules) > modules):
            error.add_note(f"{subject} changed {change}")
        raise
    except BaseException:
        _undo(before, imported=len(sys.modules) > modules)
        raise
    changes = _undo(before, imported=len(sys.modules) > modules)
    if changes:
        raise Misconduct("\n".join(f"{subject} changed {change}" for change in changes))


def _undo(before: list[Any], *, imported: bool) -> list[str]:
    """Put everything back, and say what it was; what importing libraries may change is theirs."""
    changes = []
    for watched, old in zip(WATCHED, before, strict=True):
        new = watched.get()
        if not watched.same(old, new) and not (imported and watched.imports):
            changes.append(f"{watched.name}{watched.told(old, new)}; {watched.advice}")
            watched.put(old)
    return changes


@contextlib.contextmanager
def silent(subject: str = "it", *, allowed: bool = False) -> Iterator[None]:
    """Insist that nothing is printed; warnings are nobody's fault.

    Raises:
        Misconduct: something was printed; quotes it.
    """
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    with (
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
        warnings.catch_warnings(record=True),
    ):
        yield
    said = [stream.buffer.getvalue().decode("utf-8", "replace") for stream in streams if not stream.closed]
    if any(said) and not allowed:
        raise Misconduct(printed("".join(said), subject))


def printed(text: str, subject: str = "it") -> str:
    """The finding that something was printed."""
    shown = text.strip() if len(text.strip()) <= 200 else f"{text.strip()[:200]}…"
    return f"{subject} printed {shown!r}; parts are quiet: raise UserError, or tell the context's watch"
