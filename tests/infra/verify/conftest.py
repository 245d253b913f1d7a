import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from moto import mock_aws


@pytest.fixture
def credentials(credentials, monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def account(credentials, monkeypatch):
    """A moto account with Lambda's quotas, which moto does not support; creates clients."""
    limits = {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 1000}
    monkeypatch.setattr("dspy_lambda_infra.deploy.account.account_limits", lambda session: limits)
    with mock_aws():
        yield boto3.client


class Keys:
    """The part of SSM that the mock needs."""

    value = "the key"

    def get_parameter(self, *, Name, WithDecryption):
        return {"Parameter": {"Value": self.value}}


@pytest.fixture
def mock(credentials, monkeypatch):
    """Serve the mock function over HTTP like its function URL, and yield the address."""
    monkeypatch.setenv("MOCK_KEY", "/key")
    from dspy_lambda_infra.verify import mock as module

    monkeypatch.setattr(module, "SSM", Keys())

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            answer = module.handler({"headers": {k.lower(): v for k, v in self.headers.items()}, "body": body}, None)
            self.send_response(answer["statusCode"])
            for name, value in answer.get("headers", {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer["body"].encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
