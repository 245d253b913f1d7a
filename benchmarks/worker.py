"""Runs one measurement in its own process and prints a JSON object. `run.py` starts these."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

BEGIN = time.perf_counter()
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "benchmarks" / "peers"))
PROGRAMS = {"async": ("Summarise", "text"), "sync": ("Answer", "question")}


class Context:
    """A Lambda context."""

    aws_request_id = "benchmark"
    function_name = "benchmark"
    memory_limit_in_mb = 1024
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:benchmark"

    def get_remaining_time_in_millis(self) -> int:
        """Plenty."""
        return 600_000


def batch(kind: str, size: int) -> dict[str, Any]:
    """Return an SQS event."""
    program, field = PROGRAMS[kind]
    bodies = (json.dumps({"program": program, "inputs": {field: f"record {n}"}}) for n in range(size))
    return {"Records": [_record(n, body) for n, body in enumerate(bodies)]}


def _record(number: int, body: str) -> dict[str, Any]:
    return {
        "messageId": str(number),
        "receiptHandle": "r",
        "body": body,
        "attributes": {},
        "messageAttributes": {},
        "md5OfBody": "",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:Queue",
        "awsRegion": "us-east-1",
    }


def http_event() -> dict[str, Any]:
    """Return a REST API event for Summarise."""
    from dspy_lambda_infra.local.events import Request, rest_event

    body = json.dumps({"text": "a text", "sentences": 2}).encode()
    return rest_event(Request("POST", "/Summarise", headers=[("Content-Type", "application/json")], body=body))


def our_handler() -> Callable[[Any, Any], Any]:
    """Return this project's handler for the quickstart."""
    os.environ |= {"DSPY_LAMBDA_PROJECT": str(ROOT / "examples" / "quickstart"), "OPENAI_API_KEY": "none"}
    os.environ["DSPY_LAMBDA_API_BASE"] = os.environ["MODEL_URL"]
    from dspy_lambda.main import lambda_handler

    return lambda_handler


def powertools_handler(kind: str) -> Callable[[Any, Any], Any]:
    """Return Powertools' batch processors for the same programs."""
    os.environ["LAMBDA_TASK_ROOT"] = "/tmp"  # noqa: S108 - makes its async processor keep to one loop
    import dspy
    from aws_lambda_powertools.utilities import batch as powertools

    lm = dspy.LM("openai/gpt-4.1-nano", api_base=os.environ["MODEL_URL"], api_key="none", cache=False)
    dspy.configure(lm=lm)
    if kind == "sync":
        program = dspy.Predict("question: str -> answer: str")
        processor = powertools.BatchProcessor(event_type=powertools.EventType.SQS)

        def handle(record: Any) -> Any:
            return program(**json.loads(record.body)["inputs"])

        return lambda event, _: powertools.process_partial_response(event, handle, processor)
    program = dspy.Predict("text: str, sentences: int -> summary: str")
    async_processor = powertools.AsyncBatchProcessor(event_type=powertools.EventType.SQS)

    async def ahandle(record: Any) -> Any:
        return await program.acall(sentences=2, **json.loads(record.body)["inputs"])

    return lambda event, _: powertools.async_process_partial_response(event, ahandle, async_processor)


def quiet() -> Any:
    """Discard what handlers print; return the real standard output."""
    output = os.fdopen(os.dup(1), "w")
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    os.dup2(sys.stdout.fileno(), 1)  # the handler writes to this descriptor, whatever `sys.stdout` is
    return output


def measure_batch(who: str, kind: str, size: int, runs: int) -> dict[str, Any]:
    """Measure seconds per batch, CPU per record (ms), and memory."""
    handler = our_handler() if who == "ours" else powertools_handler(kind)
    event = batch(kind, size)
    handler(batch(kind, min(size, 100)), Context())
    before, seconds, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, [], []
    for _ in range(runs):
        begin, used = time.perf_counter(), time.process_time()
        answer = handler(event, Context())
        seconds.append(time.perf_counter() - begin)
        cpu.append((time.process_time() - used) / size * 1000)
        assert answer == {"batchItemFailures": []}, answer
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": statistics.median(seconds),
        "cpu_ms_per_record": statistics.median(cpu),
        "kib_per_record": (after - before) / size,
    }


def _times(run: Callable[[], Any], count: int) -> dict[str, float]:
    wall, begin_cpu = [], time.process_time()
    for _ in range(count):
        begin = time.perf_counter()
        run()
        wall.append((time.perf_counter() - begin) * 1000)
    cpu = (time.process_time() - begin_cpu) / count * 1000
    ordered = sorted(wall)
    return {"median_ms": statistics.median(wall), "p99_ms": ordered[int(len(ordered) * 0.99) - 1], "cpu_ms": cpu}


def measure_bare(model: str, count: int) -> dict[str, float]:
    """Measure `await program.acall(...)` with DSPy's defaults."""
    import dspy

    program = dspy.Predict("text: str, sentences: int -> summary: str")
    lm = dspy.LM(f"openai/{model}", api_base=os.environ["MODEL_URL"], api_key="none", cache=False)
    loop = asyncio.new_event_loop()

    async def call() -> Any:
        return await program.acall(text="a text", sentences=2)

    with dspy.context(lm=lm):
        return _measured(lambda: loop.run_until_complete(call()), count)


def _measured(run: Callable[[], Any], count: int) -> dict[str, float]:
    for _ in range(50):
        run()
    return _times(run, count)


def measure_dispatch(model: str, count: int) -> dict[str, float]:
    """Measure the same call through the dispatcher, with its log record and metrics."""
    our_handler()
    from dspy_lambda.main import environment

    for lm in environment.models.values():
        lm.model = f"openai/{model}"
    program = environment.programs["Summarise"]

    async def call() -> Any:
        with (
            environment.invocation("direct", request_id="r") as invocation,
            invocation.call("Summarise", "fast") as record,
        ):
            await environment.dispatcher.run(program, {"text": "a text", "sentences": 2}, record)
            assert record.outputs

    runner = environment.runner
    return _measured(lambda: runner.use_loop().run_until_complete(call()), count)


def measure_hop(count: int) -> dict[str, float]:
    """Measure an empty hop from the main thread to the runner's and back: the overhead per invocation."""
    our_handler()
    from dspy_lambda.main import environment

    with environment.invocation("direct", request_id="r", deadline=time.monotonic() + 600) as invocation:
        runner = environment.runner

        def hop() -> None:
            assert environment.watch.wait(runner.start(lambda: None), runner, invocation, invocation.deadline)

        return _measured(hop, count)


def measure_http(who: str, count: int) -> dict[str, float]:
    """Measure a warm HTTP event, from the handler's call to its answer."""
    if who == "ours":
        handler = our_handler()
    else:
        from plain_handler import lambda_handler as handler
    event = http_event()

    def run() -> None:
        assert handler(event, Context())["statusCode"] == 200

    return _measured(run, count)


def measure_cold(who: str) -> dict[str, float]:
    """Measure seconds from process start to first answer (`dspy`: to the end of the import)."""
    if who == "dspy":
        import dspy  # noqa: F401

        return {"seconds": time.perf_counter() - BEGIN}
    if who == "plain":
        from plain_handler import lambda_handler as handler
    else:
        os.environ |= {"DSPY_LAMBDA_PROGRAM": "Summarise", "DSPY_LAMBDA_MODULE": "quickstart.modules.summarise"}
        handler = our_handler()
    ready, cpu = time.perf_counter() - BEGIN, time.process_time()
    handler(batch("async", 1) if who == "ours-sqs" else http_event(), Context())
    return {"ready_seconds": ready, "ready_cpu_seconds": cpu, "seconds": time.perf_counter() - BEGIN}


def measure_fan_out(count: int) -> dict[str, float]:
    """Measure Perspectives with six views: two consecutive rounds of LM calls, the first with six concurrent calls."""
    handler = our_handler()
    event = {"program": "Perspectives", "inputs": {"question": "q", "perspectives": list("abcdef")}}
    handler(event, Context())
    return _times(lambda: handler(event, Context()), count)


def measure_answering(size: int) -> dict[str, float]:
    """Measure seconds from the deadline to the answer when it cuts off a whole batch: what the reserve is for."""
    handler = our_handler()
    from dspy_lambda.invocation import reserve_seconds
    from dspy_lambda.main import environment

    class Short(Context):
        def get_remaining_time_in_millis(self) -> int:
            return 8000

    event = batch("async", size)
    begin = time.perf_counter()
    handler(event, Short())
    answered = time.perf_counter() - begin
    kept_back = reserve_seconds(environment, 8, size)
    return {"seconds": answered - (8 - kept_back), "kept_back": 8 - answered}


Measure = Callable[..., dict[str, Any] | Awaitable[dict[str, Any]]]
MEASURES: dict[str, Measure] = {
    "batch": measure_batch,
    "bare": measure_bare,
    "dispatch": measure_dispatch,
    "hop": measure_hop,
    "http": measure_http,
    "cold": measure_cold,
    "fan-out": measure_fan_out,
    "answering": measure_answering,
}


def main() -> None:
    """Run `worker.py NAME JSON-ARGUMENTS`."""
    output = quiet()
    result = MEASURES[sys.argv[1]](*json.loads(sys.argv[2]))
    output.write(json.dumps(result) + "\n")
    output.flush()
    os._exit(0)  # do not wait for threads of cut-off calls


if __name__ == "__main__":
    main()
