"""The allowed answers to any event, and the log records that they imply. Written from the contract alone.

docs: an HTTP answer; a `batchItemFailures` that lists only identifiers of the event; a direct answer; or an exception
that Step Functions can match by its name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from dspy_lambda import errors
from dspy_lambda.quotas import MAX_ANSWER_BYTES
from tests.support import failures

NAMED = (
    *(errors.UnknownEvent, errors.InvalidInput, errors.RateLimited, errors.ModelUnavailable, errors.DeadlineExceeded),
    *(errors.ProgramFailed, errors.OutputTooLarge, errors.Overloaded),
)
# Unknown path or method: answered before any program is called.
_NO_CALL = {404, 405}
# All successful outputs of the test's programs, and no responses of shared routes, start with it.
OUTPUTS = '{"answer":'


class OutsideContract(Exception):
    """The answer is outside the contract."""


def require(holds: object, what: str) -> None:
    if not holds:
        raise OutsideContract(what)


def kind_of(answer: Any) -> str:
    """The kind of an answer."""
    if isinstance(answer, Exception):
        return type(answer).__name__
    return "batch" if "batchItemFailures" in answer else str(answer.get("statusCode", "direct"))


def implied_calls(
    answer: Any, event: Any, fails_alone: Callable[[Any], bool], moved: Counter[str]
) -> Counter[str | None]:
    """Return how many log records there must be, by message id; None stands for a call that is not from a queue.

    Args:
        answer: an answer, or the exception that was raised.
        fails_alone: whether a record fails if it is alone in its batch.
        moved: the messages that were moved to the dead-letter queue.

    Raises:
        OutsideContract: The answer is outside the contract.
    """
    if isinstance(answer, BaseException):
        require(type(answer) in NAMED, f"raised {answer!r}"[:300])
        str(answer).encode()
        return Counter() if isinstance(answer, errors.UnknownEvent) else Counter([None])
    require(len(json.dumps(answer)) <= MAX_ANSWER_BYTES, "an answer of over 6 MB")
    if "batchItemFailures" in answer:
        return _implied_records(answer, event["Records"], fails_alone, moved)
    if "statusCode" in answer:
        return Counter([None] if _is_call(answer) else [])
    require(set(answer) == {"program", "outputs"}, f"an answer with the keys {sorted(answer)}")
    require(type(answer["program"]) is str, "a program that is not text")
    require(type(answer["outputs"]) is dict, "outputs that are not an object")
    return Counter([None])


def _is_call(answer: dict[str, Any]) -> bool:
    """Whether an HTTP answer comes from a program, not from the router or a shared route."""
    status, body = answer["statusCode"], answer["body"]
    require(type(status) is int and 200 <= status < 600, f"the status {status!r}")
    require(type(body) is str, "a body that is not text")
    require(type(answer.get("isBase64Encoded", False)) is bool, "isBase64Encoded is neither true nor false")
    for headers in (answer.get("headers"), answer.get("multiValueHeaders")):
        require(headers is None or type(headers) is dict, "headers that are not an object")
    if status < 400:
        return body.startswith(OUTPUTS)
    problem = json.loads(body)
    require(problem["status"] == status, "a problem document with another status")
    require("unexpected" not in problem["detail"], "an unexpected error")
    return status not in _NO_CALL


def _implied_records(
    answer: dict[str, Any], raws: list[Any], fails_alone: Callable[[Any], bool], moved: Counter[str]
) -> Counter[str | None]:
    """One log record for each record of the batch, unless it follows a failed one in its message group."""
    identifiers = [identifier(raw) for raw in raws]
    found = Counter(failures(answer)) + moved
    require(not found - Counter(identifiers), "an identifier that the event does not have so often")
    if len(set(identifiers)) == len(identifiers):
        failed = [name in found for name in identifiers]
    else:  # which of the records with the same identifier it was
        failed = [fails_alone(raw) for raw in raws]
    behind = _behind_failed(raws, failed)
    reported = Counter(n for n, bad, late in zip(identifiers, failed, behind, strict=True) if bad or late)
    require(reported == found, f"reported {dict(found)} for {dict(reported)}")
    return Counter(name for name, late in zip(identifiers, behind, strict=True) if not late)


def has_shared_identifiers(event: Any) -> bool:
    """Whether two records of a batch share an identifier, or have none."""
    records = event.get("Records") if isinstance(event, dict) else None
    identifiers = [identifier(raw) for raw in records] if isinstance(records, list) else []
    return len(set(identifiers)) < len(identifiers)


def identifier(raw: Any) -> str:
    """A record's messageId; empty where it has none in ASCII, which makes Lambda return the whole batch."""
    found = raw.get("messageId") if isinstance(raw, dict) else None
    return found if isinstance(found, str) and found.isascii() else ""


def _behind_failed(raws: list[Any], failed: Iterable[bool]) -> list[bool]:
    stopped, behind = set(), []
    for raw, bad in zip(raws, failed, strict=True):
        group = _fifo_group(raw)
        behind.append(group in stopped)
        if bad and group is not None:
            stopped.add(group)
    return behind


def _fifo_group(raw: Any) -> str | None:
    arn = raw.get("eventSourceARN") if isinstance(raw, dict) else None
    if not isinstance(arn, str) or not arn.endswith(".fifo"):
        return None
    attributes = raw.get("attributes")
    group = attributes.get("MessageGroupId") if isinstance(attributes, dict) else None
    return group if isinstance(group, str) else None
