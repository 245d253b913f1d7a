"""Bounds on a provider, with servers that send too much, too slowly or after the deadline."""

import asyncio
import contextlib
import contextvars
import datetime
import gzip
import ipaddress
import json
import socket
import ssl
import threading
import time
import types
import zlib
from concurrent.futures import ThreadPoolExecutor

import dspy
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from dspy._vendor.lm15.transports import StdlibTransport, TransportError, TransportRequest
from dspy.clients import execution
from dspy.utils.exceptions import (
    LMError,
    LMProviderError,
    LMRateLimitError,
    LMServerError,
    LMTimeoutError,
    is_retryable_lm_error,
)

from dspy_lambda.deadline import DEADLINE
from dspy_lambda.dspy_patches.insides import default_read_timeout
from dspy_lambda.errors import DeadlineExceeded, ModelUnavailable, from_exception
from dspy_lambda.provider_bounds import ProviderBounds, attempts, bound_provider_calls, times
from dspy_lambda.provider_bounds.sizes import BoundedDecoder
from dspy_lambda_infra.model_server import completion

MIB = 2**20
BLOCK = bytes(64 * 1024)
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
# How long a busy machine may take for something immediate.
SLACK = 15


@pytest.fixture(autouse=True)
def _bounds():
    assert bound_provider_calls() == {}
    with dspy.context(disable_history=True):
        yield
    assert bound_provider_calls() == {}


@pytest.fixture
def deadline():
    """Set the context's deadline this many seconds from now, and return it."""

    def in_seconds(seconds):
        DEADLINE.set(time.monotonic() + seconds)
        return DEADLINE.get()

    yield in_seconds
    DEADLINE.set(None)


class Server:
    """Plays a script for each connection: an iterator of bytes to send, and of floats to wait."""

    def __init__(self, script, tls=None):
        self.script = script
        self.tls = tls
        self.requests = 0
        self.sent = 0
        self.closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ended = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def close(self):
        self._ended = True
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection:
                read_request(connection)
                self.requests += 1
                for part in self.script():
                    if self._ended:
                        return
                    if isinstance(part, float):
                        time.sleep(part)
                    else:
                        connection.sendall(part)
                        self.sent += len(part)
        except OSError:
            self.closed.set()


def read_request(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += connection.recv(65536)


@pytest.fixture
def serve():
    servers = []

    def start(script, tls=None):
        servers.append(Server(script, tls))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def own_lm(url, **options):
    return dspy.LM("openai/m", api_base=url, api_key="k", cache=False, **{"num_retries": 0, "timeout": 30, **options})


def sync_call(lm):
    return lm("hi")


def async_call(lm):
    return asyncio.run(lm.acall("hi"))


def streaming_call(lm):
    async def stream():
        program = dspy.streamify(dspy.Predict("question -> answer"), is_async_program=True)
        return [value async for value in program(question="hi")]

    with dspy.context(lm=lm):
        return asyncio.run(stream())


both = pytest.mark.parametrize("call", [sync_call, async_call])


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def endless(head, part, wait=None):
    def script():
        yield head
        while True:
            yield part
            if wait:
                yield wait

    return script


def once(*parts):
    return lambda: iter(parts)


def gzipped(size):
    packer = zlib.compressobj(9, wbits=31)
    for _ in range(size // MIB):
        if data := packer.compress(bytes(MIB)):
            yield data
    yield packer.flush()


def bomb():
    """1 MiB that decompresses to 1 GiB."""
    yield OK + b"Content-Encoding: gzip\r\n" + CHUNKED + b"\r\n"
    for data in gzipped(1024 * MIB):
        yield chunk(data)


def bomb_in_a_bomb():
    packed = gzip.compress(b"".join(gzipped(256 * MIB)))
    yield OK + b"Content-Encoding: gzip, gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(packed), packed)


TOO_MUCH = {
    "announced": endless(OK + b"Content-Length: 1073741824\r\n\r\n", BLOCK),
    "announced in more digits than int takes": endless(OK + b"Content-Length: 1" + b"0" * 4000 + b"\r\n\r\n", BLOCK),
    "chunked": endless(OK + CHUNKED + b"\r\n", chunk(BLOCK)),
    "one chunk of 1 GiB": endless(OK + CHUNKED + b"\r\n40000000\r\n", BLOCK),
    "trailers": endless(OK + CHUNKED + b"\r\n0\r\n", b"X-Trailer: x\r\n" * 4000),
    "until the connection closes": endless(OK + b"\r\n", BLOCK),
    "gzip": bomb,
    "gzip twice": bomb_in_a_bomb,
    "empty gzip members": endless(OK + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(b"") * 3000),
    "an error": endless(b"HTTP/1.1 503 Busy\r\n\r\n", BLOCK),
    "headers": endless(OK, b"X-Header: x\r\n" * 4000),
}


@contextlib.contextmanager
def peak_growth():
    """Return the peak growth of this process's resident memory: proc(5), clear_refs and VmHWM."""
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")
    grown = types.SimpleNamespace(bytes=-status_bytes("VmRSS"))
    yield grown
    grown.bytes += status_bytes("VmHWM")


def status_bytes(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(f"{name}:"))


@pytest.mark.parametrize("script", TOO_MUCH.values(), ids=TOO_MUCH)
@both
def test_an_oversized_answer_is_not_read_and_not_retried(serve, script, call):
    server = serve(script)
    with peak_growth() as grown, pytest.raises(LMProviderError) as raised:
        call(own_lm(server.url, num_retries=3, timeout=60))
    assert not is_retryable_lm_error(raised.value)
    assert type(from_exception(raised.value)) is ModelUnavailable
    assert grown.bytes < 64 * MIB
    assert server.requests == 1
    assert server.sent < 48 * MIB


@both
def test_the_connection_of_an_oversized_answer_is_closed(serve, call):
    server = serve(TOO_MUCH["chunked"])
    lm = own_lm(server.url)
    with pytest.raises(LMProviderError, match=r"exceeds 33,554,432 bytes"):
        call(lm)
    assert server.closed.wait(SLACK)


@both
def test_errors_have_a_smaller_limit_than_answers(serve, call):
    bound_provider_calls(ProviderBounds(answer_bytes=MIB, error_bytes=1000))
    server = serve(once(b"HTTP/1.1 500 No\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001))
    with pytest.raises(LMProviderError, match=r"HTTP 500.* exceeds 1,000 bytes"):
        call(own_lm(server.url))
    server = serve(once(b"HTTP/1.1 500 No\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000))
    with pytest.raises(LMServerError):
        call(own_lm(server.url))


@both
def test_an_answer_at_the_limit_is_read_whole(models, call):
    bound_provider_calls(ProviderBounds(answer_bytes=MIB))
    models.behave(answer_bytes=MIB)
    assert call(own_lm(models.url)) == ["m: hi"]
    models.behave(answer_bytes=MIB + 1)
    with pytest.raises(LMProviderError):
        call(own_lm(models.url))


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize("coding", ["identity", "gzip", "deflate"])
def test_a_bounded_decoder_returns_every_byte(coding, step):
    from dspy._vendor.lm15.transports._http11 import ResponseHeadParser

    text = b"".join(b"%d," % number for number in range(20_000))
    packed = {"identity": bytes, "gzip": gzip.compress, "deflate": zlib.compress}[coding](text)
    parser = ResponseHeadParser()
    parser.feed(OK + b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (coding.encode(), len(packed)))
    decoder = parser.body_decoder("POST")
    assert isinstance(decoder, BoundedDecoder)
    out = [part for start in range(0, len(packed), step) for part in decoder.feed(packed[start : start + step])]
    assert b"".join(out) + decoder.drain() == text
    assert decoder.complete


TRICKLES = {
    "content-length": endless(OK + b"Content-Length: 1000000\r\n\r\n", b" ", 0.02),
    "chunked": endless(OK + CHUNKED + b"\r\n", chunk(b" "), 0.02),
    "until the connection closes": endless(OK + b"\r\n", b" ", 0.02),
    "tiny chunks": endless(OK + CHUNKED + b"\r\n", chunk(b"\n") * 1000),  # no waiting, but seconds of parsing
    "headers": endless(OK + b"X-Slow: ", b"x", 0.02),
    "an error": endless(b"HTTP/1.1 500 No\r\nContent-Length: 1000000\r\n\r\n", b" ", 0.02),
    "nothing": endless(b"", b"", 0.02),
}
trickles = pytest.mark.parametrize("script", TRICKLES.values(), ids=TRICKLES)


@trickles
@pytest.mark.parametrize("call", [sync_call, async_call, streaming_call])
def test_a_trickling_answer_ends_at_the_deadline_and_is_not_retried(serve, deadline, script, call):
    server = serve(script)
    lm = own_lm(server.url, num_retries=3)
    end = deadline(0.5)
    with pytest.raises(DeadlineExceeded) as raised:
        call(lm)
    assert 0 <= time.monotonic() - end < SLACK
    assert from_exception(raised.value) is raised.value
    assert server.requests == 1


@both
def test_the_connection_of_a_trickling_answer_is_closed(serve, deadline, call):
    server = serve(TRICKLES["chunked"])
    deadline(0.3)
    with pytest.raises(DeadlineExceeded):
        call(own_lm(server.url))
    assert server.closed.wait(SLACK)


@both
def test_an_answer_in_progress_at_the_deadline_may_arrive_late(models, deadline, call):
    bound_provider_calls(ProviderBounds(late_seconds=20))
    models.behave(delay_seconds=0.5)
    end = deadline(0.2)
    assert call(own_lm(models.url)) == ["m: hi"]
    assert time.monotonic() > end
    with pytest.raises(DeadlineExceeded):
        call(own_lm(models.url))
    assert models.stats()["requests"] == 1


@trickles
@both
def test_without_a_deadline_a_trickling_answer_ends_after_a_multiple_of_the_timeout(serve, script, call):
    server = serve(script)
    # `nothing` is covered by the timeout itself: no byte arrives for that long.
    silent = script is TRICKLES["nothing"]
    begin = time.monotonic()
    with pytest.raises(LMError) as raised:
        call(own_lm(server.url, timeout=0.4))
    assert (0.4 if silent else 0.8) <= time.monotonic() - begin < 0.8 + SLACK
    assert silent or type(raised.value) is LMTimeoutError
    assert type(from_exception(raised.value)) is ModelUnavailable


@pytest.fixture
def tls(tmp_path, monkeypatch):
    """A server's side of TLS, with a certificate that this process trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    tomorrow = now + datetime.timedelta(days=1)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, tomorrow)
    builder = builder.add_extension(address, critical=False)
    path = tmp_path / "certificate.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + builder.sign(key, hashes.SHA256()).public_bytes(pem))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@both
def test_a_trickling_answer_over_tls_ends_at_the_deadline(serve, deadline, tls, call):
    body = json.dumps(completion({"model": "m", "messages": []}, "word " * 20_000)).encode()
    server = serve(once(OK + b"Content-Length: %d\r\n\r\n" % len(body), body), tls)
    assert call(own_lm(server.url)) == ["word " * 20_000]
    server = serve(TOO_MUCH["chunked"], tls)
    with pytest.raises(LMProviderError):
        call(own_lm(server.url))
    assert server.closed.wait(SLACK)
    server = serve(TRICKLES["chunked"], tls)
    end = deadline(0.5)
    with pytest.raises(DeadlineExceeded):
        call(own_lm(server.url))
    assert 0 <= time.monotonic() - end < SLACK
    assert server.closed.wait(SLACK)


@both
def test_a_slow_answer_before_the_deadline_is_accepted(models, deadline, call):
    models.behave(trickle_seconds=0.002)
    deadline(20)
    assert call(own_lm(models.url)) == ["m: hi"]


@both
def test_a_provider_that_reads_nothing_ends_at_the_deadline(deadline, call):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        lm = own_lm(f"http://127.0.0.1:{deaf.getsockname()[1]}/v1")
        end = deadline(0.5)
        with pytest.raises(DeadlineExceeded):
            call(lm.copy(stop=["x" * 20 * MIB]))
        assert 0 <= time.monotonic() - end < SLACK


def test_name_resolution_counts_against_the_deadline(monkeypatch, deadline):
    resolving = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: resolving.wait(5) and [])
    end = deadline(0.3)
    with pytest.raises(DeadlineExceeded):
        sync_call(own_lm("http://provider.invalid/v1"))
    assert 0 <= time.monotonic() - end < SLACK

    async def timed(end):
        with pytest.raises(DeadlineExceeded):
            await own_lm("http://provider.invalid/v1").acall("hi")
        assert 0 <= time.monotonic() - end < SLACK
        resolving.set()

    asyncio.run(timed(deadline(0.3)))


@both
def test_a_tls_handshake_counts_against_the_deadline(deadline, call):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        end = deadline(0.3)
        with pytest.raises(DeadlineExceeded):
            call(own_lm(f"https://127.0.0.1:{silent.getsockname()[1]}/v1"))
        assert 0 <= time.monotonic() - end < SLACK


def test_a_connection_opened_too_late_is_closed(monkeypatch, deadline):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        resolve = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: (time.sleep(0.5), resolve(*address))[1])
        deadline(0.2)
        with pytest.raises(DeadlineExceeded):
            sync_call(own_lm(f"http://127.0.0.1:{address[1]}/v1"))
        server.settimeout(SLACK)
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1) == b""


def test_a_refused_connection_is_still_a_transport_error():
    with pytest.raises(LMError, match="refused") as raised:
        sync_call(own_lm("http://127.0.0.1:9/v1"))
    assert is_retryable_lm_error(raised.value)


def test_the_wait_for_a_free_connection_counts_against_the_deadline(serve, deadline):
    server = serve(once(OK + b"Content-Length: 2\r\n\r\n", 5.0))
    request = TransportRequest("POST", server.url, body=b"{}")
    transport = StdlibTransport(max_connections=1, pool_timeout=1.0)
    with transport, transport.stream(request):
        with pytest.raises(TransportError, match="connections were busy"):
            transport.stream(request)
        end = deadline(0.3)
        with pytest.raises(DeadlineExceeded):
            transport.stream(request)
        assert 0 <= time.monotonic() - end < SLACK


def test_the_deadline_of_an_lms_own_call_applies_in_a_thread_without_context(serve):
    server = serve(TRICKLES["chunked"])
    lm = own_lm(server.url)
    end = time.monotonic() + 0.4
    lm.call = types.SimpleNamespace(invocation=types.SimpleNamespace(deadline=end))
    with ThreadPoolExecutor(1) as executor:
        for call in (sync_call, async_call):
            with pytest.raises(DeadlineExceeded):
                executor.submit(call, lm).result()
            assert 0 <= time.monotonic() - end < SLACK
        assert executor.submit(DEADLINE.get).result() is None
    assert server.requests == 1  # the second call started too late


@both
def test_connections_are_still_reused(models, call):
    lm = own_lm(models.url)

    async def several():
        for _ in range(5):
            await lm.acall("hi")

    if call is sync_call:
        for _ in range(5):
            call(lm)
    else:
        asyncio.run(several())
    assert models.stats()["connections"] == 1
    assert models.stats()["requests"] == 5


# Nothing starts after the deadline. Each of these keeps calling until it is stopped, whatever happens.


def run_sync_loop(lm, stopped):
    predict = dspy.Predict("question -> answer")
    while not stopped():
        with contextlib.suppress(Exception):
            predict(question="q")


def run_async_loop(lm, stopped):
    predict = dspy.Predict("question -> answer")

    async def deaf():
        while not stopped():
            with contextlib.suppress(BaseException):
                await predict.acall(question="q")

    async def dispatched():
        task = asyncio.create_task(deaf())
        for _ in range(13):
            await asyncio.sleep(0.1)
            task.cancel()
        await task

    asyncio.run(dispatched())


def run_parallel(lm, stopped):
    predict = dspy.Predict("question -> answer")
    pairs = [(predict, {"question": f"q{number}"}) for number in range(8)]
    while not stopped():
        with contextlib.suppress(Exception):
            dspy.Parallel(num_threads=4, max_errors=1000, disable_progress_bar=True)(pairs)


def run_own_retrying_lm(lm, stopped):
    own = own_lm(lm.kwargs["api_base"], num_retries=3)
    with dspy.context(lm=own):
        run_sync_loop(own, stopped)


def run_streams(lm, stopped):
    async def streams():
        program = dspy.streamify(dspy.Predict("question -> answer"), is_async_program=True)
        while not stopped():
            with contextlib.suppress(Exception):
                async for _ in program(question="q"):
                    pass

    asyncio.run(streams())


def run_sync_streams(lm, stopped):
    program = dspy.streamify(dspy.Predict("question -> answer"), async_streaming=False)
    while not stopped():
        with contextlib.suppress(Exception):
            list(program(question="q"))


LOOPS = [run_sync_loop, run_async_loop, run_parallel, run_own_retrying_lm, run_streams, run_sync_streams]


@pytest.mark.parametrize("errors", [0, 1], ids=["answers", "errors"])
@pytest.mark.parametrize("loop", LOOPS)
def test_no_request_arrives_after_the_deadline(models, deadline, loop, errors):
    models.behave(error_rate=errors)
    lm = own_lm(models.url)
    end = deadline(0.5)
    with dspy.context(lm=lm):
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(loop, lm, lambda: time.monotonic() > end + 0.8))
        thread.start()
        thread.join()
    started = models.stats()["started"]
    assert started
    # A request in progress at the deadline may arrive a moment later.
    assert [round(at - end, 3) for at in started if at > end + 0.4] == []


@both
def test_a_program_sees_the_error_of_a_refused_call(models, deadline, call):
    deadline(-1)
    with pytest.raises(DeadlineExceeded) as raised:
        call(own_lm(models.url, num_retries=3))
    assert from_exception(raised.value) is raised.value
    assert models.stats()["requests"] == 0


def test_programs_that_wrap_or_collect_failures_end_in_deadline_exceeded(models, deadline):
    class Wrapping(dspy.Module):
        def forward(self, question):
            try:
                return dspy.Predict("question -> answer")(question=question)
            except Exception as error:
                raise RuntimeError("no answer") from error

    deadline(-1)
    with dspy.context(lm=own_lm(models.url)):
        with pytest.raises(RuntimeError) as raised:
            Wrapping()(question="q")
        assert type(from_exception(raised.value)) is DeadlineExceeded
        with pytest.raises(DeadlineExceeded):
            dspy.ReAct("question -> answer", tools=[])(question="q")

        async def gathered():
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(dspy.Predict("question -> answer").acall(question="q"))

        with pytest.raises(BaseExceptionGroup) as group:
            asyncio.run(gathered())
        assert type(from_exception(group.value)) is DeadlineExceeded
    assert models.stats()["requests"] == 0


def test_a_thread_that_ignores_refusals_does_not_burn_the_cpu(models, deadline):
    deadline(-1)
    lm, begin, cpu = own_lm(models.url), time.monotonic(), time.process_time()
    while time.monotonic() - begin < 1:
        with contextlib.suppress(DeadlineExceeded):
            lm("hi")
    assert time.process_time() - cpu < 0.5


def test_a_task_that_ignores_refusals_does_not_stop_the_loop(models, deadline):
    async def deaf(lm, stopped):
        while not stopped.is_set():
            with contextlib.suppress(BaseException):
                await lm.acall("hi")

    async def beside():
        stopped = asyncio.Event()
        task = asyncio.create_task(deaf(own_lm(models.url), stopped))
        for _ in range(10):
            await asyncio.sleep(0.01)
        stopped.set()
        await task

    deadline(-1)
    begin = time.monotonic()
    asyncio.run(beside())
    assert time.monotonic() - begin < SLACK


class CountingEngine:
    def __init__(self):
        self.calls = 0

    def complete(self, request):
        self.calls += 1
        raise AssertionError

    def complete_legacy(self, *_, **__):
        self.complete(None)


class OldStyle(dspy.BaseLM):
    calls = 0

    def forward(self, prompt=None, messages=None, **kwargs):
        type(self).calls += 1
        raise AssertionError

    async def aforward(self, prompt=None, messages=None, **kwargs):
        self.forward()


def test_late_calls_of_other_engines_and_lm_classes_are_refused(deadline, monkeypatch):
    from dspy.clients.engines import litellm_engine

    deadline(-1)
    engine = CountingEngine()
    with pytest.raises(DeadlineExceeded):
        dspy.LM("own/m", engine=engine, cache=False)("hi")
    assert engine.calls == 0
    for call in (sync_call, async_call):
        with pytest.warns(DeprecationWarning, match="forward"), pytest.raises(DeadlineExceeded):
            call(OldStyle("own/m"))
    assert OldStyle.calls == 0
    for kind in ("LiteLLMEngine", "AsyncLiteLLMEngine"):
        monkeypatch.setattr(getattr(litellm_engine, kind), "complete_legacy", engine.complete_legacy)
    for call in (sync_call, async_call):
        with pytest.raises(DeadlineExceeded):
            call(dspy.LM("openai/m", engine="litellm", api_key="k", cache=False))
    assert engine.calls == 0


@pytest.mark.parametrize("caching", [True, False])
def test_late_embeddings_are_refused(deadline, caching):
    asked = []
    embedder = dspy.Embedder(asked.append, caching=caching)
    deadline(-1)
    with pytest.raises(DeadlineExceeded):
        embedder("text")
    with pytest.raises(DeadlineExceeded):
        asyncio.run(embedder.acall("text"))
    assert asked == []


@pytest.mark.parametrize("call", [types.SimpleNamespace(), types.SimpleNamespace(legacy=None)])
def test_a_call_that_does_not_tell_its_timeout_has_its_lms(call):
    assert attempts._read_timeout(types.SimpleNamespace(kwargs={"timeout": 7}), call) == 7


def test_a_request_that_does_not_tell_its_timeout_has_its_transports():
    def stream(transport, request):
        return times._total()._seconds

    transport, request = types.SimpleNamespace(_read_timeout=7.0), types.SimpleNamespace(url="u")
    expected = stream(transport, request) / default_read_timeout() * 7.0
    assert times.bound_stream(stream)(transport, request) == expected


def test_an_async_engine_of_any_kind_ends_at_the_deadline(deadline):
    class Slow(dspy.BaseLM):
        async def aforward(self, prompt=None, messages=None, **kwargs):
            await asyncio.sleep(30)

    end = deadline(0.3)
    with pytest.warns(DeprecationWarning, match="forward"), pytest.raises(DeadlineExceeded):
        async_call(Slow("own/m"))
    assert 0 <= time.monotonic() - end < SLACK


def test_a_canceled_call_is_canceled_and_not_late(serve, deadline):
    server = serve(TRICKLES["nothing"])

    async def cancelled():
        task = asyncio.create_task(own_lm(server.url).acall("hi"))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    deadline(20)
    asyncio.run(cancelled())


@both
def test_a_retry_that_would_miss_the_deadline_raises_the_error_at_once(models, deadline, call):
    models.behave(rate_limit_rate=1, retry_after_seconds=20)
    deadline(19)
    begin = time.monotonic()
    with pytest.raises(LMRateLimitError) as raised:
        call(own_lm(models.url, num_retries=3))
    assert raised.value.retry_after == 20
    assert time.monotonic() - begin < 15  # instead of at the deadline
    assert models.stats()["requests"] == 1


def test_a_retry_that_fits_before_the_deadline_is_made(models, deadline):
    models.behave(rate_limit_rate=1, retry_after_seconds=0)
    deadline(60)  # the pauses come to 10.5 s at most
    with pytest.raises(LMRateLimitError):
        sync_call(own_lm(models.url, num_retries=3))
    assert models.stats()["requests"] == 4


@pytest.mark.parametrize(
    ("attempt", "retry_after", "least", "most"),
    [(0, 0, 1, 1.5), (2, 1, 4, 6), (0, 20, 20, 30), (0, 1e308, 1, 1.5), (3000, None, 60, 90)],
)
def test_the_retry_pause_is_the_longer_of_retry_after_and_the_exponential_one(attempt, retry_after, least, most):
    error = LMRateLimitError("", retry_after=retry_after)
    assert all(least <= execution._delay(error, attempt) <= most for _ in range(100))


def test_connections_are_made_even_if_no_thread_can_be_started(models, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert sync_call(own_lm(models.url)) == ["m: hi"]


def test_bounds_are_applied_once():
    before = execution._attempt
    assert bound_provider_calls() == {}
    assert execution._attempt is before
