"""Debug lines of calls that fail are kept, also where the calls of a batch run side by side."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import threading
import weakref

import pytest
from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.buffer import LoggerBufferConfig

from dspy_lambda.errors import InvalidInput
from dspy_lambda.invocation import Invocation
from dspy_lambda.telemetry.debug_lines import MAX_BYTES, DebugLines
from tests.support import sqs


class Ignore:
    """A listener of nothing."""

    def __getattr__(self, _):
        return lambda *_: None


@pytest.fixture
def written():
    return []


@pytest.fixture
def debug_lines(written):
    return DebugLines(written.append, lambda *about: written.append(about))


@pytest.fixture
def invocation():
    return Invocation(Ignore(), "sqs", request_id="r")


def test_lines_of_a_failed_call_are_written_and_those_of_others_dropped(debug_lines, invocation, written):
    good, bad, refused = (invocation.call("P", position=n) for n in range(3))
    for number in range(3):
        for call, name in ((good, "good"), (bad, "bad"), (refused, "refused")):
            debug_lines.add(call, f"{name} {number}\n")
    good.succeed(b"{}")
    bad.fail(ValueError())
    refused.fail(InvalidInput("no"))
    assert written == []
    for call in (good, bad, refused):
        debug_lines.settle(call)
    assert written == [f"{name} {number}\n" for name in ("bad", "refused") for number in range(3)]


def test_a_thread_that_outlives_its_call_writes_if_the_call_failed(debug_lines, invocation, written):
    good, bad = (invocation.call("P", position=n) for n in range(2))
    good.succeed(b"{}")
    bad.fail(ValueError())
    debug_lines.add(good, "good\n")
    debug_lines.add(bad, "bad\n")
    assert written == ["bad\n"]


def test_the_oldest_lines_of_a_call_are_left_out_and_counted(debug_lines, invocation, written):
    call = invocation.call("P")
    debug_lines.add(call, "x" * (MAX_BYTES + 1))  # alone too long
    for number in range(30):
        debug_lines.add(call, f"{number:1024}")
    call.fail(ValueError())
    debug_lines.settle(call)
    (level, message, about), *lines = written
    assert (level, message, about["lines"]) == ("WARNING", "left out debug lines of a failed call", 1 + 10)
    assert [int(line) for line in lines] == list(range(10, 30))


def test_bytes_are_counted_not_characters(debug_lines, invocation, written):
    call = invocation.call("P")
    for _ in range(30):
        debug_lines.add(call, "é" * 1024)
    call.fail(ValueError())
    debug_lines.settle(call)
    assert sum(len(line.encode()) for line in written[1:]) <= MAX_BYTES


def test_every_line_of_many_threads_is_written_once_while_their_call_fails(debug_lines, invocation, written):
    call = invocation.call("P")
    begun = threading.Barrier(9)

    def log(thread):
        begun.wait()
        for number in range(50):
            debug_lines.add(call, f"{thread} {number}")

    threads = [threading.Thread(target=log, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    begun.wait()
    call.fail(ValueError())
    debug_lines.settle(call)
    for thread in threads:
        thread.join()
    assert sorted(written) == sorted(f"{thread} {number}" for thread in range(8) for number in range(50))


def test_nothing_is_kept_after_an_invocation(debug_lines, invocation):
    call = invocation.call("P")
    debug_lines.add(call, "x")
    debug_lines.close(invocation)
    gone = weakref.ref(call)
    invocation.calls.clear()
    del call
    gc.collect()
    assert gone() is None


def test_powertools_own_buffer_writes_the_lines_of_calls_that_succeeded(monkeypatch):
    """Why there is one of our own. Should this test fail, Powertools' may have become usable."""
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793")
    stream = io.StringIO()
    logger = Logger(service="buffers", stream=stream, buffer_config=LoggerBufferConfig())

    async def call(name, fails):
        logger.debug(f"debug of {name}")
        await asyncio.sleep(0)
        if fails:
            logger.error(f"{name} failed")

    async def batch():
        await asyncio.gather(call("alice", False), call("bob", True))

    asyncio.run(batch())
    messages = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert "debug of alice" in messages


LOGS = """
import asyncio, json, logging, threading
own = logging.getLogger(__name__)

def say(who):
    own.debug("%s says", who)
    print(json.dumps({"level": "DEBUG", "message": f"{who} prints"}))

class Logs(dspy.Module):
    def __init__(self):
        super().__init__()
        own.debug("at init")
    def forward(self, who: str, fails: bool) -> str:
        say(who)
        context = __import__("contextvars").copy_context()
        thread = threading.Thread(target=context.run, args=(say, who))
        thread.start()
        thread.join()
        logging.info("%s info", who)
        if fails:
            raise ValueError
        return who

class ALogs(Logs):
    async def aforward(self, who: str, fails: bool) -> str:
        say(who)
        await asyncio.sleep(0.01)
        await asyncio.to_thread(say, who)
        logging.info("%s info", who)
        if fails:
            raise ValueError
        return who
"""


def debug_of(lines):
    return [(line["message"], line.get("message_id")) for line in lines if line.get("level") == "DEBUG"]


@pytest.mark.parametrize("program", ["Logs", "ALogs"])
@pytest.mark.parametrize("level", [{}, {"AWS_LAMBDA_LOG_LEVEL": "DEBUG"}])
def test_a_programs_debug_lines_are_kept_only_of_calls_that_failed(run_events, program, level):
    inputs = [{"who": f"caller {number}", "fails": number % 3 == 0} for number in range(30)]
    event = sqs(*({"program": program, "inputs": values} for values in inputs))
    found = run_events(LOGS, event, config={"telemetry": {"buffer_debug_logs": True}}, **level)
    assert sorted(debug_of(found.lines)) == sorted(
        (f"caller {number} {verb}", f"m{number}") for number in range(0, 30, 3) for verb in ["says", "prints"] * 2
    )
    infos = [line["message"] for line in found.lines if line.get("level") == "INFO"]
    assert sum(message.endswith(" info") for message in infos) == 30


def test_without_buffering_the_level_decides(run_events):
    event = {"program": "Logs", "inputs": {"who": "x", "fails": True}}
    quiet = debug_of(run_events(LOGS, event).lines)
    assert {message for message, _ in quiet} == {"x prints"}  # a line of its own, which Lambda drops
    loud = debug_of(run_events(LOGS, event, AWS_LAMBDA_LOG_LEVEL="DEBUG").lines)
    assert {"x says", "at init"} <= {message for message, _ in loud}


def test_a_bare_thread_belongs_to_the_only_call_of_its_invocation(run_events):
    source = """
    import logging, threading
    class Bare(dspy.Module):
        def forward(self, fails: bool) -> str:
            thread = threading.Thread(target=logging.debug, args=("bare",))
            thread.start()
            thread.join()
            if fails:
                raise ValueError
            return "x"
    """
    events = [sqs({"program": "Bare", "inputs": {"fails": fails}}) for fails in (False, True)]
    found = run_events(source, *events, config={"telemetry": {"buffer_debug_logs": True}})
    assert debug_of(found.lines) == [("bare", "m0")]


def test_a_program_can_buffer_alone(run_events):
    config = {"lambda": {"programs": {"Logs": {"telemetry": {"buffer_debug_logs": True}}}}}
    events = [
        {"program": program, "inputs": {"who": f"{program} {fails}", "fails": fails}}
        for program in ("Logs", "ALogs")
        for fails in (False, True)
    ]
    found = run_events(LOGS, *events, config=config)
    assert {message for message, _ in debug_of(found.lines) if message.endswith("says")} == {"Logs True says"}
