import asyncio
import json
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_lambda.config import ModelSettings
from dspy_lambda.errors import DeadlineExceeded, Overloaded
from dspy_lambda.limits import ModelLimit, ProcessLimitReached
from tests.support import AECHO, ECHO, Context, failures, problem, sqs


def limit(**settings_) -> ModelLimit:
    return ModelLimit(ModelSettings(model="m", **settings_))


def with_models(**settings_):
    registry = {"fast": {"model": "openai/gpt-4.1-nano", "env": "OPENAI_API_KEY", "cache": False, **settings_}}
    return {"models": {"default": "fast", "registry": registry}}


@pytest.mark.parametrize("name", ["Echo", "AEcho"])
def test_parallel_requests_are_held_over_all_programs_of_a_model(make_project, make_serve, models, name):
    serve = make_serve(make_project({"echo": ECHO, "aecho": AECHO}, **with_models(max_parallel_requests=3)))
    models.behave(delay_seconds=0.02)
    both = [{"program": p, "inputs": {"question": "q"}} for p in (name, "AEcho")] * 10
    assert failures(serve(sqs(*both))) == []
    assert models.stats()["peak_in_flight"] == 3


def test_threads_and_the_loop_are_served_in_the_order_they_came():
    slots, order = limit(max_parallel_requests=1), []

    def in_thread(number):
        with slots.slot(None):
            order.append(number)

    async def on_loop(number):
        async with slots.aslot(None):
            order.append(number)

    async def run():
        async with slots.aslot(None):
            waiting = []
            for number in range(8):
                if number % 2:
                    waiting.append(asyncio.create_task(on_loop(number)))
                else:
                    waiting.append(asyncio.create_task(asyncio.to_thread(in_thread, number)))
                while len(slots._waiting) < number + 1:
                    await asyncio.sleep(0.001)
        await asyncio.gather(*waiting)

    asyncio.run(run())
    assert order == list(range(8))


def test_whoever_gives_up_waiting_leaves_the_queue():
    slots = limit(max_parallel_requests=1)

    async def run():
        async with slots.aslot(None):
            waiting = asyncio.create_task(slots.aslot(None).__aenter__())
            await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            with pytest.raises(DeadlineExceeded):
                await asyncio.to_thread(slots.slot(time.monotonic() + 0.02).__enter__)
        async with asyncio.timeout(60), slots.aslot(None):
            pass

    asyncio.run(run())
    assert slots._free == 1


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(["ok", "raise", "cancel", "thread", "late"]), min_size=1, max_size=20), st.integers(1, 3)
)
def test_slots_are_never_lost_and_never_exceeded(kinds, most):
    slots, lock = limit(max_parallel_requests=most), threading.Lock()
    state = {"now": 0, "peak": 0}

    def change(by):
        with lock:
            state["now"] += by
            state["peak"] = max(state["peak"], state["now"])

    def in_thread(deadline):
        with slots.slot(deadline):
            change(1)
            time.sleep(0.001)
            change(-1)

    async def use(kind):
        if kind in ("thread", "late"):
            await asyncio.to_thread(in_thread, None if kind == "thread" else time.monotonic() + 0.0005)
            return
        async with slots.aslot(None):
            change(1)
            try:
                await asyncio.sleep(0.001)
                if kind == "raise":
                    raise ValueError
            finally:
                change(-1)

    async def run():
        tasks = [asyncio.create_task(use(kind)) for kind in kinds]
        await asyncio.sleep(0)
        for task, kind in zip(tasks, kinds, strict=True):
            if kind == "cancel":
                task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)

    asyncio.run(run())
    assert slots._free == most
    assert not slots._waiting
    assert state["peak"] <= most


def test_requests_a_minute_are_spread_and_what_cannot_wait_is_a_rate_limit(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("dspy_lambda.limits.time.monotonic", lambda: now[0])
    slots = limit(requests_per_minute=3)
    assert [slots._pause(None) for _ in range(3)] == [0, 0, 0]
    now[0] += 10
    assert [slots._pause(None) for _ in range(3)] == [50, 50, 50]
    with pytest.raises(ProcessLimitReached) as error:
        slots._pause(now[0] + 60)
    assert error.value.retry_after == 110
    now[0] += 111
    assert slots._pause(now[0] + 1) == 0


@pytest.mark.parametrize(("used", "waits"), [((99,), 0), ((100,), 60), ((60, 40), 60), ((41, 60, 40), 61)])
def test_a_call_waits_while_the_tokens_of_the_last_minute_reach_the_limit(monkeypatch, used, waits):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    slots = limit(tokens_per_minute=100)
    for tokens in used:
        slots.spent(tokens)
        now += 1
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    assert slots._pause(None) == waits


def test_a_slot_that_is_granted_while_its_waiter_gives_up_goes_to_the_next_one():
    slots = limit(max_parallel_requests=1)
    _, generation = slots._enter()
    first, _ = slots._enter()
    slots._release(generation)  # grants it to the first in the queue, which has just stopped waiting
    slots._leave(first, generation)
    assert slots._enter()[0] is None


def test_a_thread_whose_deadline_has_passed_does_not_wait_for_a_slot():
    slots = limit(max_parallel_requests=1)
    slots._enter()
    waited = []
    queued, generation = slots._enter()
    queued.result = lambda timeout: waited.append(timeout) or (_ for _ in ()).throw(TimeoutError)
    with pytest.raises(DeadlineExceeded, match=r"^The deadline came before a slot at the model\.$"):
        slots._granted(queued, generation, time.monotonic() - 1)
    assert waited == [0.0]
    assert not slots._waiting


def test_tokens_a_minute_wait_for_old_ones_to_pass(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("dspy_lambda.limits.time.monotonic", lambda: now[0])
    slots = limit(tokens_per_minute=100)
    slots.spent(60)
    now[0] += 20
    assert slots._pause(None) == 0
    slots.spent(60)
    assert slots._pause(None) == 40
    now[0] += 41
    assert slots._pause(None) == 0


@pytest.mark.parametrize("program", ["Echo", "AEcho"])
def test_a_used_up_minute_is_a_429_of_this_process_with_retry_after(make_project, make_serve, models, records, program):
    serve = make_serve(make_project({"echo": ECHO, "aecho": AECHO}, **with_models(requests_per_minute=2)))
    answers = [serve.post(f"/{program}", {"question": "q"}) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert 50 <= int(dict(answers[2].headers)["retry-after"]) <= 60
    assert models.stats()["requests"] == 2
    assert problem(answers[2])["title"] == "Overloaded"
    assert "provider" not in problem(answers[2])["detail"]
    assert records().calls[2]["outcome"] == "overloaded"
    with pytest.raises(Overloaded):
        serve({"program": program, "inputs": {"question": "q"}})


@pytest.mark.parametrize("program", ["Echo", "AEcho"])
def test_an_answer_from_the_cache_uses_up_no_limit(make_project, make_serve, models, records, program):
    limits = with_models(requests_per_minute=2, max_parallel_requests=1, cache=True)
    serve = make_serve(make_project({"echo": ECHO, "aecho": AECHO}, **limits))
    question = f"the same one of {program}, at {time.time()}"  # DSPy's cache outlives a test
    answers = [serve.post(f"/{program}", {"question": question}).status for _ in range(5)]
    assert answers == [200] * 5
    assert models.stats()["requests"] == 1
    assert [call["cache_hits"] for call in records().calls] == [0, 1, 1, 1, 1]


@pytest.mark.parametrize("program", ["Echo", "AEcho"])
def test_an_answer_from_the_cache_waits_for_no_slot(make_project, make_serve, models, program):
    serve = make_serve(make_project({"echo": ECHO, "aecho": AECHO}, **with_models(max_parallel_requests=1, cache=True)))
    known, new = ({"program": program, "inputs": {"question": f"{n} {program} {time.time()}"}} for n in range(2))
    serve(known)
    models.behave(hang_rate=1)
    assert failures(serve(sqs(new, known), Context(remaining_ms=2500))) == ["m0"]


@pytest.mark.parametrize("program", ["Echo", "AEcho"])
def test_the_pause_before_a_retry_holds_no_slot(make_project, make_serve, models, program):
    limits = with_models(max_parallel_requests=1)
    serve = make_serve(make_project({"echo": ECHO, "aecho": AECHO}, **limits))
    models.behave(error_rate=0.2, seed=1)  # the first request fails, and no other
    assert failures(serve(sqs(*[{"program": program, "inputs": {"question": "q"}}] * 3))) == []
    first, second, _, last = models.stats()["started"]
    # The retry is the last one, and the second did not wait for it.
    assert second - first < 1 <= last - first


MIXES = """
import asyncio

class Mixes(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dict:
        task = asyncio.create_task(self.predict.acall(question="of a task"))
        await asyncio.sleep(0.1)
        return {"answers": [self.predict(question=question).answer, (await task).answer]}
"""


def test_a_sync_lm_call_on_the_loop_waits_for_no_slot_that_a_task_of_the_loop_holds(make_project, make_serve, models):
    serve = make_serve(make_project({"mixes": MIXES}, **with_models(max_parallel_requests=1)))
    models.behave(delay_seconds=0.3)
    answer = serve.post("/Mixes", {"question": "q"})
    assert json.loads(answer.body) == {"answers": ["gpt-4.1-nano: q", "gpt-4.1-nano: of a task"]}


def test_a_request_beside_the_slots_takes_and_gives_back_none():
    slots = limit(max_parallel_requests=1)

    async def run():
        async with slots.aslot(None):
            for _ in range(2):
                with slots.slot(None):
                    assert (slots._free, len(slots._waiting)) == (0, 0)
        with slots.slot(None):
            assert slots._free == 0

    asyncio.run(run())
    assert slots._free == 1


def test_nothing_starts_for_which_too_little_time_is_left(make_project, make_serve, models, records):
    serve = make_serve(make_project({"aecho": AECHO}, server={"max_concurrent_per_program": 1}))
    models.behave(delay_seconds=1)
    # After two of them less than a second is left.
    assert failures(serve(sqs(*[{"question": "q"}] * 5), Context(remaining_ms=3400))) == ["m2", "m3", "m4"]
    calls = records().calls
    assert sorted(call["outcome"] for call in calls) == ["deadline"] * 3 + ["success"] * 2
    assert sum(call["lm_calls"] for call in calls) == 2
    # What waited says so: from the batch's arrival on.
    assert max(call["duration_ms"] for call in calls) > 1900


def test_slow_times_are_found_to_be_over(make_project, make_serve, models):
    serve = make_serve(make_project({"aecho": AECHO}))
    assert failures(serve(sqs({"question": "q"}))) == []
    recent = serve.environment.runner.dispatcher._recent["AEcho"]
    recent[0] = 100.0
    # Less time is left than any call took so far, and yet this one starts.
    assert failures(serve(sqs({"question": "q"}), Context(remaining_ms=50_000))) == []
    assert len(recent) == 2
