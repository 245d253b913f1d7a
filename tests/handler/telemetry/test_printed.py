import contextvars
import json
import os
import re
import subprocess
import sys
import threading

import pytest

from dspy_lambda.call import CALL
from dspy_lambda.telemetry.printed import Printed
from tests.conftest import ROOT
from tests.handler.telemetry.test_lines import is_kept
from tests.support import Records, sqs


@pytest.fixture
def lines():
    return []


@pytest.fixture
def printed(lines):
    return Printed(1, lines.append, lambda found: lines.append(found))


def test_one_print_is_one_line_however_many_writes_it_is(printed, lines):
    for part in (b"a", b" ", b"b\nc", b"\n", b"d\n"):
        printed.write(part)
    assert lines == ["a b\nc", "d"]


def test_a_line_that_is_a_json_object_is_passed_on_as_one(printed, lines):
    printed.write(b'{"_aws": {}, "x": 0.1}\n')
    printed.write(b'{"a": 1}\n{"b": 2}\n')
    printed.write('{"a": "x\u2028y"}\n'.encode())
    assert lines == [{"_aws": {}, "x": 0.1}, {"a": 1}, {"b": 2}, {"a": "x\u2028y"}]


@pytest.mark.parametrize("text", ['{"a": 1} and more', '{"a": NaN}', '{"a": 1}\nx', "[1]", "{" * 100_000, "\ufffd"])
def test_text_that_only_looks_like_json_is_logged_as_text(printed, lines, text):
    printed.write(f"{text}\n".encode())
    assert lines == [text]


def test_blank_printed_lines_are_dropped(printed, lines):
    printed.write(b"\n")
    printed.write(b"  \n")
    assert lines == []


def test_text_without_a_newline_is_logged_at_the_end(printed, lines):
    printed.write(b"half")
    assert lines == []
    printed.finish()
    printed.finish()
    assert lines == ["half"]


def test_text_without_a_newline_is_bounded(printed, lines):
    for _ in range(5):
        printed.write(b"x" * 60_000)
    assert lines == ["x" * 100_000, "x" * 20_000, "x" * 100_000, "x" * 20_000]


def test_threads_do_not_mix_their_lines(printed, lines):
    barrier = threading.Barrier(4)

    def write(letter):
        barrier.wait()
        for _ in range(200):
            for part in (letter, letter, b"\n"):
                printed.write(part)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(lines) == sorted(["aa", "bb", "cc", "dd"] * 200)


def test_calls_of_one_thread_do_not_mix_their_lines(lines):
    def write(call, text):
        context = contextvars.copy_context()
        context.run(CALL.set, call)
        context.run(printed.write, text)

    printed = Printed(1, lambda text: lines.append((CALL.get(), text)), lines.append)
    for call, text in (("alice", b"balance "), ("bob", b"hello "), ("alice", b"42 "), ("bob", b"you\n"), (None, b"x")):
        write(call, text)
    assert lines == [("bob", "hello you")]
    printed.finish("alice")
    printed.finish()
    assert lines[1:] == [("alice", "balance 42 "), (None, "x")]
    assert CALL.get() is None


def test_closing_standard_output_has_no_effect(printed, lines):
    printed.close()
    printed.write(b"still there\n")
    assert lines == ["still there"]


SPEAKS = """
import asyncio, logging, sys, threading, traceback, warnings
from aws_lambda_powertools import Logger

print("at import")
own = logging.getLogger(__name__)
powertools = Logger(service="mine")
same = Logger(service="the-app")

def speak():
    print("printed", 1)
    print("to stderr", file=sys.stderr)
    sys.stdout.buffer.write(b"bytes\\n")
    print('{"_aws": {"Timestamp": 1}, "value": 0.1}')
    logging.info("root %s", "info")
    own.info("own info", extra={"order": 7})
    own.debug("own debug")
    own.info("not a number", extra={"v": float("nan"), "keys": {(1, 2): 3}})
    own.info("%d", "does not fit")
    print('{"v": 1e999}')
    logging.getLogger("httpx").info("library info")
    logging.getLogger("httpx").warning("library warning: secret", extra={"request": "secret"})
    logging.getLogger("google_genai.models").warning("another library's: secret")
    powertools.info("powertools")
    same.info("same service")
    warnings.warn("a warning: secret")
    try:
        1 / 0
    except ZeroDivisionError:
        own.exception("caught")
    logging.basicConfig(level=logging.INFO)

class Sync(dspy.Module):
    def forward(self):
        speak()
        thread = threading.Thread(target=print, args=("bare thread",))
        thread.start()
        thread.join()
        print("half", end="")
        return "x"

class Async(dspy.Module):
    async def aforward(self):
        speak()
        await asyncio.to_thread(print, "to_thread")
        sys.stdout.close()
        print("after close")
        print("half", end="")
        return "x"
"""
SCRIPT = """
import sys
from dspy_lambda.main import lambda_handler
from tests.handler.telemetry.test_printed import Context

lambda_handler({"program": sys.argv[1], "inputs": {}}, Context())
"""


STREAMS = """
import asyncio
class AStreams(dspy.Module):
    async def aforward(self, who):
        for n in range(3):
            print(who, end=" ", flush=True)
            await asyncio.sleep(0.001)
        return "x"
class Streams(dspy.Module):
    def forward(self, who):
        print(who, end=" " if who == "alice" else None)
        return "x"
"""
BATCH = """
import sys
from dspy_lambda.main import lambda_handler
from tests.handler.telemetry.test_printed import Context
from tests.support import sqs

lambda_handler(sqs(*({"program": sys.argv[1], "inputs": {"who": who}} for who in ("alice", "bob"))), Context())
"""


class Context:
    aws_request_id = "request"

    def get_remaining_time_in_millis(self):
        return 30_000


@pytest.fixture
def run(make_project):
    """The lines written by a process that calls a program once."""

    def run(program, source=SPEAKS, script=SCRIPT, **variables):
        project = make_project({"speaks": source})
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("POWERTOOLS_")},
            "DSPY_LAMBDA_PROJECT": str(project),
            "OPENAI_API_KEY": "k",
            "POWERTOOLS_SERVICE_NAME": "the-app",
            **variables,
        }
        command = [sys.executable, "-c", script, program]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return Records([json.loads(line) for line in done.stdout.splitlines()])

    return run


@pytest.mark.parametrize("program", ["Sync", "Async"])
def test_whatever_a_program_logs_or_prints_is_json_with_program_and_request_id(run, program):
    lines = [line for line in run(program).lines if line.get("message") != "environment ready"]
    assert lines.pop(0)["message"] == "at import"
    by_message = {line.get("message"): line for line in lines}
    assert len(by_message) == len(lines) - 2  # the handler's metrics and the program's have none
    levels = {
        "printed 1": "INFO",
        "to stderr": "WARN",
        "bytes": "INFO",
        "half": "INFO",
        "root info": "INFO",
        "own info": "INFO",
        "powertools": "INFO",
        "same service": "INFO",
        "Python warning": "WARN",
        "caught": "ERROR",
    }
    assert {message: by_message[message]["level"] for message in levels} == levels
    assert by_message["own info"]["order"] == 7
    assert (by_message["not a number"]["v"], by_message["not a number"]["keys"]) == ("nan", {"(1, 2)": 3})
    assert [line["v"] for line in lines if "v" in line and "level" not in line] == ["inf"]
    assert any(str(message).startswith("a message that cannot be formatted: ") for message in by_message)
    assert by_message["own info"]["logger"].endswith(".modules.speaks")
    assert by_message["caught"]["exception_name"] == "ZeroDivisionError"
    assert by_message.keys() >= ({"bare thread"} if program == "Sync" else {"to_thread", "after close"})
    assert not by_message.keys() & {"own debug", "library info"}
    assert "secret" not in json.dumps(lines)
    assert {(line["program"], line.get("function_request_id")) for line in lines if "Calls" not in line} == {
        (program, "request")
    }


def test_the_log_level_applies_to_printed_text(run):
    messages = {line.get("message") for line in run("Sync", POWERTOOLS_LOG_LEVEL="WARNING").lines}
    assert messages >= {"to stderr", "caught"}
    assert not messages & {"printed 1", "root info", "own info", "at import"}


def test_timestamps_are_rfc_3339_in_utc(run):
    lines = run("Sync", TZ="America/New_York").lines
    # A program's own Powertools logger has its own format.
    stamps = [line["timestamp"] for line in lines if "level" in line and line["message"] != "powertools"]
    assert len(stamps) > 10
    for stamp in stamps:
        date, time = stamp.split("T")
        assert len(date) == 10
        assert time.endswith("+00:00")


@pytest.mark.parametrize("program", ["Streams", "AStreams"])
def test_text_without_a_newline_belongs_to_the_call_that_printed_it(run, program):
    lines = run(program, STREAMS, BATCH).lines
    said = {line.get("message", "").strip(): line.get("message_id") for line in lines}
    times = 1 if program == "Streams" else 3
    assert said.items() >= {" ".join(["alice"] * times): "m0", " ".join(["bob"] * times): "m1"}.items()


SPEAKERS = """
import asyncio, contextvars, logging, threading, warnings
from aws_lambda_powertools import Logger
own, mine = logging.getLogger(__name__), Logger(service="mine")

def speak(who, where):
    print(who, "prints", where)
    own.warning("%s logs %s", who, where)
    mine.error("%s uses Powertools %s", who, where)

class Part(dspy.Module):
    def forward(self, who):
        speak(who, "in parallel")
        return dspy.Prediction(x=1)

class Speaker(dspy.Module):
    def forward(self, who: str) -> str:
        speak(who, "in forward")
        dspy.Parallel(num_threads=2, disable_progress_bar=True)([(Part(), {"who": who})] * 2)
        thread = threading.Thread(target=contextvars.copy_context().run, args=(speak, who, "in a thread"))
        thread.start()
        thread.join()
        return who

class ASpeaker(dspy.Module):
    async def aforward(self, who: str) -> str:
        speak(who, "in aforward")
        await asyncio.sleep(0)
        await asyncio.gather(asyncio.to_thread(speak, who, "in to_thread"), dspy.asyncify(speak)(who, "in asyncify"))
        async def later():
            await asyncio.sleep(0.001)
            speak(who, "in a task")
        await asyncio.create_task(later())
        return who
"""


@pytest.mark.parametrize(("program", "lines_each"), [("Speaker", 4 * 3), ("ASpeaker", 4 * 3)])
def test_each_line_of_a_hundred_records_side_by_side_names_its_own_record(run_events, program, lines_each):
    event = sqs(*({"program": program, "inputs": {"who": f"m{number}."}} for number in range(100)))
    said = [line for line in run_events(SPEAKERS, event).lines if re.match(r"m\d+\. ", str(line.get("message")))]
    assert len(said) == 100 * lines_each
    for line in said:
        who = line["message"].split(".")[0]
        assert (line["message_id"], line["correlation_id"]) == (who, who)
        assert (line["program"], line["function_request_id"]) == (program, "request")


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARN", "ERROR", "FATAL"])
def test_lambda_keeps_what_each_application_log_level_names(run_events, level):
    events = [{"program": "Speaker", "inputs": {"who": "x"}}, {"program": "Speaker", "inputs": {}}]
    # The first one is the level; Lambda sets it from ApplicationLogLevel.
    logged = run_events(SPEAKERS, *events, AWS_LAMBDA_LOG_LEVEL=level, POWERTOOLS_LOG_LEVEL="CRITICAL")
    kept = [line for line in logged.lines if is_kept(line, level)]
    verbs = {line["message"].split()[1] for line in kept if str(line.get("message")).startswith("x ")}
    assert (
        verbs
        == {
            "DEBUG": {"prints", "logs", "uses"},
            "INFO": {"prints", "logs", "uses"},
            "WARN": {"logs", "uses"},
            "ERROR": {"uses"},
            "FATAL": set(),
        }[level]
    )
    assert sum(sum(line.get("Calls", [])) for line in kept) == 2  # metrics are kept at every level
    dropped = [line for line in logged.lines if not is_kept(line, level)]
    assert dropped == []  # nothing is written only to be dropped


def test_a_powertools_level_that_lambda_overrules_is_no_text_on_standard_error(run_events):
    event = {"program": "Speaker", "inputs": {"who": "x"}}
    lines = run_events(SPEAKERS, event, AWS_LAMBDA_LOG_LEVEL="ERROR", POWERTOOLS_LOG_LEVEL="DEBUG").lines
    assert {line["message"].split()[1] for line in lines if str(line.get("message")).startswith("x ")} == {"uses"}
