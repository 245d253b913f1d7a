import asyncio
import gc
import json
import os
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dspy_lambda_infra.local.events import Request
from dspy_lambda_infra.local.front import Front
from dspy_lambda_infra.local.local import CATALOGUE, LocalLambda
from dspy_lambda_infra.project import load_project
from tests.conftest import QUICKSTART
from tests.infra.test_serve import Server
from tests.stress.conftest import SCALE
from tests.support import AECHO, ECHO, Context, Records, failures, sqs

FIELDS = {"Answer": "question", "Summarise": "text", "Triage": "message", "Perspectives": "question"}


def mixed(count):
    """Bodies for the four programs of the quickstart, in turn."""
    return [
        {"program": program, "inputs": {field: f"{program}-{n}"}}
        for n in range(count)
        for program, field in FIELDS.items()
    ]


def local(project, models, lines, **variables):
    def log(_, line):
        lines.append(json.loads(line))  # raises if a line is not JSON

    given = {"OPENAI_API_KEY": "k", "DSPY_LAMBDA_API_BASE": models.url, **variables}
    return LocalLambda(load_project(project), given, log)


def test_every_call_is_logged_under_load(models, report):
    lines: list = []
    models.behave(delay_seconds=0.05)

    async def run():
        async with local(QUICKSTART, models, lines) as running:
            function = running.function(CATALOGUE)
            batches = [json.dumps(sqs(*mixed(25))).encode() for _ in range(6 * SCALE)]
            return [await function.invoke(batch) for batch in batches]

    answers = asyncio.run(run())
    calls = Records(lines).calls
    sent = 100 * len(answers)
    assert Counter(call["program"] for call in calls) == dict.fromkeys(FIELDS, sent // 4)
    needed = {"program", "model", "source", "outcome", "duration_ms", "input_tokens", "cost_usd", "message_id"}
    assert all(needed <= set(call) for call in calls)
    assert all(call["lm_calls"] == (4 if call["program"] == "Perspectives" else 1) for call in calls)
    assert sum(Records(lines).values("Calls")) == sent
    reported = sum(len(failures(json.loads(answer.payload))) for answer in answers)
    report(sent, sum(call["outcome"] == "success" for call in calls), reported, lines=len(lines))


def test_no_state_leaks_between_concurrent_calls(make_serve, models, report):
    serve = make_serve(QUICKSTART)
    models.behave(delay_seconds=0.02)
    wrong, answers = [], Counter()
    run = serve.environment.dispatcher.run

    async def check(program, inputs, call):
        await run(program, inputs, call)
        outputs = json.loads(call.outputs)
        model = "gpt-4.1-mini" if program.name == "Triage" else "gpt-4.1-nano"
        if f'{model}: {next(iter(inputs.values()))}"' not in json.dumps(outputs):
            wrong.append((inputs, outputs))
        answers[program.name] += 1

    serve.environment.dispatcher.run = check
    for _ in range(SCALE):
        assert failures(serve(sqs(*mixed(250)))) == []
    assert wrong == []
    assert models.stats()["per_model"] == {"gpt-4.1-nano": 1500 * SCALE, "gpt-4.1-mini": 250 * SCALE}
    report(1000 * SCALE, answers.total(), 0, wrong=0)


@pytest.mark.parametrize(("program", "source"), [("Echo", ECHO), ("AEcho", AECHO)], ids=["sync", "async"])
def test_requests_beyond_the_slots_are_answered_with_429(make_project, models, report, program, source):
    limits = {"max_concurrent_per_program": 10, "queue_timeout_seconds": 0.5}
    server = Server(make_project({"echo": source}, server=limits), models)
    models.behave(delay_seconds=0.3)
    statuses: Counter = Counter()
    try:
        with ThreadPoolExecutor(60) as pool:
            for _ in range(SCALE):
                statuses.update(pool.map(lambda n: server.post(program, question=f"q{n}")[0], range(60)))
                # After the burst, the next caller is served at once.
                statuses[server.post(program, question="after")[0]] += 1
    finally:
        server.stop()
    assert set(statuses) == {200, 429}
    assert models.stats()["peak_in_flight"] == 10
    report(61 * SCALE, statuses[200], statuses[429])


@pytest.mark.parametrize("source", [ECHO, AECHO], ids=["sync", "async"])
def test_a_batch_succeeds_right_after_an_error_storm(make_project, make_serve, models, records, report, source):
    # The function's timeout is also the LM's: it limits how long a hanging provider holds a thread.
    serve = make_serve(make_project({"echo": source}, **{"lambda": {"defaults": {"timeout_seconds": 4}}}))
    sent = answered = failed = 0
    for seed in range(SCALE):
        models.behave(
            error_rate=0.25, rate_limit_rate=0.25, malformed_rate=0.2, drop_rate=0.15, hang_rate=0.05, seed=seed
        )
        bodies = [{"question": f"q{n}"} for n in range(100)]
        reported = failures(serve(sqs(*bodies), Context(remaining_ms=4000)))
        outcomes = Counter(call["outcome"] for call in records().calls)
        assert set(outcomes) <= {"success", "model_error", "rate_limited", "deadline"}
        sent, answered, failed = sent + 100, answered + outcomes["success"], failed + len(reported)
        # Recovery is immediate: hanging threads of the storm hold only their own slots.
        models.behave()
        assert failures(serve(sqs(*bodies[:20]))) == []
        records()
    report(sent, answered, failed)


def test_every_call_is_answered_before_the_timeout_if_all_miss_their_deadline(make_project, models, report):
    lines: list = []
    models.behave(delay_seconds=5)
    settings = {"defaults": {"timeout_seconds": 2, "reserved_concurrency": 4}}
    project = make_project({"echo": ECHO, "aecho": AECHO}, **{"lambda": settings})

    async def run():
        async with local(project, models, lines) as running:
            functions = {name: running.function(name) for name in ("Echo", "AEcho")}
            front = Front("rest", functions, functions["Echo"])
            batch = json.dumps(sqs(*[{"question": "q"}] * 100)).encode()
            batches = [await functions[name].invoke(batch) for name in functions for _ in range(SCALE)]
            request = [Request("POST", f"/{name}", body=b'{"question": "q"}') for name in functions]
            http = [await front.answer(one) for one in request for _ in range(SCALE)]
            return batches, http

    batches, http = asyncio.run(run())
    reported = sum(len(failures(json.loads(answer.payload))) for answer in batches)
    assert {answer.status for answer in http} == {504}
    kills = [line for line in lines if line.get("type") == "platform.report" and line["record"].get("errorType")]
    assert kills == []
    slowest = max(line["record"]["metrics"]["durationMs"] for line in lines if line.get("type") == "platform.report")
    report(200 * SCALE + len(http), 0, reported + len(http), kills=0, slowest_ms=round(slowest))


class Proxy:
    """Forwards connections to the model server; after `freeze`, silently drops all data on existing ones."""

    def __init__(self, target):
        self.target = target
        self.blackholed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self.connections = 0
        self._holes: list[threading.Event] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self):
        """Drop all data on existing connections from now on."""
        for hole in self._holes:
            hole.set()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            hole = threading.Event()
            self._holes.append(hole)
            server = socket.create_connection(self.target)
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(source, sink, hole), daemon=True).start()

    @staticmethod
    def _pass(source, sink, hole):
        try:
            while data := source.recv(65536):
                if not hole.is_set():
                    sink.sendall(data)
            if not hole.is_set():
                sink.close()
        except OSError:
            pass

    def close(self):
        self._listener.close()


@pytest.mark.parametrize("source", [ECHO, AECHO], ids=["sync", "async"])
def test_calls_succeed_after_a_freeze_drops_connections(make_project, make_serve, models, records, report, source):
    host, port = models.address.removeprefix("http://").split(":")
    proxy = Proxy((host, int(port)))
    serve = make_serve(make_project({"echo": source}), DSPY_LAMBDA_API_BASE=proxy.url, DSPY_LAMBDA_IDLE_SECONDS="1")
    rounds = SCALE
    slowest = 0.0
    for _ in range(rounds):
        assert failures(serve(sqs(*[{"question": "q"}] * 10))) == []
        proxy.freeze()
        time.sleep(1.2)
        begin = time.monotonic()
        assert failures(serve(sqs(*[{"question": "q"}] * 10), Context(remaining_ms=10_000))) == []
        slowest = max(slowest, time.monotonic() - begin)
    proxy.close()
    report(20 * rounds, 20 * rounds, 0, connections=proxy.connections, slowest_s=round(slowest, 2))


def memory_kib():
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


@pytest.mark.parametrize("source", [ECHO, AECHO], ids=["sync", "async"])
def test_memory_and_sockets_stay_flat(make_project, make_serve, models, output, report, source):
    if not Path("/proc/self/status").exists():
        pytest.skip("memory and sockets are read from /proc, which this machine does not have")
    serve = make_serve(make_project({"echo": source}))

    def run(calls, question="word " * 600, **faults):
        models.behave(**faults)
        failed = 0
        for n in range(calls // 100):
            context = Context(remaining_ms=700 if "error_rate" in faults else 30_000)
            failed += len(failures(serve(sqs(*[{"question": f"{n} {question}"}] * 100), context)))
            output.seek(0)
            output.truncate()
        return failed

    run(500)
    run(100, delay_seconds=0.5)  # all connections in the pool
    gc.collect()
    memory, sockets = memory_kib(), len(os.listdir("/proc/self/fd"))
    failed = run(1000 * SCALE)
    failed += run(300 * SCALE, "q", error_rate=0.3, drop_rate=0.2, delay_seconds=0.3)
    time.sleep(0.5)
    failed += run(300)
    gc.collect()
    grown = memory_kib() - memory
    assert grown < 20_000 + 2_000 * SCALE, f"{grown} KiB"
    assert len(os.listdir("/proc/self/fd")) <= sockets + 10
    sent = 1300 * SCALE + 300
    report(sent, sent - failed, failed, grown_kib=grown, sockets=f"{sockets} -> {len(os.listdir('/proc/self/fd'))}")
