"""Checks of what happens to records and asynchronous invocations."""

from __future__ import annotations

import json
import time

from dspy_lambda_infra.verify.checks import until
from dspy_lambda_infra.verify.project import ORDERED, PROGRAM
from dspy_lambda_infra.verify.stack import Seen, Stack

_FAILED_RECORD_SECONDS = 1800
_LIMITED_SECONDS = 40


def a_bad_record_leaves_its_batch(stack: Stack) -> Seen:
    """With one bad record in ten, nine are processed, and the bad one is in the dead-letter queue with its reason."""
    questions = [json.dumps({"question": f"q{n}"}) for n in range(9)]
    stack.send_bodies(*questions, "not JSON")
    reason, dead = "", stack.dead_letter_queue()
    for _ in until(180):
        received = stack.client("sqs").receive_message(
            QueueUrl=dead, MessageAttributeNames=["All"], VisibilityTimeout=1, WaitTimeSeconds=5
        )
        for message in received.get("Messages", []):
            reason = message.get("MessageAttributes", {}).get("Reason", {}).get("StringValue", "")
        if reason and stack.count(stack.queue()) == 0:
            break
    counts = stack.count(stack.queue()), stack.count(dead)
    return counts == (0, 1) and bool(reason), f"{_counted(counts)}; the reason: {reason or 'none'}"


def a_record_that_ends_its_process_takes_no_other_along(stack: Stack) -> Seen:
    """With one record in ten that ends the process, nine are processed, and that one is in the dead-letter queue."""
    before = stack.count(stack.dead_letter_queue())
    stack.send(*(f"q{n}" for n in range(4)), "exit", *(f"q{n}" for n in range(4, 9)))
    counts = (0, 0)
    for _ in until(_FAILED_RECORD_SECONDS):
        counts = stack.count(stack.queue()), stack.count(stack.dead_letter_queue()) - before
        if counts[0] == 0 and counts[1] > 0:
            break
    return counts == (0, 1), _counted(counts)


def a_limited_record_comes_back_after_a_backoff(stack: Stack) -> Seen:
    """A rate limited record is delivered again after the provider's 7 s, not after the visibility timeout."""
    # Longer than the retries within one invocation, but limited: the next check needs an empty queue.
    (sent,) = stack.send(f"limit until {time.time() + _LIMITED_SECONDS:.0f}")
    names = ["VisibilityTimeout"]
    attributes = stack.client("sqs").get_queue_attributes(QueueUrl=stack.queue(), AttributeNames=names)
    visibility = int(attributes["Attributes"]["VisibilityTimeout"])
    times: list[float] = []
    for _ in until(visibility + 60):
        times = [call["at"] for call in stack.program_calls() if call.get("message_id") == sent]
        if len(times) > 1 and stack.count(stack.queue()) == 0:
            break
    pause = times[1] - times[0] if len(times) > 1 else None
    seen = f"again after {pause:.1f} s; the visibility timeout is {visibility} s" if pause else f"{len(times)} calls"
    # The call itself takes some of the time: the provider's 7 s start at the end of the first call.
    return pause is not None and 7 <= pause < visibility, seen


def a_fifo_queue_keeps_its_order(stack: Stack) -> Seen:
    """A failing record holds up the rest of its message group until it is in the dead-letter queue."""
    sent = stack.send("q0", "raise", "q2", "q3", program=ORDERED)
    dead = stack.dead_letter_queue(ORDERED)
    order: list[int] = []
    for _ in until(_FAILED_RECORD_SECONDS):
        called = [call.get("message_id") for call in stack.program_calls(ORDERED)]
        order = [sent.index(identifier) for identifier in called if identifier in sent]
        if {2, 3} <= set(order) and stack.count(dead) == 1:
            break
    fine = order == sorted(order) and set(order) == {0, 1, 2, 3} and stack.count(dead) == 1
    return fine, f"run in the order {order}; {stack.count(dead)} in the dead-letter queue"


def an_event_that_fails_for_good_is_kept(stack: Stack) -> Seen:
    """An asynchronous invocation that fails permanently is in the on-failure queue, with its event."""
    event = {"program": PROGRAM, "inputs": {"question": "raise"}}
    function = stack.outputs[f"{PROGRAM}FunctionName"]
    stack.client("lambda").invoke(FunctionName=function, InvocationType="Event", Payload=json.dumps(event).encode())
    for _ in until(180):
        received = stack.client("sqs").receive_message(
            QueueUrl=stack.outputs["OnFailureQueueUrl"], VisibilityTimeout=1, WaitTimeSeconds=5
        )
        for message in received.get("Messages", []):
            kept = json.loads(message["Body"])
            if kept.get("requestPayload") == event:
                return True, f"kept: {kept.get('requestContext', {}).get('condition')}"
    return False, "nothing in the on-failure queue after 3 minutes"


def what_is_queued_outlives_the_stack(stack: Stack) -> Seen:
    """After the stack is deleted, its dead-letter queue remains, with its records."""
    waiting = stack.count(stack.dead_letter_queue())
    return waiting > 0, f"{waiting} in the dead-letter queue"


def _counted(counts: tuple[int, int]) -> str:
    return f"{counts[0]} in the queue, {counts[1]} in the dead-letter queue"
