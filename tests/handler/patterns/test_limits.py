import time

import dspy
import pytest

from dspy_lambda.deadline import DEADLINE, seconds_left
from dspy_lambda.errors import ModelUnavailable, RateLimited
from dspy_lambda.patterns import Limits


@pytest.fixture
def call_deadline():
    """The deadline of a call that ends in a minute."""
    deadline = time.monotonic() + 60
    DEADLINE.set(deadline)
    yield deadline
    DEADLINE.set(None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"parallel": 0}, "parallel must be positive, not 0"),
        ({"seconds": -1.0}, r"seconds must be positive, not -1\.0"),
        ({"attempts": 0}, "attempts must be positive, not 0"),
        ({"reserve_seconds": -1}, "reserve_seconds must not be negative: -1"),
    ],
)
def test_a_limit_that_allows_nothing_is_refused(values, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Limits(**values)


def test_limits_end_before_the_calls_deadline_by_their_reserve(call_deadline):
    with Limits(reserve_seconds=10).applied():
        assert DEADLINE.get() == call_deadline - 10
        with Limits(reserve_seconds=5).applied():
            assert DEADLINE.get() == call_deadline - 15
    assert DEADLINE.get() == call_deadline


def test_a_reserve_takes_at_most_half_of_the_time_left(call_deadline):
    with Limits(reserve_seconds=3600).applied():
        assert call_deadline - 30 <= DEADLINE.get() < call_deadline - 29


def test_limits_end_after_their_seconds_or_with_the_call(call_deadline):
    with Limits(seconds=20).applied():
        assert 0 < seconds_left() <= 20
    with Limits(seconds=3600, reserve_seconds=0).applied():
        assert DEADLINE.get() == call_deadline


def test_without_a_call_and_seconds_there_is_no_deadline():
    with Limits().applied():
        assert seconds_left() is None


def test_a_deadline_comes_back_after_an_error(call_deadline):
    with pytest.raises(KeyError), Limits(seconds=1).applied():
        raise KeyError
    assert DEADLINE.get() == call_deadline


def test_transient_errors_are_tried_again_after_the_pause_that_the_provider_names():
    assert Limits(attempts=2).pause_after(1, RateLimited("", retry_after=7)) == 7
    assert 0 <= Limits(attempts=9).pause_after(8, RateLimited("")) < 60


@pytest.mark.parametrize(
    "error",
    [KeyError(), ModelUnavailable("", temporary=False), RateLimited("", retry_after=3600), dspy.LMAuthError("")],
    ids=repr,
)
def test_lasting_errors_and_hours_of_pauses_are_not_retried(error):
    assert Limits(attempts=2).pause_after(1, error) is None


def test_there_are_no_more_attempts_than_allowed():
    assert Limits().pause_after(1, RateLimited("", retry_after=0)) is None
    assert Limits(attempts=3).pause_after(3, RateLimited("", retry_after=0)) is None


def test_a_pause_beyond_the_deadline_is_not_made(call_deadline):
    limits = Limits(attempts=2, seconds=5)
    with limits.applied():
        assert limits.pause_after(1, RateLimited("", retry_after=6)) is None
        assert limits.pause_after(1, RateLimited("", retry_after=1)) == 1
