import base64
import json

import pytest

from dspy_lambda_infra.local.events import EVENTS, MalformedAnswer, Request, http_event, response

REQUEST = Request(
    "POST",
    "/Echo",
    query="a=1&a=2&b=%20x",
    headers=[("Content-Type", "application/json"), ("X-Two", "1"), ("X-Two", "2"), ("Cookie", "c=1; d=2")],
    body=b'{"q": 1}',
)


def test_version_1_keeps_repeated_headers_and_parameters():
    event = EVENTS["rest"](REQUEST)
    assert event["multiValueHeaders"]["x-two"] == ["1", "2"]
    assert event["headers"]["x-two"] == "2"
    assert event["multiValueQueryStringParameters"] == {"a": ["1", "2"], "b": [" x"]}
    assert event["requestContext"]["path"] == "/prod/Echo"
    assert (event["body"], event["isBase64Encoded"]) == ('{"q": 1}', False)


@pytest.mark.parametrize("kind", ["http", "url"])
def test_version_2_joins_headers_and_lists_cookies(kind):
    event = EVENTS[kind](REQUEST)
    assert event["headers"]["x-two"] == "1,2"
    assert event["cookies"] == ["c=1", "d=2"]
    assert event["rawQueryString"] == REQUEST.query
    assert ("lambda-url" in event["requestContext"]["domainName"]) == (kind == "url")


def test_a_named_stage_is_part_of_the_path():
    event = http_event(REQUEST, stage="dev")
    assert event["rawPath"] == event["requestContext"]["http"]["path"] == "/dev/Echo"


def test_binary_bodies_are_base64_encoded_as_by_each_gateway():
    request = Request("POST", "/Echo", headers=[("Content-Type", "image/png")], body=b"\x89PNG")
    event = EVENTS["http"](request)
    assert event["isBase64Encoded"] is True
    assert base64.b64decode(event["body"]) == b"\x89PNG"
    assert EVENTS["alb"](request)["isBase64Encoded"] is True


def test_base64_answers_are_decoded_except_by_rest_apis():
    payload = json.dumps({"statusCode": 200, "body": "aGk=", "isBase64Encoded": True}).encode()
    assert response("http", payload).body == b"hi"
    assert response("rest", payload).body == b"aGk="


def test_answer_headers_are_accepted_in_all_formats():
    answer = {"statusCode": "201", "headers": {"a": "1"}, "multiValueHeaders": {"b": ["2", "3"]}, "cookies": ["c=1"]}
    found = response("http", json.dumps(answer).encode())
    assert (found.status, found.headers) == (201, [("a", "1"), ("b", "2"), ("b", "3"), ("set-cookie", "c=1")])


def test_only_format_2_accepts_a_bare_value_as_the_body():
    assert response("http", b'{"a": 1}').body == b'{"a": 1}'
    for payload in (b'{"a": 1}', b"null", b"no json"):
        with pytest.raises(MalformedAnswer):
            response("rest", payload)
