import asyncio
import contextlib
import contextvars
import gc
import threading

import pytest

from dspy_lambda.call import CALL
from dspy_lambda.errors import ProgramFailed
from dspy_lambda.loop import PersistentLoop


@pytest.fixture
def lines():
    return []


@pytest.fixture
def loop(lines):
    loop = PersistentLoop(lambda *line: lines.append(line), threads=2)
    yield loop
    loop.shut_down()


def test_the_loops_tasks_are_not_in_all_tasks(loop):
    async def look():
        child = asyncio.create_task(asyncio.sleep(0))
        found = asyncio.all_tasks()
        await child
        return found

    assert loop.run_until_complete(look()) == set()


def test_a_task_and_its_children_belong_to_the_call_that_made_them(loop):
    async def child():
        return loop.call_of(asyncio.current_task())

    async def parent():
        return await asyncio.gather(child(), asyncio.create_task(child()))

    context = contextvars.copy_context()
    context.run(CALL.set, "the call")
    assert loop.run_until_complete(loop.create_task(parent(), context=context)) == ["the call"] * 2


def test_a_nested_run_is_refused_and_the_outer_one_continues(loop):
    async def nested():
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_until_complete(asyncio.sleep(0))
        await asyncio.sleep(0)
        return "went on"

    assert loop.run_until_complete(nested()) == "went on"


def test_a_run_within_another_loop_is_refused(loop):
    async def other():
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_until_complete(asyncio.sleep(0))

    asyncio.run(other())
    assert loop.run_until_complete(asyncio.sleep(0, "unharmed")) == "unharmed"


def test_names_are_resolved_while_programs_hold_all_threads(loop):
    release = threading.Event()

    async def resolve():
        held = [loop.run_in_executor(None, release.wait) for _ in range(4)]
        await asyncio.sleep(0.05)
        found = await asyncio.wait_for(loop.getaddrinfo("127.0.0.1", 80), 60)
        release.set()
        await asyncio.gather(*held)
        return found

    assert loop.run_until_complete(resolve())


def test_a_canceled_invocation_is_an_error_that_the_runtime_client_catches(loop):
    async def cancels():
        asyncio.current_task().cancel()
        await asyncio.sleep(1)

    with pytest.raises(ProgramFailed):
        loop.run_until_complete(cancels())


def test_an_abandoned_loop_ignores_callbacks(loop):
    loop.shut_down()
    assert loop.call_soon_threadsafe(print) is None
    with pytest.raises(RuntimeError, match="closed"):
        loop.create_task(asyncio.sleep(0))


def test_closing_the_loop_ends_tasks_that_ignore_cancellation_in_their_own_context(loop, lines):
    variable, seen = contextvars.ContextVar("variable", default=None), []

    async def stays():
        token = variable.set("mine")
        try:
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)
        finally:
            variable.reset(token)
            seen.append("ended")

    async def start():
        loop.create_task(stays())
        await asyncio.sleep(0)

    loop.run_until_complete(start())
    assert loop.end_invocation() == [
        "test_closing_the_loop_ends_tasks_that_ignore_cancellation_in_their_own_context.<locals>.stays"
    ]
    assert len(loop.stuck_tasks()) == 1
    loop.shut_down()
    assert (seen, lines) == (["ended"], [])


def test_closing_the_loop_returns_even_if_a_task_ignores_everything(loop, lines):
    tries = []

    async def stays():
        while True:
            tries.append(1)
            with contextlib.suppress(BaseException):
                await asyncio.sleep(60)

    async def start():
        loop.create_task(stays())
        await asyncio.sleep(0)

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.shut_down, daemon=True)
    thread.start()
    thread.join(60)
    gc.collect()  # its finalizer would close it again
    assert (thread.is_alive(), lines) == (False, [])
    assert len(tries) < 10
