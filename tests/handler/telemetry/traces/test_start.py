"""When an environment collects spans."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.handler.telemetry.export.collector_server import CollectorServer
from tests.support import AECHO, ECHO, unmeasured


def test_nothing_is_loaded_or_collected_by_default(make_project, make_serve):
    serve = make_serve(make_project({"echo": ECHO}))
    assert serve.environment.telemetry.tracer is None
    code = (
        "import sys, dspy_lambda.main; print(sorted(m for m in sys.modules if m.startswith('dspy_lambda.telemetry')))"
    )
    variables = {**unmeasured(), "DSPY_LAMBDA_PROJECT": str(serve.environment.settings.project_folder)}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=variables | {"OPENAI_API_KEY": "k"}, capture_output=True, text=True
    )
    loaded = json.loads(ran.stdout.splitlines()[-1])["message"]
    assert "dspy_lambda.telemetry.traces.spans" in loaded
    assert not any(name in loaded for name in ("tracer", "tracing", "lm_spans", "exporter", "otlp"))


def test_metrics_of_models_need_spans_but_no_export(make_project, make_serve):
    serve = make_serve(make_project({"echo": ECHO}, telemetry={"model_metrics": True}))
    assert serve.environment.telemetry.tracer is not None
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
