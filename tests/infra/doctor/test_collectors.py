import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dspy_lambda_infra.cli import main
from dspy_lambda_infra.doctor import collectors
from dspy_lambda_infra.doctor.collectors import traces_url, try_collectors
from dspy_lambda_infra.doctor.traces import trace_use
from dspy_lambda_infra.project import load_project
from tests.support import ECHO


@pytest.fixture
def collector():
    """A collector that answers with `status`, and notes requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.requests.append((self.path, dict(self.headers), body))
            self.send_response(server.status)
            self.send_header("Location", "https://user:secret@login.example/sign-in?next=secret")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.status, server.requests = 200, []
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def attempt(make_project):
    def run(**telemetry):
        project = load_project(make_project({"echo": ECHO}, telemetry=telemetry))
        (trial,) = try_collectors(project, [trace_use(project.functions["Echo"])], "us-east-1")
        return trial

    return run


def test_an_empty_export_with_the_headers_is_sent_and_accepted(collector, attempt, monkeypatch):
    monkeypatch.setenv("OTLP_HEADERS", "Authorization=Bearer%20abc, x-team = a%2Cb")
    trial = attempt(traces=collector.url, headers_env="OTLP_HEADERS")
    assert (trial.status, trial.accepted, trial.detail) == (200, True, "accepted")
    ((path, headers, body),) = collector.requests
    assert (path, body) == ("/v1/traces", b'{"resourceSpans":[]}')
    assert (headers["authorization"], headers["x-team"], headers["Content-Type"]) == (
        "Bearer abc",
        "a,b",
        "application/json",
    )


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (302, "redirects to https://login.example/sign-in: redirects are not followed"),
        (401, "denied: name its headers in headers_env"),
        (404, "no OTLP there: the address is what comes before /v1/traces"),
        (415, "put an OpenTelemetry Collector in front of it"),
        (503, "look at its own log"),
    ],
)
def test_each_refusal_says_what_to_do(collector, attempt, status, detail):
    collector.status = status
    trial = attempt(traces=collector.url)
    assert (trial.status, trial.accepted) == (status, False)
    assert detail in trial.detail
    assert "secret" not in trial.detail
    assert len(collector.requests) == 1


def test_a_port_where_nothing_listens_is_named_as_refused(attempt):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        trial = attempt(traces=f"http://127.0.0.1:{bound.getsockname()[1]}")
    assert (trial.status, trial.accepted) == (None, False)
    assert "refused: nothing listens there" in trial.detail


def test_a_collector_that_does_not_answer_is_given_up(attempt, monkeypatch):
    monkeypatch.setattr(collectors, "_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        trial = attempt(traces=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "no answer within" in trial.detail


def test_a_server_of_another_protocol_is_named(attempt):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 mail.example\r\n")

        threading.Thread(target=answer, daemon=True).start()
        trial = attempt(traces=f"http://127.0.0.1:{server.getsockname()[1]}")
    assert "no OTLP over HTTP there" in trial.detail


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (None, "not tried: OTLP_HEADERS is not set here"),
        ("a=b%0Ac", "not tried: OTLP_HEADERS has an entry that is no header"),
    ],
)
def test_headers_that_cannot_be_sent_are_named_without_their_values(collector, attempt, monkeypatch, value, detail):
    monkeypatch.delenv("OTLP_HEADERS", raising=False)
    if value:
        monkeypatch.setenv("OTLP_HEADERS", value)
    trial = attempt(traces=collector.url, headers_env="OTLP_HEADERS")
    assert detail in trial.detail
    assert collector.requests == []


def test_exports_to_cloudwatch_are_signed(collector, attempt, monkeypatch, credentials):
    monkeypatch.setenv("AWS_ENDPOINT_URL_XRAY", collector.url)
    assert attempt(traces="cloudwatch").accepted
    ((path, headers, _),) = collector.requests
    assert path == "/v1/traces"
    assert "us-east-1/xray/aws4_request" in headers["Authorization"]


def test_a_collector_behind_a_load_balancer_of_aws_is_not_taken_for_cloudwatch(collector, attempt):
    collector.status = 401
    assert "headers_env" in attempt(traces=f"{collector.url}/internal.elb.amazonaws.com").detail


def test_an_address_with_characters_that_no_request_may_have_is_sent_encoded(collector, attempt):
    assert attempt(traces=f"{collector.url}/münchen").accepted
    assert collector.requests[0][0] == "/m%C3%BCnchen/v1/traces"


def test_an_address_is_what_comes_before_the_path():
    assert traces_url("https://a.example:4318/") == "https://a.example:4318/v1/traces"
    assert traces_url("https://a.example/otlp/v1/traces") == "https://a.example/otlp/v1/traces"


def test_doctor_shows_traces_and_fails_if_a_collector_does_not_accept_them(make_project, collector, capsys):
    project = make_project({"echo": ECHO}, telemetry={"traces": collector.url})
    assert main(["doctor", "--project", str(project)]) == 0
    assert f"{collector.url}  0.1 of all" in capsys.readouterr().out
    assert collector.requests == []
    collector.status = 401
    assert main(["doctor", "--traces", "--project", str(project)]) == 1
    assert f"Echo: {collector.url}/v1/traces: 401\n  denied" in capsys.readouterr().out
