"""The main thread answers at the deadline, whatever the runner's thread does."""

import json
import sys
import threading
import time

import dspy
import pytest

from dspy_lambda import watch
from dspy_lambda.errors import DeadlineExceeded, ProgramFailed
from tests.support import AECHO, ECHO, Context, failures, module_of, problem, sqs, wait_until

BLOCKERS = """
import asyncio, json, threading, time
from typing import Annotated
from pydantic import AfterValidator

RELEASE = threading.Event()

class Sleeps(dspy.Module):
    async def aforward(self):
        RELEASE.wait(100)

class Spins(dspy.Module):
    async def aforward(self):
        while not RELEASE.is_set():
            pass

class SlowToDict(dspy.Module):
    async def aforward(self):
        class Result:
            def toDict(self):
                RELEASE.wait(100)
                return {}
        return Result()

class SlowGenerator(dspy.Module):
    async def aforward(self):
        def numbers():
            while not RELEASE.is_set():
                time.sleep(0.01)
                yield 1
        return {"numbers": numbers()}

def slow(value):
    RELEASE.wait(100)
    return value

class SlowValidator(dspy.Module):
    async def aforward(self, x: Annotated[int, AfterValidator(slow)] = 1):
        return x
    def __init__(self):
        super().__init__()

class SlowChild(dspy.Module):
    async def aforward(self):
        async def child():
            RELEASE.wait(100)
        await asyncio.gather(child(), asyncio.sleep(0))
"""
NAMES = ["Sleeps", "Spins", "SlowToDict", "SlowGenerator", "SlowValidator", "SlowChild"]
INPUTS = {"SlowValidator": {"x": 1}}


def body(name):
    return {"program": name, "inputs": INPUTS.get(name, {})}


@pytest.fixture
def make_blocked(make_project, make_serve):
    """A function whose blockers block until the test has ended, or `RELEASE` of their module is set."""
    released = []

    def make(more="", server=None, **variables):
        modules = {"blockers": BLOCKERS + more, "echo": ECHO, "aecho": AECHO}
        serve = make_serve(make_project(modules, server=server or {}), **variables)
        released.append(module_of(serve, "Sleeps").RELEASE)
        return serve

    yield make
    for release in released:
        release.set()


@pytest.fixture
def blocked(make_blocked):
    return make_blocked()


@pytest.mark.parametrize("name", NAMES)
def test_a_blocked_loop_is_answered_at_the_deadline_for_every_source(blocked, records, name):
    blocked.get("/health/live")  # FastAPI is imported now
    with pytest.raises(DeadlineExceeded):
        blocked(body(name), Context(1000))
    assert problem(blocked.post(f"/{name}", INPUTS.get(name, {}), context=Context(1000)))["status"] == 504
    assert failures(blocked(sqs(body(name)), Context(1000))) == ["m0"]
    calls = records().calls
    assert [call["outcome"] for call in calls] == ["deadline"] * 3
    assert all("blockers.py:" in call["blocked_at"] for call in calls)


@pytest.mark.parametrize("name", NAMES)
def test_sync_records_count_while_the_loop_is_blocked(blocked, records, monkeypatch, name):
    fine = {"program": "Echo", "inputs": {"question": "q"}}
    blocked({"program": "Echo", "inputs": {"question": "warm"}})
    records()
    batch = sqs(fine, fine, body(name), fine, {"program": "AEcho", "inputs": {"question": "q"}})

    def wait(job, runner, invocation, until):
        """The deadline comes when the sync ones are done, and not before."""
        wait_until(lambda: sum(call.written for call in list(invocation.calls.values())) == 3)
        return False

    monkeypatch.setattr(blocked.environment.watch, "wait", wait)
    assert failures(blocked(batch, Context(100_000))) == ["m2", "m4"]
    logged = records()
    outcomes = {call["message_id"]: call["outcome"] for call in logged.calls}
    assert outcomes == {"m0": "success", "m1": "success", "m3": "success", "m2": "deadline", "m4": "deadline"}
    assert sum(logged.values("Calls")) == 5
    assert sum(logged.values("RecordsFailed")) == 2


MASKS = """
import threading

threads = set()

def mask(name, value):
    threads.add(threading.current_thread())
    return value
"""
AWAITS = """
class Awaits(dspy.Module):
    async def aforward(self, question: str):
        await asyncio.sleep(1000)
"""


def test_a_thousand_cut_off_records_are_answered_without_applying_payload_rules(
    make_project, make_serve, records, monkeypatch
):
    """The rules and the project's function would need the time that is reserved for the answer."""
    telemetry = {"payloads": "masked", "mask_with": "slow_masks:mask"}
    server = {"max_concurrent_per_program": 1000}
    project = make_project({"blockers": BLOCKERS + AWAITS, "echo": ECHO}, telemetry=telemetry, server=server)
    (project / "slow_masks.py").write_text(MASKS)
    serve = make_serve(project)
    serve({"program": "Echo", "inputs": {"question": "q"}})
    assert records().calls[0]["inputs"] == {"question": "q"}

    def wait(job, runner, invocation, until):
        """The deadline comes when all run, and the last one blocks the loop."""
        wait_until(lambda: len(invocation.calls) == 1000 and all(c.running for c in list(invocation.calls.values())))
        return False

    monkeypatch.setattr(serve.environment.watch, "wait", wait)
    batch = sqs(*[{"program": "Awaits", "inputs": {"question": "why " * 750}}] * 999, body("Sleeps"))
    try:
        assert len(failures(serve(batch, Context(100_000)))) == 1000
    finally:
        module_of(serve, "Sleeps").RELEASE.set()
    calls = records().calls
    assert [call["outcome"] for call in calls] == ["deadline"] * 1000
    assert sum(call.get("payloads_left_out", False) for call in calls) == 1000
    assert not any("inputs" in call for call in calls)
    assert threading.current_thread() not in sys.modules["slow_masks"].threads


@pytest.mark.parametrize("name", NAMES)
def test_a_place_that_blocks_the_loop_is_logged_once(make_blocked, records, name):
    serve = make_blocked(DSPY_LAMBDA_LOOP_BLOCKED_MS="50")
    for _ in range(2):
        with pytest.raises(DeadlineExceeded):
            serve(body(name), Context(700))
    logged = records()
    lines = [line for line in logged.lines if line.get("message") == "event loop blocked"]
    assert len({line["at"] for line in lines}) == len(
        lines
    )  # a busy loop or a generator may be caught at several of its lines
    assert 1 <= len(lines) <= (3 if name in ("Spins", "SlowGenerator") else 1)
    assert "blockers.py:" in lines[0]["at"]
    assert lines[0]["program"] == name
    assert sum(logged.values("LoopBlocked", name)) >= 2


def test_after_a_blocked_loop_the_next_call_is_served_at_once(blocked):
    for _ in range(3):
        with pytest.raises(DeadlineExceeded):
            blocked(body("Sleeps"), Context(500))
        # The previous loop is still blocked.
        for name in ("Echo", "AEcho"):
            assert blocked({"program": name, "inputs": {"question": "q"}})["outputs"]["answer"].endswith("q")


def test_asyncify_slots_held_by_a_blocked_loop_are_freed(make_project, make_serve):
    source = """
    import asyncio, threading
    BLOCKED, RELEASE, RUNNING = threading.Event(), threading.Event(), []
    def work():
        RUNNING.append(1)
        BLOCKED.wait(100)
    class Blocks(dspy.Module):
        async def aforward(self):
            while len(RUNNING) < dspy.settings.async_max_workers:
                await asyncio.sleep(0.01)
            BLOCKED.set()
            RELEASE.wait(100)
    class Threads(dspy.Module):
        async def aforward(self):
            await dspy.asyncify(work)()
    """
    serve = make_serve(make_project({"threads": source}))
    calls = [{"program": "Threads", "inputs": {}}] * dspy.settings.async_max_workers
    module = module_of(serve, "Blocks")
    try:
        assert len(failures(serve(sqs(*calls, {"program": "Blocks", "inputs": {}}), Context(1500)))) == len(calls) + 1
        assert module.BLOCKED.is_set()
        assert serve.post("/Threads", {}).status == 200
    finally:
        module.RELEASE.set()


@pytest.mark.parametrize(
    "call",
    [
        "asyncio.get_event_loop().run_until_complete(asyncio.sleep(0))",
        "asyncio.get_running_loop().run_until_complete(asyncio.sleep(0))",
        "asyncio.run(asyncio.sleep(0))",
    ],
)
@pytest.mark.filterwarnings("ignore:coroutine 'sleep' was never awaited")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_nested_loop_fails_only_its_call(make_project, make_serve, records, call):
    source = f"import asyncio\nclass Nested(dspy.Module):\n    async def aforward(self):\n        {call}\n"
    serve = make_serve(make_project({"nested": source, "aecho": AECHO}))
    fine = {"program": "AEcho", "inputs": {"question": "q"}}
    assert failures(serve(sqs(fine, {"program": "Nested", "inputs": {}}, fine))) == ["m1"]
    assert [c["outcome"] for c in records().calls if c["program"] == "Nested"] == ["program_error"]


def test_a_program_that_needs_the_main_thread_is_told_so(make_project, make_serve):
    source = """
    import signal
    class Signals(dspy.Module):
        def forward(self):
            signal.signal(signal.SIGUSR1, lambda *_: None)
    """
    serve = make_serve(make_project({"signals": source}))
    with pytest.raises(ProgramFailed, match="main thread"):
        serve({"inputs": {}})


def test_each_invocation_has_a_fresh_context(make_project, make_serve):
    source = """
    import contextvars
    SEEN = contextvars.ContextVar("SEEN", default=0)
    class Counts(dspy.Module):
        def forward(self) -> int:
            SEEN.set(SEEN.get() + 1)
            return SEEN.get()
    class ACounts(dspy.Module):
        async def aforward(self) -> int:
            SEEN.set(SEEN.get() + 1)
            return SEEN.get()
    """
    serve = make_serve(make_project({"counts": source}))
    for name in ("Counts", "ACounts") * 2:
        assert serve({"program": name, "inputs": {}})["outputs"] == {"result": 1}


def test_the_late_answer_imports_nothing_and_waits_for_no_logging_lock(blocked, records, monkeypatch):
    """A log argument whose `__str__` never returns holds its handler's lock forever."""
    import builtins
    import logging

    from dspy_lambda.sources import sqs as source

    real, late, imported = builtins.__import__, source.late, []

    def watched(*arguments):
        monkeypatch.setattr(builtins, "__import__", lambda name, *rest: imported.append(name) or real(name, *rest))
        locks = [logging._lock, *(h.lock for h in logging.getLogger().handlers if h.lock)]
        for lock in locks:
            lock.acquire()
        try:
            return late(*arguments)
        finally:
            for lock in locks:
                lock.release()
            monkeypatch.setattr(builtins, "__import__", real)

    monkeypatch.setattr(source, "late", watched)
    batch = sqs(*[{"program": "AEcho", "inputs": {"question": "q"}}] * 5, body("Sleeps"))
    assert len(failures(blocked(batch, Context(1000)))) == 6
    assert set(imported) <= set(sys.modules)
    assert len(records().calls) == 6


@pytest.mark.parametrize("origins", [["https://a.example", "https://c.example"], ["*"]])
@pytest.mark.parametrize(("kind", "adds"), [("rest", True), ("alb", True), ("url", False)])
def test_a_late_answer_has_cors_headers(make_blocked, kind, adds, origins):
    serve = make_blocked(server={"cors_origins": origins})
    for origin in ("https://a.example", "https://b.example"):
        headers = {"Origin": origin}
        answers = (
            serve.post("/Sleeps", [], kind, headers=headers),
            serve.post("/Sleeps", {}, kind, headers=headers, context=Context(500)),
        )
        assert [answer.status for answer in answers] == [422, 504]
        usual, late = (dict(answer.headers).get("access-control-allow-origin") for answer in answers)
        assert late == usual
        assert (late is not None) == (adds and (origin in origins or "*" in origins))


def test_a_late_answer_has_the_format_of_its_gateway(blocked):
    blocked.get("/health/live")  # FastAPI is imported now
    for kind in ("rest", "http", "url", "alb"):
        answer = blocked.post("/Sleeps", {}, kind, context=Context(500))
        document = json.loads(answer.body)
        assert (answer.status, document["status"], document["title"]) == (504, 504, "Deadline exceeded")
        assert dict(answer.headers)["content-type"] == "application/problem+json"


def test_a_program_cannot_configure_dspy_for_others(make_project, make_serve, records):
    source = """
    class Configures(dspy.Module):
        def forward(self):
            dspy.configure(lm=None)
    class AConfigures(dspy.Module):
        async def aforward(self):
            dspy.configure(lm=None)
    """
    serve = make_serve(make_project({"configures": source}))
    for name in ("Configures", "AConfigures"):
        with pytest.raises(ProgramFailed):
            serve({"program": name, "inputs": {}})
    assert {call["exception_name"] for call in records().calls} == {"RuntimeError"}


def test_process_state_that_a_program_changes_is_restored_and_logged(make_project, make_serve, records, monkeypatch):
    import os

    monkeypatch.setenv("KEPT", "before")
    source = """
    import os, sys
    class Changes(dspy.Module):
        def forward(self):
            os.environ["KEPT"] = "after"
            os.environ["ADDED"] = "x"
            os.chdir("/")
            sys.stdout = None
    """
    serve = make_serve(make_project({"changes": source}))
    folder, stdout = os.getcwd(), sys.stdout
    serve({"inputs": {}})
    assert (os.environ["KEPT"], os.environ.get("ADDED"), os.getcwd()) == ("before", None, folder)
    assert sys.stdout is stdout
    (line,) = [line for line in records().lines if "restored process state" in str(line.get("message"))]
    assert line["changed"] == ["os.environ", "working directory", "standard output or error"]


def test_a_wrong_list_is_answered_with_at_most_a_hundred_errors(make_project, make_serve):
    source = "class Sums(dspy.Module):\n    def forward(self, items: list[int]) -> int:\n        return sum(items)\n"
    serve = make_serve(make_project({"sums": source}))
    document = problem(serve.post("/Sums", {"items": ["x"] * 20_000}))
    assert (document["status"], len(document["errors"])) == (422, 100)


def test_a_programs_own_error_is_limited_to_the_response_size(make_project, make_serve):
    source = """
    from dspy_lambda.errors import InvalidInput
    class Raises(dspy.Module):
        def forward(self):
            raise InvalidInput("d" * 7_000_000)
    """
    answer = make_serve(make_project({"raises": source})).post("/Raises", {})
    assert answer.status == 422
    assert len(answer.body) < 10_000


def test_an_lm_that_a_program_keeps_counts_for_the_call_that_uses_it(make_project, make_serve, records):
    source = """
    KEPT = {}
    class Keeps(dspy.Module):
        def forward(self, q: str):
            lm = KEPT.setdefault("lm", dspy.settings.lm.copy(temperature=0.9))
            return {"answer": lm(q)}
    """
    serve = make_serve(make_project({"keeps": source}))
    for n in range(2):
        context = Context(30_000)
        serve({"inputs": {"q": f"q{n}"}}, context)
        (call,) = records().calls
        assert (call["function_request_id"], call["lm_calls"]) == (context.aws_request_id, 1)


def test_a_job_started_right_after_the_last_one_is_not_lost(make_project, make_serve, monkeypatch):
    from dspy_lambda.runner import Job

    serve = make_serve(make_project({"echo": ECHO}))
    run = Job.run
    monkeypatch.setattr(Job, "run", lambda job: (run(job), time.sleep(0.01)))  # after it is done
    for _ in range(5):
        assert serve.environment.runner.start(lambda: 1).wait(60)


def test_slow_queue_requests_are_cut_off_and_not_reported_as_a_blocked_loop(
    make_project, make_serve, records, models, monkeypatch
):
    monkeypatch.setattr(watch, "_MOMENT_SECONDS", 60)  # generous for a busy machine
    patient = {"DSPY_LAMBDA_LOOP_BLOCKED_MS": "100000"}
    serve = make_serve(make_project({"aecho": AECHO}), AWS_ACCESS_KEY_ID="k", AWS_SECRET_ACCESS_KEY="s", **patient)
    from dspy_lambda.sources.sqs import Queues

    queues = serve.environment.part(Queues)
    queues.requeue.settle = lambda *_: time.sleep(2)
    models.behave(hang_rate=1)
    batch = sqs({"question": "q"})
    batch["Records"][0] |= {"receiptHandle": "r"}
    runner = serve.environment.runner
    assert failures(serve(batch, Context(1000))) == ["m0"]
    assert serve.environment.runner is runner
    assert not [line for line in records().lines if line.get("message") == "event loop blocked"]


def test_an_abandoned_batch_does_not_write_to_the_next_ones_journal(make_blocked, tmp_path):
    from dspy_lambda.sources.sqs import Queues

    fine = """
class Fine(dspy.Module):
    async def aforward(self):
        RELEASE.set()  # the abandoned batch comes to its end
        while any(thread.name == "dspy-lambda" and thread is not threading.current_thread() and thread.ident in BEFORE
                  for thread in threading.enumerate()):
            await asyncio.sleep(0.01)
        ENDED.append("fine")
BEFORE, ENDED = [], []
"""
    serve = make_blocked(fine, AWS_LAMBDA_FUNCTION_NAME="f", TMPDIR=str(tmp_path))
    blocks = {"program": "Sleeps", "inputs": {}}
    module = module_of(serve, "Fine")
    module.BEFORE.append(serve.environment.runner.thread.ident)
    serve(sqs(blocks, blocks), Context(500))
    journal = serve.environment.part(Queues).suspects
    end = journal.end
    journal.end = lambda: (module.ENDED.append("journal"), end())
    assert failures(serve(sqs(*[{"program": "Fine", "inputs": {}}] * 2))) == []
    assert module.ENDED == ["fine", "fine", "journal"]


@pytest.mark.parametrize("how", ["sys.setprofile", "sys.settrace", "threading.setprofile"])
@pytest.mark.parametrize("define", ["def forward", "async def aforward"])
def test_a_programs_profile_or_trace_function_does_not_observe_later_calls(make_project, make_serve, define, how):
    source = f"""
    import sys, threading
    seen = []
    def spy(frame, event, value):
        seen.append(str(frame.f_locals))
        return spy
    class TraceFunctions(dspy.Module):
        {define}(self, what: str):
            if what == "spy":
                {how}(spy)
            elif what == "seen":
                return str("a secret" in "".join(seen))
            return what
    """
    serve = make_serve(make_project({"spies": source}))
    for what in ("spy", "a secret", "a secret"):
        serve({"inputs": {"what": what}})
    assert "True" not in json.dumps(serve({"inputs": {"what": "seen"}}))


def test_variables_that_a_thread_changes_between_invocations_are_restored_and_logged(
    make_project, make_serve, records, monkeypatch
):
    monkeypatch.setenv("KEPT", "before")
    source = """
    import os
    class Reads(dspy.Module):
        def forward(self):
            return os.environ["KEPT"] + os.environ["_X_AMZN_TRACE_ID"]
    """
    serve = make_serve(make_project({"reads": source}))
    for number in range(2):
        monkeypatch.setenv("_X_AMZN_TRACE_ID", f"trace {number}")  # as the runtime client does
        assert f"beforetrace {number}" in json.dumps(serve({"inputs": {}}))
        monkeypatch.setenv("KEPT", "a thread's")
    (line,) = [line for line in records().lines if "restored process state" in str(line.get("message"))]
    assert line["changed"] == ["os.environ"]
