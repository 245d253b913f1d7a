"""The Extensions API, for threads of the function's own process (internal extensions); no others can run here.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html. The errors are those of AWS's own emulator:
https://github.com/aws/aws-lambda-runtime-interface-emulator, lambda/rapi/handler.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from dspy_lambda_infra.local.answer import Answer, error_answer

_VERSION = "/2020-01-01/extension"
_IDENTIFIER = "Lambda-Extension-Identifier"
# "A function can use up to 10 extensions": core.MaxAgentsAllowed of the emulator.
_MAX_EXTENSIONS = 10


@dataclass(eq=False)
class _Extension:
    """A registered extension.

    Attributes:
        is_waiting: whether it has asked for the next event, or has reported an error, after which nothing follows.
    """

    name: str
    wants_invocations: bool
    is_waiting: bool = False
    events: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)


class Extensions:
    """The extensions of one execution environment.

    Args:
        about: what a registration is answered with: the function's name, version and handler.
        changed: called when an extension has asked for the next event, or has reported an error.

    Attributes:
        is_open: whether extensions can still be registered: until the runtime asks for its first event.
        init_error, exit_error: what an extension reported, or None.
    """

    def __init__(self, about: dict[str, str], changed: Callable[[], None]) -> None:
        self.is_open = True
        self.init_error: Answer | None = None
        self.exit_error: Answer | None = None
        self._about = about
        self._changed = changed
        self._registered: dict[str, _Extension] = {}

    @property
    def are_waiting(self) -> bool:
        """Whether every extension has asked for the next event."""
        return all(extension.is_waiting for extension in self._registered.values())

    def __bool__(self) -> bool:
        """Whether any is registered."""
        return bool(self._registered)

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve the API."""
        router.add_post(f"{_VERSION}/register", self._register)
        router.add_get(f"{_VERSION}/event/next", self._next)
        router.add_post(f"{_VERSION}/init/error", self._fail_init)
        router.add_post(f"{_VERSION}/exit/error", self._fail)

    def send(self, event: dict[str, Any]) -> None:
        """Send an INVOKE event to the extensions that registered for it."""
        for extension in self._registered.values():
            if extension.wants_invocations:
                extension.is_waiting = False
                extension.events.put_nowait(event)

    async def _register(self, request: web.Request) -> web.Response:
        name = request.headers.get("Lambda-Extension-Name", "")
        try:
            events = list((await request.json())["events"])
        except (ValueError, KeyError, TypeError) as error:
            return _refuse("InvalidRequestFormat", f"{error!r}")
        if refused := self._refusal(name, events):
            return refused
        identifier = str(uuid.uuid4())
        self._registered[identifier] = _Extension(name, "INVOKE" in events)
        return web.json_response(self._about, headers={_IDENTIFIER: identifier})

    def _refusal(self, name: str, events: list[Any]) -> web.Response | None:
        if not name:
            return _refuse("Extension.InvalidExtensionName", "Empty extension name")
        for event in events:
            if event == "SHUTDOWN":
                text = "SHUTDOWN: ShutdownEventNotSupportedForInternalExtension"
                return _refuse("Extension.InvalidEventType", text)
            if event != "INVOKE":
                return _refuse("Extension.InvalidEventType", f"{event}: ErrorInvalidEventType")
        if not self.is_open:
            return _refuse("Extension.RegistrationClosed", "Extension registration closed already")
        if any(extension.name == name for extension in self._registered.values()):
            return _refuse("Extension.InvalidExtensionState", "Extension with this name already registered")
        if len(self._registered) >= _MAX_EXTENSIONS:
            return _refuse("Extension.TooManyExtensions", f"Extension limit ({_MAX_EXTENSIONS}) reached")
        return None

    async def _next(self, request: web.Request) -> web.Response:
        extension = self._find(request)
        if isinstance(extension, web.Response):
            return extension
        if extension.is_waiting:
            return _refuse("Extension.InvalidExtensionState", "The extension has already asked for the next event")
        extension.is_waiting = extension.events.empty()
        self._changed()
        event = await extension.events.get()
        return web.json_response(event, headers={"Lambda-Extension-Event-Identifier": str(uuid.uuid4())})

    async def _fail_init(self, request: web.Request) -> web.Response:
        response, self.init_error = await self._reported(request, "Extension.InitError", self.init_error)
        self._changed()
        return response

    async def _fail(self, request: web.Request) -> web.Response:
        response, self.exit_error = await self._reported(request, "Extension.ExitError", self.exit_error)
        self._changed()
        return response

    async def _reported(
        self, request: web.Request, kind: str, first: Answer | None
    ) -> tuple[web.Response, Answer | None]:
        """Return the response to an extension's error, and the error to keep, which is the first one."""
        extension = self._find(request)
        if isinstance(extension, web.Response):
            return extension, first
        reported = request.headers.get("Lambda-Extension-Function-Error-Type")
        if not reported:
            return _refuse("Extension.MissingHeader", "Lambda-Extension-Function-Error-Type not found"), first
        extension.is_waiting = True
        error = error_answer(kind, f"{extension.name}: {reported}: {_message(await request.read())}")
        return web.json_response({"status": "OK"}, status=202), first or error

    def _find(self, request: web.Request) -> _Extension | web.Response:
        identifier = request.headers.get(_IDENTIFIER)
        if not identifier:
            return _refuse("Extension.MissingExtensionIdentifier", f"Missing {_IDENTIFIER} header")
        found = self._registered.get(identifier)
        return found or _refuse("Extension.UnknownExtensionIdentifier", f"Unknown extension {identifier}")


def _refuse(kind: str, message: str) -> web.Response:
    return web.json_response({"errorMessage": message, "errorType": kind}, status=403)


def _message(payload: bytes) -> str:
    try:
        return str(json.loads(payload)["errorMessage"])
    except (ValueError, KeyError, TypeError):
        return ""
