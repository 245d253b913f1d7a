"""An internal extension's part in the life of an execution environment, with the real runtime client."""

import asyncio
import statistics
import time
from pathlib import Path

import pytest

from dspy_lambda_infra.local import cgroups, sandbox
from dspy_lambda_infra.local.cgroup_places import FREEZER
from tests.infra.local.tiny import Tiny

PIECES = 1000
READ_ONLY = (Path("/usr"),)
_no_sandbox = sandbox.why_not_read_only(READ_ONLY)
needs_sandbox = pytest.mark.skipif(bool(_no_sandbox), reason=str(_no_sandbox))
needs_freezer = pytest.mark.skipif(
    bool(_no_sandbox) or FREEZER not in cgroups.find().parents, reason="needs namespaces and control groups, version 2"
)


@pytest.fixture
def run(tmp_path, lines):
    """Run a coroutine with a function that has these wishes."""

    def run(use, **wishes):
        async def with_function():
            async with Tiny(tmp_path, lines, **wishes) as tiny:
                return await use(tiny)

        return asyncio.run(with_function())

    return run


def test_an_extension_works_after_the_answer_and_before_the_next_event(run):
    async def use(tiny):
        seen = []
        for _ in range(3):
            _, value = await tiny.invoke(lingers=0.1)
            seen.append((value["id"], [event["requestId"] for event in tiny.done]))
        return seen

    (first, before_first), (second, before_second), (_, before_third) = run(use, extends=True)
    assert (before_first, before_second, before_third) == ([], [first], [first, second])


def test_an_extension_gets_the_events_id_deadline_function_and_trace(run):
    async def use(tiny):
        _, value = await tiny.invoke()
        await tiny.function.finish()
        return value, tiny.done

    value, (event,) = run(use, extends=True, timeout_seconds=60)
    assert event.pop("deadlineMs") / 1000 == pytest.approx(time.time() + 60, abs=20)
    assert event == {
        "eventType": "INVOKE",
        "requestId": value["id"],
        "invokedFunctionArn": "arn:aws:lambda:us-east-1:123456789012:function:TinyFunction",
        "tracing": {"type": "X-Amzn-Trace-Id", "value": value["trace"]},
    }


def test_init_ends_when_the_extension_has_asked_for_an_event(run):
    async def use(tiny):
        answer, _ = await tiny.invoke()
        return answer.error, tiny.lines("asked")

    assert run(use, extends=True, asks_late=0.5) == (None, [""])


def ticks_between(run, **wishes):
    """Return what the function's background work did while it was frozen, after it ran before and continued later."""

    async def use(tiny):
        await tiny.invoke()
        await tiny.function.finish()
        frozen = time.time()
        await asyncio.sleep(0.5)
        thawed = time.time()
        await tiny.invoke(takes=0.1)
        return frozen, thawed, [float(line) for line in tiny.lines("ticks")]

    frozen, thawed, ticks = run(use, **wishes)
    assert min(ticks) < frozen
    assert max(ticks) > thawed
    # All threads of a process are stopped within milliseconds.
    return [tick for tick in ticks if frozen + 0.2 < tick < thawed]


@pytest.mark.parametrize("extends", [True, False])
@pytest.mark.parametrize("limited", [True, False], ids=["as-usual", "without-control-groups"])
def test_background_threads_do_nothing_between_invocations(run, extends, limited):
    assert ticks_between(run, ticks="thread", extends=extends, limited=limited) == []


@needs_freezer
def test_processes_in_a_session_of_their_own_do_nothing_between_invocations(run):
    assert ticks_between(run, ticks="child", read_only=READ_ONLY) == []


@needs_sandbox
def test_a_sandboxed_environment_with_an_extension_gets_sigterm_before_it_is_killed(run, tmp_path):
    async def use(tiny):
        await tiny.invoke()
        await tiny.function.finish()

    run(use, extends=True, read_only=READ_ONLY)
    assert (tmp_path / "ended").read_text() == "SIGTERM\n"


def test_an_extension_that_overruns_the_timeout_is_killed_and_its_caller_has_the_answer(run, lines):
    async def use(tiny):
        answer, first = await tiny.invoke(lingers=60)
        answered = len(lines.reports)
        after, second = await tiny.invoke()
        is_done = first["id"] in [event["requestId"] for event in tiny.done]
        return answer.error, answered, after.error, first["process"] == second["process"], is_done

    assert run(use, extends=True, timeout_seconds=2) == (None, 0, None, False, False)
    first, second = lines.reports
    assert (first["status"], first["errorType"]) == ("error", "Sandbox.Timedout")
    assert "Task timed out after 2.00 seconds" in first["errorMessage"]
    assert first["metrics"]["durationMs"] >= 1900
    assert second["status"] == "success"


def test_an_extension_that_never_asks_for_an_event_fails_init(run, monkeypatch):
    monkeypatch.setattr("dspy_lambda_infra.local.environment.INIT_SECONDS", 1)

    async def use(tiny):
        answer, _ = await tiny.invoke()
        return answer.error, answer.message

    assert run(use, extends=True, asks_late=60, timeout_seconds=1) == (
        "Sandbox.Timedout",
        "Init timed out after 1.00 seconds",
    )


def test_an_extensions_init_error_fails_init(run):
    async def use(tiny):
        answer, _ = await tiny.invoke()
        return answer.error, answer.message

    assert run(use, extends=True, fails=True) == ("Extension.InitError", "tiny: Oh: ")


def test_an_extensions_exit_error_replaces_the_environment(run, lines):
    async def use(tiny):
        answer, first = await tiny.invoke(breaks=True)
        _, second = await tiny.invoke()
        return answer.error, first["process"] == second["process"]

    assert run(use, extends=True) == (None, False)
    assert [report.get("errorType") for report in lines.reports] == ["Extension.ExitError", None]
    assert lines.reports[0]["errorMessage"] == "tiny: Oh: is broken"


@pytest.mark.parametrize("leaves", [True, False])
@pytest.mark.parametrize("limited", [True, False], ids=["as-usual", "without-control-groups"])
def test_a_frozen_environment_with_an_extension_gets_sigterm_before_it_is_killed(run, tmp_path, leaves, limited):
    async def use(tiny):
        await tiny.invoke()
        await tiny.function.finish()

    run(use, extends=True, leaves=leaves, limited=limited)
    assert (tmp_path / "ended").read_text() == "SIGTERM\n"


def test_an_environment_without_an_extension_is_killed_at_once(run, tmp_path):
    async def use(tiny):
        await tiny.invoke()

    run(use)
    assert not (tmp_path / "ended").exists()


def test_an_extension_gets_sigterm_if_the_function_times_out(run):
    async def use(tiny):
        answer, _ = await tiny.invoke(takes=60)
        return answer.error, tiny.lines("ended")

    assert run(use, extends=True, leaves=True, timeout_seconds=1) == ("Sandbox.Timedout", ["SIGTERM"])


def test_a_process_that_exits_during_its_extensions_work_is_replaced(run, lines):
    async def use(tiny):
        await tiny.invoke()
        answer, _ = await tiny.invoke(leaves=True)
        after, _ = await tiny.invoke()
        return answer.error, after.error

    assert run(use, extends=True) == ("Runtime.ExitError", None)
    assert [report["status"] for report in lines.reports] == ["success", "error", "success"]


def test_stopping_ends_an_extensions_work_and_reports_the_answered_invocation(run, lines, tmp_path):
    async def use(tiny):
        await tiny.invoke(lingers=60)

    run(use, extends=True, leaves=True)
    assert (tmp_path / "ended").read_text() == "SIGTERM\n"
    assert [report["status"] for report in lines.reports] == ["success"]


def test_every_invocations_extension_work_is_done(run, tmp_path, lines, capsys):
    async def use(tiny):
        ids, seconds = [], []
        await tiny.invoke()
        for _ in range(PIECES):
            begin = time.perf_counter()
            _, value = await tiny.invoke()
            seconds.append(time.perf_counter() - begin)
            ids.append(value["id"])
        await tiny.function.finish()
        return ids, [event["requestId"] for event in tiny.done[1:]], statistics.median(seconds)

    _, none, without = run(use)
    ids, done, median = run(use, extends=True)
    assert none == []
    assert done == ids
    with capsys.disabled():
        print(f"\nmedian of {PIECES} answers: {median * 1e3:.2f} ms, {without * 1e3:.2f} ms without an extension")
