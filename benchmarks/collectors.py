"""OTLP collectors for the benchmarks: a healthy one, which counts what it gets, and those that fail in their own ways.

    python -m benchmarks.collectors healthy

Raw asyncio, so that counting costs little next to the measured server. `GET /counts` returns what came so far.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

KINDS = ("healthy", "dead", "slow", "garbage")
_SLOW_SECONDS = 30.0
_GARBAGE = b"\x00\xffthis is not HTTP\r\n\r\n" * 8


@dataclass
class Received:
    """What a collector got.

    Attributes:
        spans: all spans, repeated ones included.
        ids: trace id and span id of each distinct span.
    """

    requests: int = 0
    bytes: int = 0
    spans: int = 0
    ids: set[tuple[str, str]] = field(default_factory=set)

    def add(self, body: bytes) -> None:
        """Count an OTLP request."""
        self.requests += 1
        self.bytes += len(body)
        text = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
        spans = [
            span
            for resource in json.loads(text)["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]
        self.spans += len(spans)
        self.ids.update((span["traceId"], span["spanId"]) for span in spans)

    def summary(self) -> dict[str, int]:
        return {"requests": self.requests, "bytes": self.bytes, "spans": self.spans, "distinct": len(self.ids)}


async def _handle(kind: str, got: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            lengths = [int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
            body = await reader.readexactly(lengths[0] if lengths else 0)
            answer = b"{}"
            if head.startswith(b"get /counts"):
                answer = json.dumps(got.summary()).encode()
            else:
                got.add(body)
                if kind == "slow":
                    await asyncio.sleep(_SLOW_SECONDS)
                elif kind == "garbage":
                    writer.write(_GARBAGE)
                    await writer.drain()
                    break
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(answer), answer))
            await writer.drain()
    writer.close()


async def serve(kind: str) -> None:
    """Serve until standard input closes; print the port."""
    got = Received()
    server = await asyncio.start_server(lambda r, w: _handle(kind, got, r, w), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


class Collector:
    """A running collector.

    Attributes:
        url: what DSPY_LAMBDA_TRACES is set to.
    """

    def __init__(self, url: str, counts: bool) -> None:
        self.url = url
        self._counts = counts

    def received(self) -> dict[str, Any]:
        """Return the number of requests, bytes, spans and distinct spans."""
        if not self._counts:
            return Received().summary()
        with urllib.request.urlopen(f"{self.url}/counts", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found


@contextlib.contextmanager
def collector(kind: str) -> Iterator[Collector]:
    """Run a collector in its own process, on a free port; nothing listens at a dead one's."""
    if kind == "dead":
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))  # without `listen`: connections are refused, and nobody else takes the port
            yield Collector(f"http://127.0.0.1:{bound.getsockname()[1]}", counts=False)
        return
    command = [sys.executable, "-m", "benchmarks.collectors", kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        yield Collector(f"http://127.0.0.1:{int(process.stdout.readline())}", counts=True)
        process.stdin.close()
        process.kill()  # not after the 30 s of its open answers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=[kind for kind in KINDS if kind != "dead"])
    asyncio.run(serve(parser.parse_args().kind))
