import json
import os
import subprocess
import sys
import threading
from itertools import pairwise

import pytest

from dspy_lambda import process
from dspy_lambda.process import PER_INVOCATION, LastResort, ProcessState
from dspy_lambda.settings import RESTARTED, RESTARTS, Settings


@pytest.fixture
def last_resort(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_seconds_since_start", lambda _: 1.0)

    def make(**variables):
        variables = {"TMPDIR": str(tmp_path), **variables}
        return LastResort(variables, Settings.from_environment(variables))

    return make


def test_no_resource_is_exhausted_by_default(last_resort):
    assert last_resort(AWS_LAMBDA_FUNCTION_MEMORY_SIZE="100000").exhausted_resource(0) is None


def test_memory_near_the_functions_limit_is_exhausted(last_resort):
    resort = last_resort(AWS_LAMBDA_FUNCTION_MEMORY_SIZE="1")
    assert resort.exhausted_resource(0) is None  # its initial size
    resort._first_bytes //= 2
    assert resort.exhausted_resource(0) == "memory"


@pytest.mark.parametrize(
    ("given", "started"),
    [
        ({"PYTHONPATH": "/var/runtime", "LAMBDA_RUNTIME_DIR": "/var/runtime"}, {"LAMBDA_RUNTIME_DIR": "/var/runtime"}),
        ({"PYTHONPATH": "/opt/mine", "LAMBDA_RUNTIME_DIR": "/var/runtime"}, None),
        ({"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"}, {"AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand"}),
    ],
)
def test_the_new_process_starts_with_lambdas_original_variables(given, started):
    assert process.as_started(given) == (given if started is None else started)


def test_too_many_threads_or_stuck_runners_exhaust_the_process(last_resort, monkeypatch):
    assert last_resort().exhausted_resource(4) == "CPU time"
    monkeypatch.setattr(threading, "active_count", lambda: 701)
    assert last_resort().exhausted_resource(0) == "threads"


def test_a_full_disk_exhausts_the_process(last_resort, monkeypatch):
    real = os.statvfs

    class Full:
        f_blocks, f_bavail = 1000, 10

    monkeypatch.setattr(process.os, "statvfs", lambda path: Full() if isinstance(path, str) else real(path))
    assert last_resort().exhausted_resource(0) == "disk"


def test_an_exhausted_process_is_replaced_at_most_once_a_minute(last_resort, monkeypatch):
    resort = last_resort()
    assert resort.exhausted_resource(4)
    assert resort.plan("memory") is False  # there is no runtime client here
    assert resort.exhausted_resource(4) is None
    assert last_resort(**{RESTARTS: "1"}).exhausted_resource(4) is None


def test_the_process_is_replaced_when_the_next_event_is_requested(last_resort, monkeypatch, tmp_path):
    class Client:
        def wait_next_invocation(self):
            return "event"

    module = type(sys)("awslambdaric.lambda_runtime_client")
    module.LambdaRuntimeClient = Client
    monkeypatch.setitem(sys.modules, module.__name__, module)
    replaced = []
    monkeypatch.setattr(process.os, "execve", lambda *arguments: replaced.append(arguments))
    (tmp_path / "before").touch()
    resort = last_resort(KEPT="x")
    (tmp_path / "left").mkdir()
    assert resort.plan("disk") is True
    assert replaced == []
    Client().wait_next_invocation()
    ((path, arguments, variables),) = replaced
    assert (path, arguments) == (sys.executable, sys.orig_argv)
    assert variables.pop(RESTARTED).isdecimal()
    assert variables == {"TMPDIR": str(tmp_path), "KEPT": "x", RESTARTS: "1"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["before"]


REPLACES_ITSELF = """
import json, os, sys, time, types
from dspy_lambda.process import LastResort, as_started
from dspy_lambda.settings import Settings
client = types.ModuleType("awslambdaric.lambda_runtime_client")
client.LambdaRuntimeClient = type("LambdaRuntimeClient", (), {})
sys.modules[client.__name__] = client
resort = LastResort(as_started(dict(os.environ)), Settings.from_environment(os.environ))
about = {"restarts": resort.restarts, "kept": resort.seconds, "now": time.clock_gettime(time.CLOCK_BOOTTIME)}
print(json.dumps(about), flush=True)
if resort.restarts < 2:
    resort.plan("memory")
    client.LambdaRuntimeClient().wait_next_invocation()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Lambda's clock and /proc")
def test_the_init_of_a_process_that_replaced_another_one_is_timed_from_then():
    command = [sys.executable, "-c", REPLACES_ITSELF]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lives = [json.loads(line) for line in done.stdout.splitlines()]
    assert [life["restarts"] for life in lives] == [0, 1, 2]
    for before, life in pairwise(lives):
        # Twice its init, and that began after the process before had written its line.
        assert 0 < life["kept"] <= 2 * (life["now"] - before["now"]) + 0.002


def test_variables_set_by_the_runtime_client_are_not_restored(monkeypatch):
    state = ProcessState()
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "of this invocation")
    state.note(PER_INVOCATION)
    assert state.restore() == []
    assert os.environ["_X_AMZN_TRACE_ID"] == "of this invocation"
    monkeypatch.delenv("_X_AMZN_TRACE_ID")
    state.note(PER_INVOCATION)
    assert not state.restore_environ()


def test_changes_to_other_variables_are_not_accepted(monkeypatch):
    monkeypatch.setenv("KEPT", "before")
    state = ProcessState()
    monkeypatch.setenv("KEPT", "after")
    state.note(PER_INVOCATION)
    assert state.restore_environ()
    assert os.environ["KEPT"] == "before"


def test_a_removed_working_directory_is_replaced_by_the_original_one(tmp_path):
    state, folder = ProcessState(), tmp_path / "gone"
    folder.mkdir()
    os.chdir(folder)
    folder.rmdir()
    assert state.restore() == ["working directory"]
    assert os.path.isdir(os.getcwd())


@pytest.mark.parametrize("name", ["profile", "trace"])
def test_the_profile_and_trace_functions_of_new_threads_are_restored(name):
    former, state = getattr(threading, f"get{name}")(), ProcessState()
    getattr(threading, f"set{name}")(print)
    assert state.restore() == ["trace or profile function"]
    assert getattr(threading, f"get{name}")() is former
    assert state.restore() == []
