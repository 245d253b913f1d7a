"""However the local Lambda ends, it leaves no process behind."""

import contextlib
import json
import os
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from dspy_lambda_infra.local import sandbox
from tests.infra.local.support import RUN, started_from_here
from tests.support import wait_until

FORKS = """
import os, pathlib, subprocess, sys, time

def fork_a_daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", "777"])
        os._exit(0)

def fork_in_every_way():
    subprocess.Popen(["sleep", "777"])
    subprocess.Popen(["sleep", "777"], start_new_session=True)
    subprocess.Popen(["sh", "-c", "trap '' TERM HUP INT; sleep 777 & wait"], start_new_session=True)
    fork_a_daemon()

if "FORK_AT_INIT" in os.environ and "AWS_LAMBDA_RUNTIME_API" in os.environ:
    fork_in_every_way()
    time.sleep(60)

class Forks(dspy.Module):
    def forward(self, seconds: float = 0) -> str:
        fork_in_every_way()
        time.sleep(seconds)
        return "done"
"""
SLEEPS = 4


def left():
    """Return the processes that this test run started, except those that search for them."""
    return {pid: line for pid, line in started_from_here().items() if not line.startswith("ps axeww")}


def sleeping():
    return [line for line in left().values() if line.startswith("sleep 777")]


def call(url, **inputs):
    """Call the program in the background; it may never answer."""

    def run():
        request = urllib.request.Request(url, json.dumps(inputs).encode(), {"Content-Type": "application/json"})
        with contextlib.suppress(urllib.error.URLError, OSError, ValueError):
            urllib.request.urlopen(request, timeout=120).close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.skipif(
    bool(sandbox.why_not_read_only((Path("/usr"),))), reason=str(sandbox.why_not_read_only((Path("/usr"),)))
)
@pytest.mark.parametrize("when", ["idle", "busy", "init"])
def test_a_killed_local_lambda_leaves_no_process(make_project, command, monkeypatch, when):
    project = make_project({"forks": FORKS}, **{"lambda": {"defaults": {"sqs": {}}}})
    # The command itself also imports the programs.
    if when == "init":
        monkeypatch.setenv("FORK_AT_INIT", "1")
    with command("local", "--project", str(project), "--model-server", "--port", "0") as process:
        url = process.stdout.readline().split()[1]
        calling = call(f"{url}/Forks", seconds=100 if when == "busy" else 0)
        if when == "idle":
            calling.join()
        wait_until(lambda: len(sleeping()) >= SLEEPS)
        process.kill()
        wait_until(lambda: not left())
        calling.join()


def test_running_functions_are_found_by_the_process_search():
    """Without this, the tests above could pass by searching for the wrong processes."""
    environment = {**os.environ, "TEST_RUN_OF_LOCAL": RUN}
    with subprocess.Popen(["sleep", "777"], env=environment, start_new_session=True) as process:
        wait_until(lambda: len(sleeping()) == 1)
        process.kill()
    assert not left()
