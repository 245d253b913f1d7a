import asyncio
import json

import pytest

from dspy_lambda_infra.local.events import Request
from dspy_lambda_infra.local.front import Front
from dspy_lambda_infra.local.function import RequestTooLarge


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("rest", {"title", "status", "detail", "request_id"}), ("http", {"message"}), ("url", {"message"})],
)
def test_a_request_over_lambdas_limit_is_the_gateways_own_413(kind, fields):
    class Function:
        async def invoke(self, payload):
            raise RequestTooLarge

    answer = asyncio.run(Front(kind, {"Echo": Function()}, Function()).answer(Request("POST", "/Echo")))
    assert (answer.status, set(json.loads(answer.body))) == (413, fields)


def test_an_unknown_path_is_told_where_the_known_ones_are():
    answer = asyncio.run(Front("rest", {}, None).answer(Request("POST", "/Nope")))
    document = json.loads(answer.body)
    assert (answer.status, document["title"]) == (404, "Not found")
    assert document["detail"] == "No such path or method; GET /programs names what can be called"
