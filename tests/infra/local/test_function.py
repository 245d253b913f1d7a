"""One function: its environments and its limits."""

import asyncio
import json

import pytest

from dspy_lambda_infra.local.environment import MAX_REQUEST_BYTES
from dspy_lambda_infra.local.events import Request
from dspy_lambda_infra.local.front import Front
from dspy_lambda_infra.local.function import RequestTooLarge, Throttled
from dspy_lambda_infra.local.local import CATALOGUE
from tests.infra.local.support import SLEEPER, direct, post
from tests.support import AECHO, ECHO


def test_a_timeout_kills_the_process_and_the_next_event_starts_a_new_one(make_project, make_local, lines):
    settings = {"defaults": {"timeout_seconds": 3}}
    project = make_project({"sleeper": SLEEPER}, **{"lambda": settings})

    async def run():
        async with make_local(project) as local:
            function = local.function("Sleeper")
            first = await function.invoke(direct())
            again = await function.invoke(direct())
            killed = await function.invoke(direct(hold=True))
            cut_off = await function.invoke(direct(seconds=30))
            after = await function.invoke(direct())
            return [json.loads(answer.payload) for answer in (first, again, killed, cut_off, after)]

    first, again, killed, cut_off, after = asyncio.run(run())
    assert first == again != after
    assert killed["errorType"] == "Sandbox.Timedout"
    assert "Task timed out after 3.00 seconds" in killed["errorMessage"]
    # Any other call is answered before the kill.
    assert cut_off["errorType"] == "DeadlineExceeded"
    assert ["initDurationMs" in report["metrics"] for report in lines.reports] == [True, False, False, True, False]


def test_reserved_concurrency_of_0_disables_a_function(make_project, make_local):
    project = make_project({"sleeper": SLEEPER}, **{"lambda": {"defaults": {"reserved_concurrency": 0}}})

    async def run():
        async with make_local(project) as local:
            with pytest.raises(Throttled):
                await local.function("Sleeper").invoke(direct())

    asyncio.run(run())


def test_events_and_answers_are_limited_to_6_mb(make_project, make_local):
    project = make_project({"sleeper": SLEEPER})

    async def run():
        async with make_local(project) as local:
            function = local.function("Sleeper")
            with pytest.raises(RequestTooLarge):
                await function.invoke(b" " * (MAX_REQUEST_BYTES + 1))
            large = await function.invoke(direct(size=6_200_000))
            front = Front("rest", {"Sleeper": function}, function)
            over = await front.answer(Request("POST", "/Sleeper", body=b'"' + b"a" * 6_100_000 + b'"'))
            return large, over

    large, over = asyncio.run(run())
    assert large.error is None
    assert (over.status, dict(over.headers)["content-type"]) == (413, "application/problem+json")


@pytest.mark.parametrize(
    ("module", "kind", "says"),
    [
        ("import nothing_of_that_name\n" + AECHO, "ConfigError", "No module named 'nothing_of_that_name'"),
        ("import os\n" + AECHO, None, ""),
    ],
)
def test_a_failed_init_is_a_function_error_with_the_reason(make_project, make_local, module, kind, says):
    project = make_project({"echo": ECHO, "other": module})

    async def run():
        async with make_local(project) as local:
            front = Front("rest", {"AEcho": local.function("AEcho")}, local.function(CATALOGUE))
            return await local.function("AEcho").invoke(direct(question="q")), await front.answer(
                post("AEcho", question="q")
            )

    answer, http = asyncio.run(run())
    assert answer.error == kind
    assert says in answer.payload.decode()
    assert http.status == (502 if kind else 200)


def test_a_failed_init_is_logged_with_its_reason(make_project, make_local, lines):
    project = make_project(
        {"gone": "import os\nos._exit(7) if 'AWS_LAMBDA_RUNTIME_API' in os.environ else None\n" + ECHO}
    )

    async def run():
        async with make_local(project) as local:
            return await local.function("Echo").invoke(direct(question="q"))

    assert asyncio.run(run()).error == "Runtime.ExitError"
    (report,) = lines.reports_of("platform.initReport")
    assert (report["status"], report["errorType"]) == ("error", "Runtime.ExitError")
    assert report["errorMessage"] == "Error: Runtime exited with error: exit status 7"


def test_a_process_that_exits_is_a_function_error_and_is_replaced(make_project, make_local):
    project = make_project({"sleeper": SLEEPER})

    async def run():
        async with make_local(project) as local:
            function = local.function("Sleeper")
            return await function.invoke(direct(exit=True)), await function.invoke(direct())

    exited, after = asyncio.run(run())
    assert exited.error == "Runtime.ExitError"
    assert after.error is None


def test_a_long_error_keeps_its_type(make_project, make_local):
    project = make_project({"sleeper": SLEEPER})

    async def run():
        async with make_local(project) as local:
            function = local.function("Sleeper")
            misfit = json.dumps({"inputs": {f"seconds{n}": 1 for n in range(9)} | {"seconds": "x" * 20_000}}).encode()
            named = await function.invoke(misfit)
            raised = await function.invoke(json.dumps({"k" * 10_000: 1}).encode())
            return named.error, raised.error, (await function.invoke(direct())).error

    assert asyncio.run(run()) == ("InvalidInput", "UnknownEvent", None)
