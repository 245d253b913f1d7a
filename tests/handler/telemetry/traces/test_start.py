"""When an environment collects spans."""

from __future__ import annotations

import pytest

from tests.handler.telemetry.export.collector_server import CollectorServer
from tests.support import AECHO, ECHO


def test_nothing_is_collected_by_default(make_project, make_serve):
    serve = make_serve(make_project({"echo": ECHO}))
    assert serve.environment.telemetry.tracer is None


def test_metrics_of_models_need_spans_but_no_export(make_project, make_serve):
    serve = make_serve(make_project({"echo": ECHO}, telemetry={"model_metrics": True}))
    assert serve.environment.telemetry.tracer is not None
    assert serve.environment.telemetry.exporter is None
    assert serve.post("/Echo", {"question": "q"}).status == 200


def test_the_variable_switches_traces_off(make_project, make_serve):
    project = make_project({"echo": ECHO}, telemetry={"traces": "cloudwatch"})
    assert make_serve(project, DSPY_LAMBDA_TRACES="none").environment.telemetry.tracer is None


@pytest.mark.parametrize(
    ("word", "shows_question", "shows_password"), [("none", 0, 0), ("sizes", 0, 0), ("masked", 1, 0), ("full", 1, 1)]
)
def test_a_collector_gets_payloads_by_the_programs_rules(
    make_project, make_serve, word, shows_question, shows_password
):
    collector = CollectorServer()
    telemetry = {"traces": collector.url, "sample": 1, "payloads": word}
    program = AECHO.replace("question: str", "question: str, password: str")
    serve = make_serve(make_project({"a": program}, telemetry=telemetry))
    assert serve.post("/AEcho", {"question": "why is it blue", "password": "open-sesame"}).status == 200
    assert serve.environment.telemetry.exporter.flush(10)
    collector.close()
    sent = b"".join(request.body for request in collector.received)
    assert b"invoke_workflow AEcho" in sent
    assert (b"why is it blue" in sent, b"open-sesame" in sent) == (bool(shows_question), bool(shows_password))


NAMES_A_KEY = """
from dspy_lambda.tracing import step

class Slip(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    async def aforward(self, question: str):
        with step("search with {key}", **{"{key}": "{key}", "several": ["{key}"], "other": "{shape}"}):
            raise type("No{key}", (RuntimeError,), {})
"""


@pytest.mark.parametrize("length", [0, 300_000])
def test_keys_in_names_and_attributes_that_a_program_or_caller_chose_are_redacted(make_project, make_serve, length):
    key, shape = "key-of-the-model-4471", "sk-ant-api03-abcdefghijklmnopqrstuvwxyz"
    collector = CollectorServer()
    telemetry = {"traces": collector.url, "sample": 1, "payloads": "full"}
    program = NAMES_A_KEY.replace("{key}", key).replace("{shape}", " " * length + shape)
    serve = make_serve(make_project({"slip": program}, telemetry=telemetry), OPENAI_API_KEY=key)
    headers = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": f"a={key},b={shape}"}
    serve.post("/Slip", {"question": "q"}, headers={"Content-Type": "application/json", **headers})
    assert serve.environment.telemetry.exporter.flush(10)
    collector.close()
    sent = b"".join(request.body for request in collector.received).decode()
    assert "search with (a key)" in sent
    assert (key in sent, shape in sent, "abcdefghijklm" in sent) == (False, False, False)


ONE_DESTINATION = "traces of all programs of this process go to one destination"


@pytest.fixture
def serve_both(make_project, make_serve, records):
    """Serve Echo and AEcho with these addresses; return the server, and the warnings about destinations."""

    def make(echo, aecho, **variables):
        programs = {"Echo": {"telemetry": {"traces": echo}}, "AEcho": {"telemetry": {"traces": aecho}}}
        project = make_project({"echo": ECHO, "aecho": AECHO}, **{"lambda": {"programs": programs}})
        serve = make_serve(project, **variables)
        return serve, [line for line in records().lines if line.get("message") == ONE_DESTINATION]

    return make


def test_programs_of_one_process_that_name_different_destinations_are_warned_about(serve_both):
    _, (warning,) = serve_both("http://127.0.0.1:1", "http://127.0.0.1:2")
    assert warning["level"] == "WARN"
    assert {warning["destination"], *warning["programs"]} in (
        {"http://127.0.0.1:1", "AEcho"},
        {"http://127.0.0.1:2", "Echo"},
    )


def test_the_same_address_with_other_headers_is_another_destination(make_project, make_serve, records):
    """Such as two projects of one product, each with a key of its own."""
    sections = {"Echo": {"headers_env": "ONE_KEY"}, "AEcho": {"headers_env": "OTHER_KEY"}}
    programs = {name: {"telemetry": {"traces": "http://127.0.0.1:1", **one}} for name, one in sections.items()}
    make_serve(make_project({"echo": ECHO, "aecho": AECHO}, **{"lambda": {"programs": programs}}))
    assert [line.get("message") for line in records().lines].count(ONE_DESTINATION) == 1


@pytest.mark.parametrize(("aecho", "variables"), [
    ("http://127.0.0.1:1", {}), ("none", {}), ("http://127.0.0.1:2", {"DSPY_LAMBDA_TRACES": "http://127.0.0.1:3"}),
    ("http://127.0.0.1:2", {"DSPY_LAMBDA_PROGRAM": "AEcho"}),
])  # fmt: skip
def test_one_destination_needs_no_warning(serve_both, aecho, variables):
    assert serve_both("http://127.0.0.1:1", aecho, **variables)[1] == []


def test_traces_of_programs_that_are_off_go_nowhere(serve_both):
    serve, _ = serve_both("http://127.0.0.1:1", "none")
    queued = []
    serve.environment.telemetry.exporter.add = queued.append
    for name in ("Echo", "AEcho"):
        headers = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "Content-Type": "application/json"}
        assert serve.post(f"/{name}", {"question": "q"}, headers=headers).status == 200
    assert [spans[0].name for spans in queued] == ["POST /Echo"]
