import pytest

from dspy_lambda_infra.template.gateway import REFUSALS
from dspy_lambda_infra.verify.checks import answers
from tests.infra.verify.fake import FakeStack, answer

BUSY = REFUSALS["THROTTLED"]
OWN = {"title": "Rate limited", "status": 429, "detail": "The model's provider limits the rate.", "request_id": "r"}


@pytest.mark.parametrize(
    ("kind", "status", "body", "own"),
    [
        ("rest", 429, BUSY.body("an id"), True),
        ("rest", 429, OWN, False),
        ("rest", 500, {"message": None}, False),
        ("http", 503, {"message": "Service Unavailable"}, True),
        (
            "url",
            429,
            {"Reason": "CallerRateLimitExceeded", "message": "Rate Exceeded."},
            True,
        ),
        ("url", 429, OWN, False),
    ],
)
def test_the_gateways_own_answers_are_distinguished_from_a_functions(kind, status, body, own):
    assert answers.is_gateways_own(kind, answer(status, body)) is own


class Concurrency:
    """Lambda's API for a function's concurrency."""

    def __init__(self, before):
        self.now = self.before = before

    def get_function_concurrency(self, *, FunctionName):
        return {} if self.now is None else {"ReservedConcurrentExecutions": self.now}

    def put_function_concurrency(self, *, FunctionName, ReservedConcurrentExecutions):
        self.now = ReservedConcurrentExecutions

    def delete_function_concurrency(self, *, FunctionName):
        self.now = None


@pytest.mark.parametrize("before", [2, None])
@pytest.mark.parametrize(
    ("throttled", "holds"),
    [
        (answer(BUSY.status, BUSY.body("an id"), retry_after="1"), True),
        (answer(BUSY.status, BUSY.body("an id")), False),  # no Retry-After
        (answer(429, OWN, retry_after="7"), False),  # the function's
        (answer(500, {"message": "Internal server error"}), False),
    ],
)
def test_the_throttle_check_requires_the_gateways_answer_and_restores_concurrency(before, throttled, holds):
    concurrency = Concurrency(before)
    fine = answer(200, {"answer": "yes"})
    stack = FakeStack.make(lambda *_: throttled if concurrency.now == 0 else fine, **{"lambda": concurrency})
    assert answers.a_throttle_is_the_gateways_own_answer(stack)[0] is holds
    assert concurrency.now == before


def test_the_throttle_check_restores_concurrency_after_an_error():
    concurrency = Concurrency(2)

    def broken(*_):
        if concurrency.now == 0:
            raise OSError("no route")
        return answer(200, {"answer": "yes"})

    with pytest.raises(OSError, match="no route"):
        answers.a_throttle_is_the_gateways_own_answer(FakeStack.make(broken, **{"lambda": concurrency}))
    assert concurrency.now == 2


@pytest.mark.parametrize(("status", "holds"), [(502, True), (500, True), (429, False), (200, False)])
def test_a_failure_that_looks_like_a_throttle_fails_the_check(status, holds):
    assert answers.a_failure_is_no_throttle(FakeStack.make(lambda *_: answer(status, {})))[0] is holds


@pytest.mark.parametrize(
    ("kind", "auth", "status", "holds"),
    [
        ("rest", "iam", 404, True),
        ("rest", "api_key", 403, True),
        ("http", "jwt", 401, True),
        ("http", "iam", 404, False),
        ("url", "iam", 200, False),
    ],
)
def test_the_authorization_check_requires_a_refusal(kind, auth, status, holds):
    seen = []

    def answers_of(method, path, body, headers, authorized):
        seen.append(authorized)
        return answer(status, {})

    assert answers.an_unauthorized_call_is_refused(FakeStack.make(answers_of, kind=kind, auth=auth))[0] is holds
    assert seen == [False]


def gateway(allowed_headers="authorization,content-type", everybody=False, on_the_call=True):
    """An API with CORS for one origin."""

    def answers_of(method, path, body, headers, authorized):
        known = everybody or headers["Origin"] == answers.ORIGIN
        if method == "POST":
            return answer(200, {}, access_control_allow_origin=headers["Origin"] if on_the_call else "")
        if not known:
            return answer(204)
        named = {"access_control_allow_origin": headers["Origin"], "access_control_allow_headers": allowed_headers}
        return answer(204, **named)

    return answers_of


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({}, True),
        ({"allowed_headers": "*"}, False),  # does not cover Authorization
        ({"everybody": True}, False),
        ({"on_the_call": False}, False),
    ],
)
def test_the_cors_check_requires_exactly_the_configured_origin(changes, holds):
    stack = FakeStack.make(gateway(**changes), kind="http", auth="jwt")
    assert answers.browsers_of_the_configured_origin_may_call(stack)[0] is holds
