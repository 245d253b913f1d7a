import asyncio
import json

import pytest

from dspy_lambda_infra.local.answer import Answer
from dspy_lambda_infra.local.events import Request
from dspy_lambda_infra.local.front import Front

ORIGIN = "https://a.example"


def ask(method, origin, kind="url", origins=(ORIGIN,), asks_first=False):
    """Send one request to a front; return status, CORS headers, and how often a function ran."""
    invocations = []

    class Function:
        async def invoke(self, payload, trace):
            invocations.append(payload)
            return Answer(json.dumps({"statusCode": 200, "body": "{}"}).encode())

    headers = [("Origin", origin), *([("Access-Control-Request-Method", "POST")] if asks_first else [])]
    front = Front(kind, {"Echo": Function()}, Function(), origins)
    answer = asyncio.run(front.answer(Request(method, "/Echo", headers=headers)))
    named = {name.title(): value for name, value in answer.headers if name.lower().startswith("access-control-")}
    return answer.status, named, len(invocations)


@pytest.mark.parametrize(
    ("origins", "origin", "named"),
    [
        ([ORIGIN], ORIGIN, ORIGIN),
        ([ORIGIN], "https://b.example", None),
        (["*"], "https://b.example", "*"),
        ([], ORIGIN, None),
    ],
)
def test_a_function_url_adds_cors_headers_for_configured_origins(origins, origin, named):
    expected = {} if named is None else {"Access-Control-Allow-Origin": named}
    assert ask("POST", origin, origins=origins) == (200, expected, 1)


def test_a_function_url_answers_preflight_requests_without_invoking_the_function():
    status, named, invocations = ask("OPTIONS", ORIGIN, asks_first=True)
    assert (status, invocations) == (200, 0)
    assert named["Access-Control-Allow-Origin"] == ORIGIN
    assert "Authorization" in named["Access-Control-Allow-Headers"]
    assert ask("OPTIONS", "https://b.example", asks_first=True) == (200, {}, 0)


def test_behind_an_api_the_function_itself_handles_cors():
    assert ask("OPTIONS", ORIGIN, kind="rest", asks_first=True) == (200, {}, 1)
