import asyncio
import contextlib
import subprocess
import sys

import dspy
import pytest

from dspy_lambda.errors import RateLimited
from dspy_lambda.patterns import Limits, TooFewAnswers, fan_out, map_inputs, retry
from tests.support import PATIENCE_SECONDS, Context, failures, sqs

PROGRAMS = """
import asyncio
from dspy_lambda.patterns import Limits, fan_out, map_inputs

class Views(dspy.Module):
    def __init__(self):
        super().__init__()
        self.views = {name: dspy.Predict("question -> answer") for name in "abc"}
        self.views["b"].set_lm(dspy.LM("openai/own", api_key="wrong", num_retries=0, cache=False))

    async def aforward(self, question: str, least: int = 2):
        views = (await fan_out(self.views, question=question)).require(least)
        return {"views": list(views.answers), "failures": {key: str(why) for key, why in views.failures.items()}}

class Late(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    async def aforward(self, question: str):
        async def quick(question):
            return "quick"
        views = await fan_out([quick, self.predict], Limits(reserve_seconds=60), question=question)
        return {"answers": views.answers, "failures": [str(why) for why in views.failures.values()]}

class Exits(dspy.Module):
    async def aforward(self, question: str):
        async def exits(question):
            raise SystemExit
        await fan_out([exits, self.waits], question=question)

    async def waits(self, question):
        await asyncio.Event().wait()
"""


async def never(**_):
    await asyncio.Event().wait()


def test_modules_get_the_same_inputs_and_answer_under_their_names(make_predict):
    views = asyncio.run(fan_out({"b": make_predict(), "a": make_predict()}, question="q"))
    assert {name: view.answer for name, view in views.answers.items()} == {"b": "m: q", "a": "m: q"}
    assert list(views.answers) == ["b", "a"]
    assert views.failures == {}


def test_one_failing_module_leaves_the_others_answers(make_predict, models):
    models.behave(key="right")
    views = asyncio.run(fan_out([make_predict(), make_predict("wrong"), make_predict()], question="q"))
    assert list(views.answers) == [0, 2]
    assert views.failures[1].kind == "model_error"
    assert views.failures[1].message == "The model's provider refused the key, the billing or the model."
    assert views.failures[1].exception_name == "LMAuthError"


def test_two_hundred_inputs_run_twenty_at_a_time(make_predict, models):
    async def run():
        predict, twenty = make_predict(), asyncio.Barrier(20)

        async def together(question):
            await asyncio.wait_for(twenty.wait(), PATIENCE_SECONDS)
            return (await predict.acall(question=question)).answer

        return await map_inputs(together, [{"question": f"q{n}"} for n in range(200)], Limits(parallel=20))

    assert list(asyncio.run(run()).answers.values()) == [f"m: q{n}" for n in range(200)]
    assert models.stats()["peak_in_flight"] <= 20


def test_inputs_may_have_names_and_be_examples(make_predict):
    examples = {"x": dspy.Example(question="q", answer="a").with_inputs("question").inputs()}
    assert asyncio.run(map_inputs(make_predict(), examples)).answers["x"].answer == "m: q"


def test_any_name_is_free_for_inputs(make_lm):
    predict = dspy.Predict("limits, modules -> answer")
    predict.set_lm(make_lm())
    assert asyncio.run(fan_out([predict], limits="l", modules="m")).answers[0].answer == "m: l"


def test_what_is_unfinished_at_the_deadline_is_canceled_and_described(make_predict, models):
    models.behave(hang_rate=1)

    async def quick(question):
        return question

    async def run():
        views = await fan_out([quick, make_predict(), quick], Limits(parallel=1, seconds=0.3), question="q")
        return views, len(asyncio.all_tasks())

    views, tasks = asyncio.run(run())
    assert views.answers == {0: "q"}
    assert [failure.message for failure in views.failures.values()] == [
        "It was still running at the deadline.",
        "The deadline passed before it could start.",
    ]
    assert {failure.kind for failure in views.failures.values()} == {"deadline"}
    assert tasks == 1


def test_an_answer_given_while_being_canceled_counts():
    async def stubborn():
        try:
            await never()
        except asyncio.CancelledError:
            return "last word"

    assert asyncio.run(fan_out([stubborn], Limits(seconds=0.01))).answers == {0: "last word"}


def test_a_call_that_ignores_its_cancellation_does_not_hold_up_the_fan_out():
    async def run():
        released = asyncio.Event()

        async def ignores():
            while not released.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await released.wait()

        views = await fan_out([ignores], Limits(seconds=0.01))
        released.set()
        return views

    assert asyncio.run(run()).failures[0].kind == "deadline"


def test_canceling_a_fan_out_cancels_its_calls():
    canceled = []

    async def notes():
        try:
            await never()
        except asyncio.CancelledError:
            canceled.append(True)
            raise

    async def run():
        task = asyncio.create_task(fan_out([notes] * 3))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert canceled == [True] * 3


@pytest.mark.parametrize("error", [asyncio.CancelledError, type("Panic", (BaseException,), {})])
def test_a_base_exception_of_one_call_is_its_failure(error):
    async def fails():
        raise error

    async def answers():
        return 1

    views = asyncio.run(fan_out([fails, answers]))
    assert views.answers == {1: 1}
    assert views.failures[0].message == f"It raised {error.__name__}."


def test_an_exit_ends_the_fan_out_and_its_other_calls():
    async def exits():
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        asyncio.run(fan_out([exits, never]))


def test_a_module_with_forward_only_runs_in_a_thread_with_the_context(make_lm):
    class Sync(dspy.Module):
        def __init__(self):
            super().__init__()
            self.predict = dspy.Predict("question -> answer")

        def forward(self, question):
            return self.predict(question=question).answer

    with dspy.context(lm=make_lm()):
        assert asyncio.run(fan_out([Sync(), Sync()], question="q")).answers == {0: "m: q", 1: "m: q"}


def test_nothing_gives_nothing():
    assert asyncio.run(fan_out([])).require().answers == {}


def test_a_rate_limit_is_retried(make_predict, limit_first, models):
    limit_first(2, retry_after_seconds=0)
    assert asyncio.run(retry(make_predict(), question="q")).answer == "m: q"
    assert models.stats()["requests"] == 3


def test_a_fan_out_retries_each_of_its_calls(make_predict, limit_first):
    limit_first(1, retry_after_seconds=0)
    assert asyncio.run(fan_out([make_predict()], Limits(attempts=2), question="q")).answers[0].answer == "m: q"


def test_a_retry_that_would_come_after_the_deadline_is_not_made(make_predict, models):
    models.behave(rate_limit_rate=1, retry_after_seconds=30)
    with pytest.raises(dspy.LMRateLimitError):
        asyncio.run(retry(make_predict(), Limits(attempts=5, seconds=20), question="q"))
    assert models.stats()["requests"] == 1


def test_an_error_that_lasts_is_not_retried(make_predict, models):
    models.behave(key="right")
    with pytest.raises(dspy.LMAuthError):
        asyncio.run(retry(make_predict("wrong"), question="q"))
    assert models.stats()["requests"] == 1


def test_too_few_answers_carry_what_the_calls_failed_with(make_predict, models):
    models.behave(rate_limit_rate=1, retry_after_seconds=30)
    with pytest.raises(TooFewAnswers, match="0 of 2 calls succeeded, 1 are required") as raised:
        asyncio.run(fan_out([make_predict(), make_predict()], question="q")).require(1)
    assert isinstance(raised.value.__cause__, RateLimited)


def test_in_a_call_one_failing_module_leaves_the_others_answers(make_project, make_serve, models, records):
    serve = make_serve(make_project({"programs": PROGRAMS}), OPENAI_API_KEY="right")
    models.behave(key="right")
    answer = serve({"program": "Views", "inputs": {"question": "q"}})
    assert answer["outputs"]["views"] == ["a", "c"]
    assert answer["outputs"]["failures"].keys() == {"b"}
    (call,) = records().calls
    assert (call["outcome"], call["lm_calls"]) == ("success", 2)


def test_in_a_call_too_few_answers_fail_as_the_calls_did(make_project, make_serve, models, records):
    serve = make_serve(make_project({"programs": PROGRAMS}), OPENAI_API_KEY="right")
    models.behave(key="right")
    batch = sqs({"program": "Views", "inputs": {"question": "q", "least": 3}})
    assert failures(serve(batch)) == ["m0"]
    (call,) = records().calls
    assert (call["outcome"], call["exception_name"]) == ("model_error", "TooFewAnswers")


def test_in_a_call_the_reserve_is_left_for_what_comes_after(make_project, make_serve, models):
    serve = make_serve(make_project({"programs": PROGRAMS}))
    models.behave(hang_rate=1)
    answer = serve({"program": "Late", "inputs": {"question": "q"}}, Context(1500))
    assert answer["outputs"] == {
        "answers": {"0": "quick"},
        "failures": ["deadline: It was still running at the deadline."],
    }


def test_in_a_call_an_exit_ends_only_that_call(make_project, make_serve):
    serve = make_serve(make_project({"programs": PROGRAMS}))
    batch = sqs({"program": "Exits", "inputs": {"question": "q"}}, {"program": "Views", "inputs": {"question": "q"}})
    assert failures(serve(batch)) == ["m0"]
    assert serve.environment.runner.loop.unfinished() == []


def test_importing_the_patterns_does_not_import_dspy():
    code = "import dspy_lambda.patterns, sys; print([name for name in ('dspy', 'pydantic') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
