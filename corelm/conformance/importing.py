"""Importing parts that are strangers: whatever happens then is told, and stays theirs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from corelm.conformance.limits import SECONDS, Stopped, explain_limits, limited
from corelm.conformance.surroundings import Misconduct, silent, unchanged
from corelm.registration import Record, RegistrationError, active, using

_unusable: dict[Record, str] = {}
_remarks: dict[Record, str] = {}


def load(record: Record, seconds: float = SECONDS) -> type[Any]:
    """The part's class, imported under supervision where it isn't imported yet.

    Raises:
        RegistrationError: it can't be had; says why.
    """
    if record in _unusable:
        raise RegistrationError(_unusable[record], code="part-import-failed")
    if record.target.partition(":")[0] in sys.modules:
        return record.load()
    what = f"{record.kind}/{record.name} of {record.distribution} {record.version}: importing {record.target}"
    _remarks.pop(record, None)
    found: type[Any] | None = None
    try:
        with limited(seconds), silent("importing it"), unchanged("importing it"):
            found = record.load()
    except Stopped:
        raise
    except Misconduct as remark:
        _remarks[record] = str(remark)
    except RegistrationError:
        raise
    except BaseException as error:
        why = explain_limits(error) or f"it raised {type(error).__name__}: {error}"
        give_up(record, f"{what} failed: {why}")
        raise RegistrationError(f"{what} failed: {why}", code="part-import-failed") from error
    assert found is not None
    return found


def remark(record: Record | None) -> str:
    """What the import did that it shouldn't have, although it gave the class; '' for nothing."""
    return _remarks.get(record, "") if record else ""


def give_up(record: Record, why: str) -> None:
    """Never import the part again in this process: it would hang once more, or end the process."""
    _unusable[record] = why


def load_all(
    records: Iterable[Record], seconds: float = SECONDS, watch: Callable[[Record], None] = lambda record: None
) -> None:
    """Import all parts, so that what an import does is not taken for the doing of whoever needed it first."""
    for record in records:
        watch(record)
        with contextlib.suppress(RegistrationError):
            load(record, seconds)


@contextlib.contextmanager
def usable() -> Iterator[None]:
    """Keep the parts that were given up away from the others, whose configs may have slots for them."""
    if not _unusable:
        yield
        return
    kept = [record for record in active().records if record not in _unusable]
    with using(replace(active(), records=kept)):
        yield
