"""A call and its invocation in isolation, without telemetry and environment."""

import pytest

from dspy_lambda.call import Call
from dspy_lambda.errors import DeadlineExceeded, ProgramFailed, with_detail
from dspy_lambda.invocation import Invocation


class Listener:
    """Records the events that it receives."""

    def __init__(self):
        self.told = []

    def __getattr__(self, event):
        return lambda *about: self.told.append((event, *about))

    def events(self):
        return [event for event, *_ in self.told]


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def invocation(listener):
    return Invocation(listener, "direct", request_id="r")


def test_a_call_is_settled_and_reported_once(invocation, listener):
    call = invocation.call("Echo")
    assert call.succeed(b"{}") is True
    assert call.fail(DeadlineExceeded("late")) is False
    assert (call.outcome, call.outputs, call.written) == ("success", b"{}", True)
    assert listener.told == [("settled", call, None)]


def test_a_failed_call_passes_its_cause_to_the_listener(invocation, listener):
    raised = ValueError("x")
    call = invocation.call("Echo")
    call.fail(raised)
    assert call.outcome == "program_error"
    assert listener.told == [("settled", call, raised)]


def test_a_callers_mistake_has_no_cause_besides_its_outcome(invocation, listener):
    call = invocation.call("Echo")
    call.fail(DeadlineExceeded("late"))
    assert listener.told == [("settled", call, None)]


def test_a_call_is_settled_even_if_its_listener_fails(invocation, listener):
    def settled(*_):
        raise OSError("nobody reads it")

    listener.settled = settled
    call = invocation.call("Echo")
    with pytest.raises(OSError, match="nobody reads it"):
        call.succeed(b"{}")
    assert (call.settled, call.written, call.outcome) == (True, True, "success")


def test_an_error_is_explained_before_its_caller_gets_it(listener):
    invocation = Invocation(
        listener, "direct", request_id="r", explain=lambda error, cause: with_detail(error, f"because {cause}")
    )
    call = invocation.call("Echo")
    call.fail(ValueError("x"))
    assert call.error.detail == "because x"
    assert type(call.error) is ProgramFailed


def test_an_answer_after_its_call_is_reported_to_the_listener(invocation, listener):
    call = invocation.call("Echo")
    call.succeed(b"{}")
    call.usage.add({"usage": {"prompt_tokens": 7}})
    (event, about, answer) = listener.told[-1]
    assert (event, about, answer.input_tokens) == ("answered_late", call, 7)
    assert call.usage.input_tokens == 0


def test_an_invocation_is_opened_and_closed_and_knows_when_it_is_over(invocation, listener):
    with invocation:
        assert not invocation.over
    assert invocation.over
    assert listener.events() == ["opened", "closed"]


def test_a_position_has_one_call_whichever_thread_creates_it(invocation):
    first = invocation.call("Echo", position=3)
    assert invocation.call("Other", position=3) is first
    assert invocation.call("Echo") is not first


def test_the_main_thread_answers_half_way_between_the_deadline_and_the_end(listener):
    invocation = Invocation(listener, "direct", request_id="r", deadline=100.0, closes=101.0)
    assert invocation.answer_by == 100.5


@pytest.mark.parametrize(
    ("correlation_id", "message_id", "found"), [("c", "m", "c"), (None, "m", "m"), (None, None, "r")]
)
def test_the_correlation_id_is_the_most_precise_id_available(listener, correlation_id, message_id, found):
    invocation = Invocation(listener, "sqs", request_id="r", correlation_id=correlation_id)
    ids = Call(invocation, "Echo", None, message_id).ids()
    assert (ids["function_request_id"], ids["correlation_id"]) == ("r", found)
    assert ids.get("message_id") == message_id
