"""SIGTERM while Lambda's own runtime client waits in C for the next event, and in processes of other kinds."""

import signal
import subprocess
import sys
import textwrap

import pytest

from tests.handler.telemetry.export.lambda_api import WAIT, LambdaApi
from tests.handler.telemetry.export.test_exporter import names
from tests.handler.telemetry.export.test_extension import FUNCTION

ADDED_AT_INIT = """
exporter.add(Trace().start("at init", INTERNAL, None, {}).trace.spans)
"""
OWN_HANDLER = """
import signal
signal.signal(signal.SIGTERM, lambda *_: print("the user's handler", flush=True))
"""


@pytest.fixture
def api():
    found = LambdaApi()
    yield found
    found.close()


@pytest.fixture
def start(api, server, tmp_path):
    processes = []

    def run(code):
        processes.append(api.start(tmp_path, code, DSPY_LAMBDA_TRACES=server.url))
        assert api.wait_until_ready()
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_spans_are_sent_and_the_process_ends_as_by_default(server, start):
    process = start(FUNCTION + ADDED_AT_INIT)
    process.terminate()
    assert process.wait(WAIT) == -signal.SIGTERM
    assert names(server) == ["at init"]


def test_a_collector_that_does_not_answer_does_not_keep_the_process(server, start):
    server.reply = server.hang
    process = start(FUNCTION + ADDED_AT_INIT)
    process.terminate()
    assert process.wait(WAIT) == -signal.SIGTERM


@pytest.mark.parametrize("code", [OWN_HANDLER + FUNCTION, FUNCTION + OWN_HANDLER], ids=["before", "after"])
def test_with_a_handler_of_the_user_spans_are_sent_and_nothing_else_changes(api, server, start, code):
    process = start(code + ADDED_AT_INIT)
    process.terminate()
    assert server.arrived.acquire(timeout=WAIT)
    api.invoke("r1", {"spans": 1})
    assert process.stdout.readline() == "the user's handler\n"
    assert api.wait_until_ready()
    assert names(server) == ["at init", "r1 0"]


def run(code):
    """Run Python code, which begins with a flush that prints, and return its status and what it printed."""
    begin = """
        import os, signal, subprocess, sys, threading, time
        from dspy_lambda.telemetry.export.shutdown import flush_at_sigterm
        flush_at_sigterm(lambda: print("flushed", flush=True))
        """
    text = textwrap.dedent(begin) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=WAIT)
    return done.returncode, done.stdout.split(), done.stderr


def test_a_signal_for_a_forked_child_ends_the_child_only():
    code = """
        child = os.fork()
        if child == 0:
            signal.pause()
        os.kill(child, signal.SIGTERM)
        print(os.waitpid(child, 0)[1])
        """
    assert run(code) == (0, [str(signal.SIGTERM.value)], "")


def test_a_child_process_ends_at_once():
    code = """
        child = subprocess.Popen([sys.executable, "-c", "print(1, flush=True); import time; time.sleep(30)"], stdout=-1)
        child.stdout.readline()
        child.terminate()
        print(child.wait())
        """
    assert run(code) == (0, [str(-signal.SIGTERM)], "")


def test_a_wakeup_descriptor_of_a_program_does_not_prevent_it():
    code = """
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing)
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
        """
    assert run(code) == (-signal.SIGTERM, ["flushed"], "")


def test_a_flush_that_fails_ends_the_process_all_the_same():
    code = """
        from dspy_lambda.telemetry.export import shutdown
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        shutdown.flush_at_sigterm(lambda: 1 / 0)
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
        """
    status, _, _ = run(code)
    assert status == -signal.SIGTERM


def test_in_another_thread_it_changes_nothing():
    code = """
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        thread = threading.Thread(target=flush_at_sigterm, args=(print,))
        thread.start()
        thread.join()
        print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, signal.set_wakeup_fd(-1))
        """
    assert run(code) == (0, ["True", "-1"], "")
