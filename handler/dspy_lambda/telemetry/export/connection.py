"""One HTTP/1.1 connection whose requests end in time, whatever the other side does.

`http.client` takes 130 us of CPU for a POST (measured), half of what a call may spend on its trace, and its timeout is
for each read: an answer of one byte a second never ends. Proxies (HTTPS_PROXY) are not used.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable
from typing import NamedTuple

_MAX_HEAD, _MAX_BODY = 64 * 1024, 1024 * 1024
_CHUNK = 65536
# More would keep a CPU busy until the request's time is over.
_MAX_INTERIM = _MAX_TRAILERS = 1000
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: |\r|$)")
_SIZE = re.compile(rb"[0-9a-fA-F]{1,8}")


class BadAnswer(Exception):
    """The answer is not HTTP, or too large. Its text never quotes the answer."""


class ConnectFailed(Exception):
    """There is no connection, so nothing was sent."""


class Answer(NamedTuple):
    """An HTTP answer; header names are lowercase."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """A connection that is opened when it is needed, and again after it was closed. For one thread at a time.

    Args:
        idle_seconds: how long an unused connection may be used again: a frozen environment does not notice that a
            gateway has dropped it.
    """

    def __init__(self, host: str, port: int, *, tls: bool = False, idle_seconds: float = 50.0) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._idle_seconds = idle_seconds
        self._sock: socket.socket | None = None
        self._context: object = None
        self._used = 0.0  # by the wall clock: others may stop while the environment is frozen
        self._buffer = b""
        self._has_begun = False  # whether part of the current answer has arrived
        name = f"[{host}]" if ":" in host else host
        self.authority = name if port == (443 if tls else 80) else f"{name}:{port}"

    def request(
        self, method: str, path: str, headers: Iterable[tuple[str, str]], body: bytes, ends: float | None
    ) -> Answer:
        """Send a request and return its answer, whatever its status.

        Args:
            headers: without Host and Content-Length, which are added.
            ends: when to give up, by the monotonic clock; None to wait forever.

        Raises:
            ConnectFailed: Nothing was sent.
            BadAnswer: The answer is not HTTP.
            OSError: The connection broke, or the time is over (TimeoutError).
        """
        lines = [f"{method} {path} HTTP/1.1", f"host: {self.authority}", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers]
        data = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace") + body
        try:
            answer = self._ask_again(data, ends)
        except EOFError:
            self.close()
            raise BadAnswer("the answer ended early") from None
        except BaseException:
            self.close()
            raise
        self._used = time.time()
        return answer

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        sock, self._sock, self._buffer = self._sock, None, b""
        if sock is not None:
            sock.close()

    def _ask_again(self, data: bytes, ends: float | None) -> Answer:
        """Send a request, and once more if a connection that was used before is found closed."""
        if self._sock is not None and abs(time.time() - self._used) > self._idle_seconds:
            self.close()
        if self._sock is not None:
            try:
                return self._ask(self._sock, data, ends)
            except (OSError, EOFError) as error:
                if self._has_begun or isinstance(error, TimeoutError):
                    raise
                self.close()
        self._sock = self._connect(ends)
        return self._ask(self._sock, data, ends)

    def _connect(self, ends: float | None) -> socket.socket:
        try:
            return self._open(ends)
        except OSError as error:  # also the TLS handshake
            raise ConnectFailed(type(error).__name__) from error

    def _open(self, ends: float | None) -> socket.socket:
        failure: OSError | None = None
        for family, kind, protocol, _, address in socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(_left(ends))
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return self._wrap(sock, ends) if self._tls else sock
            except OSError as error:
                sock.close()
                failure = error
        raise failure or OSError("no address")

    def _wrap(self, sock: socket.socket, ends: float | None) -> socket.socket:
        import ssl

        if self._context is None:  # reads the certificate authorities: 10 ms
            self._context = ssl.create_default_context()
        assert isinstance(self._context, ssl.SSLContext)
        sock.settimeout(_left(ends))
        return self._context.wrap_socket(sock, server_hostname=self._host)

    def _ask(self, sock: socket.socket, data: bytes, ends: float | None) -> Answer:
        self._buffer, self._has_begun = b"", False
        view = memoryview(data)
        while view:
            sock.settimeout(_left(ends))
            view = view[sock.send(view[:_CHUNK]) :]
        status, headers = self._head(sock, ends)
        for _ in range(_MAX_INTERIM):  # "a client MUST be able to parse one or more 1xx responses" (RFC 9110)
            if status >= 200:
                break
            status, headers = self._head(sock, ends)
        else:
            raise BadAnswer("too many interim answers")
        body = self._body(sock, ends, status, headers)
        if self._buffer:
            raise BadAnswer("more than one answer")
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(status, headers, body)

    def _head(self, sock: socket.socket, ends: float | None) -> tuple[int, dict[str, str]]:
        head = self._until(sock, ends, b"\r\n\r\n", _MAX_HEAD)
        found = _STATUS.match(head)
        if found is None:
            raise BadAnswer("the answer is not HTTP/1.1")
        fields = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
        return int(found.group(1)), {name.strip().lower(): value.strip() for name, _, value in fields}

    def _body(self, sock: socket.socket, ends: float | None, status: int, headers: dict[str, str]) -> bytes:
        if status in (204, 304):
            return b""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return self._chunks(sock, ends)
        length = headers.get("content-length")
        if length is not None:
            if not (length.isascii() and length.isdigit() and len(length) < 10 and int(length) <= _MAX_BODY):
                raise BadAnswer("the answer's length is invalid or too large")
            return self._exactly(sock, ends, int(length))
        headers["connection"] = "close"
        try:
            while len(self._buffer) <= _MAX_BODY:
                self._receive(sock, ends)
        except EOFError:
            body, self._buffer = self._buffer, b""
            return body
        raise BadAnswer("the answer is too large")

    def _chunks(self, sock: socket.socket, ends: float | None) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            found = _SIZE.match(self._until(sock, ends, b"\r\n", 1024))
            length = int(found.group(), 16) if found else -1
            size += length
            if found is None or size > _MAX_BODY:
                raise BadAnswer("the answer's chunks are invalid or too large")
            if length == 0:
                for _ in range(_MAX_TRAILERS):
                    if not self._until(sock, ends, b"\r\n", _MAX_HEAD):
                        return b"".join(parts)
                raise BadAnswer("too many trailers")
            parts.append(self._exactly(sock, ends, length + 2)[:-2])

    def _until(self, sock: socket.socket, ends: float | None, mark: bytes, most: int) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            if len(self._buffer) > most:
                raise BadAnswer("the answer's headers are too large")
            self._receive(sock, ends)
        found, self._buffer = self._buffer[:end], self._buffer[end + len(mark) :]
        return found

    def _exactly(self, sock: socket.socket, ends: float | None, length: int) -> bytes:
        while len(self._buffer) < length:
            self._receive(sock, ends)
        found, self._buffer = self._buffer[:length], self._buffer[length:]
        return found

    def _receive(self, sock: socket.socket, ends: float | None) -> None:
        sock.settimeout(_left(ends))
        data = sock.recv(_CHUNK)
        if not data:
            raise EOFError
        self._has_begun = True
        self._buffer += data


def _left(ends: float | None) -> float | None:
    if ends is None:
        return None
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time for the request is over")
    return left
