"""The total time of an answer, from waiting for a connection to the last byte, for lm15's sync client.

On the loop `attempts.bound_attempt_on_loop` does this for every client; only its leftover connections are closed here.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any

from dspy.utils.exceptions import LMTimeoutError

from dspy_lambda.deadline import DEADLINE, check_deadline
from dspy_lambda.dspy_patches.insides import default_read_timeout, read_timeout_of, transport_error
from dspy_lambda.dspy_patches.patch import Function
from dspy_lambda.errors import DeadlineExceeded
from dspy_lambda.provider_bounds.bounds import current


class Total:
    """The time by which a request must be fully answered: its call's deadline or, outside any call, a timeout."""

    def __init__(self, timeout: float) -> None:
        deadline = DEADLINE.get()
        bounds = current()
        self._of_call = deadline is not None
        self._seconds = timeout * bounds.total_per_timeout
        self._end = time.monotonic() + self._seconds if deadline is None else deadline + bounds.late_seconds

    def left(self) -> float:
        """Return the seconds left, always more than zero.

        Raises:
            DeadlineExceeded, LMTimeoutError: No time is left.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.expired()
        return left

    def expired(self) -> Exception:
        """Return the error for an answer that did not arrive in time."""
        if self._of_call:
            late = DeadlineExceeded("The deadline passed before the model answered.")
            late.request_abandoned = True
            return late
        error: Exception = LMTimeoutError(f"The provider's answer was not complete after {self._seconds:g} s.")
        return error


_TOTAL: ContextVar[Total | None] = ContextVar("dspy_lambda_total", default=None)


def _total() -> Total:
    return _TOTAL.get() or Total(default_read_timeout())


class BoundedSocket:
    """Wraps a connection's socket: each wait ends at its own timeout or at the request's total, whichever is first."""

    __slots__ = ("_socket", "_timeout", "total")

    def __init__(self, socket: Any, total: Total) -> None:
        self._socket = socket
        self._timeout = 0.0
        self.total = total

    def settimeout(self, seconds: float) -> None:
        self._timeout = seconds

    def recv(self, size: int) -> bytes:
        received: bytes = self._wait(self._socket.recv, size)
        return received

    def sendall(self, data: bytes) -> None:
        # The TLS socket's own sendall restarts the timeout for each TLS record.
        rest = memoryview(data)
        while rest:
            rest = rest[self._wait(self._socket.send, rest) :]

    def fileno(self) -> int:
        number: int = self._socket.fileno()
        return number

    def close(self) -> None:
        self._socket.close()

    def _wait(self, operation: Function, argument: Any) -> Any:
        left = self.total.left()
        self._socket.settimeout(min(self._timeout, left))
        try:
            return operation(argument)
        except TimeoutError:
            if self._timeout < left:
                raise
            raise self.total.expired() from None


def bound_stream(stream: Function) -> Function:
    """Wrap `StdlibTransport.stream`: a request, from the wait for a free connection to the end of its headers."""

    def bounded(self: Any, request: Any) -> Any:
        check_deadline()
        token = _TOTAL.set(Total(getattr(request, "read_timeout", None) or read_timeout_of(self)))
        try:
            return stream(self, request)
        finally:
            _TOTAL.reset(token)

    return bounded


def bound_slot(acquire_slot: Function) -> Function:
    """Wrap `_ConnectionPool.acquire_slot`: the wait for a free connection."""

    def bounded(self: Any, timeout: float | None = None) -> None:
        total = _total()
        left = total.left()
        try:
            acquire_slot(self, left if timeout is None else min(timeout, left))
        except transport_error():
            total.left()
            raise

    return bounded


def bound_open(open_connection: Function) -> Function:
    """Wrap `StdlibTransport._open`: name resolution, connecting to each address in turn, proxy, TLS handshake.

    Runs in a separate thread because the system's resolver cannot be interrupted. The thread ends by lm15's own
    timeouts, and closes the connection if no one is waiting for it any longer.
    """

    def bounded(self: Any, *args: Any, **options: Any) -> Any:
        total, opened = _total(), Future[Any]()
        connect = functools.partial(open_connection, self, *args, **options)
        try:
            threading.Thread(target=_settle, args=(opened, connect), name="connect", daemon=True).start()
        except RuntimeError:  # no more threads can be started: better an unbounded connection than none
            return connect()
        try:
            return opened.result(total.left())
        except TimeoutError:
            if opened.cancel():
                raise total.expired() from None
            return opened.result()

    return bounded


def _settle(opened: Future[Any], connect: Function) -> None:
    try:
        connection = connect()
    except BaseException as error:
        if opened.set_running_or_notify_cancel():
            opened.set_exception(error)
    else:
        if opened.set_running_or_notify_cancel():
            opened.set_result(connection)
        else:
            connection.close()


def bound_send(send: Function) -> Function:
    """Wrap `StdlibTransport._send_request`: the last step before a request leaves; its socket also gets the answer."""

    def bounded(self: Any, conn: Any, request: Any, parsed: Any, **options: Any) -> None:
        check_deadline()
        if isinstance(conn.sock, BoundedSocket):
            conn.sock.total = _total()
        else:
            conn.sock = BoundedSocket(conn.sock, _total())
        send(self, conn, request, parsed, **options)

    return bounded


def abort_discarded(discard: Callable[..., Awaitable[None]]) -> Function:
    """Wrap `_AsyncConnectionPool.discard`: close the connection immediately.

    asyncio would first shut TLS down and wait up to 30 s for the peer's reply, reading everything it sends meanwhile.
    """

    async def bounded(self: Any, conn: Any) -> None:
        conn.writer.transport.abort()
        await discard(self, conn)

    return bounded
