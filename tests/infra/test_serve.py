import asyncio
import contextlib
import errno
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from moto import mock_aws

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra import serve as serve_module
from dspy_lambda_infra.cli import main
from tests.handler.telemetry.export.collector_server import CollectorServer, closed_port
from tests.support import AECHO, ECHO, Records, until


class Server:
    """Run `dspy-lambda serve` in a separate process."""

    def __init__(self, project, models, *options):
        environment = {**os.environ, "OPENAI_API_KEY": "k", "DSPY_LAMBDA_API_BASE": models.url}
        command = [sys.executable, "-m", "dspy_lambda_infra.cli", "serve", "--project", str(project), "--port", "0"]
        command += options
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self.lines = []
        while not (line := self.process.stdout.readline()).startswith("ready "):
            self.lines.append(line)
        self.url = line.split()[1]
        # Keep reading: a full pipe would block the server.
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout), daemon=True)
        self._reader.start()

    def post(self, program, headers=None, **inputs):
        headers = headers or {"Content-Type": "application/json", "X-Request-Id": "mine"}
        request = urllib.request.Request(f"{self.url}/{program}", json.dumps(inputs).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, dict(answer.headers), json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), json.load(error)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)
        self._reader.join(timeout=60)
        return self.process.returncode, self.process.stderr.read()

    @property
    def records(self):
        return Records([json.loads(line) for line in self.lines])


@pytest.fixture
def start(models):
    with contextlib.ExitStack() as stack:

        def start(project, *options):
            server = Server(project, models, *options)
            stack.callback(server.process.wait)
            stack.callback(server.process.kill)
            return server

        yield start


def test_served_programs_find_the_projects_files(make_project, start):
    source = """
    class Reads(dspy.Module):
        def __init__(self):
            super().__init__()
            self.at_start = open("name.txt").read()
        def forward(self) -> list:
            return [self.at_start, open("name.txt").read()]
    """
    project = make_project({"reads": source})
    (project / "name.txt").write_text("x")
    assert start(project).post("Reads")[2] == {"result": ["x", "x"]}


def test_serve_answers_logs_and_emits_metrics_like_the_function(make_project, start):
    server = start(make_project({"echo": ECHO, "aecho": AECHO}))
    for program in ("Echo", "AEcho"):
        assert server.post(program, question="q")[::2] == (200, {"answer": "gpt-4.1-nano: q"})
    status, headers, document = server.post("Echo")
    assert (status, headers["content-type"]) == (422, "application/problem+json")
    assert server.post("Nope")[0] == 404
    code, err = server.stop()
    assert (code, err) == (130, "")
    calls = server.records.calls
    assert [(call["source"], call["correlation_id"]) for call in calls] == [("serve", "mine")] * 3
    assert document["request_id"] == calls[2]["function_request_id"]
    assert sum(server.records.values("Calls")) == 3


@pytest.mark.parametrize(("program", "source"), [("Echo", ECHO), ("AEcho", AECHO)])
def test_serve_queues_a_burst_then_sheds_with_429_and_recovers(make_project, start, models, program, source):
    server_limits = {"max_concurrent_per_program": 4, "queue_timeout_seconds": 2.0}
    server = start(make_project({"echo": source}, server=server_limits))
    models.behave(delay_seconds=1.5)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: server.post(program, question=f"q{n}"), range(16)))
    statuses = [status for status, _, _ in answers]
    assert set(statuses) == {200, 429}
    assert 4 < statuses.count(200) < 16
    assert {headers["retry-after"] for status, headers, _ in answers if status == 429} == {"2"}
    assert models.stats()["peak_in_flight"] == 4
    assert server.post(program, question="after")[0] == 200
    server.stop()
    outcomes = [call["outcome"] for call in server.records.calls]
    assert outcomes.count("overloaded") == statuses.count(429)


def test_serve_uses_the_programs_timeout_as_the_deadline(make_project, start, models):
    project = make_project({"aecho": AECHO}, **{"lambda": {"defaults": {"timeout_seconds": 1}}})
    server = start(project)
    models.behave(hang_rate=1)
    assert server.post("AEcho", question="q")[0] == 504


def test_a_disconnected_clients_call_frees_its_slot_when_it_ends(make_project, start, models):
    server = start(make_project({"aecho": AECHO}, server={"max_concurrent_per_program": 1}))
    models.behave(delay_seconds=1)

    async def leave():
        host, port = server.url.removeprefix("http://").split(":")
        body = b'{"question": "q"}'
        _, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /AEcho HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        writer.write(head + body)
        await writer.drain()
        await until(lambda: models.stats()["in_flight"])
        writer.close()

    asyncio.run(leave())
    assert server.post("AEcho", question="q")[0] == 200


def test_serve_reports_a_blocked_loop_and_stuck_threads(make_project, start):
    source = """
    import time
    class Blocks(dspy.Module):
        async def aforward(self):
            time.sleep(2.5)
    class Sticks(dspy.Module):
        def forward(self):
            time.sleep(600)
    """
    config = {"server": {"sync_worker_threads": 2}, "lambda": {"defaults": {"timeout_seconds": 1}}}
    server = start(make_project({"blocks": source}, **config))

    def ready():
        try:
            with urllib.request.urlopen(f"{server.url}/health/ready", timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    assert server.post("Sticks")[0] == 504
    assert ready() == (200, {"status": "ready", "programs": 2, "stuck": {"Sticks": 1}})
    assert server.post("Sticks")[0] == 504
    assert ready() == (503, {"status": "not_ready", "failed": [], "stuck": {"Sticks": 2}})
    server.post("Blocks")
    server.stop()
    (line,) = [line for line in map(json.loads, server.lines) if line.get("message") == "event loop blocked"]
    assert line["program"] == "Blocks"
    assert "blocks.py:" in line["at"]


HANGING = """
import asyncio, time
class Sleeps(dspy.Module):
    def forward(self):
        time.sleep(600)
class SleepsInThread(dspy.Module):
    async def aforward(self):
        await asyncio.to_thread(time.sleep, 600)
class Asyncified(dspy.Module):
    async def aforward(self):
        await dspy.asyncify(time.sleep)(600)
"""


def test_ctrl_c_stops_serve_while_calls_hang(make_project, start):
    server = start(make_project({"hanging": HANGING}))
    with ThreadPoolExecutor(60) as pool:
        for name in ("Sleeps", "SleepsInThread", "Asyncified") * 20:
            pool.submit(server.post, name)
        time.sleep(2)
        assert server.stop()[0] == 130


def test_ctrl_c_stops_serve_after_dspy_started_its_own_threads(make_project, start):
    source = """
    class Asyncified(dspy.Module):
        def __init__(self):
            super().__init__()
            self.predict = dspy.Predict("question -> answer")
        async def aforward(self, question: str):
            return await dspy.asyncify(self.predict)(question=question)
    class Streamed(Asyncified):
        async def aforward(self, question: str):
            return [value async for value in dspy.streamify(self.predict)(question=question)][-1]
    """
    server = start(make_project({"threads": source}))
    assert [server.post(name, question="q")[0] for name in ("Asyncified", "Streamed")] == [200, 200]
    assert server.stop()[0] == 130


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example", "Content-Type": ""},
        {"Origin": "null", "Content-Type": "application/json"},
        {"Host": "evil.example", "Content-Type": "application/json"},
    ],
)
def test_serve_refuses_web_pages_that_could_use_the_model_key(make_project, start, models, headers):
    """A page needs no permission for a POST without a Content-Type, which counts as JSON."""
    server = start(make_project({"aecho": AECHO}))
    before = models.stats()["requests"]
    status, sent, document = server.post("AEcho", headers, question="q")
    assert (status, sent["content-type"], document["title"]) == (403, "application/problem+json", "Forbidden")
    assert models.stats()["requests"] == before


def test_pages_from_configured_origins_may_call_serve(make_project, start):
    server = start(make_project({"aecho": AECHO}, server={"cors_origins": ["https://a.example"]}))
    own = f"http://localhost:{server.url.rpartition(':')[2]}"
    for origin in ("https://a.example", own):
        headers = {"Origin": origin, "Content-Type": "application/json"}
        assert server.post("AEcho", headers, question="q")[0] == 200


def test_serve_on_a_public_host_accepts_any_host_name(make_project, start):
    """In a container, the proxy in front of it controls access."""
    server = start(make_project({"aecho": AECHO}), "--host", "0.0.0.0")
    server.url = server.url.replace("0.0.0.0", "127.0.0.1")
    headers = {"Host": "my-service", "Content-Type": "application/json"}
    assert server.post("AEcho", headers, question="q")[0] == 200


RAISES = """
class Raises(dspy.Module):
    def forward(self):
        print("about to raise")
        raise ValueError("the reason")
"""


@pytest.mark.parametrize(("options", "shown"), [((), False), (("--dev",), True)])
def test_serve_shows_exception_texts_only_with_dev(make_project, start, options, shown):
    server = start(make_project({"raises": RAISES}), *options)
    status, _, document = server.post("Raises")
    assert status == 500
    assert ("ValueError: the reason" in document["detail"]) is shown
    server.stop()
    (call,) = server.records.calls
    assert call.get("exception") == ("the reason" if shown else None)
    (line,) = [line for line in server.records.lines if line.get("message") == "about to raise"]
    assert (line["program"], line["function_request_id"]) == ("Raises", document["request_id"])


def test_a_port_in_use_exits_with_1_and_suggests_a_fix(make_project):
    command = [sys.executable, "-m", "dspy_lambda_infra.cli", "serve", "--project", str(make_project({"echo": ECHO}))]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        variables = {**os.environ, "OPENAI_API_KEY": "k"}
        found = subprocess.run([*command, "--port", port], capture_output=True, text=True, timeout=120, env=variables)
    assert found.returncode == 1
    (line,) = found.stderr.splitlines()
    assert line.startswith(f"dspy-lambda: port {port}: {os.strerror(errno.EADDRINUSE)}")
    assert line.endswith("; --port 0 picks a free one")


def test_serve_lists_the_routes_on_a_terminal(make_project):
    project = make_project({"echo": ECHO, "aecho": AECHO})
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "dspy_lambda_infra.cli", "serve", "--project", str(project), "--port", "0"]
    process = subprocess.Popen(command, stdout=end, stderr=subprocess.PIPE, env={**os.environ, "OPENAI_API_KEY": "k"})
    os.close(end)
    try:
        with os.fdopen(terminal) as screen:
            url = next(line.split()[1] for line in screen if line.startswith("ready "))
            shown = [next(screen).split() for _ in range(3)]
    finally:
        process.kill()
        process.communicate()
    assert shown[:2] == [["POST", f"{url}/AEcho"], ["POST", f"{url}/Echo"]]
    assert shown[2][:2] == ["GET", f"{url}/docs"]


def test_serve_refuses_dev_if_other_machines_could_call_it(make_project, capsys):
    project = make_project({"raises": RAISES})
    (project / ".env").write_text("OPENAI_API_KEY=k\n")
    assert main(["serve", "--project", str(project), "--dev", "--host", "0.0.0.0"]) == 2
    assert "--dev shows the texts of exceptions to every caller" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "texts"), [((), "log"), (("--dev",), "answer")])
def test_keys_come_from_their_secret_store_and_dev_shows_texts_whatever_is_set(
    make_project, monkeypatch, options, texts
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("DSPY_LAMBDA_SECRETS", "OPENAI_API_KEY=ssm:/app/key")
    monkeypatch.setenv("DSPY_LAMBDA_EXCEPTION_TEXTS", "log")
    monkeypatch.setattr(os, "environ", os.environ.copy())
    built = []

    def build(variables, *_, secrets, **__):
        built.append((variables["OPENAI_API_KEY"], variables["DSPY_LAMBDA_EXCEPTION_TEXTS"], secrets))
        raise ConfigError("far enough")

    monkeypatch.setattr(serve_module, "Environment", build)
    with mock_aws():
        boto3.client("ssm").put_parameter(Name="/app/key", Value="from the store", Type="SecureString")
        assert main(["serve", "--project", str(make_project({"echo": ECHO})), "--port", "0", *options]) == 2
    assert built == [("from the store", texts, {"OPENAI_API_KEY": "from the store"})]


AT_IMPORT = """
TEAM = dspy.LM("openai/gpt-4.1-mini", max_parallel_requests=2000, timeout=120)

class Team(dspy.Module):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.ask.set_lm(TEAM)
    async def aforward(self, question: str):
        return await self.ask.acall(question=question)
"""


def test_a_gateway_also_gets_the_calls_of_lms_that_modules_make_on_import(start, make_project, models):
    server = start(make_project({"team": AT_IMPORT}))
    assert server.post("Team", question="q")[0] == 200
    assert models.stats()["per_model"] == {"gpt-4.1-mini": 1}


def test_the_embedded_model_server_needs_neither_an_account_nor_a_region_for_bedrock(start, make_project, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(make_project({})))
    registry = {"m": {"model": "bedrock/amazon.nova-lite-v1:0"}}
    server = start(make_project({"echo": AECHO}, models={"default": "m", "registry": registry}), "--model-server")
    status, _, body = server.post("AEcho", question="q")
    assert (status, list(body)) == (200, ["answer"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_last_calls_spans_are_exported_when_serve_stops(make_project, start, number):
    collector = CollectorServer()
    try:
        server = start(make_project({"aecho": AECHO}, telemetry={"traces": collector.url, "sample": 1}))
        assert server.post("AEcho", question="q")[0] == 200
        server.process.send_signal(number)
        server.process.wait(timeout=60)
    finally:
        collector.close()
    (request,) = collector.received
    assert b"invoke_workflow AEcho" in request.body


def test_spans_that_never_reached_a_collector_are_counted_when_serve_stops(make_project, start):
    server = start(
        make_project({"aecho": AECHO}, telemetry={"traces": f"http://127.0.0.1:{closed_port()}", "sample": 1})
    )
    assert server.post("AEcho", question="q")[0] == 200
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(timeout=60)
    server._reader.join(timeout=60)
    assert sum(server.records.values("DroppedSpans")) == 4
