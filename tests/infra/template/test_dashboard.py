import json
import re

from tests.support import AECHO, ECHO


def test_the_dashboard_is_valid_json_with_every_program(make):
    found = make({"defaults": {"sqs": {}}}, {"echo": ECHO, "aecho": AECHO})
    body = json.loads(found["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"])
    titles = {widget["properties"]["title"] for widget in body["widgets"]}
    assert {"Calls", "Throttles", "Dead-letter queue", "Duration p99 (ms)"} <= titles
    for widget in body["widgets"]:
        assert len(widget["properties"]["metrics"]) == 2
    places = [(w["x"], w["y"]) for w in body["widgets"]]
    assert len(set(places)) == len(places)


def test_saved_queries_use_existing_log_record_fields(make):
    texts = {name: r["Properties"]["QueryString"] for name, r in make().items() if name.endswith("Query")}
    assert "exception_name" in texts["FailedCallsQuery"]
    assert not re.search(r"\berror\b", texts["FailedCallsQuery"])


def test_a_saved_query_stays_within_the_log_group_quota(make):
    found = make(modules={"echo": "\n".join(ECHO.replace("class Echo", f"class Echo{n}") for n in range(51))})
    queries = [r["Properties"] for name, r in found.items() if name.startswith("CostQuery")]
    assert [len(query["LogGroupNames"]) for query in queries] == [50, 1]
    assert len({query["Name"]["Fn::Sub"] for query in queries}) == 2


def test_the_cold_start_query_covers_inits_and_snapstart_restores(make):
    text = make()["ColdStartsQuery"]["Properties"]["QueryString"]
    assert 'type = "platform.report"' in text
    assert "coalesce(record.metrics.initDurationMs, record.metrics.restoreDurationMs)" in text
