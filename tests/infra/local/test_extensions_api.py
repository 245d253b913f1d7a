"""The Extensions API, called as by an extension."""

import asyncio
import time
import uuid

import aiohttp
import pytest

from dspy_lambda_infra.local.runtime_api import Event, RuntimeApi
from tests.support import until

API = "/2020-01-01/extension"
RUNTIME = "/2018-06-01/runtime/invocation"
TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793"
FORBIDDEN = 403


@pytest.fixture
def run():
    """Run a client coroutine against a Runtime API and return its result."""

    def run(client):
        async def serve():
            api = RuntimeApi("TinyFunction", "tiny.handler")
            address = await api.start()
            try:
                async with aiohttp.ClientSession(f"http://{address}") as session:
                    return await client(api, session)
            finally:
                await api.stop()

        return asyncio.run(serve())

    return run


async def register(session, name="tiny", events=("INVOKE",)):
    """Register and return the identifier's header."""
    body = {"events": list(events)}
    async with session.post(f"{API}/register", json=body, headers={"Lambda-Extension-Name": name}) as answer:
        assert answer.status == 200
        return {"Lambda-Extension-Identifier": answer.headers["Lambda-Extension-Identifier"]}


async def refused(request):
    async with request as answer:
        error = await answer.json()
        assert set(error) == {"errorMessage", "errorType"}
        return answer.status, error["errorType"]


def event():
    return Event("the-id", b"{}", time.time() + 3, TRACE)


async def waiting(api, session, path, **options):
    """Send a request that waits, and return its task once the server has it."""

    def count():
        return api._is_waiting + sum(extension.is_waiting for extension in api.extensions._registered.values())

    before = count()
    task = asyncio.create_task(session.get(path, **options).__aenter__())
    await until(lambda: count() > before)
    return task


def test_a_registration_is_answered_with_the_function_and_an_identifier(run):
    async def client(_, session):
        headers = {"Lambda-Extension-Name": "tiny"}
        async with session.post(f"{API}/register", json={"events": ["INVOKE"]}, headers=headers) as answer:
            uuid.UUID(answer.headers["Lambda-Extension-Identifier"])
            return await answer.json()

    about = {"functionName": "TinyFunction", "functionVersion": "$LATEST", "handler": "tiny.handler"}
    assert run(client) == about


@pytest.mark.parametrize(
    ("name", "body", "kind"),
    [
        ("tiny", '{"events": ["SHUTDOWN"]}', "Extension.InvalidEventType"),  # for external extensions only
        ("tiny", '{"events": ["INVOKE", "OTHER"]}', "Extension.InvalidEventType"),
        ("tiny", '{"events": [1]}', "Extension.InvalidEventType"),
        ("", '{"events": ["INVOKE"]}', "Extension.InvalidExtensionName"),
        ("tiny", "no json", "InvalidRequestFormat"),
        ("tiny", "[]", "InvalidRequestFormat"),
        ("tiny", "{}", "InvalidRequestFormat"),
        ("tiny", '{"events": 1}', "InvalidRequestFormat"),
        ("taken", '{"events": ["INVOKE"]}', "Extension.InvalidExtensionState"),
    ],
)
def test_an_invalid_registration_is_refused(run, name, body, kind):
    async def client(_, session):
        await register(session, "taken")
        headers = {"Lambda-Extension-Name": name, "Content-Type": "application/json"}
        return await refused(session.post(f"{API}/register", data=body, headers=headers))

    assert run(client) == (FORBIDDEN, kind)


def test_registration_closes_when_the_runtime_asks_for_its_first_event(run):
    async def client(api, session):
        task = await waiting(api, session, f"{RUNTIME}/next")
        headers = {"Lambda-Extension-Name": "tiny"}
        answer = await refused(session.post(f"{API}/register", json={"events": []}, headers=headers))
        task.cancel()
        return answer

    assert run(client) == (FORBIDDEN, "Extension.RegistrationClosed")


def test_there_are_at_most_10_extensions(run):
    async def client(_, session):
        for number in range(10):
            await register(session, f"tiny-{number}")
        headers = {"Lambda-Extension-Name": "one-more"}
        return await refused(session.post(f"{API}/register", json={"events": []}, headers=headers))

    assert run(client) == (FORBIDDEN, "Extension.TooManyExtensions")


@pytest.mark.parametrize(("method", "path"), [("GET", "event/next"), ("POST", "init/error"), ("POST", "exit/error")])
@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({}, "Extension.MissingExtensionIdentifier"),
        ({"Lambda-Extension-Identifier": str(uuid.uuid4())}, "Extension.UnknownExtensionIdentifier"),
        ({"Lambda-Extension-Identifier": "x"}, "Extension.UnknownExtensionIdentifier"),
    ],
)
def test_an_unknown_identifier_is_refused(run, method, path, headers, kind):
    async def client(_, session):
        await register(session)
        return await refused(session.request(method, f"{API}/{path}", headers=headers))

    assert run(client) == (FORBIDDEN, kind)


@pytest.mark.parametrize("path", ["init/error", "exit/error"])
def test_an_error_without_a_type_is_refused(run, path):
    async def client(api, session):
        headers = await register(session)
        answer = await refused(session.post(f"{API}/{path}", headers=headers, data=b"{}"))
        return answer, api.init_error, api.extensions.exit_error

    assert run(client) == ((FORBIDDEN, "Extension.MissingHeader"), None, None)


@pytest.mark.parametrize("path", ["init/error", "exit/error"])
def test_the_first_error_that_an_extension_reports_is_kept(run, path):
    async def client(api, session):
        headers = await register(session)
        for kind, text in (("First", "this"), ("Second", "that")):
            own = {**headers, "Lambda-Extension-Function-Error-Type": kind}
            async with session.post(f"{API}/{path}", headers=own, json={"errorMessage": text}) as answer:
                assert answer.status == 202
        return api.init_error or api.extensions.exit_error

    error = run(client)
    assert (error.error, error.message) == (f"Extension.{path.split('/')[0].title()}Error", "tiny: First: this")


def test_an_extension_that_waits_cannot_ask_again(run):
    async def client(api, session):
        headers = await register(session)
        task = await waiting(api, session, f"{API}/event/next", headers=headers)
        answer = await refused(session.get(f"{API}/event/next", headers=headers))
        task.cancel()
        return answer

    assert run(client) == (FORBIDDEN, "Extension.InvalidExtensionState")


def test_an_environment_is_ready_when_the_runtime_and_all_extensions_wait(run):
    async def client(api, session):
        ready = []
        extensions = [await register(session, name) for name in ("one", "two")]
        waits = [await waiting(api, session, f"{API}/event/next", headers=extensions[0])]
        ready.append(api.ready.is_set())
        waits.append(await waiting(api, session, f"{RUNTIME}/next"))
        ready.append(api.ready.is_set())
        waits.append(await waiting(api, session, f"{API}/event/next", headers=extensions[1]))
        ready.append(api.ready.is_set())
        api.send(event())
        for answer in await asyncio.gather(*waits):
            answer.release()
        ready.append(api.ready.is_set())
        return ready

    assert run(client) == [False, False, True, False]


def test_an_extension_without_invoke_gets_no_events_and_is_not_waited_for_again(run):
    async def client(api, session):
        headers = await register(session, events=[])
        idle = await waiting(api, session, f"{API}/event/next", headers=headers)
        runtime = await waiting(api, session, f"{RUNTIME}/next")
        api.send(event())
        (await runtime).release()
        again = await waiting(api, session, f"{RUNTIME}/next")
        outcome = api.ready.is_set(), idle.done()
        idle.cancel()
        again.cancel()
        return outcome

    assert run(client) == (True, False)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "register"), ("GET", "event/next"), ("POST", "init/error"), ("POST", "exit/error")],
)
def test_requests_of_web_pages_are_refused(run, method, path, headers):
    async def client(_, session):
        own = await register(session)
        return await refused(session.request(method, f"{API}/{path}", headers=own | headers))

    assert run(client) == (FORBIDDEN, "Forbidden")
