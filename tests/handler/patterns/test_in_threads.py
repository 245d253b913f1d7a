import threading

import dspy
import pytest

from dspy_lambda.patterns import Limits, fan_out_sync, map_inputs_sync, retry_sync
from tests.support import PATIENCE_SECONDS, Context, failures, sqs, wait_until

PROGRAMS = """
from dspy_lambda.patterns import Limits, fan_out_sync, map_inputs_sync

class Views(dspy.Module):
    def __init__(self):
        super().__init__()
        self.views = {name: dspy.Predict("question -> answer") for name in "abc"}
        self.views["b"].set_lm(dspy.LM("openai/own", api_key="wrong", num_retries=0, cache=False))

    def forward(self, question: str):
        views = fan_out_sync(self.views, question=question).require(2)
        return {"views": list(views.answers), "failures": {key: str(why) for key, why in views.failures.items()}}

class Late(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    def forward(self, question: str):
        views = map_inputs_sync(self.predict, [{"question": question}] * 3, Limits(parallel=2, reserve_seconds=60))
        return {"failures": [str(why) for why in views.failures.values()]}

class Once(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    def forward(self, question: str):
        return self.predict(question=question)
"""


@pytest.fixture
def release():
    """Ends the threads that wait for it, at the latest with the test."""
    event = threading.Event()
    yield event
    event.set()


def fan_out_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("fan-out")]


def test_modules_run_with_the_callers_context(make_lm):
    views = {"b": dspy.Predict("question -> answer"), "a": dspy.ChainOfThought("question -> answer")}
    with dspy.context(lm=make_lm()):
        found = fan_out_sync(views, question="q")
    assert {name: view.answer for name, view in found.answers.items()} == {"b": "m: q", "a": "m: q"}
    assert list(found.answers) == ["b", "a"]


def test_one_failing_module_leaves_the_others_answers(make_predict, models):
    models.behave(key="right")
    views = fan_out_sync([make_predict(), make_predict("wrong"), make_predict()], question="q")
    assert list(views.answers) == [0, 2]
    assert str(views.failures[1]) == "model_error: The model's provider refused the key, the billing or the model."


def test_two_hundred_inputs_run_twenty_at_a_time(make_predict, models):
    predict, twenty = make_predict(), threading.Barrier(20, timeout=PATIENCE_SECONDS)

    def together(question):
        twenty.wait()
        return predict(question=question).answer

    found = map_inputs_sync(together, [{"question": f"q{n}"} for n in range(200)], Limits(parallel=20))
    assert list(found.answers.values()) == [f"m: q{n}" for n in range(200)]
    assert models.stats()["peak_in_flight"] <= 20


def test_threads_end_with_their_fan_out(make_predict):
    fan_out_sync([make_predict()] * 5, question="q")
    wait_until(lambda: not fan_out_threads())


def test_what_is_unfinished_at_the_deadline_is_abandoned_and_described(release):
    def quick():
        return 1

    found = fan_out_sync([quick, release.wait, quick], Limits(parallel=1, seconds=0.2))
    assert found.answers == {0: 1}
    assert [failure.message for failure in found.failures.values()] == [
        "It was still running at the deadline.",
        "The deadline passed before it could start.",
    ]
    release.set()
    wait_until(lambda: not fan_out_threads())
    assert set(found.failures) == {1, 2}


def test_abandoned_threads_do_not_keep_python_from_exiting(release):
    fan_out_sync([release.wait], Limits(seconds=0.01))
    assert all(thread.daemon for thread in fan_out_threads())


def test_an_exit_or_an_interrupt_ends_the_fan_out(release):
    for kind in (SystemExit, KeyboardInterrupt):

        def ends(kind=kind):
            raise kind

        with pytest.raises(kind):
            fan_out_sync([ends, release.wait])


@pytest.mark.parametrize("error", [StopIteration, type("Panic", (BaseException,), {})])
def test_any_other_base_exception_of_one_call_is_its_failure(error):
    def fails():
        raise error

    assert fan_out_sync([fails]).failures[0].message == f"It raised {error.__name__}."


def test_nothing_gives_nothing():
    assert fan_out_sync([]).require().answers == {}


def test_a_rate_limit_is_retried(make_predict, limit_first, models):
    limit_first(2, retry_after_seconds=0)
    assert retry_sync(make_predict(), question="q").answer == "m: q"
    assert models.stats()["requests"] == 3


def test_a_retry_that_would_come_after_the_deadline_is_not_made(make_predict, models):
    models.behave(rate_limit_rate=1, retry_after_seconds=30)
    with pytest.raises(dspy.LMRateLimitError):
        retry_sync(make_predict(), Limits(attempts=5, seconds=20), question="q")
    assert models.stats()["requests"] == 1


def test_in_a_call_one_failing_module_leaves_the_others_answers(make_project, make_serve, models, records):
    serve = make_serve(make_project({"programs": PROGRAMS}), OPENAI_API_KEY="right")
    models.behave(key="right")
    answer = serve({"program": "Views", "inputs": {"question": "q"}})
    assert answer["outputs"]["views"] == ["a", "c"]
    assert answer["outputs"]["failures"].keys() == {"b"}
    (call,) = records().calls
    assert (call["outcome"], call["lm_calls"]) == ("success", 2)


def test_in_a_call_no_thread_outlives_the_limits_and_the_next_call_is_answered(make_project, make_serve, models):
    serve = make_serve(make_project({"programs": PROGRAMS}))
    models.behave(hang_rate=1)
    answer = serve({"program": "Late", "inputs": {"question": "q"}}, Context(1500))
    assert len(answer["outputs"]["failures"]) == 3
    assert all(failure.startswith("deadline: ") for failure in answer["outputs"]["failures"])
    wait_until(lambda: not fan_out_threads())  # their requests would hang for ten minutes
    models.behave()
    assert failures(serve(sqs({"program": "Once", "inputs": {"question": "next"}}))) == []
    assert models.stats()["requests"] == 1
