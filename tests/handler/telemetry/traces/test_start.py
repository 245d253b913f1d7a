"""When an environment collects spans."""

from __future__ import annotations

from tests.support import ECHO


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
