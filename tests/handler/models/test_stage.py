import dspy
import pytest
from dspy.utils import exceptions as lm

from dspy_lambda.errors import DeadlineExceeded
from dspy_lambda.models.stage import ContentFiltered, Stage, reason_of

ALL = ("rate_limit", "outage", "timeout", "context_window", "content_filter")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (lm.LMRateLimitError("x"), "rate_limit"),
        (lm.LMServerError("x"), "outage"),
        (lm.LMTransportError("x"), "outage"),
        (lm.LMStreamAssemblyError("x"), "outage"),
        (lm.LMProviderError("x", status=200), "outage"),
        (lm.LMProviderError("x", status=404), None),
        (lm.LMTimeoutError("x"), "timeout"),
        (DeadlineExceeded("x"), "timeout"),
        (lm.ContextWindowExceededError(), "context_window"),
        (ContentFiltered("x"), "content_filter"),
        (lm.LMInvalidRequestError("x", provider_code="content_policy_violation"), "content_filter"),
        (lm.LMInvalidRequestError("x", provider_code="ResponsibleAIPolicyViolation"), "content_filter"),
        (lm.LMInvalidRequestError("x"), None),
        (lm.LMAuthError("x"), None),
        (lm.LMBillingError("x"), None),
        (lm.LMUnsupportedModelError("x"), None),
        (ValueError("x"), None),
    ],
)
def test_the_reason_of_a_failure(error, reason):
    assert reason_of(error) == reason


def test_nothing_is_a_reason_once_a_call_cannot_go_on():
    stage = Stage(ALL, lambda: False)
    assert stage.reason(lm.LMRateLimitError("x")) is None
    stage.check_answer({"response": {"choices": [{"finish_reason": "content_filter"}]}})


@pytest.mark.parametrize(
    ("error", "asked", "skips"),
    [
        (lm.LMRateLimitError("x"), 0.0, True),
        (lm.LMServerError("x"), 0.0, False),
        (lm.LMServerError("x"), 1.0, False),
        (lm.LMServerError("x"), 1.1, True),  # a Retry-After longer than the usual pause
        (lm.LMAuthError("x"), 9.0, False),
    ],
)
def test_a_rate_limit_and_a_long_retry_after_are_not_waited_for(error, asked, skips):
    assert Stage(ALL, lambda: True).skips_pause(error, asked, 1.0) == skips
    assert not Stage((), lambda: True).skips_pause(error, asked, 1.0)


def response(reason):
    return dspy.lm15.Response(
        id="r", model="m", message=dspy.lm15.Message.assistant("text"), finish_reason=reason, usage=dspy.lm15.Usage()
    )


@pytest.mark.parametrize(
    "filtered",
    [
        response("content_filter"),
        (response("stop"), response("content_filter")),  # several candidates
        {"choices": [{"finish_reason": "stop"}, {"finish_reason": "content_filter"}]},  # of LiteLLM
    ],
)
def test_a_filtered_answer_of_any_engine_is_refused_unless_that_is_switched_off(filtered):
    with pytest.raises(ContentFiltered):
        Stage(ALL, lambda: True).check_answer({"response": filtered})
    Stage(("outage",), lambda: True).check_answer({"response": filtered})


@pytest.mark.parametrize("answer", [response("stop"), (response("stop"),), {"choices": []}, None, "text"])
def test_other_answers_are_kept(answer):
    Stage(ALL, lambda: True).check_answer({"response": answer})
