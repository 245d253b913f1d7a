"""A server on loopback that answers as a collector does, or as it must not."""

from __future__ import annotations

import socket
import ssl
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


def answer(status: int, body: bytes = b"{}", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class Received(NamedTuple):
    line: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> bytes:
        return zlib.decompress(self.raw, wbits=31) if self.headers.get("content-encoding") == "gzip" else self.raw


class CollectorServer:
    """Reads requests, and writes `reply` to each, until it is closed.

    Attributes:
        reply: the bytes to answer, or a function that writes to the connection itself.
        received: the requests, in order.
        connections: how many were accepted.
        closing: set when the test is over; a reply that takes long waits for it.
    """

    def __init__(
        self, reply: bytes | Callable[[socket.socket], None] = OK, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self.reply = reply
        self._tls = tls
        self.received: list[Received] = []
        self.arrived = threading.Semaphore(0)
        self.connections = 0
        self.closing = threading.Event()
        self._socks: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with suppress(OSError):
            sock = self._tls.wrap_socket(sock, server_side=True) if self._tls else sock
            self._socks.append(sock)
            self._answer(sock)

    def _answer(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as file:
            while line := file.readline():
                headers = {}
                while (field := file.readline().decode("latin-1").strip()) != "":
                    name, _, value = field.partition(":")
                    headers[name] = value.strip()
                body = file.read(int(headers.get("content-length", 0)))
                self.received.append(Received(line.decode("latin-1").strip(), headers, body))
                reply = self.reply
                self.arrived.release()
                if isinstance(reply, bytes):
                    sock.sendall(reply)
                else:
                    reply(sock)
                    return

    def hang(self, sock: socket.socket) -> None:
        """Do not answer."""
        self.closing.wait(30)

    def trickle(self, head: bytes, piece: bytes) -> Callable[[socket.socket], None]:
        """Return a reply that never ends: something, and then a piece each 10 ms."""

        def reply(sock: socket.socket) -> None:
            sock.sendall(head)
            while not self.closing.wait(0.01):
                sock.sendall(piece)

        return reply

    def drop_connections(self) -> None:
        """Close the connections, as a server does that has waited too long for the next request."""
        for sock in self._socks:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.closing.set()
        self.drop_connections()
        self._listener.close()


def closed_port() -> int:
    """Return a port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
