"""The Runtime API, called as by a runtime client."""

import asyncio
import time

import aiohttp
import pytest

from dspy_lambda.quotas import MAX_ANSWER_BYTES
from dspy_lambda_infra.local.runtime_api import Event, RuntimeApi


@pytest.fixture
def run():
    """Run a client coroutine against a Runtime API and return its result."""

    def run(client):
        async def serve():
            api = RuntimeApi("Test")
            address = await api.start()
            try:
                async with aiohttp.ClientSession(f"http://{address}") as session:
                    return await client(api, session)
            finally:
                await api.stop()

        return asyncio.run(serve())

    return run


INVOCATION = "/2018-06-01/runtime/invocation"


def event(payload=b"{}", deadline=None):
    return Event("the-id", payload, deadline or time.time() + 3, "Root=1-5759e988-bd862e3fe1be46a994272793")


def test_the_runtime_api_sends_an_event_with_id_and_deadline(run):
    async def client(api, session):
        assert not api.ready.is_set()
        ends = time.time() + 3
        answer = api.send(event(b'{"a": 1}', ends))
        async with session.get(f"{INVOCATION}/next") as got:
            payload, headers = await got.read(), got.headers
        async with session.post(f"{INVOCATION}/the-id/response", data=b"[]") as posted:
            assert posted.status == 202
        assert not api.ready.is_set()  # the invocation ends when the client requests the next event
        assert headers["Lambda-Runtime-Aws-Request-Id"] == "the-id"
        assert headers["Lambda-Runtime-Deadline-Ms"] == str(int(ends * 1000))
        assert headers["Lambda-Runtime-Trace-Id"] == "Root=1-5759e988-bd862e3fe1be46a994272793"
        return payload, await answer

    payload, answer = run(client)
    assert (payload, answer.payload, answer.error) == (b'{"a": 1}', b"[]", None)


@pytest.mark.parametrize(("size", "status"), [(MAX_ANSWER_BYTES, 202), (MAX_ANSWER_BYTES + 1, 413)])
def test_an_answer_over_6_mb_is_refused_and_the_client_exits(run, size, status):
    async def client(api, session):
        answer = api.send(event())
        async with session.post(f"{INVOCATION}/the-id/response", data=b"x" * size) as posted:
            return posted.status, (await answer).error, api.broken

    refused = status == 413
    assert run(client) == (status, "Function.ResponseSizeTooLarge" if refused else None, refused)


def test_the_runtime_api_keeps_an_errors_type(run):
    async def client(api, session):
        answer = api.send(event())
        async with session.post(f"{INVOCATION}/the-id/error", data=b'{"errorType": "E"}') as posted:
            assert posted.status == 202
        return (await answer).error

    assert run(client) == "E"


@pytest.mark.parametrize("payload", [b"no json", b"[]", b"{}"])
def test_an_error_without_a_type_is_reported_as_unhandled(run, payload):
    async def client(api, session):
        async with session.post("/2018-06-01/runtime/init/error", data=payload) as posted:
            assert posted.status == 202
        return api.init_error.error

    assert run(client) == "Unhandled"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "localhost:1"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},  # an image URL: no Origin
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", f"{INVOCATION}/next"), ("POST", f"{INVOCATION}/the-id/response")])
def test_the_runtime_api_refuses_web_page_requests_without_consuming_an_event(run, method, path, headers):
    async def client(api, session):
        answer = api.send(event())
        async with session.request(method, path, headers=headers, data=b"[]" if method == "POST" else None) as got:
            assert (got.status, (await got.json())["errorType"]) == (403, "Forbidden")
        assert not answer.done()
        async with session.get(f"{INVOCATION}/next") as got:
            assert got.headers["Lambda-Runtime-Aws-Request-Id"] == "the-id"

    run(client)
