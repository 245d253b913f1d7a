"""The observer, called as by functions and by `dspy-lambda trace` and `logs`."""

import asyncio
import json
import time

import aiohttp
import pytest

from dspy_lambda_infra.local import observer as module
from dspy_lambda_infra.local.observer import Observer
from tests.support import until

TRACE = "6a0000000000000000000000000000aa"
RESOURCE = {"attributes": [{"key": "faas.name", "value": {"stringValue": "QaFunction"}}]}


@pytest.fixture
def run(tmp_path):
    """Run a client coroutine against an observer and return its result."""

    def run(client):
        async def serve():
            observer = Observer(tmp_path)
            address = await observer.start()
            try:
                async with aiohttp.ClientSession(address) as session:
                    return await client(observer, session)
            finally:
                await observer.stop()

        return asyncio.run(serve())

    return run


def span(span_id, parent="", trace=TRACE, **attributes):
    named = [{"key": key.replace("__", "."), "value": {"stringValue": value}} for key, value in attributes.items()]
    parents = {"parentSpanId": parent} if parent else {}
    return {"traceId": trace, "spanId": span_id, **parents, "name": span_id, "attributes": named}


def request(*spans):
    return {"resourceSpans": [{"resource": RESOURCE, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}]}


def invocation(number, trace=TRACE):
    """Return the spans of a batch of two records, each with a program call."""
    root = f"r{number}"
    spans = [span(root, "caller", trace, faas__invocation_id=f"request-{number}")]
    for record in ("a", "b"):
        record_id = f"{root}{record}"
        spans.append(span(record_id, root, trace, messaging__message__id=f"message-{number}{record}"))
        spans.append(span(f"{record_id}.call", record_id, trace, dspy_lambda__message_id=f"message-{number}{record}"))
    return spans


async def names(session, path):
    async with session.get(path) as answer:
        return [one["spanId"] for one in (await answer.json()).get("spans", [])]


def test_spans_come_back_with_their_resource(run):
    async def client(_, session):
        sent = span("s", faas__invocation_id="the-id")
        async with session.post("/v1/traces", json=request(sent)) as answer:
            assert (answer.status, await answer.json()) == (200, {})
        async with session.get("/traces/the-id") as answer:
            assert await answer.json() == {"spans": [{**sent, "resource": RESOURCE}]}

    run(client)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("request-1", ["r1", "r1a", "r1a.call", "r1b", "r1b.call"]),
        ("message-1b", ["r1b", "r1b.call"]),
        (TRACE, [one["spanId"] for number in (1, 2) for one in invocation(number)]),
        (f"1-{TRACE[:8]}-{TRACE[8:]}", [one["spanId"] for number in (1, 2) for one in invocation(number)]),
        (TRACE.upper(), [one["spanId"] for number in (1, 2) for one in invocation(number)]),
        ("request-3", []),
        ("caller", []),
    ],
)
def test_a_call_is_found_by_request_message_and_trace_id(run, name, found):
    async def client(_, session):
        for number in (1, 2):
            await session.post("/v1/traces", json=request(*invocation(number)))
        return await names(session, f"/traces/{name}")

    assert run(client) == found


def test_recent_invocations_are_listed_newest_first(run):
    async def client(_, session):
        for number in range(5):
            await session.post("/v1/traces", json=request(*invocation(number, f"{number:032x}")))
        return [await names(session, f"/traces{query}") for query in ("?limit=3", "?limit=-1", "")]

    assert run(client) == [["r4", "r3", "r2"], [], ["r4", "r3", "r2", "r1", "r0"]]


def test_spans_that_were_sent_twice_come_back_once(run):
    async def client(_, session):
        for _ in range(2):
            await session.post("/v1/traces", json=request(*invocation(1)))
        return await names(session, "/traces/request-1"), await names(session, "/traces")

    assert run(client) == (["r1", "r1a", "r1a.call", "r1b", "r1b.call"], ["r1"])


def test_an_unknown_trace_is_not_found(run):
    async def client(_, session):
        async with session.get("/traces/unknown") as answer:
            return answer.status

    assert run(client) == 404


@pytest.mark.parametrize(
    "body", [b"", b"no json", b"[]", b"{}", b'{"resourceSpans": [{"scopeSpans": [{"spans": [1]}]}]}']
)
def test_a_malformed_export_is_refused(run, body):
    async def client(_, session):
        async with session.post("/v1/traces", data=body, headers={"Content-Type": "application/json"}) as answer:
            return answer.status

    assert run(client) == 400


def test_an_export_that_is_not_json_is_refused(run):
    async def client(_, session):
        async with session.post("/v1/traces", data=b"", headers={"Content-Type": "application/x-protobuf"}) as answer:
            return answer.status

    assert run(client) == 415


@pytest.mark.parametrize("odd", [{"spanId": []}, {"spanId": "a", "parentSpanId": {}}])
def test_a_span_with_an_id_that_is_no_text_does_not_break_later_answers(run, odd):
    async def client(_, session):
        span = {"traceId": "a", "attributes": [{"key": "faas.invocation_id", "value": {"stringValue": "r"}}], **odd}
        document = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
        async with session.post("/v1/traces", json=document) as refused, session.get("/traces") as answer:
            return refused.status, answer.status

    assert run(client) == (400, 200)


def test_more_traces_than_there_can_be_may_be_asked_for(run):
    async def client(_, session):
        async with session.get(f"/traces?limit={10**30}") as answer:
            return answer.status

    assert run(client) == 200


@pytest.mark.parametrize("path", ["/traces?limit=x", "/lines?since=x"])
def test_a_malformed_number_is_refused(run, path):
    async def client(_, session):
        async with session.get(path) as answer:
            return answer.status

    assert run(client) == 400


def test_the_oldest_spans_are_dropped(run, monkeypatch):
    monkeypatch.setattr(module, "_MAX_SPANS", 5)

    async def client(_, session):
        for number in (1, 2):
            await session.post("/v1/traces", json=request(*invocation(number)))
        return await names(session, "/traces")

    assert run(client) == ["r2"]


LINES = [json.dumps({"message": "program call", "number": number}) for number in range(3)]


def test_lines_that_are_json_objects_are_served(run):
    async def client(observer, session):
        for line in [*LINES, "plain", "{no json", "[1]", "{" * 100_000]:
            observer.add_line(line)
        async with session.get("/lines") as answer:
            return (await answer.text()).splitlines()

    assert run(client) == LINES


def test_lines_since_a_time_are_served(run):
    async def client(observer, session):
        observer.add_line(LINES[0])
        after = time.time()
        while time.time() == after:
            pass
        observer.add_line(LINES[1])
        async with session.get(f"/lines?since={time.time() + 100}") as later, session.get("/lines?since=0") as every:
            return await later.text(), (await every.text()).splitlines()

    assert run(client) == ("", LINES[:2])


def test_following_lines_get_each_new_one_at_once(run):
    async def client(observer, session):
        observer.add_line(LINES[0])
        async with session.get("/lines?follow=true") as answer:
            got = [await answer.content.readline()]
            for line in LINES[1:]:
                observer.add_line(line)
                got.append(await answer.content.readline())
        return [line.decode().rstrip("\n") for line in got]

    assert run(client) == LINES


def test_a_follower_that_left_is_forgotten(run):
    async def client(observer, session):
        handlers = len(asyncio.all_tasks())
        async with session.get("/lines?follow=true"):
            assert len(asyncio.all_tasks()) > handlers
        await until(lambda: len(asyncio.all_tasks()) == handlers)

    run(client)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "localhost:1"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/traces"), ("GET", "/traces/x"), ("GET", "/lines"), ("POST", "/v1/traces")],
)
def test_requests_of_web_pages_are_refused(run, method, path, headers):
    async def client(_, session):
        async with session.request(method, path, headers=headers, data=b"{}" if method == "POST" else None) as answer:
            return answer.status

    assert run(client) == 403
