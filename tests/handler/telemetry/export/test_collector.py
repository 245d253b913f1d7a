"""Requests as a collector, and as CloudWatch's endpoint, receives them."""

import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from dspy_lambda.models.bedrock.credentials import forget_credentials
from dspy_lambda.telemetry.exceptions import Exceptions
from dspy_lambda.telemetry.export.collector import cloudwatch, collector, read_headers
from tests.handler.models.bedrock.bedrock_server import Sent
from tests.handler.models.bedrock.test_signing import expected
from tests.handler.telemetry.export.collector_server import answer

BODY = b'{"resourceSpans":[]}'


def send(found, body=BODY):
    try:
        return found.send(body, time.monotonic() + 5)
    finally:
        found.connection.close()


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("", "/v1/traces"),
        ("/", "/v1/traces"),
        ("/v1/traces", "/v1/traces"),
        ("/v1/traces/", "/v1/traces"),
        ("/api/public/otel", "/api/public/otel/v1/traces"),
        ("/team%20a/", "/team%20a/v1/traces"),
        ("/team a", "/team%20a/v1/traces"),
        ("/ü", "/%C3%BC/v1/traces"),
    ],
)
def test_the_path_of_an_address(server, path, asked):
    assert send(collector(server.url + path, None)).outcome == "sent"
    (request,) = server.received
    assert request.line == f"POST {asked} HTTP/1.1"
    assert request.headers["content-type"] == "application/json"
    assert request.body == BODY


def test_a_host_of_other_letters():
    assert collector("https://münchen.example", None).connection.authority == "xn--mnchen-3ya.example"


def test_headers_come_from_the_variable_at_each_request(server, monkeypatch):
    found = collector(server.url, "OTEL_HEADERS")
    for key in ("one", "two"):
        monkeypatch.setenv("OTEL_HEADERS", f"Authorization=Basic%20{key}%3D,x-scope = a=b")
        send(found)
    assert [request.headers["authorization"] for request in server.received] == ["Basic one=", "Basic two="]
    assert server.received[0].headers["x-scope"] == "a=b"


@pytest.mark.parametrize(
    "text", ["", ",", "no value", "=v", "a b=c", "a=b%0d%0ax-injected: 1", "ä=1", "a=%E2%82%AC", "a=1\r\n b"]
)
def test_what_is_not_a_header_is_left_out(text):
    assert read_headers(f"x-first=1,{text},x-last=2") == [("x-first", "1"), ("x-last", "2")]


def test_a_headers_value_is_a_key_in_texts():
    read_headers("authorization=Bearer%20sk-planted-in-a-header")
    assert "sk-planted" not in Exceptions("log").text("the token sk-planted-in-a-header is bad")


def test_bodies_to_this_machine_are_not_compressed_and_small_ones_never(server):
    found = collector(server.url, None)
    send(found, b" " * 100_000)
    found._compresses = True
    send(found, b" " * 1_000)
    send(found, b" " * 100_000)
    assert ["content-encoding" in request.headers for request in server.received] == [False, False, True]
    assert len(server.received[2].raw) < 1_000
    assert server.received[2].body == b" " * 100_000


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (302, "redirects are not followed"),
        (401, "set telemetry.headers_env"),
        (403, "set telemetry.headers_env"),
        (404, "/v1/traces"),
        (413, "size"),
        (415, "no OTLP in JSON"),
        (500, "see its log"),
    ],
)
def test_a_refusal_says_what_to_do(server, status, advice):
    server.reply = answer(status, b'{"message":"the key sk-123 is bad"}')
    reply = send(collector(server.url, None))
    assert reply.outcome == "refused"
    assert advice in reply.reason
    assert f"answered {status}" in reply.reason
    assert "sk-123" not in reply.reason


def test_the_advice_names_the_variable_with_the_headers(server):
    server.reply = answer(401)
    assert "OTEL_HEADERS" in send(collector(server.url, "OTEL_HEADERS")).reason


def test_a_server_asks_to_wait_in_seconds_or_until_a_date(server):
    found = collector(server.url, None)
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    waits = []
    for value in ("7", soon, "Thu, 01 Jan 1970 00:00:00 GMT", "soon", "-1", "9" * 500):
        server.reply = answer(503, retry_after=value)
        waits.append(send(found).retry_after)
    assert waits == [7, pytest.approx(100, abs=5), 0, 0, 0, 999_999_999]


@pytest.mark.parametrize(
    ("body", "rejected"),
    [
        (b"{}", 0),
        (b'{"partialSuccess":{}}', 0),
        (b'{"partialSuccess":{"rejectedSpans":"3"}}', 3),
        (b'{"partialSuccess":{"rejectedSpans":3}}', 3),
        (b'{"partialSuccess":{"rejectedSpans":-3}}', 0),
        (b'{"partialSuccess":{"rejectedSpans":"many"}}', 0),
        (b'{"partialSuccess":{"rejectedSpans":Infinity}}', 0),
        (b'{"partialSuccess":[{"rejectedSpans":1}]}', 0),
        (b"\x0a\x02rejected", 0),
        (b"[" * 100_000 + b"rejected", 0),
    ],
)
def test_rejected_spans(server, body, rejected):
    server.reply = answer(200, body)
    reply = send(collector(server.url, None))
    assert (reply.outcome, reply.rejected) == ("sent", rejected)


@pytest.fixture
def role(monkeypatch):
    for name in ("AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a session token")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "only Bedrock takes it")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/credentials")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent/config")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    forget_credentials()
    yield
    forget_credentials()


def at(server, region):
    """Return CloudWatch's endpoint, with its host in each request, but the server behind it."""
    found = cloudwatch(region)
    assert (found.connection._host, found.connection._port, found.connection._tls) == (
        f"xray.{region}.amazonaws.com",
        443,
        True,
    )
    found.connection._host, found.connection._port, found.connection._tls = "127.0.0.1", server.port, False
    return found


def test_regions_in_china_have_a_domain_of_their_own():
    assert cloudwatch("cn-north-1").connection.authority == "xray.cn-north-1.amazonaws.com.cn"


@pytest.mark.parametrize("body", [BODY, b" " * 50_000], ids=["small", "compressed"])
def test_cloudwatch_gets_the_signature_that_botocore_makes(server, role, body):
    assert send(at(server, "eu-central-1"), body).outcome == "sent"
    (request,) = server.received
    assert request.line == "POST /v1/traces HTTP/1.1"
    assert request.body == body
    url = "https://xray.eu-central-1.amazonaws.com/v1/traces"
    assert request.headers["host"] == "xray.eu-central-1.amazonaws.com"
    assert "/eu-central-1/xray/aws4_request" in request.headers["authorization"]
    sent = Sent(url, request.headers, request.raw)
    assert request.headers["authorization"] == expected(sent, "secret", "a session token")


def test_without_credentials_nothing_is_sent(server, role, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    reply = send(at(server, "us-east-1"))
    assert (reply.outcome, server.received) == ("unreachable", [])
    assert "credentials" in reply.reason


def test_a_role_that_may_not_write_traces(server, role):
    server.reply = answer(403, json.dumps({"message": "not authorized"}).encode())
    assert "xray:PutTraceSegments" in send(at(server, "us-east-1")).reason
