"""The ground that `dspy_lambda.dspy_patches` stands on: a new DSPy that changes it fails here."""

import asyncio
import copy
import functools
import importlib
import inspect
import re
import threading
from operator import attrgetter

import dspy
import pytest
from dspy.clients import capabilities, costs, model_metadata

from dspy_lambda import dspy_patches
from tests.support import AECHO, failures, sqs


def threads_of(serve):
    """How many threads the loop's executor has started."""
    return serve.environment.loop.threads._count


BATCH = sqs(*({"question": f"q{n}"} for n in range(20)))


@pytest.mark.parametrize(("module", "name"), sorted(dspy_patches._PURE | {dspy_patches._TARGET}))
def test_what_is_run_on_the_loop_is_still_there_and_still_a_plain_function(module, name):
    function = attrgetter(name)(importlib.import_module(module))
    assert callable(function)
    assert not asyncio.iscoroutinefunction(function)


def test_an_async_call_needs_no_thread(make_project, make_serve):
    serve = make_serve(make_project({"aecho": AECHO}))
    assert failures(serve(BATCH)) == []
    assert threads_of(serve) == 0


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
    serve = make_serve(make_project({"aecho": AECHO}))
    serve(BATCH)
    assert costs.model_info is capabilities.model_info
    remembered = costs.model_info("openai", "gpt-4.1-nano")
    before, misses = copy.deepcopy(remembered), costs.model_info.cache_info().misses
    serve(BATCH)
    assert remembered == before == model_metadata.model_info("openai", "gpt-4.1-nano")
    assert costs.model_info.cache_info().misses == misses


def test_anything_else_still_runs_in_a_thread(make_project, make_serve):
    loop = make_serve(make_project({"aecho": AECHO})).environment.loop

    async def threads():
        name = await asyncio.to_thread(lambda: threading.current_thread().name)
        other = await loop.run_in_executor(None, functools.partial(threading.current_thread))
        return name, other.name

    assert all(name.startswith("asyncio_") for name in loop.run_until_complete(threads()))


def test_what_fails_on_the_loop_fails_its_call(make_project, make_serve, records):
    serve = make_serve(make_project({"aecho": AECHO}))
    for lm in serve.environment.dispatcher.models.values():
        lm.kwargs["n"] = -1  # refused by `prepare`, which runs on the loop
    assert failures(serve(sqs({"question": "q"}))) == ["m0"]
    (call,) = records().calls
    assert (call["outcome"], call["exception_name"]) == ("program_error", "ValueError")


def test_a_missing_optional_package_still_names_its_place_without_a_search_for_sources():
    from dspy.utils.lazy_import import require

    with dspy_patches.quick_stacks():
        missing = require("no_package_of_that_name")
        assert inspect.stack()[0].code_context is None
    assert inspect.stack()[0].code_context is not None
    with pytest.raises(ImportError, match=r"no_package_of_that_name[\s\S]*test_dspy_patches\.py"):
        missing.anything  # noqa: B018


def test_dspy_still_asks_for_the_stack_of_each_missing_package():
    """When it no longer does, `quick_stacks` has nothing left to do."""
    from dspy.utils import lazy_import

    assert "inspect.stack()" in inspect.getsource(lazy_import.require)


@pytest.mark.parametrize(
    ("model", "is_known"),
    [
        ("openai/gpt-4.1-nano", True),
        ("anthropic/claude-sonnet-4-5", True),
        ("bedrock/us.amazon.nova-lite-v1:0", True),  # through LiteLLM
        ("openai/our-own", False),
        ("mistral/our-own", False),
    ],
)
def test_whether_a_models_price_is_known(model, is_known):
    assert dspy_patches.has_price(dspy.LM(model)) == is_known


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


def test_parallel_uses_of_its_bars_what_stands_in_for_them():
    from dspy.utils import parallelizer

    source = inspect.getsource(parallelizer)
    used = set(re.findall(r"(?:pbar|tqdm\.tqdm)\.(\w+)", source))
    assert used == {"_instances", "close", "set_description", "update"}
    assert all(hasattr(dspy_patches._NoBar, name) for name in used)
