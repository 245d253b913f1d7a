"""lm15's HTTP client for provider requests that DSPy itself leaves to LiteLLM.

Imported, and `HTTP_CLIENT` applied, with the first such request.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from dspy_lambda.dspy_patches.insides import HTTP
from dspy_lambda.dspy_patches.patch import Name, Patch

_ERRORS = "dspy._vendor.lm15.errors"
_BASE = "dspy._vendor.lm15.providers.base"
HTTP_CLIENT = Patch(
    "DSPy's HTTP client for other requests",
    "one client for all providers, whose bounds apply; without it LiteLLM sends the requests",
    (
        Name(HTTP, "StdlibTransport.stream", "self request"),
        Name(HTTP, "StdlibAsyncTransport.stream", "self request"),
        Name(HTTP, "TransportRequest", "method url headers body connect_timeout read_timeout ..."),
        Name(HTTP, "TransportError"),
        Name(_ERRORS, "TransportError"),
        Name(_ERRORS, "map_http_error", "status message ..."),
        Name(_BASE, "_attach_retry_after", "error headers"),
        Name("dspy.clients.errors", "error_boundary", "model provider unexpected"),
    ),
)
_MESSAGE_LENGTH = 500  # of an error's body, as lm15 keeps


class Request(NamedTuple):
    """A POST to a provider. `timeout` is how long to wait for a byte, in seconds; None for lm15's default."""

    url: str
    headers: dict[str, str]
    body: bytes
    timeout: float | None = None


class Answer(NamedTuple):
    """A provider's answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return a header by its name in lowercase."""
        return next((value for key, value in self.headers if key.lower() == name), None)


ErrorOf = Callable[[Answer], Exception]


def http_error(answer: Answer) -> Exception:
    """Return the error for an answer's status, with the start of its body."""
    from dspy._vendor.lm15.errors import map_http_error

    message = answer.body.decode("utf-8", "replace").strip()[:_MESSAGE_LENGTH]
    error: Exception = map_http_error(answer.status, message or f"HTTP {answer.status}")
    return error


def post(request: Request, error_of: ErrorOf = http_error) -> Answer:
    """Send a request from a thread.

    Args:
        error_of: returns the LM15Error for an answer that is not 200.

    Raises:
        LM15Error: The provider refused it, or could not be reached.
    """
    try:
        with _client().stream(_transport_request(request)) as response:
            return _checked(Answer(response.status, response.headers, response.read()), error_of)
    except _transport_error() as error:
        raise _unreachable(error) from error


async def apost(request: Request, error_of: ErrorOf = http_error) -> Answer:
    """Send a request on the loop, as `post` does."""
    try:
        async with _async_client().stream(_transport_request(request)) as response:
            return _checked(Answer(response.status, response.headers, await response.read()), error_of)
    except _transport_error() as error:
        raise _unreachable(error) from error


_lock = threading.Lock()
_made: list[Any] = []
# A connection belongs to the loop that opened it.
_of_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()


async def aclose() -> None:
    """Close the connections of all threads and of this loop; the next request opens new ones."""
    with _lock:
        closed = [_made.pop() for _ in list(_made)]
    for client in closed:
        client.close()
    if (client := _of_loop.pop(asyncio.get_running_loop(), None)) is not None:
        await client.aclose()


def _client() -> Any:
    """Return the pool of all threads, which lives as long as the process."""
    with _lock:
        if not _made:
            from dspy._vendor.lm15.transports import StdlibTransport

            _made.append(StdlibTransport())
        return _made[0]


def _async_client() -> Any:
    loop = asyncio.get_running_loop()
    if loop not in _of_loop:
        from dspy._vendor.lm15.transports import StdlibAsyncTransport

        _of_loop[loop] = StdlibAsyncTransport()
    return _of_loop[loop]


def _transport_request(request: Request) -> Any:
    from dspy._vendor.lm15.transports import TransportRequest

    timeout = {} if request.timeout is None else {"read_timeout": request.timeout}
    return TransportRequest("POST", request.url, list(request.headers.items()), request.body, **timeout)


@functools.cache
def _transport_error() -> type[Exception]:
    from dspy._vendor.lm15.transports import TransportError

    kind: type[Exception] = TransportError
    return kind


def _unreachable(error: Exception) -> Exception:
    from dspy._vendor.lm15.errors import TransportError

    unreachable: Exception = TransportError(str(error))
    return unreachable


def _checked(answer: Answer, error_of: ErrorOf) -> Answer:
    if answer.status == 200:
        return answer
    from dspy._vendor.lm15.providers.base import _attach_retry_after

    error = error_of(answer)
    _attach_retry_after(error, answer.headers)
    raise error
