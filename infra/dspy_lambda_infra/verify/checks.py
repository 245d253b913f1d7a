"""The checks, each a claim and what was seen."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from dspy_lambda_infra.verify.project import PROGRAM


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


@dataclass(frozen=True)
class Stack:
    """A deployed stack: its outputs, and how to reach it."""

    session: boto3.Session
    name: str
    outputs: dict[str, str]

    def request(self, method: str, path: str, body: bytes = b"", *, signed: bool = True) -> Answer:
        """One request to the API, signed with the session's credentials."""
        url = self.outputs["ApiUrl"] + path
        request = AWSRequest(method, url, data=body or None, headers={"Content-Type": "application/json"})
        credentials = self.session.get_credentials()
        if signed and credentials is not None:
            SigV4Auth(credentials, "execute-api", self.session.region_name).add_auth(request)
        plain = urllib.request.Request(url, body or None, dict(request.headers.items()), method=method)
        begin = time.monotonic()
        try:
            with urllib.request.urlopen(plain, timeout=60) as answer:
                status, headers, content = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            status, headers, content = error.code, error.headers, error.read()
        lower = {name.lower(): value for name, value in headers.items()}
        return Answer(status, lower, content, time.monotonic() - begin)

    def call(self, question: str) -> Answer:
        """One call of the program."""
        return self.request("POST", f"/{PROGRAM}", json.dumps({"question": question}).encode())


Seen = tuple[bool, str]
Check = Callable[[Stack], Seen]


def a_call_is_answered(stack: Stack) -> Seen:
    """A signed call is answered, with its key from SSM."""
    answer = stack.call("why?")
    return answer.status == 200 and json.loads(answer.body) == {"answer": "yes"}, _text(answer)


def the_shared_routes_answer(stack: Stack) -> Seen:
    """The catalogue function answers the shared routes."""
    found = {path: stack.request("GET", path).status for path in ("/programs", "/health/ready", "/openapi.json")}
    return set(found.values()) == {200}, str(found)


def an_unsigned_call_is_refused(stack: Stack) -> Seen:
    """Without a signature nothing is answered."""
    answer = stack.request("POST", f"/{PROGRAM}", b"{}", signed=False)
    return answer.status in (401, 403, 404), _text(answer)


def an_unknown_path_is_404(stack: Stack) -> Seen:
    """GatewayResponses give an unknown path 404."""
    answer = stack.request("GET", "/nothing-here")
    return answer.status == 404, _text(answer)


def errors_are_readable(stack: Stack) -> Seen:
    """A bad body is a problem document, not base64."""
    answer = stack.request("POST", f"/{PROGRAM}", b"{")
    return answer.status == 400 and json.loads(answer.body)["status"] == 400, _text(answer)


def a_provider_limit_reaches_the_caller(stack: Stack) -> Seen:
    """The provider's 429 is a 429 with its Retry-After."""
    answer = stack.call("limit")
    return (answer.status, answer.headers.get("retry-after")) == (429, "7"), _text(answer)


def the_deadline_is_answered(stack: Stack) -> Seen:
    """A slow model is a 504 of ours before the function's timeout, not a kill."""
    answer = stack.call("sleep 40")
    return answer.status == 504 and b"request_id" in answer.body and answer.seconds < 21, _text(answer)


def a_throttle_is_503(stack: Stack) -> Seen:
    """The disputed one: a throttled function behind REST is 503 with Retry-After (INTEGRATION_FAILURE is mapped)."""
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: stack.call(f"sleep 3, {n}"), range(20)))
    seen = Counter((a.status, a.headers.get("retry-after"), a.headers.get("x-amzn-errortype")) for a in answers)
    fine = all(a.status == 200 or (a.status == 503 and a.headers.get("retry-after")) for a in answers)
    return fine and any(a.status == 503 for a in answers), str(dict(seen))


def a_bad_record_leaves_its_batch(stack: Stack) -> Seen:
    """Of ten records one is bad: nine are done, one is in the dead-letter queue with its reason."""
    sqs = stack.session.client("sqs")
    bodies = [json.dumps({"question": f"q{n}"}) for n in range(9)] + ["not JSON"]
    entries: Any = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies)]
    sqs.send_message_batch(QueueUrl=stack.outputs[f"{PROGRAM}QueueUrl"], Entries=entries)
    dead = stack.outputs[f"{PROGRAM}DeadLetterQueueUrl"]
    counts = (0, 0)
    for _ in _until(180):
        counts = (_count(sqs, stack.outputs[f"{PROGRAM}QueueUrl"]), _count(sqs, dead))
        if counts == (0, 1):
            return True, "0 in the queue, 1 in the dead-letter queue"
    return False, f"{counts[0]} in the queue, {counts[1]} in the dead-letter queue after 3 minutes"


def a_blocked_loop_is_answered(stack: Stack) -> Seen:
    """A program that blocks the event loop is a 504 of ours before the function's timeout, not a kill."""
    answer = stack.call("block")
    return answer.status == 504 and b"request_id" in answer.body and answer.seconds < 21, _text(answer)


def a_used_up_process_is_replaced(stack: Stack) -> Seen:
    """A process that has used up its threads replaces itself between two events, and loses none (execv)."""
    first = stack.call("use up threads")
    others = [stack.call("how often replaced") for _ in range(3)]
    seen = [_text(answer) for answer in (first, *others)]
    return first.status == 200 and all(json.loads(a.body) == {"answer": "1"} for a in others), "; ".join(seen)


def a_record_that_ends_its_process_takes_no_other_along(stack: Stack) -> Seen:
    """Of ten records one ends the process each time: nine are done, one is in the dead-letter queue."""
    sqs = stack.session.client("sqs")
    url, dead = stack.outputs[f"{PROGRAM}QueueUrl"], stack.outputs[f"{PROGRAM}DeadLetterQueueUrl"]
    before = _count(sqs, dead)
    questions = [f"q{n}" for n in range(4)] + ["exit"] + [f"q{n}" for n in range(4, 9)]
    entries: Any = [{"Id": str(n), "MessageBody": json.dumps({"question": q})} for n, q in enumerate(questions)]
    sqs.send_message_batch(QueueUrl=url, Entries=entries)
    counts = (0, 0)
    for _ in _until(1800):
        counts = (_count(sqs, url), _count(sqs, dead) - before)
        if counts[0] == 0 and counts[1] > 0:
            break
    return counts == (0, 1), f"{counts[0]} in the queue, {counts[1]} more in the dead-letter queue"


def metrics_arrive(stack: Stack) -> Seen:
    """EMF lines become metrics under the stack's name."""
    cloudwatch = stack.session.client("cloudwatch")
    dimensions: Any = [{"Name": "service", "Value": stack.name}, {"Name": "program", "Value": PROGRAM}]
    for _ in _until(300):
        now = time.time()
        found = cloudwatch.get_metric_statistics(
            Namespace="DSPy",
            MetricName="Calls",
            Dimensions=dimensions,
            StartTime=now - 3600,
            EndTime=now + 60,
            Period=3600,
            Statistics=["Sum"],
        )["Datapoints"]
        if (calls := sum(point["Sum"] for point in found)) >= 10:
            return True, f"{calls:.0f} calls"
    return False, "no metric after 5 minutes"


def an_alarm_rises(stack: Stack) -> Seen:
    """The dead-letter queue's alarm goes off."""
    cloudwatch = stack.session.client("cloudwatch")
    state = "not found"
    for _ in _until(900):
        alarms = cloudwatch.describe_alarms(AlarmNamePrefix=f"{stack.name}-{PROGRAM}DeadLetterAlarm")["MetricAlarms"]
        state = alarms[0]["StateValue"] if alarms else state
        if state == "ALARM":
            return True, "ALARM"
    return False, f"{state} after 15 minutes"


CHECKS: tuple[Check, ...] = (
    a_call_is_answered,
    the_shared_routes_answer,
    an_unsigned_call_is_refused,
    an_unknown_path_is_404,
    errors_are_readable,
    a_provider_limit_reaches_the_caller,
    the_deadline_is_answered,
    a_throttle_is_503,
    a_bad_record_leaves_its_batch,
    a_blocked_loop_is_answered,
    a_used_up_process_is_replaced,
    a_record_that_ends_its_process_takes_no_other_along,
    metrics_arrive,
    an_alarm_rises,
)


def run_checks(stack: Stack) -> Iterator[tuple[str, bool, str]]:
    """Claim, whether it holds, what was seen; a check that breaks does not hold."""
    for check in CHECKS:
        claim = (check.__doc__ or "").strip()
        try:
            holds, seen = check(stack)
        except Exception as error:
            holds, seen = False, f"{type(error).__name__}: {error}"
        yield claim, holds, seen


def _until(seconds: float, pause: float = 5.0) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(pause)


def _count(sqs: Any, url: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(found[name]) for name in names)


def _text(answer: Answer) -> str:
    return f"{answer.status} after {answer.seconds:.1f} s: {answer.body[:200].decode(errors='replace')}"
