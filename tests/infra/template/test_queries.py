"""Saved queries: every field that they name is a field of real lines."""

import re

import pytest

from dspy_lambda_infra.template.queries import REQUEST_ID
from tests.support import ECHO, sqs

PROGRAMS = (
    ECHO
    + """
import logging
class Speaks(dspy.Module):
    def forward(self) -> str:
        print("printed")
        logging.warning("logged")
        return "x"
class Fails(dspy.Module):
    def forward(self) -> str:
        raise ValueError
"""
)
REGISTRY = {"own": {"model": "openai/no-model-of-this-name", "env": "OPENAI_API_KEY", "cache": False}}
WORDS = {
    *("fields", "filter", "sort", "limit", "stats", "desc", "asc", "by", "as", "and", "or", "not", "in", "like"),
    *("count", "sum", "avg", "pct", "bin", "ispresent", "coalesce"),
}
# Of Lambda's own lines. https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html#ReportMetrics
PLATFORM = {"type", "record.metrics.initDurationMs", "record.metrics.restoreDurationMs"}


def fields_of(query: str) -> set[str]:
    """Return the fields that a query reads."""
    text = re.sub(r'"[^"]*"', "", query)
    made = set(re.findall(r"\bas (\w+)", text))
    return set(re.findall(r"(?<![\w@.])[a-zA-Z_][\w.]*", text)) - WORDS - made


@pytest.fixture
def queries(make):
    return {name: r["Properties"]["QueryString"] for name, r in make().items() if name.endswith("Query")}


def test_every_field_of_every_query_is_in_real_lines(queries, run_events):
    bodies = [{"program": "Echo", "inputs": {"question": "q"}}, {"program": "Fails", "inputs": {}}]
    events = [{"program": "Speaks", "inputs": {}}, sqs(*bodies)]
    lines = run_events(PROGRAMS, *events, config={"models": {"default": "own", "registry": REGISTRY}}).lines
    written = set().union(*lines) | PLATFORM
    assert len(queries) == 7
    for name, query in queries.items():
        assert fields_of(query), name
        assert fields_of(query) <= written, name


def test_each_query_finds_its_lines(queries, run_events):
    """What the filters keep, of lines of which each kind is there."""
    event = sqs({"program": "Speaks", "inputs": {}}, {"program": "Echo", "inputs": {"question": "q"}})
    lines = run_events(PROGRAMS, event, config={"models": {"default": "own", "registry": REGISTRY}}).lines
    assert "filter ispresent(stream) or ispresent(logger)" in queries["PrintedQuery"]
    assert [line["message"] for line in lines if "stream" in line or "logger" in line] == ["printed", "logged"]
    assert "filter unpriced_calls > 0" in queries["UnpricedCallsQuery"]
    assert [line["program"] for line in lines if line.get("unpriced_calls", 0) > 0] == ["Echo"]
    assert f'function_request_id = "{REQUEST_ID}"' in queries["RequestQuery"]
    of_request = [line.get("message") for line in lines if line.get("function_request_id") == "request"]
    assert sorted(of_request) == ["logged", "printed", "program call", "program call"]


def test_a_saved_query_stays_within_the_log_group_quota(make):
    found = make(modules={"echo": "\n".join(ECHO.replace("class Echo", f"class Echo{n}") for n in range(51))})
    queries = [r["Properties"] for name, r in found.items() if name.startswith("CostQuery")]
    assert [len(query["LogGroupNames"]) for query in queries] == [50, 1]
    assert len({query["Name"]["Fn::Sub"] for query in queries}) == 2


def test_the_cold_start_query_covers_inits_and_snapstart_restores(queries):
    text = queries["ColdStartsQuery"]
    assert 'type = "platform.report"' in text
    assert "coalesce(record.metrics.initDurationMs, record.metrics.restoreDurationMs)" in text
