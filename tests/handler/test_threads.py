import sys
import threading
import time
from concurrent.futures import CancelledError

import pytest

from dspy_lambda.threads import Threads
from tests.support import wait_until


@pytest.fixture
def pool():
    pool = Threads(3, "test")
    yield pool
    pool.abandon()


def test_a_pool_runs_no_more_functions_at_once_than_its_size(pool):
    running, most, lock = [], [], threading.Lock()

    def work():
        with lock:
            running.append(1)
            most.append(len(running))
        time.sleep(0.01)
        with lock:
            running.pop()

    for future in [pool.submit(work) for _ in range(30)]:
        future.result(timeout=60)
    assert max(most) == 3


def test_work_whose_thread_cannot_start_never_runs_and_takes_no_room(pool, monkeypatch):
    ran = []

    def refuse(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(5):
            with pytest.raises(RuntimeError):
                pool.submit(ran.append, "refused")
    assert [pool.submit(lambda n=n: n).result(timeout=60) for n in range(3)] == [0, 1, 2]
    assert ran == []


def test_an_idle_thread_is_reused(pool):
    names = []
    for _ in range(10):
        names.append(pool.submit(lambda: threading.current_thread().name).result(timeout=60))
        wait_until(lambda: pool._idle._value == 1)
    assert set(names) == {"test_0"}


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError])
def test_whatever_is_raised_reaches_the_future_and_frees_the_thread(pool, error):
    def work():
        raise error

    for _ in range(5):
        with pytest.raises(error):
            pool.submit(work).result(timeout=60)
    assert pool.busy == []


def test_a_stop_iteration_ends_as_a_runtime_error(pool):
    with pytest.raises(RuntimeError, match="StopIteration"):
        pool.submit(next, iter([])).result(timeout=60)


def test_busy_lists_the_start_times(pool):
    release, begin = threading.Event(), time.monotonic()
    future = pool.submit(release.wait)
    wait_until(lambda: pool.busy)
    (since,) = pool.busy
    assert begin <= since <= time.monotonic()
    release.set()
    future.result(timeout=60)
    assert pool.busy == []


def spy(*_):
    """A trace or profile function that records what runs."""


@pytest.mark.parametrize("name", ["profile", "trace"])
def test_a_programs_trace_or_profile_function_is_removed_after_its_work(pool, name):
    def look():
        return threading.get_ident(), getattr(sys, f"get{name}")()

    thread, usual = pool.submit(look).result(timeout=60)
    for _ in range(3):
        pool.submit(getattr(sys, f"set{name}"), spy).result(timeout=60)
    found = []
    wait_until(lambda: found.append(pool.submit(look).result()) or found[-1][0] == thread)
    assert all(seen is usual for _, seen in found)


@pytest.mark.parametrize("name", ["profile", "trace"])
def test_threads_that_start_later_do_not_inherit_a_programs_trace_or_profile_function(pool, name):
    former, barrier = getattr(threading, f"get{name}")(), threading.Barrier(4)
    getattr(threading, f"set{name}")(spy)
    try:
        waits = [pool.submit(barrier.wait) for _ in range(3)]
        barrier.wait(timeout=60)
        for wait in waits:
            wait.result(timeout=60)
        assert pool.submit(getattr(sys, f"get{name}")).result(timeout=60) is not spy
    finally:
        getattr(threading, f"set{name}")(former)


def test_an_abandoned_pool_cancels_what_waits_and_lets_its_threads_end():
    pool, release = Threads(1, "given-up"), threading.Event()
    stuck, waiting = pool.submit(release.wait), pool.submit(print)
    wait_until(lambda: pool.busy)
    pool.abandon()
    with pytest.raises(CancelledError):
        waiting.result(timeout=60)
    with pytest.raises(RuntimeError, match="abandoned"):
        pool.submit(print)
    release.set()
    assert stuck.result(timeout=60)
    wait_until(lambda: not any(thread.name.startswith("given-up") for thread in threading.enumerate()))
