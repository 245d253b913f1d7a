"""A provider of embeddings that answers with what a test sets, over HTTP."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import dspy
import pytest

from dspy_lambda.deadline import DEADLINE
from dspy_lambda.dspy_patches.patch import apply_patches
from dspy_lambda.models.embeddings import HOSTED_EMBEDDINGS
from dspy_lambda.provider_bounds import bound_provider_calls


class Received(NamedTuple):
    path: str
    headers: dict
    body: dict


class Provider:
    """Answers with `answer(body)`, which may return a document, or a status, headers and a document."""

    def __init__(self):
        self.received = []
        self.connections = set()
        self.answer = openai_answer
        self._lock = threading.Lock()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with provider._lock:
                    provider.connections.add(self.client_address)
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    provider.received.append(Received(self.path, headers, body))
                    found = provider.answer(body)
                status, headers, document = found if isinstance(found, tuple) else (200, {}, found)
                data = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": len(data)}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_port}"

    def then(self, *answers):
        """Answer with these, one after another, and then as before."""
        waiting, usual = list(answers), self.answer
        self.answer = lambda body: waiting.pop(0) if waiting else usual(body)

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def openai_answer(body):
    data = [{"index": i, "embedding": [float(len(text)), 1.0]} for i, text in enumerate(body["input"])]
    return {"data": data[::-1], "usage": {"prompt_tokens": 10 * len(data)}}


@pytest.fixture
def provider(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE", "DSPY_LAMBDA_API_BASE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    assert bound_provider_calls() == {}
    assert apply_patches([HOSTED_EMBEDDINGS]) == {}
    made = Provider()
    yield made
    made.close()
    DEADLINE.set(None)


@pytest.fixture
def embedder(provider):
    """An embedder of that provider, on the OpenAI protocol."""
    options = {"api_base": provider.url, "api_key": "sk-embedding-key", "caching": False}
    return lambda **more: dspy.Embedder("openai/text-embedding-3-small", **{**options, **more})
