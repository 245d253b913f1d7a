"""Which requests the HTTP front and the queue server refuse."""

import asyncio
import contextlib
import http.client
import json
from urllib.parse import urlencode

import pytest

from dspy_lambda_infra.config import Sqs
from dspy_lambda_infra.local.access import is_loopback, refuse_browser, refuse_host, refuse_origin
from dspy_lambda_infra.local.answer import Answer
from dspy_lambda_infra.local.front import Front
from dspy_lambda_infra.local.queues import Queue, QueueServer
from tests.support import ECHO


class Counter:
    """A function that counts its invocations."""

    def __init__(self):
        self.invocations = 0

    async def invoke(self, payload, trace):
        self.invocations += 1
        return Answer(json.dumps({"statusCode": 200, "body": "{}"}).encode())


def send(port, method, path, headers, body=None):
    """Send a request with exactly these headers; return status and answer."""
    return exchange(port, method, path, headers, body)[:2]


def exchange(port, method, path, headers, body=None):
    """Like `send`, but also return the answer's headers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in [*headers, ("Content-Length", str(len(body or b"")))]:
        connection.putheader(name, value)
    connection.endheaders(body)
    with contextlib.closing(connection), connection.getresponse() as response:
        return response.status, response.read(), dict(response.headers)


def ask_front(method, headers, origins=(), kind="http"):
    """Send one request to a front; return status, answer, and how often a function ran."""
    function = Counter()

    async def run():
        front = Front(kind, {"Echo": function}, function, origins)
        port = int((await front.start(0)).rpartition(":")[2])
        try:
            filled = [(name, value.replace("PORT", str(port))) for name, value in headers]
            return await asyncio.to_thread(send, port, method, "/Echo", filled, b"{}")
        finally:
            await front.stop()

    status, body = asyncio.run(run())
    return status, json.loads(body), function.invocations


@pytest.mark.parametrize("host", ["127.0.0.1:PORT", "localhost:PORT", "LocalHost:PORT", "[::1]:PORT"])
def test_the_front_accepts_this_machines_host_names(host):
    assert ask_front("POST", [("Host", host)]) == (200, {}, 1)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:PORT",
        "evil.example",
        "localhost",
        "localhost:1",
        "localhost.evil.example:PORT",
        "evil.example:PORT@127.0.0.1:PORT",
        "",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_front_refuses_any_other_host(method, host):
    """A page can make its own name resolve to 127.0.0.1, and then has the same origin as the front."""
    status, body, invocations = ask_front(method, [("Host", host)])
    assert (status, invocations) == (403, 0)
    assert "Host" in body["message"]


@pytest.mark.parametrize("hosts", [[], ["127.0.0.1:1", "evil.example"]])
def test_the_front_requires_exactly_one_host_header(hosts):
    assert "127.0.0.1:1" in refuse_host(hosts, 1)
    assert refuse_host(["127.0.0.1:1"], 1) is None


def test_a_front_on_port_80_needs_no_port_in_its_name():
    assert refuse_host(["localhost"], 80) is None
    assert refuse_origin("POST", ["http://localhost"], 80, []) is None


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://localhost:1", "http://localhost", "null", "http://127.0.0.1:PORT.evil", ""],
)
def test_the_front_refuses_changes_from_a_foreign_page(method, origin):
    headers = [("Host", "127.0.0.1:PORT"), ("Origin", origin), ("Content-Type", "text/plain")]
    status, body, invocations = ask_front(method, headers)
    assert (status, invocations) == (403, 0)
    assert "cors_origins" in body["message"]


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_the_front_leaves_reads_from_foreign_pages_to_cors(method):
    headers = [("Host", "127.0.0.1:PORT"), ("Origin", "https://evil.example")]
    assert ask_front(method, headers) == (200, {}, 1)


@pytest.mark.parametrize("origin", ["http://127.0.0.1:PORT", "http://localhost:PORT", "http://[::1]:PORT"])
def test_the_fronts_own_pages_may_call_it(origin):
    assert ask_front("POST", [("Host", "127.0.0.1:PORT"), ("Origin", origin)]) == (200, {}, 1)


@pytest.mark.parametrize(
    ("origins", "origin", "status"),
    [
        (["https://a.example"], "https://a.example", 200),
        (["https://a.example"], "https://b.example", 403),
        (["https://a.example"], "http://a.example", 403),
        (["*"], "https://a.example", 403),
        (["*"], "http://localhost:5173", 200),
        (["*"], "http://127.0.0.1:5173", 200),
        (["*"], "http://localhost.evil.example:5173", 403),
        (["*"], "null", 403),
    ],
)
def test_configured_origins_may_call_the_front_and_a_star_means_this_machine(origins, origin, status):
    assert ask_front("POST", [("Host", "127.0.0.1:PORT"), ("Origin", origin)], origins)[0] == status


def test_a_projects_front_uses_the_configured_origins(make_project, make_local):
    project = make_project({"echo": ECHO}, server={"cors_origins": ["https://a.example"]})

    async def run():
        async with make_local(project) as local, local.front("rest", 0) as address:
            port = int(address.rpartition(":")[2])
            host = ("Host", f"127.0.0.1:{port}")
            return [
                (await asyncio.to_thread(send, port, "POST", "/Nope", [host, ("Origin", origin)]))[0]
                for origin in ("https://a.example", "https://b.example")
            ]

    assert asyncio.run(run()) == [404, 403]


@pytest.fixture(scope="module")
def server():
    server = QueueServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def queue(server):
    return Queue(server.client, "Test", Sqs(), 30)


def count(server, queue):
    found = server.client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=["ApproximateNumberOfMessages"])
    return int(found["Attributes"]["ApproximateNumberOfMessages"])


def send_message(server, queue, method, headers):
    """Send a message as a page could: moto does not check signatures."""
    port = int(server.address.rpartition(":")[2])
    made_up = {
        "Authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/sqs/aws4_request, Signature=a",
        "X-Amz-Target": "AmazonSQS.SendMessage",
        "Content-Type": "application/x-amz-json-1.0",
    }
    filled = [*made_up.items(), *((name, value.replace("PORT", str(port))) for name, value in headers)]
    body = json.dumps({"QueueUrl": queue.url, "MessageBody": "{}"}).encode()
    return send(port, method, "/", filled, body)


@pytest.mark.parametrize(
    "headers",
    [
        [("Host", "evil.example:PORT")],
        [],
        [("Host", "127.0.0.1:PORT"), ("Origin", "https://evil.example")],
        [("Host", "127.0.0.1:PORT"), ("Origin", "http://127.0.0.1:PORT")],
        [("Host", "127.0.0.1:PORT"), ("Origin", "null")],
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_the_queue_server_refuses_requests_from_web_pages(server, queue, method, headers):
    """moto itself allows every origin."""
    before = count(server, queue)
    status, body = send_message(server, queue, method, headers)
    assert (status, count(server, queue)) == (403, before)
    assert "page" in json.loads(body)["message"]


@pytest.mark.parametrize("host", ["127.0.0.1:PORT", "localhost:PORT"])
def test_the_queue_server_accepts_clients_on_this_machine(server, queue, host):
    before = count(server, queue)
    assert send_message(server, queue, "POST", [("Host", host)])[0] == 200
    assert count(server, queue) == before + 1


def test_the_queue_server_refuses_requests_from_image_urls(server, queue):
    """A page's GET has no Origin, and SQS accepts messages in the query string."""
    before, port = count(server, queue), int(server.address.rpartition(":")[2])
    query = urlencode({"Action": "SendMessage", "QueueUrl": queue.url, "MessageBody": "{}", "Version": "2012-11-05"})
    status, body = send(port, "GET", f"/?{query}", [("Host", f"127.0.0.1:{port}")])
    assert (status, count(server, queue)) == (403, before)
    assert "signed" in json.loads(body)["message"]


def test_the_queue_server_sends_no_cors_headers(server):
    """moto sends Access-Control-Allow-Origin: * with every answer."""
    port = int(server.address.rpartition(":")[2])
    authorization = ("Authorization", "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/sqs/aws4_request, Signature=a")
    status, _, headers = exchange(port, "GET", "/?Action=ListQueues", [("Host", f"127.0.0.1:{port}"), authorization])
    assert status == 200
    assert not [name for name in headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False), ("example", False)],
)
def test_only_loopback_hosts_count_as_this_machine(host, loopback):
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(("name", "is_refused"), [("ORIGIN", True), ("Sec-Fetch-Site", True), ("User-Agent", False)])
def test_browsers_are_recognized_by_their_headers(name, is_refused):
    assert (refuse_browser([name]) is not None) == is_refused
