"""What takes the place of DSPy's own functions: that it is used, and changes no answer."""

import asyncio
import copy
import functools
import threading

import dspy
import pytest
from dspy.clients import capabilities, costs, model_metadata

from dspy_lambda.dspy_patches import replacements
from tests.support import AECHO, failures, sqs


def threads_of(serve):
    """How many threads the loop's executor has started."""
    return serve.environment.loop.threads._count


FAST = {"DSPY_LAMBDA_FAST": "true"}  # whatever the rest of the run has
BATCH = sqs(*({"question": f"q{n}"} for n in range(20)))


def test_an_async_call_needs_no_thread(make_project, make_serve):
    serve = make_serve(make_project({"aecho": AECHO}), **FAST)
    assert failures(serve(BATCH)) == []
    assert threads_of(serve) == 0


CACHING = {"default": "m", "registry": {"m": {"model": "openai/m", "env": "OPENAI_API_KEY", "cache": True}}}


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_cache_on_disk_which_a_project_turns_on_is_not_waited_for_on_the_loop(
    make_project, make_serve, monkeypatch, tmp_path, on_disk
):
    monkeypatch.setattr(dspy, "cache", dspy.cache)  # put back at the end
    turn_on = f"dspy.configure_cache(enable_disk_cache={on_disk}, disk_cache_dir={str(tmp_path / 'cache')!r})\n"
    serve = make_serve(make_project({"aecho": turn_on + AECHO}, models=CACHING), **FAST)
    assert failures(serve(BATCH)) == []
    assert (threads_of(serve) > 0) == on_disk


def test_it_can_be_switched_off(make_project, make_serve, records):
    answers = []
    for value in ("false", "true"):
        serve = make_serve(make_project({"aecho": AECHO}), DSPY_LAMBDA_FAST=value)
        assert failures(serve(BATCH)) == []
        calls = sorted(records().calls, key=lambda call: call["message_id"])
        answers.append([(call["message_id"], call["input_tokens"], call["cost_usd"]) for call in calls])
        assert (threads_of(serve) == 0) == (value == "true")
    assert answers[0] == answers[1]


def test_prices_are_looked_up_once_and_never_changed(make_project, make_serve):
    serve = make_serve(make_project({"aecho": AECHO}), **FAST)
    serve(BATCH)
    assert costs.model_info is capabilities.model_info
    remembered = costs.model_info("openai", "gpt-4.1-nano")
    before, misses = copy.deepcopy(remembered), costs.model_info.cache_info().misses
    serve(BATCH)
    assert remembered == before == model_metadata.model_info("openai", "gpt-4.1-nano")
    assert costs.model_info.cache_info().misses == misses


def test_anything_else_still_runs_in_a_thread(make_project, make_serve):
    loop = make_serve(make_project({"aecho": AECHO}), **FAST).environment.loop

    async def threads():
        name = await asyncio.to_thread(lambda: threading.current_thread().name)
        other = await loop.run_in_executor(None, functools.partial(threading.current_thread))
        return name, other.name

    assert all(name.startswith("asyncio_") for name in loop.run_until_complete(threads()))


def test_what_fails_on_the_loop_fails_its_call(make_project, make_serve, records):
    serve = make_serve(make_project({"aecho": AECHO}), **FAST)
    for lm in serve.environment.dispatcher.models.values():
        lm.kwargs["n"] = -1  # refused by `prepare`, which runs on the loop
    assert failures(serve(sqs({"question": "q"}))) == ["m0"]
    (call,) = records().calls
    assert (call["outcome"], call["exception_name"]) == ("program_error", "ValueError")


PARALLEL = """
class Several(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    def forward(self, question: str) -> list[str]:
        pairs = [(self.predict, {"question": f"{question}{n}"}) for n in range(5)]
        return [answer.answer for answer in dspy.Parallel(num_threads=2)(pairs)]
"""


def test_parallel_calls_show_no_bars_and_do_not_fail_over_them(make_project, make_serve, capfd):
    serve = make_serve(make_project({"several": PARALLEL}))
    assert failures(serve(BATCH)) == []
    assert "it/s" not in "".join(capfd.readouterr())


def test_the_stand_in_for_a_bar_takes_whatever_parallel_asks_of_it():
    bar = replacements._NoBar(total=3, disable=False)
    assert bar.set_description("x") is bar.update() is bar.close() is bar.anything_new(1, n=2) is None
    replacements._NoBar._instances.clear()
