import gzip
import http.client
import json
import urllib.error
import urllib.request

import pytest

from benchmarks.collectors import collector


def request(*span_ids):
    spans = [{"traceId": "t", "spanId": span_id} for span_id in span_ids]
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


def post(url, body):
    return urllib.request.urlopen(urllib.request.Request(f"{url}/v1/traces", body), timeout=10).status


def test_a_healthy_collector_counts_distinct_spans_compressed_or_not():
    with collector("healthy") as running:
        assert post(running.url, request("a", "b")) == 200
        assert post(running.url, gzip.compress(request("b", "c"))) == 200
        found = running.received()
    assert (found["requests"], found["spans"], found["distinct"]) == (2, 4, 3)


@pytest.mark.parametrize(
    ("kind", "error", "requests"), [("dead", urllib.error.URLError, 0), ("garbage", http.client.BadStatusLine, 1)]
)
def test_failing_collectors_fail_in_their_own_ways(kind, error, requests):
    with collector(kind) as running:
        with pytest.raises(error):
            post(running.url, request("a"))
        assert running.received()["requests"] == requests
