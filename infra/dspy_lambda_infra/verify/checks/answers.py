"""Checks of what HTTP callers get."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from dspy_lambda_infra.template.gateway import REFUSALS
from dspy_lambda_infra.verify.checks import until
from dspy_lambda_infra.verify.project import PROGRAM
from dspy_lambda_infra.verify.stack import Answer, Seen, Stack


def a_call_is_answered(stack: Stack) -> Seen:
    """An authorized call is answered, with the model's key from SSM."""
    answer = stack.call("why?")
    return answer.status == 200 and answer.json == {"answer": "yes"}, str(answer)


def the_shared_routes_answer(stack: Stack) -> Seen:
    """The catalogue function answers the shared routes."""
    found = {path: stack.request("GET", path).status for path in ("/programs", "/health/ready", "/openapi.json")}
    return set(found.values()) == {200}, str(found)


def an_unauthorized_call_is_refused(stack: Stack) -> Seen:
    """A call without a signature, key or token is refused."""
    answer = stack.request("POST", f"/{PROGRAM}", b'{"question": "why?"}', authorized=False)
    # A REST API treats an unsigned request like an unknown path.
    expected = (401, 403, 404) if (stack.kind, stack.auth) == ("rest", "iam") else (401, 403)
    return answer.status in expected, str(answer)


def an_unknown_path_is_404(stack: Stack) -> Seen:
    """An unknown path gives a 404."""
    answer = stack.request("GET", "/nothing-here")
    return answer.status == 404, str(answer)


def errors_are_readable(stack: Stack) -> Seen:
    """A bad body gives a problem document, not base64."""
    answer = stack.request("POST", f"/{PROGRAM}", b"{")
    return answer.status == 400 and _is_problem(answer), str(answer)


def a_provider_limit_reaches_the_caller(stack: Stack) -> Seen:
    """The provider's 429 becomes the function's 429, with the provider's Retry-After."""
    answer = stack.call("limit")
    fine = (answer.status, answer.headers.get("retry-after")) == (429, "7") and _is_problem(answer)
    return fine and not is_gateways_own(stack.kind, answer), str(answer)


def the_deadline_is_answered(stack: Stack) -> Seen:
    """A slow model gives the handler's 504 before the function's timeout, not a kill."""
    return _is_deadline(stack.call("sleep 40"))


def a_blocked_loop_is_answered(stack: Stack) -> Seen:
    """A program that blocks the event loop gives the handler's 504 before the function's timeout, not a kill."""
    return _is_deadline(stack.call("block"))


def a_throttle_is_the_gateways_own_answer(stack: Stack) -> Seen:
    """A throttled function gives the gateway's own 429 or 503, which is distinguishable from a function's answer."""
    before = stack.call("why?")
    with _no_concurrency(stack):
        answer = stack.call("why?")
        for _ in until(30, 2):
            if answer.status != 200:
                break
            answer = stack.call("why?")
    own = answer.status in (429, 503) and is_gateways_own(stack.kind, answer)
    retries = stack.kind != "rest" or "retry-after" in answer.headers
    seen = f"{answer} {answer.headers.get('x-amzn-errortype', '')}"
    return before.status == 200 and own and retries, seen


def a_failure_is_no_throttle(stack: Stack) -> Seen:
    """A function whose process exits gives a 5xx, never a 429: an outage does not look like a busy function."""
    answer = stack.call("exit")
    return 500 <= answer.status < 600, f"{answer} {answer.headers.get('x-amzn-errortype', '')}"


def a_used_up_process_is_replaced(stack: Stack) -> Seen:
    """A process that has used up its threads replaces itself (execv) between two events without losing any."""
    first = stack.call("use up threads")
    others = [stack.call("how often replaced") for _ in range(3)]
    seen = "; ".join(str(answer) for answer in (first, *others))
    return first.status == 200 and all(a.json == {"answer": "1"} for a in others), seen


def browsers_of_the_configured_origin_may_call(stack: Stack) -> Seen:
    """CORS: preflight requests need no credentials, and allow the configured origin and no other."""
    seen: dict[str, tuple[int, str, str]] = {}
    for origin in (ORIGIN, "https://elsewhere.example"):
        headers = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        answer = stack.request("OPTIONS", f"/{PROGRAM}", headers=headers, authorized=False)
        named = [answer.headers.get(f"access-control-allow-{what}", "") for what in ("origin", "headers")]
        seen[origin] = (answer.status, named[0], named[1])
    (status, allowed, headers_allowed), (_, foreign, _) = seen.values()
    call = stack.request("POST", f"/{PROGRAM}", b'{"question": "why?"}', {"Origin": ORIGIN})
    readable = call.headers.get("access-control-allow-origin") == ORIGIN
    # "*" does not cover Authorization: https://fetch.spec.whatwg.org/#cors-non-wildcard-request-header-name
    fine = status in (200, 204) and allowed == ORIGIN and "authorization" in headers_allowed.lower()
    fine = fine and foreign in ("", ORIGIN) and readable
    return fine, f"{seen}; on the call itself: {call.headers.get('access-control-allow-origin')}"


ORIGIN = "https://app.example"


def is_gateways_own(kind: str, answer: Answer) -> bool:
    """Whether the gateway itself produced the answer: the template's text (REST) or AWS's own (others)."""
    body = answer.json
    if not isinstance(body, dict):
        return False
    if kind != "rest":
        return {name.lower() for name in body} <= {"message", "reason", "type"}
    words = {key: value for key, value in body.items() if key != "request_id"}
    return any(
        words == {key: value for key, value in refusal.body("").items() if key != "request_id"}
        for refusal in REFUSALS.values()
        if refusal.status == answer.status
    )


@contextmanager
def _no_concurrency(stack: Stack) -> Iterator[None]:
    """Set the function's concurrency to 0, which throttles every invocation, and restore it afterwards."""
    function = {"FunctionName": stack.outputs[f"{PROGRAM}FunctionName"]}
    client = stack.client("lambda")
    before = client.get_function_concurrency(**function).get("ReservedConcurrentExecutions")
    client.put_function_concurrency(**function, ReservedConcurrentExecutions=0)
    try:
        yield
    finally:
        if before is None:
            client.delete_function_concurrency(**function)
        else:
            client.put_function_concurrency(**function, ReservedConcurrentExecutions=before)


def _is_problem(answer: Answer) -> bool:
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    return media_type == "application/problem+json" and json.loads(answer.body)["status"] == answer.status


def _is_deadline(answer: Answer) -> Seen:
    return answer.status == 504 and _is_problem(answer) and answer.seconds < 21, str(answer)
