"""A mock model server for demos, tests and benchmarks: answers any DSPy program in the providers' wire formats.

Every text answer is `<model>: <first input>`, which exposes misrouted calls; with `samples`, it suits the field's
name. The server listens on loopback by default.

    with ModelServer(delay_seconds=0.5) as server:
        dspy.LM("openai/any-name", api_base=server.url, api_key="none")
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import random
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections import deque
from typing import Any, Self

from aiohttp import web

from dspy_lambda_infra.model_answers import answer, text_of
from dspy_lambda_infra.model_wires import WIRES, Wire

_STARTS_KEPT = 100_000
_FATES = (
    *("error", "rate_limit", "unauthorized", "malformed", "drop", "hang", "reset"),
    *("too_long", "refused", "filtered"),
)


@dataclasses.dataclass
class Behavior:
    """How the server handles requests. Rates are fractions of all requests, drawn in order from `seed`."""

    samples: bool = False  # texts suit the names of their fields instead of quoting the model and the first input
    delay_seconds: float = 0.0
    trickle_seconds: float = 0.0  # pause between any two bytes of an answer's body; its headers come at once
    slow_headers_seconds: float = 0.0  # pause between any two bytes of an answer's headers; its body comes at once
    answer_bytes: int = 0  # pads a body with spaces to this size; its values do not change
    error_rate: float = 0.0  # 500
    rate_limit_rate: float = 0.0  # 429
    retry_after_seconds: float | None = None  # the 429's header
    unauthorized_rate: float = 0.0  # 401
    key: str | None = None  # requests with any other key get a 401 too
    malformed_rate: float = 0.0  # 200 with a text that no adapter can parse
    drop_rate: float = 0.0  # the connection is closed without an answer
    hang_rate: float = 0.0  # no answer within 10 minutes
    reset_rate: float = 0.0  # the connection is reset (RST) without an answer
    too_long_rate: float = 0.0  # 400: the prompt exceeds the context window
    refused_rate: float = 0.0  # 400: a content filter refuses the prompt
    filtered_rate: float = 0.0  # 200 with an answer that a content filter stopped
    faulty_model: str | None = None  # the rates apply to requests for this model only
    seed: int = 0


class Counts:
    """Counts since the last `behave`; requests that began earlier are not counted."""

    def __init__(self) -> None:
        self.requests = self.in_flight = self.peak_in_flight = 0
        self.connections: set[Any] = set()
        self.per_model: dict[str, int] = {}
        self.started: deque[float] = deque(maxlen=_STARTS_KEPT)
        self.answered = self.prompt_tokens = self.completion_tokens = 0

    def begin(self) -> None:
        self.requests += 1
        self.started.append(time.monotonic())
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)

    def answer(self, usage: dict[str, int]) -> None:
        self.answered += 1
        self.prompt_tokens += usage["prompt_tokens"]
        self.completion_tokens += usage["completion_tokens"]

    def fields(self) -> dict[str, Any]:
        return {**vars(self), "connections": len(self.connections), "started": list(self.started)}


class ModelApp:
    """The server's state and handlers."""

    def __init__(self, behavior: Behavior) -> None:
        self.behavior = behavior
        self.wires = {wire.path: wire for wire in WIRES}
        self.reset()

    def reset(self) -> None:
        self.random = random.Random(self.behavior.seed)
        self.counts = Counts()

    def application(self) -> web.Application:
        app = web.Application(client_max_size=64 * 2**20)
        for path in self.wires:
            app.router.add_post(path, self.complete)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/stats", self.stats)
        app.router.add_post("/behavior", self.change)
        return app

    async def stats(self, _: web.Request) -> web.Response:
        return web.json_response(self.counts.fields())

    async def change(self, request: web.Request) -> web.Response:
        self.behavior = Behavior(**await request.json())
        self.reset()
        return web.json_response(dataclasses.asdict(self.behavior))

    async def models(self, request: web.Request) -> web.Response:
        self._connected(request)
        return web.json_response({"object": "list", "data": []})

    def _connected(self, request: web.Request) -> None:
        if request.transport is not None:
            self.counts.connections.add(request.transport.get_extra_info("peername"))

    async def complete(self, request: web.Request) -> web.StreamResponse:
        counts = self.counts
        counts.begin()
        self._connected(request)
        try:
            return await self._complete(request, counts)
        finally:
            counts.in_flight -= 1

    async def _complete(self, request: web.Request, counts: Counts) -> web.StreamResponse:
        wire = self._wire(request)
        body = wire.read({**request.match_info, **await request.json()})
        fate = self._fate() if self.behavior.faulty_model in (None, body["model"]) else "answer"
        counts.per_model[body["model"]] = counts.per_model.get(body["model"], 0) + 1
        if fate == "hang":
            await asyncio.sleep(600)
        if self.behavior.delay_seconds:
            await asyncio.sleep(self.behavior.delay_seconds)
        if fate == "drop" and request.transport is not None:
            request.transport.close()
        if fate == "reset" and request.transport is not None:
            _reset(request.transport)
        if fate == "error":
            return _error(500, "server_error", "The server had an error")
        key = self.behavior.key
        if fate == "unauthorized" or (key and request.headers.get("Authorization") != f"Bearer {key}"):
            return _error(401, "invalid_api_key", "Incorrect API key provided")
        if fate == "rate_limit":
            after = self.behavior.retry_after_seconds
            return _error(
                429, "rate_limit_exceeded", "Rate limit reached", {} if after is None else {"Retry-After": str(after)}
            )
        if fate == "too_long":
            return _error(400, "context_length_exceeded", "This model's maximum context length is exceeded")
        if fate == "refused":
            return _error(400, "content_filter", "The prompt was refused by the content filter")
        text = "I would rather not say." if fate == "malformed" else answer(body, samples=self.behavior.samples)
        document = completion(body, text)
        if fate == "filtered":
            document["choices"][0]["finish_reason"] = "content_filter"
        stream = body.get("stream") or body.get("method") == "streamGenerateContent"
        response = await self._answer(request, document, stream=bool(stream))
        if response is None:  # the client is gone
            return web.Response()
        counts.answer(document["usage"])
        return response

    def _wire(self, request: web.Request) -> Wire:
        resource = request.match_info.route.resource
        assert resource is not None
        return self.wires[resource.canonical]

    async def _answer(
        self, request: web.Request, document: dict[str, Any], *, stream: bool
    ) -> web.StreamResponse | None:
        """Send an answer; return None if it could not be sent completely."""
        wire = self._wire(request)
        whole = json.dumps(wire.write(document)).encode().ljust(self.behavior.answer_bytes)
        data = wire.stream(document) if stream else whole
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream" if stream else "application/json"})
        response.content_length = len(data)
        try:
            if self.behavior.slow_headers_seconds:
                await self._send_slow_headers(request, data)
            else:
                await self._send(request, response, data)
        except ConnectionError:
            return None
        return response

    async def _send(self, request: web.Request, response: web.StreamResponse, data: bytes) -> None:
        await response.prepare(request)
        if not self.behavior.trickle_seconds:
            await response.write(data)
        else:
            for byte in data:
                await asyncio.sleep(self.behavior.trickle_seconds)
                await response.write(bytes([byte]))
        await response.write_eof()

    async def _send_slow_headers(self, request: web.Request, data: bytes) -> None:
        """Bypass aiohttp, which sends the headers in one piece; then close the connection."""
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        for byte in head:
            if request.transport is None:
                raise ConnectionResetError
            request.transport.write(bytes([byte]))
            await asyncio.sleep(self.behavior.slow_headers_seconds)
        if request.transport is None:
            raise ConnectionResetError
        request.transport.write(data)
        request.transport.close()

    def _fate(self) -> str:
        draw = self.random.random()
        for fate in _FATES:
            draw -= getattr(self.behavior, f"{fate}_rate")
            if draw < 0:
                return fate
        return "answer"


def _reset(transport: asyncio.Transport) -> None:
    # Without lingering, a close sends RST instead of FIN: socket(7), SO_LINGER.
    linger = struct.pack("ii", 1, 0)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    error = {"error": {"message": message, "type": code, "code": code}}
    return web.json_response(error, status=status, headers=headers)


def count_tokens(text: str) -> int:
    """Count tokens the way this server does: one per word."""
    return len(text.split())


def completion(body: dict[str, Any], text: str) -> dict[str, Any]:
    """Return a chat completion with that text; its usage counts words."""
    prompt = sum(count_tokens(text_of(message)) for message in body["messages"])
    output = count_tokens(text)
    return {
        "id": "chatcmpl-embedded",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output},
    }


class ModelServer:
    """Runs a model server in a separate process, on a free port, for the duration of a `with` block.

    Args:
        host: the address to listen on; containers can reach only "0.0.0.0". `address` and `url` always name loopback.
        behavior: fields of `Behavior`; change them later with `behave`.
    """

    def __init__(self, *, host: str = "127.0.0.1", **behavior: Any) -> None:
        self._host = host
        self._behaviour = Behavior(**behavior)
        self.address = ""

    @property
    def url(self) -> str:
        """Return the base URL for `api_base`."""
        return f"{self.address}/v1"

    def __enter__(self) -> Self:
        # The server's standard input is a pipe from this process: when this one dies, the server reads EOF and stops.
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "dspy_lambda_infra.model_server",
                "--host",
                self._host,
                "--port",
                "0",
                "--until-stdin-closes",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if "http://" not in line:
            raise RuntimeError(f"the model server did not start: {line!r}")
        self.address = line.split()[-1].removesuffix("/v1")
        self.behave(**dataclasses.asdict(self._behaviour))
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def stats(self) -> dict[str, Any]:
        """Return the counts since the last `behave`.

        `requests`, `connections` (distinct ones), `in_flight`, `peak_in_flight`, `per_model` (requests per model);
        `started`: when the last 100,000 requests arrived, by `time.monotonic()`, which all processes of a machine
        share; `answered`: completions that were sent in full, including malformed ones; `prompt_tokens` and
        `completion_tokens`: the usage that these report.
        """
        return self._call("/stats")

    def behave(self, **behavior: Any) -> None:
        """Replace the behavior (omitted fields return to their defaults) and reset the counts."""
        self._call("/behavior", behavior)

    def _call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.address}{path}", data, timeout=10) as response:
            result: dict[str, Any] = json.load(response)
            return result


async def serve(app: web.Application, host: str, port: int, until_stdin_closes: bool) -> None:
    """Serve until stopped; print the address once the server accepts calls."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, port, backlog=2048)
    await site.start()
    with contextlib.suppress(BrokenPipeError):  # the parent process is already gone; standard input will report that
        print(f"model server http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
    if until_stdin_closes:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    else:
        await asyncio.Event().wait()
    await runner.cleanup()


def main() -> None:
    """Run a model server in the foreground."""
    parser = argparse.ArgumentParser(prog="python -m dspy_lambda_infra.model_server", description=main.__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="use 0.0.0.0 to accept calls from containers")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--until-stdin-closes", action="store_true")
    arguments = parser.parse_args()
    app = ModelApp(Behavior(delay_seconds=arguments.delay)).application()
    try:
        asyncio.run(serve(app, arguments.host, arguments.port, arguments.until_stdin_closes))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
