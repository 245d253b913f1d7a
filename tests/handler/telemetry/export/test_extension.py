"""The extension in a process with Lambda's own runtime client."""

import time

import pytest

from dspy_lambda.telemetry.export.extension import Extension
from tests.handler.telemetry.export.collector_server import OK, closed_port
from tests.handler.telemetry.export.lambda_api import WAIT, LambdaApi
from tests.handler.telemetry.export.test_exporter import names

# Lambda's client calls the handler; a number in the event is how many spans its trace has.
FUNCTION = """
import ctypes
import os
import threading
from dspy_lambda.config.telemetry import Telemetry
from dspy_lambda.process import LastResort, as_started
from dspy_lambda.settings import Settings
from dspy_lambda.telemetry.export import start as export
from dspy_lambda.telemetry.traces.spans import INTERNAL, Trace

started_with = as_started(dict(os.environ))
settings = Settings.from_environment(os.environ)
exporter = export.start_export(settings, Telemetry(), "qa", lambda *line: print(*line, flush=True))
resort = LastResort(started_with, settings)
resort.hand_over = lambda: export.hand_over(exporter)

def handler(event, context):
    trace = Trace()
    for number in range(event["spans"]):
        trace.start(f"{context.aws_request_id} {number}", INTERNAL, None, {}).end()
    exporter.add(trace.spans)
    if event.get("replace"):
        resort.plan("memory")
    if event.get("kill"):
        for thread in threading.enumerate():
            if thread is not threading.current_thread():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
    export.before_answer(exporter, context.get_remaining_time_in_millis() / 1000)
    return {"mode": exporter.mode, "process": resort.restarts, "dropped": exporter.take_dropped()}
"""


@pytest.fixture
def api():
    found = LambdaApi()
    yield found
    found.close()


@pytest.fixture
def start(api, server, tmp_path):
    processes = []

    def run(**variables):
        variables = {"DSPY_LAMBDA_TRACES": server.url, **variables}
        processes.append(api.start(tmp_path, FUNCTION, **variables))
        assert api.wait_until_ready(), processes[-1].communicate(timeout=1)
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_it_registers_for_invocations_only(api, start):
    start()
    assert api.registrations == [("dspy-lambda", ["INVOKE"])]


def test_each_invocation_ends_only_after_its_spans_have_arrived(api, server, start):
    start()
    for number in range(100):
        answer = api.invoke(f"r{number}", {"spans": 2})
        assert answer == {"mode": "extension", "process": 0, "dropped": 0}
        assert api.wait_until_ready()
        assert len(server.received) == number + 1
    assert names(server) == [f"r{number} {span}" for number in range(100) for span in (0, 1)]
    assert server.connections == 1


def test_a_program_that_ends_all_threads_ends_neither_the_extension_nor_the_export(api, server, start):
    start()
    for number in range(4):
        api.invoke(f"r{number}", {"spans": 1, "kill": number == 1})
        assert api.wait_until_ready()
    assert {"r0 0", "r2 0", "r3 0"} <= set(names(server))


def test_an_invocation_without_spans_asks_nothing_of_the_collector(api, server, start):
    start()
    for number in range(3):
        api.invoke(f"r{number}", {"spans": 0})
        assert api.wait_until_ready()
    assert server.connections == 0


def test_the_answer_leaves_before_the_spans(api, server, start):
    held = []

    def reply(sock):
        held.append(api.answered.wait(WAIT))
        sock.sendall(OK)

    start()
    server.reply = reply
    api.invoke("r1", {"spans": 1})
    assert api.wait_until_ready()
    assert held == [True]


def test_a_slow_collector_holds_an_invocation_for_a_second_at_most_and_not_the_next_one(api, server, start):
    start()
    server.reply = server.hang
    api.invoke("r1", {"spans": 1})
    assert api.wait_until_ready(10)  # the collector never answers
    dropped = 0
    for number in range(2, 6):
        dropped += api.invoke(f"r{number}", {"spans": 1})["dropped"]
        assert api.wait_until_ready()
    assert dropped >= 1
    assert len(server.received) < 5


class Recorder:
    """Records how long each flush may take."""

    def __init__(self):
        self.seconds = []

    def flush(self, seconds):
        self.seconds.append(seconds)


@pytest.mark.parametrize(("left", "granted"), [(10, 1.0), (0.7, 0.5), (0.1, -0.1)])
def test_a_flush_ends_before_the_invocations_deadline(monkeypatch, left, granted):
    now = 1_800_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    recorder = Recorder()
    extension = Extension("127.0.0.1:1", recorder, None)
    extension._answered.put("earlier")
    extension._answered.put("r1")
    extension._handle({"eventType": "INVOKE", "requestId": "r1", "deadlineMs": (now + left) * 1000})
    assert recorder.seconds == [pytest.approx(granted, abs=0.001)]


def test_an_invocation_that_never_answers_is_not_waited_for_beyond_its_deadline():
    recorder = Recorder()
    extension = Extension("127.0.0.1:1", recorder, None)
    extension._handle({"eventType": "INVOKE", "requestId": "r1", "deadlineMs": (time.time() + 0.25) * 1000})
    assert recorder.seconds[0] <= 0


@pytest.mark.parametrize("event", [{}, {"eventType": "SHUTDOWN"}, {"eventType": "INVOKE", "deadlineMs": "soon"}])
def test_an_event_that_is_not_an_invocation(event):
    lines = []
    extension = Extension("127.0.0.1:1", Recorder(), lambda *line: lines.append(line))
    extension._handle(event)
    assert len(lines) == ("deadlineMs" in event)


def test_where_no_extension_can_register_spans_leave_before_the_answer(api, server, start):
    api.has_extensions = False
    start()
    assert api.invoke("r1", {"spans": 2})["mode"] == "inline"
    assert names(server) == ["r1 0", "r1 1"]


def test_managed_instances_send_in_the_background(api, server, start):
    start(AWS_LAMBDA_MAX_CONCURRENCY="4")
    assert api.invoke("r1", {"spans": 2})["mode"] == "background"
    assert server.arrived.acquire(timeout=WAIT)
    assert api.registrations == []


def test_a_process_that_replaces_itself_sends_first_and_stays_the_same_extension(api, server, start):
    start()
    api.invoke("r1", {"spans": 1, "replace": True})
    assert api.wait_until_ready()
    assert names(server) == ["r1 0"]
    for number in (2, 3):
        assert api.invoke(f"r{number}", {"spans": 1}) == {"mode": "extension", "process": 1, "dropped": 0}
        assert api.wait_until_ready()
    assert names(server) == ["r1 0", "r2 0", "r3 0"]
    assert (api.registrations, api.refusals) == ([("dspy-lambda", ["INVOKE"])], 0)


def test_a_new_process_goes_on_if_the_former_one_had_already_asked(api, server, start):
    api.extension.is_suspended = True  # by the process before
    api.registrations.append(("dspy-lambda", ["INVOKE"]))
    api.extension.asks.release()
    start(DSPY_LAMBDA_EXTENSION_ID="the-identifier")
    while api.refusals < 2:
        assert not api.extension.asks.acquire(timeout=0.01)
    api.extension.is_suspended = False  # an event was passed on, to nobody
    api.extension.asks.acquire(timeout=WAIT)
    api.invoke("r1", {"spans": 1})
    assert api.wait_until_ready()
    assert names(server) == ["r1 0"]


def test_it_does_not_start_without_lambdas_runtime_client(api):
    assert not Extension(api.address, None, None).start()
    assert api.registrations == []


def test_a_refused_registration():
    assert not Extension(f"127.0.0.1:{closed_port()}", None, None)._register()
