"""What tracing costs: callers of a busy server, the CPU of a warm call, and the start of an environment.

    python -m benchmarks.tracing            # everything, some ten minutes
    python -m benchmarks.tracing callers --collectors dead slow --pairs 2

Every comparison alternates between tracing off and on in one run, so that drift of the machine affects both; figures
of callers are medians of the pairs' ratios. With tracing on, every trace is kept. Load is sent only to loopback.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks.collectors import KINDS, Collector, collector
from benchmarks.run import HERE, QUICKSTART, ROOT, TARGETS, USERS, load
from dspy_lambda.settings import TRACES
from dspy_lambda_infra.model_server import ModelServer

_PORT = 8464
_DELAY_SECONDS = 0.5
_SAMPLE_SECONDS = 0.25


@dataclass
class Served:
    """One run of `dspy-lambda serve`.

    Attributes:
        rss_mb: the server's memory over time, in MB.
        calls: answered calls, also those of the warm-up.
        dropped: the sum of the metric DroppedSpans.
    """

    figures: dict[str, Any] = field(default_factory=dict)
    rss_mb: list[float] = field(default_factory=list)
    calls: int = 0
    dropped: int = 0

    def read(self, log: IO[bytes]) -> None:
        """Read the server's log lines."""
        log.seek(0)
        for text in log:
            with contextlib.suppress(ValueError):
                line = json.loads(text)
                self.calls += line.get("message") == "program call"
                self.dropped += int(sum(line.get("DroppedSpans", []))) if "_aws" in line else 0


@contextlib.contextmanager
def serving(models: ModelServer, traces: str, served: Served, seconds: float) -> Iterator[str]:
    """Run the server, and sample its memory; after the block stop it as an operator does, and read its log."""
    environment = {**os.environ, "OPENAI_API_KEY": "none", "DSPY_LAMBDA_API_BASE": models.url, TRACES: traces}
    command = [str(Path(sys.executable).parent / "dspy-lambda"), "serve", "--project", str(QUICKSTART)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, "--port", str(_PORT)], env=environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
        stopped = threading.Event()
        sampler = threading.Thread(target=_sample, args=(process.pid, served, stopped), daemon=True)
        try:
            url = f"http://127.0.0.1:{_PORT}"
            _wait_for(url, process, log)
            sampler.start()
            yield url
        finally:
            stopped.set()
            process.send_signal(signal.SIGTERM)
            begin = time.perf_counter()
            try:
                process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            served.figures["stop_seconds"] = round(time.perf_counter() - begin, 2)
        served.read(log)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    for _ in range(150):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/programs", timeout=2):
            return
        if process.poll() is not None:
            break
        time.sleep(0.2)
    log.seek(0)
    raise SystemExit(f"dspy-lambda serve did not start: {log.read()[-2000:].decode()}")


def _sample(pid: int, served: Served, stopped: threading.Event) -> None:
    while not stopped.wait(_SAMPLE_SECONDS):
        with contextlib.suppress(OSError, StopIteration, ValueError):
            status = Path(f"/proc/{pid}/status").read_text()
            line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
            served.rss_mb.append(int(line.split()[1]) / 1024)


def run_once(models: ModelServer, traces: str, target: list[str], seconds: float) -> Served:
    """Serve 100 callers once."""
    served = Served()
    with serving(models, traces, served, seconds=45) as url:
        served.figures |= load(url, target, users=USERS, seconds=seconds)
    return served


def spans_per_call(models: ModelServer, target: list[str]) -> int:
    """Return how many spans one call makes; 0 if tracing does nothing yet."""
    served = Served()
    path, _, body = target[0].partition("=")
    with collector("healthy") as healthy:
        with serving(models, healthy.url, served, seconds=45) as url:
            headers = {"Content-Type": "application/json"}
            urllib.request.urlopen(urllib.request.Request(url + path, body.encode(), headers), timeout=30).close()
        return int(healthy.received()["distinct"])


def callers(models: ModelServer, kinds: list[str], pairs: int, target: list[str], seconds: float) -> dict[str, Any]:
    """Compare 100 callers with tracing off and on, for each kind of collector."""
    models.behave(delay_seconds=_DELAY_SECONDS)
    each = spans_per_call(models, target)
    print(f"{each} spans a call", flush=True)
    found = {}
    for kind in kinds:
        runs = []
        for number in range(pairs):
            with collector(kind) as running:
                runs.append(_pair(models, running, target, seconds, on_first=number % 2 == 1))
            print(f"{kind} {number + 1}: {json.dumps(_line(*runs[-1], each))}", flush=True)
        found[kind] = _summary(runs, each)
        print(f"{kind}: {json.dumps(found[kind])}", flush=True)
    models.behave()
    return found


Pair = tuple[Served, Served, dict[str, Any]]  # off, on, and what the collector received


def _pair(models: ModelServer, running: Collector, target: list[str], seconds: float, *, on_first: bool) -> Pair:
    both: dict[bool, Served] = {}
    for is_on in (on_first, not on_first):
        both[is_on] = run_once(models, running.url if is_on else "none", target, seconds)
    return both[False], both[True], running.received()


def _line(off: Served, on: Served, received: dict[str, Any], each: int) -> dict[str, Any]:
    def ratio(name: str) -> float:
        return round(float(on.figures[name]) / float(off.figures[name]), 4)

    return {
        "p50": ratio("median_ms"),
        "p95": ratio("p95_ms"),
        "throughput": ratio("requests_per_second"),
        "calls": on.calls,
        "not_200": on.figures["failed"] + sum(n for status, n in on.figures["statuses"].items() if status != "200"),
        "spans_made": on.calls * each,
        "spans_received": received["distinct"],
        "spans_dropped": on.dropped,
        "stop_seconds": on.figures["stop_seconds"],
        "rss_mb": _quarters(on.rss_mb),
        "rss_off_mb": _quarters(off.rss_mb)[-1:],
    }


def _quarters(values: list[float]) -> list[float]:
    """Return the memory at the start, after each quarter of the run, and its maximum."""
    if not values:
        return []
    return [round(values[(len(values) - 1) * n // 4]) for n in range(5)] + [round(max(values))]


def _summary(runs: list[Pair], each: int) -> dict[str, Any]:
    lines = [_line(*run, each) for run in runs]
    medians = {name: statistics.median(line[name] for line in lines) for name in ("p50", "p95", "throughput")}
    sums = {
        name: sum(line[name] for line in lines)
        for name in ("calls", "not_200", "spans_made", "spans_received", "spans_dropped")
    }
    return {**medians, **sums, "max_rss_mb": max((line["rss_mb"] or [0])[-1] for line in lines)}


class _Warm:
    """A process with the real handler that measures one round of warm calls at a time.

    Args:
        flushes: whether spans leave after each answer, as on Lambda, where an extension then holds back the freeze;
            otherwise at the end of a round, as `serve` does every second.
    """

    def __init__(self, models: ModelServer, traces: str, *, flushes: bool) -> None:
        environment = {**os.environ, "MODEL_URL": models.url, TRACES: traces, "LITELLM_LOCAL_MODEL_COST_MAP": "true"}
        command = [sys.executable, "-m", "benchmarks.tracing", "warm-calls", *(["--flush"] if flushes else [])]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment, cwd=ROOT, **pipes)

    def round(self, calls: int) -> dict[str, float]:
        """Return the CPU milliseconds and the median wall milliseconds of a call."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{calls}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if '"cpu_ms"' not in line:
            raise SystemExit(f"a warm call failed: {line}")
        found: dict[str, float] = json.loads(line)
        return found


def warm_calls(*, flushes: bool) -> None:
    """Measure rounds of as many HTTP events as each line of standard input says; sending counts, too."""
    from benchmarks.worker import Context, http_event, our_handler, quiet

    output = quiet()
    handler, event = our_handler(), http_event()
    from dspy_lambda.main import environment

    exporter = environment.telemetry.exporter
    for line in sys.stdin:
        wall, cpu = [], time.process_time()
        for _ in range(int(line)):
            begin = time.perf_counter()
            answer = handler(event, Context())
            if answer["statusCode"] != 200:
                output.write(f"{answer['body']}\n")
                output.flush()
                os._exit(1)
            wall.append((time.perf_counter() - begin) * 1000)
            if exporter is not None and flushes:
                exporter.flush(1.0)
        if exporter is not None:
            exporter.flush(1.0)
        cpu_ms = (time.process_time() - cpu) / len(wall) * 1000
        output.write(json.dumps({"cpu_ms": cpu_ms, "median_ms": statistics.median(wall)}) + "\n")
        output.flush()
    os._exit(0)


def warm(models: ModelServer, rounds: int, calls: int) -> dict[str, Any]:
    """Compare the CPU of a warm call, all threads included: interleaved rounds, of which the minima count."""
    with collector("healthy") as healthy:
        workers = {
            "off": _Warm(models, "none", flushes=False),
            "on": _Warm(models, healthy.url, flushes=False),
            "on, flushed after each answer": _Warm(models, healthy.url, flushes=True),
        }
        found: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
        for number in range(rounds + 1):
            for name, worker in workers.items():
                one = worker.round(calls)
                if number:
                    found[name].append(one)
        for worker in workers.values():
            worker.process.communicate()
        spans = healthy.received()["distinct"]
    least = {name: {key: round(min(one[key] for one in each), 3) for key in each[0]} for name, each in found.items()}
    added = {name: round(one["cpu_ms"] - least["off"]["cpu_ms"], 3) for name, one in least.items() if name != "off"}
    return {**least, "added_cpu_ms": added, "spans_per_call": spans / (2 * calls * (rounds + 1))}


def init(models: ModelServer, rounds: int) -> dict[str, Any]:
    """Compare fresh processes: milliseconds until the handler is ready, and until its first answer."""
    names = ("ready_seconds", "seconds")
    with collector("healthy") as healthy:
        found: dict[str, list[dict[str, float]]] = {"off": [], "on": []}
        for number in range(rounds + 1):
            for name, traces in (("off", "none"), ("on", healthy.url)):
                one = _cold(models, traces)
                if number:  # the first warms the disk cache
                    found[name].append(one)
    medians = {
        name: {key: statistics.median(o[key] for o in each) * 1000 for key in names} for name, each in found.items()
    }
    least = {name: {key: min(o[key] for o in each) * 1000 for key in names} for name, each in found.items()}
    return {
        "medians_ms": {name: {key: round(value) for key, value in each.items()} for name, each in medians.items()},
        "added_ready_ms": round(medians["on"]["ready_seconds"] - medians["off"]["ready_seconds"], 1),
        "added_ready_ms_minima": round(least["on"]["ready_seconds"] - least["off"]["ready_seconds"], 1),
        "added_first_answer_ms": round(medians["on"]["seconds"] - medians["off"]["seconds"], 1),
    }


def _cold(models: ModelServer, traces: str) -> dict[str, float]:
    environment = {**os.environ, "MODEL_URL": models.url, TRACES: traces, "LITELLM_LOCAL_MODEL_COST_MAP": "true"}
    command = [sys.executable, str(HERE / "worker.py"), "cold", json.dumps(["ours-http"])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Run the parts and print each one's figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["callers", "warm", "init", "warm-calls"])
    parser.add_argument("--collectors", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--program", choices=list(TARGETS), default="async")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--flush", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part == "warm-calls":
        warm_calls(flushes=given.flush)
    with ModelServer() as models:
        if given.part in (None, "warm"):
            print("warm", json.dumps(warm(models, given.rounds, given.calls)), flush=True)
        if given.part in (None, "init"):
            print("init", json.dumps(init(models, max(9, given.rounds // 3))), flush=True)
        if given.part in (None, "callers"):
            target = TARGETS[given.program]
            callers(models, given.collectors, given.pairs, target, given.seconds)


if __name__ == "__main__":
    main()
