import pytest

from dspy_lambda.telemetry.units import UNITS
from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template import build
from tests.conftest import QUICKSTART


def metrics_read(node):
    """The names of this project's metrics that alarms read, anywhere in a template."""
    if isinstance(node, dict):
        if node.get("Namespace") == "DSPy":
            yield node["MetricName"]
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from metrics_read(part)


def test_a_metric_without_a_unit_cannot_be_written(serve):
    with pytest.raises(KeyError, match="Surprises"):
        serve.environment.telemetry.emit("Answer", {"Surprises": [1]})


def test_alarms_read_metrics_that_are_written():
    read = set(metrics_read(build(load_project(QUICKSTART), QUICKSTART)))
    assert "CostUSD" in read
    assert read <= set(UNITS)
