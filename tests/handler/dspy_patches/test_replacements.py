"""Replacements of DSPy's functions are used, and do not change any answer."""

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


FAST = {"DSPY_LAMBDA_FAST": "true"}  # whatever the rest of the test run uses
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


def test_the_patches_for_speed_can_be_switched_off(make_project, make_serve, records):
    answers = []
    for value in ("false", "true"):
        serve = make_serve(make_project({"aecho": AECHO}), DSPY_LAMBDA_FAST=value)
        assert failures(serve(BATCH)) == []
        calls = sorted(records().calls, key=lambda call: call["message_id"])
        answers.append([(call["message_id"], call["input_tokens"], call["cost_usd"]) for call in calls])
        assert (threads_of(serve) == 0) == (value == "true")
    assert answers[0] == answers[1]


def test_prices_are_looked_up_once_and_not_modified(make_project, make_serve):
    serve = make_serve(make_project({"aecho": AECHO}), **FAST)
    serve(BATCH)
    lookup = costs.model_info.__wrapped__  # within that of Bedrock's names
    assert lookup is capabilities.model_info
    remembered = lookup("openai", "gpt-4.1-nano")
    before, misses = copy.deepcopy(remembered), lookup.cache_info().misses
    serve(BATCH)
    assert remembered == before == model_metadata.model_info("openai", "gpt-4.1-nano")
    assert lookup.cache_info().misses == misses


def test_other_functions_still_run_in_a_thread(make_project, make_serve):
    loop = make_serve(make_project({"aecho": AECHO}), **FAST).environment.loop

    async def threads():
        name = await asyncio.to_thread(lambda: threading.current_thread().name)
        other = await loop.run_in_executor(None, functools.partial(threading.current_thread))
        return name, other.name

    assert all(name.startswith("asyncio_") for name in loop.run_until_complete(threads()))


def test_an_exception_on_the_loop_fails_its_call(make_project, make_serve, records):
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


def test_concurrent_parallel_calls_show_no_progress_bars_and_do_not_fail(make_project, make_serve, capfd):
    serve = make_serve(make_project({"several": PARALLEL}))
    assert failures(serve(BATCH)) == []
    assert "it/s" not in "".join(capfd.readouterr())


def test_the_replacement_bar_accepts_every_call_of_parallel():
    bar = replacements._NoBar(total=3, disable=False)
    assert bar.set_description("x") is bar.update() is bar.close() is bar.anything_new(1, n=2) is None
    replacements._NoBar._instances.clear()
