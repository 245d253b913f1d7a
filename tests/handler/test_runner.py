"""One thread with its loop, which the main thread can abandon."""

import asyncio
import contextvars
import sys
import threading
import time

import pytest

from dspy_lambda.loop import PersistentLoop
from dspy_lambda.runner import Job, Runner
from tests.support import wait_until

VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


class Dispatcher:
    """A dispatcher as far as a runner uses one."""

    def __init__(self):
        self.calls, self.abandoned = [], False

    def running(self):
        return self.calls

    def abandon(self):
        self.abandoned = True


@pytest.fixture
def runner():
    runner = Runner(PersistentLoop(lambda *_: None, threads=1), Dispatcher())
    yield runner
    runner.abandon()
    runner.thread.join(60)


def test_a_job_runs_in_the_runners_thread_with_its_callers_context(runner):
    token = VARIABLE.set("the caller's")
    try:
        assert runner.run(lambda: (threading.current_thread(), VARIABLE.get())) == (runner.thread, "the caller's")
        runner.run(lambda: VARIABLE.set("the job's"))
        assert VARIABLE.get() == "the caller's"
    finally:
        VARIABLE.reset(token)


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_whatever_a_job_raises_is_raised_by_its_result_and_the_next_one_runs(runner, error):
    def work():
        raise error("why")

    with pytest.raises(error, match="why"):
        runner.run(work)
    assert runner.run(lambda: "next") == "next"


def test_a_jobs_error_is_raised_once_and_not_kept():
    job = Job(lambda: 1 / 0)
    job.run()
    assert job.wait(0)
    with pytest.raises(ZeroDivisionError):
        job.result()
    assert job.result() is None


def test_waiting_for_an_unfinished_job_ends_after_the_given_time(runner):
    release = threading.Event()
    job = runner.start(release.wait)
    assert not job.wait(-1)
    assert not job.wait(0.01)
    release.set()
    assert job.wait(60)


def test_a_trace_function_that_a_job_leaves_is_removed(runner):
    usual = runner.run(sys.gettrace)
    runner.run(lambda: sys.settrace(lambda *_: None))
    assert runner.run(sys.gettrace) is usual


def test_the_loop_can_be_made_current_again_after_asyncio_run(runner):
    async def nothing():
        pass

    def work():
        asyncio.run(nothing())
        return runner.use_loop() is asyncio.get_event_loop_policy().get_event_loop()

    assert runner.run(work)


def test_a_running_loop_answers_pings_and_a_blocked_one_does_not(runner):
    blocked, release = threading.Event(), threading.Event()

    async def block():
        blocked.set()
        release.wait(100)

    job = runner.start(lambda: runner.loop.run_until_complete(block()))
    assert blocked.wait(60)
    assert runner.ping()  # the first one sends the ping
    assert not runner.ping()
    release.set()
    assert job.wait(60)
    runner.run(lambda: runner.loop.run_until_complete(asyncio.sleep(0)))
    wait_until(runner.ping)


def test_stuck_lists_calls_in_threads_and_other_users_of_the_loops_threads(runner):
    release, begin = threading.Event(), time.monotonic()
    runner.dispatcher.calls.append(("Slow", begin))
    assert runner.stuck() == [("Slow", begin)]
    held = runner.loop.threads.submit(release.wait)
    wait_until(lambda: runner.loop.threads.busy)
    assert [program for program, _ in runner.stuck()] == ["Slow", "unknown"]
    release.set()
    held.result(60)
    assert runner.stuck() == [("Slow", begin)]


def test_an_abandoned_idle_runner_ends_and_abandons_its_pools(runner):
    runner.abandon()
    runner.thread.join(60)
    assert not runner.thread.is_alive()
    assert runner.dispatcher.abandoned
    with pytest.raises(RuntimeError):
        runner.loop.threads.submit(print)


def test_an_abandoned_runner_that_is_stuck_ends_with_its_job(runner):
    begun, release = threading.Event(), threading.Event()
    job = runner.start(lambda: begun.set() or release.wait(100))
    assert begun.wait(60)
    runner.abandon()
    assert runner.thread.is_alive()
    release.set()
    assert job.wait(60)
    runner.thread.join(60)
    assert not runner.thread.is_alive()
