"""Which destination and which mode the settings and the config choose. In functions: test_extension.py."""

import subprocess
import sys

import pytest

from dspy_lambda import __version__
from dspy_lambda.config.telemetry import Telemetry
from dspy_lambda.errors import ConfigError
from dspy_lambda.settings import Settings
from dspy_lambda.telemetry.export.start import before_answer, hand_over, resource, start_export
from dspy_lambda.telemetry.traces.spans import INTERNAL, Trace
from tests.handler.telemetry.export.test_exporter import Log
from tests.handler.telemetry.export.test_otlp import decode


@pytest.fixture
def start():
    started = []

    def run(variables=None, **telemetry):
        settings = Settings.from_environment(variables or {})
        started.append(start_export(settings, Telemetry(**telemetry), "qa", Log()))
        return started[-1]

    yield run
    for exporter in started:
        exporter.close(0)


def place(exporter):
    """Return the host and the path that requests go to."""
    found = exporter._send.__self__
    return found.connection.authority, found._path


def spans():
    return Trace().start("s", INTERNAL, None, {}).trace.spans


def test_destinations(start):
    https = start(traces="https://collector.example/otel")
    assert place(https) == ("collector.example", "/otel/v1/traces")
    cloudwatch = start({"AWS_REGION": "eu-west-1"}, traces="cloudwatch")
    assert place(cloudwatch) == ("xray.eu-west-1.amazonaws.com", "/v1/traces")
    six = start(traces="http://[::1]:4318")
    assert place(six) == ("[::1]:4318", "/v1/traces")


def test_the_setting_replaces_the_config_and_does_not_get_its_headers(start, server, monkeypatch):
    monkeypatch.setenv("COLLECTOR_HEADERS", "authorization=secret")
    exporter = start({"DSPY_LAMBDA_TRACES": server.url}, traces="https://a.example", headers_env="COLLECTOR_HEADERS")
    exporter.add(spans())
    assert exporter.flush(5)
    assert "authorization" not in server.received[0].headers


def test_spans_arrive_with_the_configs_headers_and_the_resource(start, server, monkeypatch):
    monkeypatch.setenv("COLLECTOR_HEADERS", "authorization=Basic%20x")
    exporter = start(traces=server.url, headers_env="COLLECTOR_HEADERS")
    exporter.add(spans())
    assert exporter.flush(5)
    (request,) = server.received
    assert request.headers["authorization"] == "Basic x"
    attributes = decode(request.body).resource_spans[0].resource.attributes
    assert {a.key: a.value.string_value for a in attributes}["service.name"] == "qa"


@pytest.mark.parametrize("traces", ["collector:4318", "ftp://x", "http://user:secret@x"])
def test_a_setting_that_is_no_address_is_an_error_that_names_it(start, traces):
    with pytest.raises(ConfigError, match="DSPY_LAMBDA_TRACES") as raised:
        start({"DSPY_LAMBDA_TRACES": traces})
    assert "secret" not in str(raised.value)


def test_cloudwatch_needs_a_region(start):
    with pytest.raises(ConfigError, match="AWS_REGION"):
        start(traces="cloudwatch")


def test_outside_of_a_function_spans_leave_by_themselves(start, server):
    exporter = start(traces=server.url)
    assert exporter.mode == "background"
    exporter.add(spans())
    assert server.arrived.acquire(timeout=30)
    assert hand_over(exporter) == {}


def test_before_an_answer_nothing_waits_unless_the_mode_is_inline(start, server):
    server.reply = server.hang
    exporter = start(traces=server.url)
    exporter.mode = "extension"
    exporter.flush = lambda seconds: flushes.append(seconds)
    flushes = []
    before_answer(exporter, 10)
    exporter.mode = "inline"
    before_answer(exporter, 10)
    before_answer(exporter, 0.2)
    assert flushes == [0.5, 0.1]


def test_a_process_that_ends_sends_what_waits(server):
    code = f"""
from dspy_lambda.config.telemetry import Telemetry
from dspy_lambda.settings import Settings
from dspy_lambda.telemetry.export.start import start_export
from dspy_lambda.telemetry.traces.spans import INTERNAL, Trace
exporter = start_export(Settings(), Telemetry(traces="{server.url}"), "qa", print)
exporter._interval = 3600
exporter.add(Trace().start("s", INTERNAL, None, {{}}).trace.spans)
exporter.flush(5)
exporter.add(Trace().start("s", INTERNAL, None, {{}}).trace.spans)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
    assert len(server.received) == 2


def test_the_resource_of_a_function():
    variables = {
        "AWS_REGION": "eu-west-1",
        "AWS_LAMBDA_FUNCTION_NAME": "qa-answer",
        "AWS_LAMBDA_FUNCTION_VERSION": "7",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
    }
    assert resource(Settings.from_environment(variables), "qa") == {
        "service.name": "qa",
        "cloud.provider": "aws",
        "cloud.platform": "aws_lambda",
        "cloud.region": "eu-west-1",
        "faas.name": "qa-answer",
        "faas.version": "7",
        "faas.max_memory": 1024 * 2**20,
        "telemetry.sdk.name": "dspy-lambda",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": __version__,
    }
    assert set(resource(Settings(), "qa")) == {
        "service.name",
        "telemetry.sdk.name",
        "telemetry.sdk.language",
        "telemetry.sdk.version",
    }


ASKS = """
from collections.abc import Mapping

class Broken(Mapping):
    def __getitem__(self, key):
        raise RuntimeError("private")
    def __iter__(self):
        raise RuntimeError("private")
    def __len__(self):
        return 1

class Asks(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    def forward(self, question: str, password: str):
        if question == "break":
            self.predict.forward = lambda **_: Broken()
        answer = self.predict(question=question)
        return answer if question != "break" else {"answer": "a"}
"""


@pytest.fixture
def ask(make_project, make_serve, server):
    """Serve a program whose traces go to the server; return a function that asks it, and returns the spans."""

    def make(**telemetry):
        project = make_project({"asks": ASKS}, telemetry={"traces": server.url, "sample": 1, **telemetry})
        serve = make_serve(project)

        def post(question):
            assert serve.post("/Asks", {"question": question, "password": "pass-4711"}).status == 200
            assert serve.environment.telemetry.exporter.flush(5)
            (scope,) = decode(server.received[-1].body).resource_spans[0].scope_spans
            return {
                span.name: {a.key: a.value.string_value or a.value.int_value for a in span.attributes}
                for span in scope.spans
            }

        return post

    return make


@pytest.mark.parametrize(("word", "inputs", "message"), [
    ("none", None, None),
    ("sizes", 47, None),
    ("masked", '{"question":"who is it","password":"***"}', "who is it"),
    ("full", '{"question":"who is it","password":"pass-4711"}', "who is it"),
])  # fmt: skip
def test_collectors_get_payloads_by_the_programs_rules(ask, word, inputs, message):
    spans = ask(payloads=word)("who is it")
    suffix = ".bytes" if word == "sizes" else ""
    call, chat = spans["invoke_workflow Asks"], spans["chat gpt-4.1-nano"]
    assert call.get(f"dspy_lambda.inputs{suffix}") == inputs
    assert (f"gen_ai.input.messages{suffix}" in chat) == (word != "none")
    assert message is None or message in chat["gen_ai.input.messages"]


def test_a_payload_whose_own_code_fails_costs_no_other_span(ask, records):
    post = ask(payloads="masked")
    assert "dspy_lambda.inputs" not in post("break")["invoke_workflow Asks"]
    assert "private" not in str(records().lines)
    assert "dspy_lambda.inputs" in post("who")["invoke_workflow Asks"]
