import asyncio
import contextlib
import gzip
import json
import urllib.error
import urllib.request

import pytest

from dspy_lambda_infra.local.events import EVENTS as EVENTS_OF
from dspy_lambda_infra.local.events import Request, rest_event
from dspy_lambda_infra.local.front import Front
from dspy_lambda_infra.local.function import RequestTooLarge
from dspy_lambda_infra.local.local import CATALOGUE
from tests.infra.local.support import SLEEPER, http_request, post, status_of
from tests.infra.local.tiny import Tiny
from tests.support import AECHO


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("rest", {"title", "status", "detail", "request_id"}), ("http", {"message"}), ("url", {"message"})],
)
def test_a_request_over_lambdas_limit_gets_the_gateways_own_413(kind, fields):
    class Function:
        async def invoke(self, payload, trace):
            raise RequestTooLarge

    answer = asyncio.run(Front(kind, {"Echo": Function()}, Function()).answer(Request("POST", "/Echo")))
    assert (answer.status, set(json.loads(answer.body))) == (413, fields)


def test_an_unknown_path_gets_a_404_that_points_to_the_program_list():
    answer = asyncio.run(Front("rest", {}, None).answer(Request("POST", "/Nope")))
    document = json.loads(answer.body)
    assert (answer.status, document["title"]) == (404, "Not found")
    assert document["detail"] == "No such path or method; GET /programs lists the programs"


def test_the_front_adds_the_gateways_forwarding_headers(make_project, make_local, monkeypatch):
    project = make_project({"aecho": AECHO})
    seen = []
    monkeypatch.setitem(EVENTS_OF, "rest", lambda request: seen.append(request) or rest_event(request))

    async def run():
        async with make_local(project) as local, local.front("rest", 0) as address:
            await asyncio.to_thread(status_of, http_request(f"{address}/AEcho", b"{}"))

    asyncio.run(run())
    headers = dict(seen[0].headers)
    assert (headers["X-Forwarded-For"], headers["X-Forwarded-Proto"]) == ("127.0.0.1", "http")
    assert headers["X-Amzn-Trace-Id"].startswith("Root=1-")


TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"


@pytest.mark.parametrize("kind", ["rest", "http", "url"])
@pytest.mark.parametrize(("sent", "received"), [(TRACE, TRACE), ("Root=evil", "Root=1-"), (None, "Root=1-")])
def test_a_callers_trace_is_continued_in_the_event_and_the_runtime(tmp_path, lines, kind, sent, received):
    async def run():
        async with Tiny(tmp_path, lines) as tiny:
            front = Front(kind, {"Tiny": tiny.function}, tiny.function)
            address = await front.start(0)
            request = urllib.request.Request(f"{address}/Tiny", b"{}", {"X-Amzn-Trace-Id": sent} if sent else {})
            try:
                with await asyncio.to_thread(urllib.request.urlopen, request) as answer:
                    return json.load(answer)
            finally:
                await front.stop()

    answer = asyncio.run(run())
    assert answer["header"].startswith(received)
    assert "evil" not in answer["header"]
    assert answer["trace"].startswith(received)
    assert answer["trace"].partition(";")[0] == answer["header"].partition(";")[0]


def test_a_program_without_http_has_no_route(make_project, make_local):
    project = make_project({"aecho": AECHO}, **{"lambda": {"programs": {"AEcho": {"http": False}}}})

    async def run():
        async with make_local(project) as local, local.front("rest", 0) as address:
            return await asyncio.to_thread(status_of, http_request(f"{address}/AEcho", b"{}"))

    assert asyncio.run(run()) == 404


def test_exceeding_reserved_concurrency_gives_the_gateways_throttle_answer(make_project, make_local):
    settings = {"defaults": {"reserved_concurrency": 2}}
    project = make_project({"sleeper": SLEEPER}, **{"lambda": settings})

    async def run(kind):
        async with make_local(project) as local:
            front = Front(kind, {"Sleeper": local.function("Sleeper")}, local.function(CATALOGUE))
            return await asyncio.gather(*(front.answer(post("Sleeper", seconds=0.5)) for _ in range(3)))

    for kind, status in (("rest", 503), ("http", 503), ("url", 429)):
        answers = asyncio.run(run(kind))
        assert sorted(answer.status for answer in answers) == [200, 200, status]
        (throttled,) = [answer for answer in answers if answer.status != 200]
        assert ("Retry-After" in dict(throttled.headers)) == (kind != "http")


def test_the_front_forwards_requests_unchanged(make_project, make_local):
    source = "class Echoes(dspy.Module):\n    async def aforward(self, text: str) -> int:\n        return len(text)\n"
    project = make_project({"echoes": source})

    async def run():
        async with make_local(project) as local, local.front("http", 0) as url:

            def send(body, **headers):
                request = urllib.request.Request(
                    f"{url}/Echoes?a=%20b", body, {"Content-Type": "application/json", **headers}
                )
                with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=60) as answer:
                    return answer.status, json.load(answer)
                return None

            cjk = json.dumps({"text": "字" * 1_100_000}, ensure_ascii=False).encode()
            return (
                await asyncio.to_thread(send, cjk),
                await asyncio.to_thread(send, gzip.compress(b'{"text": "t"}'), **{"Content-Encoding": "gzip"}),
                await asyncio.to_thread(send, b'{"text": "t"}', **{"X-Latin": "\xe9"}),
            )

    large, zipped, latin = asyncio.run(run())
    assert large == (200, {"result": 1_100_000})
    assert zipped is None
    assert latin == (200, {"result": 1})
