import asyncio
import socket

import pytest
from dspy.lm15 import RateLimitError, ServerError, TransportError

from dspy_lambda.dspy_patches.http_client import Request, apost, post
from tests.handler.models.embeddings.conftest import Provider


@pytest.fixture
def server():
    made = Provider()
    made.answer = lambda body: (200, {"X-Note": "n"}, body)
    yield made
    made.close()


@pytest.fixture(params=[post, lambda request: asyncio.run(apost(request))], ids=["sync", "async"])
def send(request):
    return request.param


def test_a_request_is_posted_and_its_answer_read(server, send):
    answer = send(Request(f"{server.url}/p", {"X-Own": "o"}, b'{"a": 1}', timeout=5))
    assert (answer.status, answer.body, answer.header("x-note"), answer.header("x-other")) == (
        200,
        b'{"a": 1}',
        "n",
        None,
    )
    assert (server.received[0].path, server.received[0].headers["x-own"]) == ("/p", "o")


def test_refusals_are_typed_and_keep_the_pause_that_is_asked_for(server, send):
    server.answer = lambda _: (429, {"Retry-After": "12"}, b"slow down")
    with pytest.raises(RateLimitError, match="slow down") as raised:
        send(Request(server.url, {}, b"{}"))
    assert raised.value.retry_after == 12
    server.answer = lambda _: (500, {}, b"")
    with pytest.raises(ServerError, match="HTTP 500"):
        send(Request(server.url, {}, b"{}"))


def test_an_address_that_does_not_answer_is_a_transport_error(send):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(TransportError):
        send(Request(f"http://127.0.0.1:{port}/", {}, b"{}"))
