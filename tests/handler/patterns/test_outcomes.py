import pytest

from dspy_lambda.errors import ModelUnavailable, ProgramFailed, RateLimited, from_exception
from dspy_lambda.patterns import Failure, Outcomes, TooFewAnswers
from dspy_lambda.patterns.outcomes import Tally


def failed(error):
    try:
        raise error
    except BaseException as raised:
        return Failure.of(raised)


LIMITED, BROKEN = failed(RateLimited("Too fast.")), failed(KeyError("secret"))


def test_a_failure_names_the_exception_and_its_place_but_not_its_text():
    assert (BROKEN.kind, BROKEN.message, BROKEN.exception_name) == ("program_error", "It raised KeyError.", "KeyError")
    assert BROKEN.stack[-1].endswith(" failed")
    assert "secret" not in repr(BROKEN) + str(BROKEN)


def test_a_failure_keeps_the_message_of_an_error_that_has_a_safe_one():
    assert str(failed(ModelUnavailable("No answer."))) == "model_error: No answer."


def test_outcomes_are_in_the_order_of_the_calls_and_tell_running_from_waiting_ones():
    tally = Tally("abcd")
    for key in "cab":
        tally.start(key)
    tally.answer("c", 3)
    tally.answer("a", 1)
    outcomes = tally.outcomes()
    assert list(outcomes.answers.items()) == [("a", 1), ("c", 3)]
    assert {key: str(failure) for key, failure in outcomes.failures.items()} == {
        "b": "deadline: It was still running at the deadline.",
        "d": "deadline: The deadline passed before it could start.",
    }


def test_what_ends_late_does_not_change_the_outcomes():
    tally = Tally("a")
    outcomes = tally.outcomes()
    tally.answer("a", 1)
    assert outcomes.answers == {}
    assert set(outcomes.failures) == {"a"}


def test_enough_answers_satisfy_a_requirement():
    outcomes = Outcomes({"a": 1, "b": 2}, {"c": BROKEN})
    assert outcomes.require(2) is outcomes
    assert Outcomes({"a": 1}, {}).require().answers == {"a": 1}


def test_too_few_answers_name_the_failures():
    outcomes = Outcomes({"a": 1, "b": 2}, {"c": BROKEN, "d": LIMITED})
    with pytest.raises(TooFewAnswers) as raised:
        outcomes.require(3)
    assert str(raised.value) == (
        "2 of 4 calls succeeded, 3 are required. c: program_error: It raised KeyError.; d: rate_limited: Too fast."
    )
    with pytest.raises(TooFewAnswers, match="2 of 4 calls succeeded, 4 are required"):
        outcomes.require()


def test_an_error_names_ten_failures_at_most():
    with pytest.raises(TooFewAnswers) as raised:
        Outcomes({}, dict.fromkeys(range(200), BROKEN)).require(1)
    assert str(raised.value).count("KeyError") == 10
    assert str(raised.value).endswith("; and 190 more")


def test_too_few_answers_are_transient_if_transient_failures_could_make_up_for_it():
    outcomes = Outcomes({"a": 1}, {"b": BROKEN, "c": LIMITED})
    for least, kind in ((2, RateLimited), (3, ProgramFailed)):
        with pytest.raises(TooFewAnswers) as raised:
            outcomes.require(least)
        assert type(from_exception(raised.value)) is kind


def test_more_answers_than_there_are_calls_cannot_be_had():
    with pytest.raises(TooFewAnswers, match="1 of 1 calls succeeded, 2 are required"):
        Outcomes({"a": 1}, {}).require(2)
