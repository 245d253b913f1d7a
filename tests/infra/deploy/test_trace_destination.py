import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dspy_lambda_infra.deploy.trace_destination import fetch_trace_destination


@pytest.fixture
def xray(monkeypatch, credentials):
    """X-Ray's API, which moto does not have: answers with `status` and `body`. botocore asks it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            assert self.path == "/GetTraceSegmentDestination"
            content = json.dumps(server.body).encode()
            self.send_response(server.status)
            self.send_header("x-amzn-ErrorType", server.body.get("__type", ""))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.status, server.body = 200, {}
        monkeypatch.setenv("AWS_ENDPOINT_URL_XRAY", f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, {"Destination": "CloudWatchLogs", "Status": "ACTIVE"}, "Transaction Search is on"),
        (200, {"Destination": "CloudWatchLogs", "Status": "PENDING"}, "is being switched on"),
        (200, {"Destination": "XRay", "Status": "ACTIVE"}, "REFUSES SPANS: Transaction Search is off"),
        (403, {"__type": "AccessDeniedException", "message": "user secret may not"}, "AccessDeniedException"),
    ],
)
def test_the_accounts_switch_is_read_and_only_read(xray, status, body, said):
    xray.status, xray.body = status, body
    found = fetch_trace_destination("us-east-1")
    assert found.startswith("cloudwatch")
    assert said in found
    assert "secret" not in found


def test_an_account_that_cannot_be_asked_is_no_error(xray):
    assert fetch_trace_destination("us-east-1", "no AWS credentials").endswith("NOT checked: no AWS credentials")
