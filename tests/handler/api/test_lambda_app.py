import asyncio
import json

import pytest

from dspy_lambda.api.lambda_app import LambdaApp
from tests.conftest import EVENTS
from tests.support import Context


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture
def scopes():
    return []


@pytest.fixture
def app(loop, scopes):
    async def remember(scope, receive, send):
        scopes.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    return LambdaApp(remember)


@pytest.mark.parametrize("name", ["rest", "http", "url", "alb"])
def test_a_requests_scope_has_the_sources_values_and_lambdas_context(app, scopes, name):
    event, context = json.loads((EVENTS / f"{name}.json").read_text()), Context()
    assert app.answer(event, context, invocation="mine")["statusCode"] == 200
    (scope,) = scopes
    assert (scope["invocation"], scope["request_id"]) == ("mine", context.aws_request_id)
    assert scope["aws.context"] is context


def test_no_request_state_is_left_for_the_next_request(app, scopes):
    event = json.loads((EVENTS / "rest.json").read_text())
    before = dict(vars(app))
    app.answer(event, Context(), invocation="mine", dispatcher="mine, too")
    assert vars(app) == before
    app.answer(event, Context(), invocation="another's")
    assert scopes[-1]["invocation"] == "another's"
    assert "dispatcher" not in scopes[-1]
