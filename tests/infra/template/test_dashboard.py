import json
import re

import pytest

from dspy_lambda.telemetry.units import MODEL_UNITS, UNITS
from tests.support import AECHO, ECHO


@pytest.fixture
def widgets(make):
    """Return the dashboard's widgets by title, given a project's settings."""

    def widgets(settings, modules=None, **config):
        text = make(settings, modules, **config)["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
        found = json.loads(text)["widgets"]
        titles = {widget["properties"]["title"]: widget for widget in found}
        assert len(titles) == len(found)
        return titles

    return widgets


def searched(widget):
    """Return the metrics that a widget searches for, with the dimensions that they must have."""
    for (row,) in (rows for rows in widget["properties"]["metrics"] if len(rows) == 1):
        schema, metric = re.match(r"SEARCH\('\{DSPy,([\w,]+)\} MetricName=\"(\w+)\" ", row["expression"]).groups()
        yield metric, set(schema.split(","))


def test_the_dashboard_is_valid_json_with_every_program(widgets):
    found = widgets({"defaults": {"sqs": {}}}, {"echo": ECHO, "aecho": AECHO})
    assert {"Calls", "Throttles", "Dead-letter queue", "Duration p99 (ms)"} <= set(found)
    for widget in found.values():
        assert len(widget["properties"]["metrics"]) == 2 or list(searched(widget))
    places = [(w["x"], w["y"]) for w in found.values()]
    assert len(set(places)) == len(places)


def test_every_metric_is_on_a_widget(widgets):
    telemetry = {"traces": "cloudwatch", "model_metrics": True}
    found = widgets({"defaults": {"sqs": {}}}, telemetry=telemetry)
    rows = [row for widget in found.values() for row in widget["properties"]["metrics"]]
    own = {row[1] for row in rows if row[0] == "DSPy"}
    by_search = dict(pair for widget in found.values() for pair in searched(widget))
    assert own | set(by_search) == set(UNITS | MODEL_UNITS)
    # The dimensions that `Telemetry.emit` writes (test_metrics.py).
    for metric, dimensions in by_search.items():
        assert dimensions == {"service", "program"} | ({"model"} if metric in MODEL_UNITS else set())


def test_widgets_of_what_is_off_are_left_out(widgets):
    found = widgets({"defaults": {"sqs": False}})
    metrics = {metric for widget in found.values() for metric, _ in searched(widget)}
    assert not metrics & {*MODEL_UNITS, "DroppedSpans", "RecordAge", "RecordsFailed"}


def test_cloudformation_leaves_labels_and_fills_in_the_stack(widgets):
    for widget in widgets({}, telemetry={"model_metrics": True}).values():
        text = json.dumps(widget)
        assert set(re.findall(r"\$\{([^}]*)\}", text)) - {"AWS::Region", "AWS::StackName", "EchoFunction"} <= {
            "!PROP('Dim.program')",
            "!PROP('Dim.model')",
            *(f"Echo{suffix}.QueueName" for suffix in ("Queue", "DeadLetterQueue")),
        }
