"""Reports of what blocks the loop, and where."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from dspy_lambda import watch as module
from dspy_lambda.loop import PersistentLoop
from dspy_lambda.runner import Runner
from dspy_lambda.watch import KillDump, Watch, places
from tests.support import wait_until


@pytest.fixture
def lines():
    return []


@pytest.fixture
def watch(lines):
    return Watch(lambda *line: lines.append(line), 0.02)


@pytest.fixture
def release():
    release = threading.Event()
    yield release
    release.set()


@pytest.fixture
def runner():
    runner = Runner(PersistentLoop(lambda *_: None, threads=1), SimpleNamespace(abandon=lambda: None))
    yield runner
    runner.abandon()


def invocation():
    return SimpleNamespace(counts={}, blocker=None, blocked_at=None)


def block(runner, release):
    """Start a job that blocks the runner's loop, and return it."""
    blocked = threading.Event()

    async def stand_still():
        blocked.set()
        release.wait(100)

    job = runner.start(lambda: runner.loop.run_until_complete(stand_still()))
    assert blocked.wait(60)
    return job


def test_a_job_that_is_done_is_in_time_and_nothing_is_reported(watch, runner, lines):
    assert watch.wait(runner.start(lambda: None), runner, invocation(), time.monotonic() + 60)
    assert lines == []


def test_a_job_that_awaits_something_is_late_but_not_blocked(watch, runner, lines, monkeypatch):
    monkeypatch.setattr(watch, "_blocked_seconds", 100.0)
    job = runner.start(lambda: runner.loop.run_until_complete(asyncio.sleep(1)))
    assert not watch.wait(job, runner, invocation(), time.monotonic() + 0.01)
    monkeypatch.setattr(module, "_MOMENT_SECONDS", 60)
    assert not watch.is_blocked(job, runner)
    assert lines == []


def test_a_blocked_loop_is_reported_once_with_its_place_and_counted_each_time(watch, runner, lines, release):
    job = block(runner, release)
    for _ in range(2):
        now = invocation()
        assert not watch.wait(job, runner, now, time.monotonic() + 0.5)
        assert now.counts == {("LoopBlocked", "unknown"): 1}
        assert "test_watch.py:" in now.blocked_at
    assert watch.is_blocked(job, runner)
    ((level, message, fields),) = lines
    assert (level, message, fields["program"]) == ("WARNING", "event loop blocked", "unknown")
    assert fields["at"].endswith(" stand_still")
    assert "to_thread" in fields["hint"]


def test_the_call_whose_program_blocks_is_named(watch, runner, lines, release, monkeypatch):
    call = SimpleNamespace(program="Blocks", ids=lambda: {"message_id": "m0"})
    monkeypatch.setattr(runner.loop, "call_of", lambda _: call)
    block(runner, release)
    now = invocation()
    watch.report(runner, now)
    assert (now.blocker, now.counts) == (call, {("LoopBlocked", "Blocks"): 1})
    assert (lines[0][2]["program"], lines[0][2]["message_id"]) == ("Blocks", "m0")


def test_the_number_of_remembered_places_is_bounded(watch, runner, lines, release, monkeypatch):
    monkeypatch.setattr(module, "_MAX_SITES", 0)
    block(runner, release)
    now = invocation()
    watch.report(runner, now)
    assert now.blocked_at is not None
    assert lines == []


def test_serve_is_watched_as_long_as_it_runs(watch, runner, lines, release):
    block(runner, release)
    threading.Thread(target=watch.keep_watching, args=(runner, runner.thread.ident), daemon=True).start()
    wait_until(lambda: lines)
    assert lines[0][2]["at"].endswith(" stand_still")


def test_a_blocked_loop_is_located_in_the_project_and_not_in_a_library(release):
    frames = []
    thread = threading.Thread(target=lambda: release.wait(100))
    thread.start()
    wait_until(lambda: frames.append(sys._current_frames()[thread.ident]) or frames[-1].f_code.co_name == "wait")
    site, stack = places(frames[-1])
    assert "test_watch.py:" in site
    assert "threading.py:" in stack[-1]
    assert len(stack) <= 8
    assert places(None) == ("unknown", [])


KILLED = """
import re, sys
from dspy_lambda.watch import KillDump
dump = KillDump(sys.stdout.fileno())
dump.arm(0.5)
dump.disarm()
dump.arm(0.2)
def holds_the_interpreters_lock():
    re.match("(a+)+$", "a" * 64 + "b")
holds_the_interpreters_lock()
"""


def test_code_that_holds_the_interpreters_lock_is_located_before_the_timeout():
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True) as process:
        try:
            said = []
            for line in process.stdout:
                said.append(line)
                if "holds_the_interpreters_lock" in line:
                    break
        finally:
            process.kill()
    assert "in holds_the_interpreters_lock" in said[-1]


def test_another_handler_of_sigalrm_is_left_alone(monkeypatch):
    rung = []
    former = signal.signal(signal.SIGALRM, lambda *_: rung.append(True))
    try:
        dump = KillDump(1)
        dump.arm(0.001)
        dump.disarm()
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        assert rung == []
    finally:
        signal.signal(signal.SIGALRM, former)
