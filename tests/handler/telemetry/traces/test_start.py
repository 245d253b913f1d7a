"""When an environment collects spans."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support import ECHO, unmeasured


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
