"""What the processes of a run leave for each other to hear."""

from __future__ import annotations

import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch.distributed as distributed

from corelm.cli import _failed
from corelm.errors import Interrupted, ToldElsewhere, UserError, exit_code
from corelm.pipeline import processes, watch
from corelm.pipeline.context import StageContext
from corelm.pipeline.processes import ALONE, RunGroup, leads, started
from corelm.pipeline.watch import Stop


def never() -> bool:
    return False


@pytest.fixture
def groups() -> tuple[RunGroup, RunGroup]:
    store = distributed.HashStore()
    return RunGroup(0, 2, store), RunGroup(1, 2, store)


def test_what_the_first_announces_the_other_hears_sooner_or_later(groups):
    first, second = groups
    first.announce("call/0", {"stage": "base"})
    assert second.hear("call/0", never) == {"stage": "base"}
    threading.Timer(0.1, first.announce, ("call/1", [1])).start()
    assert second.hear("call/1", never) == [1]


def test_a_process_that_is_alone_announces_to_nobody():
    ALONE.announce("anything")
    ALONE.fail(ValueError("x"))
    ALONE.leave()
    assert ALONE.leads and ALONE.world == 1 and not ALONE.asked_to_stop()


def test_of_two_that_fail_the_first_tells_and_the_other_leaves_with_its_code(groups):
    first, second = groups
    with pytest.raises(UserError, match="no data") as told, second.together():
        raise UserError("no data")
    with pytest.raises(ToldElsewhere, match="no data") as silent, first.together():
        raise RuntimeError("connection closed")
    assert exit_code(told.value) == exit_code(silent.value) == 2


def test_who_waits_hears_of_a_failure(groups, capsys):
    first, second = groups
    threading.Timer(0.1, first.fail, (KeyboardInterrupt(),)).start()
    with pytest.raises(ToldElsewhere) as silent, second.together():
        second.hear("call/0", never)
    assert _failed(silent.value, False, False) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "code"), [(Interrupted("x"), 130), (KeyboardInterrupt(), 130), (UserError("x"), 2), (ValueError(), 1)]
)
def test_exit_codes(error, code):
    assert exit_code(error) == code


def test_asked_to_stop_while_it_waits_it_asks_the_first_and_waits_for_its_word(groups, monkeypatch):
    first, second = groups
    stop = Stop(first)
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.01)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(second.hear, "call/0", lambda: True)
        until = time.monotonic() + 10
        while not stop.asked() and time.monotonic() < until:
            time.sleep(0.01)
        assert stop.requested
        with pytest.raises(Interrupted), first.together():
            raise Interrupted("stopped in corpus")
        with pytest.raises(ToldElsewhere, match="stopped in corpus"):
            waiting.result(10)


def test_a_first_process_that_does_not_answer_is_not_waited_for_forever(groups, monkeypatch):
    monkeypatch.setattr(processes, "ANSWER_SECONDS", 0.1)
    with pytest.raises(Interrupted, match="the first process didn't answer"):
        groups[1].hear("call/0", lambda: True)


def test_a_store_that_is_gone_is_a_process_that_is_gone(groups):
    class Gone:
        def check(self, names: list[str]) -> bool:
            raise RuntimeError("Broken pipe")

    second = RunGroup(1, 2, Gone())  # type: ignore[arg-type]
    with pytest.raises(UserError, match="ended without a word") as caught, second.together():
        second.hear("call/0", never)
    assert caught.value.code == "process-lost"


def test_signals_that_a_launcher_passes_on_are_not_taken_for_a_second_one(groups, capsys, monkeypatch):
    first, second = (Stop(group) for group in groups)
    for stop in (first, second):
        with stop.listening():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            assert stop.requested
            monkeypatch.setattr(watch, "LOOK_SECONDS", 0.0)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            monkeypatch.undo()
    assert capsys.readouterr().err.count("stopping after this step") == 1, "only the first process speaks"
    alone = Stop()
    with alone.listening():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("environment", [{}, {"WORLD_SIZE": "4"}, {"RANK": "0", "WORLD_SIZE": "1"}])
def test_without_others_a_process_is_alone(monkeypatch, environment):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert leads() and started() is ALONE


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("-1", "2"), ("one", "2"), ("1", "many")])
def test_an_environment_that_makes_no_sense_is_refused(monkeypatch, rank, world):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(UserError, match="RANK is") as caught:
        started()
    assert "torchrun" in caught.value.remedy


def test_processes_that_no_launcher_has_introduced_are_told_how_to_start(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="MASTER_ADDR") as caught:
        started()
    assert caught.value.code == "no-process-group"


def test_records_are_read_by_the_first_process_and_shared(groups, tmp_path):
    from corelm.kinds import Conversation, Message

    records = [Conversation((Message("user", f"é{n}"), Message("assistant", "b\u2028c")), f"r{n}") for n in range(3)]

    class Watch:
        stopping = False

    def context(group: RunGroup) -> Any:
        made = StageContext.__new__(StageContext)
        made.name, made.scratch, made.watch, made.group = "base", tmp_path / "scratch", Watch(), group
        return made

    def unread():
        raise AssertionError("the source is read by the first process only")
        yield

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(context(groups[1]).shared, unread(), "records")
        assert context(groups[0]).shared(iter(records), "records") == records
        assert waiting.result(10) == records
    assert context(ALONE).shared(iter(records), "records") == records
    assert json.loads((tmp_path / "scratch" / "records.jsonl").read_text().split("\n")[0])["name"] == "r0"
