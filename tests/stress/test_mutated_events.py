"""Almost valid events: each is answered within the contract, and each call has one record in the log.

`mutated(number)` recreates the event of a failure by its number.
"""

import itertools
import json
from collections import Counter, defaultdict
from contextlib import closing
from random import Random

import boto3
import pytest

from dspy_lambda.environment import Environment
from dspy_lambda.telemetry.output import Output
from tests.conftest import EVENTS
from tests.stress.conftest import SCALE
from tests.stress.contract import has_shared_identifiers, identifier, implied_calls, kind_of
from tests.stress.mutations import mutate
from tests.support import Context, Serve, failures, sqs

COUNT = 10_000 * SCALE
CHUNK = 500
PROGRAMS = """
from typing import Any, Literal
from dspy.utils.exceptions import LMRateLimitError, LMServerError

class Answer(dspy.Module):
    def forward(self, question: str):
        return {"answer": question}

class Triage(dspy.Module):
    async def aforward(self, message: str, urgent: bool = False, tags: list[str] = []):
        return {"answer": message, "tags": tags}

class Anything(dspy.Module):
    async def aforward(self, value: Any = None):
        return {"answer": value}

class Fails(dspy.Module):
    def forward(self, kind: Literal["rate", "model", "program", "huge"]):
        if kind == "rate": raise LMRateLimitError("slow down", retry_after=3)
        if kind == "model": raise LMServerError("down")
        if kind == "huge": return {"answer": "x" * 7_000_000}
        raise ValueError(kind)
"""
# Lines that an event may cause besides the records of its calls.
EXPECTED = {
    "environment ready",
    "event loop blocked",
    "SQS request failed",
    "abandoned calls of earlier invocations that are still running",
}


def bodies():
    """Record bodies, one for each way that a record can end."""
    yield {"program": "Answer", "inputs": {"question": "q"}}
    yield {"program": "Triage", "inputs": {"message": "m", "tags": ["a"]}}
    yield {"program": "Anything", "inputs": {"value": {"deep": [1, 2.5, None]}}}
    yield {"program": "Fails", "inputs": {"kind": "rate"}}
    yield {"question": "bare"}


def batch(*groups):
    """An SQS batch with one record for each message group; None means a record of a standard queue."""
    event = sqs(*itertools.islice(itertools.cycle(bodies()), len(groups)), fifo="g" if groups[0] else None)
    for group, record in zip(groups, event["Records"], strict=True):
        record |= {"receiptHandle": f"r-{record['messageId']}", "messageAttributes": {}, "awsRegion": "us-east-1"}
        record["attributes"] = {"ApproximateReceiveCount": "2"} | ({"MessageGroupId": group} if group else {})
    return event


def originals():
    """The events that are mutated."""
    yield from (json.loads(path.read_text()) for path in sorted(EVENTS.glob("*.json")))
    yield from ({"program": "Fails", "inputs": {"kind": kind}} for kind in ("rate", "model", "program", "huge"))
    yield from [{"inputs": {"question": "q"}}, {"program": "Anything", "inputs": {"value": [1, "x", None, 2.5]}}]
    yield from [batch(None), batch(*[None] * 10), batch("a", "b", "a", "b", "a", "c", "a", "b"), batch("a", "a", "a")]
    for path, method in [("/programs", "GET"), ("/health/ready", "GET"), ("/docs", "GET"), ("/Fails", "POST")]:
        event = json.loads((EVENTS / "rest.json").read_text())
        yield event | {"path": path, "httpMethod": method, "body": '{"kind": "model"}'}


ORIGINALS = list(originals())


def mutated(number):
    """An event and the milliseconds left for it: for some, none or almost none."""
    rng = Random(number)
    event = mutate(ORIGINALS[number % len(ORIGINALS)], rng)
    return event, rng.choice([0, 1, 20]) if rng.random() < 0.02 and not has_shared_identifiers(event) else 30_000


class Queues:
    """SQS as a function's client sees it: all messages sent to it are in the dead-letter queue."""

    class meta:
        endpoint_url = "http://sqs"

    def __init__(self):
        self.moved = Counter()

    def send_message_batch(self, Entries, **_):
        json.dumps(Entries, ensure_ascii=False).encode()
        self.moved.update(entry["MessageAttributes"]["SourceMessageId"]["StringValue"] for entry in Entries)
        return {"Successful": Entries}

    def change_message_visibility_batch(self, Entries, **_):
        assert all(0 <= entry["VisibilityTimeout"] <= 43_200 for entry in Entries)
        return {}

    def delete_message_batch(self, **_):
        return {}


class Log:
    """The output stream, read as JSON line by line."""

    def __init__(self, path):
        self._path = path
        self._file = path.open("ab")
        self.output = Output(self._file.fileno())
        self.calls = defaultdict(Counter)  # by request id and message id
        self.messages = Counter()
        self.metric_calls = 0
        self.not_json = []

    def read(self):
        """Read what was written since the last time."""
        for line in self._path.read_bytes().split(b"\n")[:-1]:
            try:
                self._note(json.loads(line, parse_constant=_no_number))
            except ValueError:
                self.not_json.append(line[:200])
        self._file.truncate(0)

    def _note(self, line):
        if "_aws" in line:
            self.metric_calls += sum(line.get("Calls", []))
            return
        self.messages[line["message"]] += 1
        if line["message"] == "program call":
            self.calls[line["function_request_id"]][line.get("message_id")] += 1


def _no_number(text):
    raise ValueError(f"{text} is not JSON")


class Functions:
    """One function that serves all programs, and one that serves `Answer` and has credentials for its queues."""

    def __init__(self, project, log):
        self.log = log
        self.queues = Queues()
        self.asked_alone = 0
        settings = {"DSPY_LAMBDA_PROJECT": str(project), "OPENAI_API_KEY": "k"}
        own = {"AWS_ACCESS_KEY_ID": "k", "DSPY_LAMBDA_DEAD_LETTER_QUEUE_URL": "http://sqs/1/dead"}
        own |= {"DSPY_LAMBDA_PROGRAM": "Answer", "POWERTOOLS_SERVICE_NAME": "mutated-one"}
        self._serves = [Serve(Environment({**settings, **more}, log.output)) for more in ({}, own)]

    def close(self):
        for serve in self._serves:
            serve.close()

    def ask(self, number, context):
        """Return the kind of a mutated event's answer, and the records that it implies.

        Raises:
            Exception: The answer is outside the contract.
        """
        event, context.remaining_ms = mutated(number)
        serve = self._serves[number // len(ORIGINALS) % 2]
        self.queues.moved.clear()
        try:
            answer = serve(event, context)
        except BaseException as error:
            answer = error
        return kind_of(answer), implied_calls(
            answer, event, lambda raw: self._fails_alone(serve, raw), +self.queues.moved
        )

    def _fails_alone(self, serve, raw):
        self.asked_alone += 1
        self.queues.moved.clear()
        other = {"eventSource": "aws:sqs", "messageId": "another", "body": "not JSON"}
        return identifier(raw) in [*failures(serve({"Records": [raw, other]})), *self.queues.moved]


@pytest.fixture
def project(make_project):
    settings = {"invalid_to_dead_letter_queue": True, "backoff_seconds": 1}
    return make_project({"programs": PROGRAMS}, **{"lambda": {"defaults": {"sqs": settings}}})


def ask_all(functions):
    """What was answered, by kind; the records that the answers imply, by request id and number; and what no contract
    knows, by number."""
    answers, implied, outside = Counter(), {}, {}
    for number in range(COUNT):
        context = Context()
        try:
            kind, implied[context.aws_request_id, number] = functions.ask(number, context)
            answers[kind] += 1
        except Exception as error:
            outside[number] = repr(error)[:300]
        if number % CHUNK == 0:
            functions.log.read()
    functions.log.read()
    return answers, implied, outside


def test_mutated_events_are_answered_within_the_contract(project, tmp_path, monkeypatch, report, capfd):
    with closing(Functions(project, log := Log(tmp_path / "log"))) as functions:
        monkeypatch.setattr(boto3, "client", lambda *_, **__: functions.queues)
        answers, implied, outside = ask_all(functions)
    differences = {number: (names, log.calls[request]) for (request, number), names in implied.items()}
    exceptions = sum(count for kind, count in answers.items() if kind[0].isupper())
    report(
        COUNT,
        answers.total() - exceptions,
        exceptions + len(outside),
        outside_the_contract=len(outside),
        lines_not_json=len(log.not_json),
        records=sum(names.total() for names in implied.values()),
        records_lost=sum((names - found).total() for names, found in differences.values()),
        records_too_many=sum((found - names).total() for names, found in differences.values()),
        records_asked_alone=functions.asked_alone,
        answers=dict(answers.most_common()),
        messages=dict(log.messages),
    )
    assert outside == {}
    assert log.not_json == []
    assert {number: pair for number, pair in differences.items() if pair[0] != pair[1]} == {}
    assert log.metric_calls == log.messages["program call"]
    assert set(log.messages) <= {"program call", *EXPECTED}
    assert capfd.readouterr() == ("", "")
