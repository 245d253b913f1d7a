"""What tracing costs: callers of a busy server, the CPU of a warm call, and the start of an environment.

    python -m benchmarks.tracing            # everything, some ten minutes
    python -m benchmarks.tracing callers --collectors dead slow --pairs 2

Every comparison alternates between tracing off and on, so that drift of the machine affects both; figures of callers
are medians of the pairs' ratios, on to off. With tracing on, every trace is kept. Load is sent only to loopback.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.collectors import KINDS, Collector, collector
from benchmarks.run import HERE, QUICKSTART, ROOT, TARGETS, USERS, load
from dspy_lambda.settings import TRACES
from dspy_lambda_infra.model_server import ModelServer

_DELAY_SECONDS = 0.5
_SAMPLE_SECONDS = 0.25


class Server:
    """A running `dspy-lambda serve`, which is stopped (SIGSTOP) while another one is measured.

    Attributes:
        rss_mb: its memory over time, in MB.
        calls: answered calls, also those of warm-ups; known after `stop`.
        cpu_ms: CPU of each of these calls, in all threads; known after `stop`.
        dropped: the sum of the metric DroppedSpans; known after `stop`.
        stop_seconds: how long it took to end.
    """

    def __init__(self, models: ModelServer, traces: str) -> None:
        self.rss_mb: list[float] = []
        self.calls = self.dropped = 0
        self.cpu_ms = float("nan")
        self.stop_seconds = 0.0
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        variables = {**os.environ, "OPENAI_API_KEY": "none", "DSPY_LAMBDA_API_BASE": models.url, TRACES: traces}
        command = [str(Path(sys.executable).parent / "dspy-lambda"), "serve", "--project", str(QUICKSTART)]
        self._process = subprocess.Popen(
            [*command, "--port", "0"], env=variables, cwd=ROOT, stdout=self._log, stderr=self._log
        )
        self.url = self._address()
        self._cpu_at_start = self._cpu_seconds()
        self._stopped = threading.Event()
        threading.Thread(target=self._sample, daemon=True).start()

    def load(self, target: list[str], seconds: float) -> dict[str, Any]:
        """Let 100 callers call it, after two seconds of warm-up."""
        self._process.send_signal(signal.SIGCONT)
        found = load(self.url, target, users=USERS, seconds=seconds)
        self._process.send_signal(signal.SIGSTOP)
        return found

    def stop(self) -> None:
        """Stop it as an operator does, and read its log."""
        self._stopped.set()
        cpu_seconds = self._cpu_seconds() - self._cpu_at_start
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(signal.SIGTERM)
        begin = time.perf_counter()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.stop_seconds = round(time.perf_counter() - begin, 2)
        with self._log:
            self._read()
        self.cpu_ms = cpu_seconds / max(self.calls, 1) * 1000

    def _address(self) -> str:
        """Return its address, once it has written it."""
        for _ in range(300):
            text = os.pread(self._log.fileno(), 100_000, 0).decode()  # `read` would move the offset that it writes at
            if found := re.search(r"^ready (\S+)$", text, re.M):
                return found[1]
            if self._process.poll() is not None:
                break
            time.sleep(0.2)
        raise SystemExit(f"dspy-lambda serve did not start: {text[-2000:]}")

    def _cpu_seconds(self) -> float:
        """https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html: the second field may contain spaces."""
        user, system = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def _sample(self) -> None:
        while not self._stopped.wait(_SAMPLE_SECONDS):
            with contextlib.suppress(OSError, StopIteration, ValueError):
                status = Path(f"/proc/{self._process.pid}/status").read_text()
                line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
                self.rss_mb.append(int(line.split()[1]) / 1024)

    def _read(self) -> None:
        self._log.seek(0)
        for text in self._log:
            with contextlib.suppress(ValueError):
                line = json.loads(text)
                self.calls += line.get("message") == "program call"
                self.dropped += int(sum(line.get("DroppedSpans", []))) if "_aws" in line else 0


def spans_per_call(models: ModelServer, target: list[str]) -> int:
    """Return how many spans one call makes."""
    path, _, body = target[0].partition("=")
    with collector("healthy") as healthy:
        server = Server(models, healthy.url)
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(server.url + path, body.encode(), headers), timeout=30).close()
        server.stop()
        return int(healthy.received()["distinct"])


def callers(models: ModelServer, kinds: list[str], pairs: int, target: list[str], seconds: float) -> dict[str, Any]:
    """Compare 100 callers with tracing off and on, for each kind of collector."""
    models.behave(delay_seconds=_DELAY_SECONDS)
    each = spans_per_call(models, target)
    print(f"{each} spans a call", flush=True)
    found = {}
    for kind in kinds:
        with collector(kind) as running:
            found[kind] = _compare(models, running, pairs, target, seconds, each)
        print(f"{kind}: {json.dumps(found[kind])}", flush=True)
    models.behave()
    return found


def _compare(
    models: ModelServer, running: Collector, pairs: int, target: list[str], seconds: float, each: int
) -> dict[str, Any]:
    """Alternate between two servers, so that a pair sees only seconds of the machine's drift."""
    off, on = Server(models, "none"), Server(models, running.url)
    ratios: dict[str, list[float]] = {"median_ms": [], "p95_ms": [], "requests_per_second": []}
    not_200 = 0
    for number in range(pairs):
        both = {}
        for server in (off, on) if number % 2 == 0 else (on, off):
            both[server] = server.load(target, seconds)
        for name, values in ratios.items():
            values.append(both[on][name] / both[off][name])
        not_200 += sum(n for run in both.values() for status, n in run["statuses"].items() if status != "200")
        not_200 += sum(run["failed"] for run in both.values())
    on.stop()
    off.stop()
    received = running.received()
    return {
        **{name: round(statistics.median(values), 3) for name, values in ratios.items()},
        "of_each_pair": {name: [round(value, 3) for value in values] for name, values in ratios.items()},
        "cpu_ms_per_call": {"off": round(off.cpu_ms, 3), "on": round(on.cpu_ms, 3)},
        "calls": on.calls,
        "not_200": not_200,
        "spans_made": on.calls * each,
        "spans_received": received["distinct"],
        "spans_dropped": on.dropped,
        "stop_seconds": on.stop_seconds,
        "rss_mb": _quarters(on.rss_mb),
        "rss_off_mb": _quarters(off.rss_mb),
    }


def _quarters(values: list[float]) -> list[int]:
    """Return the memory at the start, after each quarter of the time, and its maximum."""
    return [round(values[(len(values) - 1) * n // 4]) for n in range(5)] + [round(max(values))] if values else []


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
            event["requestContext"]["requestTimeEpoch"] = int(time.time() * 1000)  # its 29 s begin there
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
    names = ("ready_seconds", "ready_cpu_seconds", "seconds")
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
        "added_ready_cpu_ms_minima": round(least["on"]["ready_cpu_seconds"] - least["off"]["ready_cpu_seconds"], 1),
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
