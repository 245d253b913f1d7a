import pytest

from dspy_lambda.telemetry.units import MODEL_UNITS, UNITS
from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template import build
from tests.conftest import QUICKSTART


def metrics_read(node):
    """Yield the names of this project's metrics that alarms in a template use."""
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


def test_no_two_metrics_have_the_same_name():
    assert not set(UNITS) & set(MODEL_UNITS)


def test_alarms_use_only_metrics_that_are_written():
    read = set(metrics_read(build(load_project(QUICKSTART), QUICKSTART)))
    assert "CostUSD" in read
    assert read <= set(UNITS)
