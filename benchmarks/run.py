"""Compares dspy-lambda with its peers in one run, on one model server; writes RESULTS.md and a plot; finds regressions.

    make bench

Each measurement runs in its own process and alternates with its peers, so that drift of the machine affects all of
them; medians are compared as ratios. Load is sent only to loopback.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from dspy_lambda_infra.artifact.command import target_of
from dspy_lambda_infra.artifact.distributions import CACHE_FOLDER, compile_tree
from dspy_lambda_infra.artifact.size import measure
from dspy_lambda_infra.artifact.target import Target
from dspy_lambda_infra.artifact.uv import uv
from dspy_lambda_infra.doctor.cold_start import Runtime, Start, median_seconds
from dspy_lambda_infra.doctor.command import start_of
from dspy_lambda_infra.model_server import ModelServer
from dspy_lambda_infra.project import CATALOGUE, Project, load_project

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
QUICKSTART = ROOT / "examples" / "quickstart"
BASELINE = HERE / "baseline.json"
RELAPSE = 1.15
USERS, IDEAL_RPS = 100, 200.0
TARGETS = {
    "async": ['/Summarise={"text": "some text", "sentences": 2}'],
    "sync": ['/Answer={"question": "why?"}'],
    "mixed": ['/Summarise={"text": "some text", "sentences": 2}', '/Answer={"question": "why?"}'],
}


class Bench:
    """Runs workers against one model server and collects their results."""

    def __init__(self, models: ModelServer, rounds: int, bench_python: Path | None) -> None:
        self.models = models
        self.rounds = rounds
        self.bench_python = bench_python
        self.ratios: dict[str, float] = {}  # lower is better; relative to a baseline or an ideal in the same run
        self.sections: list[str] = []

    def worker(self, name: str, *arguments: Any) -> dict[str, float]:
        """One measurement."""
        command = [sys.executable, str(HERE / "worker.py"), name, json.dumps(arguments)]
        environment = {**os.environ, "MODEL_URL": self.models.url, "LITELLM_LOCAL_MODEL_COST_MAP": "true"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode != 0:
            raise SystemExit(f"worker {name} {arguments}: {done.stderr[-2000:]}")
        result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return result

    def alternate(self, workers: dict[str, tuple[Any, ...]]) -> dict[str, dict[str, float]]:
        """Alternate between several measurements for `rounds` rounds; return the median of each figure."""
        found: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
        for _ in range(self.rounds):
            for name, (worker, *arguments) in workers.items():
                found[name].append(self.worker(worker, *arguments))
        return {
            name: {key: statistics.median(result[key] for result in results) for key in results[0]}
            for name, results in found.items()
        }

    def table(self, title: str, head: list[str], rows: list[list[Any]], note: str = "") -> None:
        """Add a section."""
        lines = [f"## {title}", "", *([note, ""] if note else []), f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
        self.sections.append("\n".join(lines))
        print("\n".join(lines), flush=True)


def artifacts(bench: Bench) -> None:
    """Measure process start to first poll, from built artifacts under the real runtime client; and artifact sizes."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        project = copy_of_the_quickstart(work / "http")
        queue_only = copy_of_the_quickstart(work / "sqs", http=False)
        target = target_of(project, "Answer")
        runtime = Runtime(target, project.root / CACHE_FOLDER)
        http, catalogue = (start_of(project, name, target, work / "out") for name in ("Answer", CATALOGUE))
        sqs = start_of(queue_only, "Answer", target, work / "out-sqs")
        starts = {
            "`import dspy`": Start(http.artifact, None),
            "`import dspy`, all that it requires installed": Start(plain_installation(target, work / "plain"), None),
            "a program, SQS only": sqs,
            "a program, HTTP": http,
            "`import fastapi`": Start(catalogue.artifact, None, package="fastapi"),
            "the catalogue function": catalogue,
        }
        seconds = median_seconds(runtime, starts, max(bench.rounds, 9))
        sizes = {name: measure(start.artifact) for name, start in starts.items() if start.handler}
    floor, fastapi = seconds["`import dspy`"], seconds["`import fastapi`"]
    rows = []
    for name, value in seconds.items():
        size = sizes.get(name)
        megabytes = [f"{size.unzipped / 1e6:.1f}", f"{size.zipped / 1e6:.1f}"] if size else ["", ""]
        rows.append([name, f"{value:.3f}", f"{value / floor:.2f}", f"{value / fastapi:.2f}", *megabytes])
    for name, what in (("SQS", "a program, SQS only"), ("HTTP", "a program, HTTP")):
        bench.ratios[f"cold start from the artifact, {name}"] = seconds[what] / floor
    bench.ratios["cold start of the catalogue function"] = seconds["the catalogue function"] / fastapi
    head = ["", "ready s", "of `import dspy`", "of `import fastapi`", "MB unzipped", "MB zipped"]
    note = f"The quickstart built for Python {target.python}, under awslambdaric; everything has its bytecode."
    bench.table("Artifacts and their cold starts", head, rows, note)


def copy_of_the_quickstart(folder: Path, http: bool = True) -> Project:
    """Copy the quickstart under another name, called over HTTP or only through its queues."""
    shutil.copytree(QUICKSTART, folder, ignore=shutil.ignore_patterns(".*"))
    config = yaml.safe_load((folder / "dspy.config.yaml").read_text())
    config["lambda"]["defaults"]["http"] = http
    (folder / "dspy.config.yaml").write_text(yaml.safe_dump(config))
    return load_project(folder)


def plain_installation(target: Target, folder: Path) -> Path:
    """Install DSPy as pip would."""
    interpreter = target.interpreter()
    assert interpreter
    uv("pip", "install", "-q", "--target", str(folder), "--python", interpreter, f"dspy=={version('dspy')}")
    compile_tree(interpreter, folder)
    return folder


def cold_start(bench: Bench) -> None:
    """Measure process start to first answer, relative to the bare import."""
    # As in an artifact: otherwise a fresh clone would be measured including the compilation of its sources.
    compileall.compile_dir(ROOT / "handler", quiet=1)
    found = bench.alternate({who: ("cold", who) for who in ("dspy", "ours-sqs", "ours-http", "plain")})
    floor = found["dspy"]["seconds"]
    rows = []
    names = {
        "dspy": "`import dspy`",
        "ours-sqs": "dspy-lambda, SQS event",
        "ours-http": "dspy-lambda, HTTP event",
        "plain": "FastAPI + Mangum + DSPy + Powertools, HTTP event",
    }
    for who, name in names.items():
        ready, seconds = found[who].get("ready_seconds", found[who]["seconds"]), found[who]["seconds"]
        rows.append([name, f"{ready:.3f}", f"{ready / floor:.2f}", f"{seconds:.3f}", f"{seconds / floor:.2f}"])
    for who in ("ours-sqs", "ours-http"):
        bench.ratios[f"cold start, {who}"] = found[who]["seconds"] / floor
    head = ["", "ready s", "of the import", "first answer s", "of the import"]
    bench.table("Cold start", head, rows, "Bytecode is compiled; model without delay.")


def calls(bench: Bench) -> None:
    """Measure CPU and wall time of one warm call."""
    found = bench.alternate(
        {
            "bare, priced": ("bare", "gpt-4.1-nano", 300),
            "dispatch, priced": ("dispatch", "gpt-4.1-nano", 300),
            "hop": ("hop", 5000),
            "HTTP event": ("http", "ours", 300),
            "plain HTTP": ("http", "plain", 300),
            "bare, unpriced": ("bare", "no-such-model", 300),
            "dispatch, unpriced": ("dispatch", "no-such-model", 300),
        }
    )
    names = {
        "bare, priced": "bare `program.acall`, DSPy's defaults, priced model",
        "dispatch, priced": "dspy-lambda: dispatch, log record and metrics",
        "hop": "dspy-lambda: the hop to the programs' thread and back, once an invocation",
        "HTTP event": "dspy-lambda: the whole HTTP event",
        "plain HTTP": "FastAPI + Mangum + DSPy + Powertools: the whole HTTP event",
        "bare, unpriced": "bare `program.acall`, a model without a price",
        "dispatch, unpriced": "dspy-lambda: dispatch, log record and metrics",
    }
    rows = []
    for key, name in names.items():
        bare = found["bare, unpriced" if "unpriced" in key else "bare, priced"]
        one = found[key]
        rows.append(
            [
                name,
                f"{one['cpu_ms']:.3f}",
                f"{one['cpu_ms'] / bare['cpu_ms']:.2f}",
                f"{one['median_ms']:.3f}",
                f"{one['median_ms'] - bare['median_ms']:+.2f}" if key != "hop" else "",
                f"{one['p99_ms']:.3f}",
            ]
        )
    bench.ratios["CPU per async call, priced"] = found["dispatch, priced"]["cpu_ms"] / found["bare, priced"]["cpu_ms"]
    bench.ratios["CPU per async call, unpriced"] = (
        found["dispatch, unpriced"]["cpu_ms"] / found["bare, unpriced"]["cpu_ms"]
    )
    bench.ratios["warm HTTP event, wall"] = found["HTTP event"]["median_ms"] / found["bare, priced"]["median_ms"]
    head = ["one call, model without delay", "CPU ms", "of bare", "median ms", "above bare ms", "p99 ms"]
    bench.table("CPU and overhead per call", head, rows)


def batches(bench: Bench) -> None:
    """Measure SQS batches of every size and delay."""
    rows = []
    for delay in (0.0, 0.05, 0.5):
        bench.models.behave(delay_seconds=delay)
        for kind in ("async", "sync"):
            for size in (1, 10, 100, 1000):
                ideal = delay * max(1, size / 100)
                runs = 3 if size < 1000 else 2
                workers: dict[str, tuple[Any, ...]] = {"ours": ("batch", "ours", kind, size, runs)}
                # Powertools' sync processor handles one record after another: 100 at 500 ms take 50 s.
                if kind == "async" or size * delay <= 5:
                    workers["powertools"] = ("batch", "powertools", kind, size, runs)
                found = bench.alternate(workers) if size == 100 else {k: bench.worker(*w) for k, w in workers.items()}
                ours, theirs = found["ours"], found.get("powertools")
                rows.append(
                    [
                        f"{delay * 1000:.0f}",
                        kind,
                        size,
                        f"{ideal:.2f}" if delay else "",
                        f"{ours['seconds']:.3f}",
                        f"{ours['seconds'] / ideal:.2f}" if delay else "",
                        f"{theirs['seconds']:.3f}" if theirs else f"({size * delay:.0f}, one after the other)",
                        f"{ours['cpu_ms_per_record']:.2f}",
                        f"{ours['kib_per_record']:.1f}",
                    ]
                )
                if delay == 0.5:
                    bench.ratios[f"SQS, {size} {kind} records at 500 ms"] = ours["seconds"] / ideal
    bench.models.behave()
    head = [
        "delay ms",
        "",
        "records",
        "ideal s",
        "dspy-lambda s",
        "of ideal",
        "Powertools s",
        "CPU ms/record",
        "KiB/record",
    ]
    note = "Ideal: the model's delay, times the batches of 100 connections that the records make. Powertools: \
AsyncBatchProcessor for the async program, BatchProcessor for the sync one; 100 connections are DSPy's cap there, too."
    bench.table("SQS batches in one invocation", head, rows, note)


def fan_out_and_answering(bench: Bench) -> None:
    """Measure a fan-out of six, and how long answering takes after the deadline."""
    bench.models.behave(delay_seconds=0.5)
    fan = bench.worker("fan-out", 8)
    bench.ratios["fan-out of 6"] = fan["median_ms"] / 1000
    rows = [["Perspectives, 6 views at once and a conclusion, 500 ms each", "1.000", f"{fan['median_ms'] / 1000:.3f}"]]
    bench.models.behave(delay_seconds=30)
    for size in (100, 1000, 10_000):
        late = bench.worker("answering", size)
        left = f"{late['kept_back']:.1f} s before Lambda's kill at 8 s"
        rows.append([f"from the deadline to the answer, {size} records cut off: {left}", "0", f"{late['seconds']:.3f}"])
    bench.models.behave()
    bench.table("Fan-out, and the reserve", ["", "ideal s", "s"], rows)


@contextlib.contextmanager
def server(command: list[str], environment: dict[str, str], folder: Path, port: int) -> Iterator[str]:
    """Start a server in its own process and wait until it answers."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(150):
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/programs", timeout=2):
                    break
                time.sleep(0.2)
            else:
                log.seek(0)
                raise SystemExit(f"{command[0]} did not start: {log.read()[-2000:].decode()}")
            yield url
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)


def load(url: str, targets: list[str], users: int = USERS, seconds: float = 5.0) -> dict[str, Any]:
    """Run the load generator and return its summary."""
    options = [option for target in targets for option in ("--target", target)]
    command = [sys.executable, str(HERE / "load.py"), "--url", url, *options]
    command += ["--users", str(users), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def users(bench: Bench) -> None:
    """Measure 100 users at 500 ms, and the local Lambda's warm call."""
    bench.models.behave(delay_seconds=0.5)
    rows = []
    common = {"OPENAI_API_KEY": "none", "DSPY_LAMBDA_API_BASE": bench.models.url}
    ours = [str(Path(sys.executable).parent / "dspy-lambda")]
    serve = [*ours, "serve", "--project", str(QUICKSTART), "--port", "8461"]
    with server(serve, common, ROOT, 8461) as url:
        for kind, targets in TARGETS.items():
            found = load(url, targets)
            bench.ratios[f"100 users at 500 ms, {kind}"] = IDEAL_RPS / found["requests_per_second"]
            rows.append(_user_row("dspy-lambda serve", kind, found))
    if bench.bench_python is None:
        rows.append(["dspy-cli serve", "", "not measured: no .venv-bench", "", "", "", ""])
    else:
        with tempfile.TemporaryDirectory() as folder:
            project = Path(folder) / "quickstart"
            shutil.copytree(QUICKSTART, project)
            config = project / "dspy.config.yaml"
            text = config.read_text().replace("cache: false", f"cache: false\n      api_base: {bench.models.url}")
            config.write_text(text)
            cli = [
                str(bench.bench_python.absolute().parent / "dspy-cli"),
                "serve",
                "--host",
                "127.0.0.1",
                "--port",
                "8462",
            ]
            cli += ["--no-reload", "--no-save-openapi", "--system"]
            with server(cli, {"OPENAI_API_KEY": "none"}, project, 8462) as url:
                for kind, targets in TARGETS.items():
                    rows.append(_user_row("dspy-cli serve", kind, load(url, targets)))
    bench.models.behave()
    local = [*ours, "local", "--project", str(QUICKSTART), "--port", "8463"]
    with server(local, common, ROOT, 8463) as url:
        one = load(url, TARGETS["async"], users=1, seconds=3)
    head = ["server", "program", "requests/s", "of the ideal 200", "median ms", "p95 ms", "not 200"]
    note = "Model server, load generator and server on the same cores. "
    note += f"The local Lambda answers one user, model without delay, in {one['median_ms']} ms at the median."
    bench.table("100 users, 500 ms", head, rows, note)


def _user_row(name: str, kind: str, found: dict[str, Any]) -> list[Any]:
    rate = found["requests_per_second"]
    bad = sum(n for status, n in found["statuses"].items() if status != "200") + found["failed"]
    return [name, kind, rate, f"{rate / IDEAL_RPS:.2f}", found["median_ms"], found["p95_ms"], bad]


def stress(bench: Bench) -> None:
    """Collect the stress suite's figures."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        environment = {**os.environ, "STRESS_REPORT": str(path), "STRESS_SCALE": "3"}
        command = [sys.executable, "-m", "pytest", "-q", "tests/stress"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(done.stdout[-3000:])
        figures = json.loads(path.read_text())
    main_keys = ["test", "sent", "answered", "failed cleanly", "lost", "hung"]
    rows = [
        [*(one[key] for key in main_keys), ", ".join(f"{k} {v}" for k, v in one.items() if k not in main_keys)]
        for one in figures
    ]
    bench.table("Stress", [*main_keys, "more"], rows, "Three times over; `make stress` runs ten.")


def plot(bench: Bench) -> str:
    """Plot the ratios as bars, in SVG; the line is the ideal or the baseline."""
    width, left, height = 760, 300, 22
    most = max(2.0, *bench.ratios.values())
    scale = (width - left - 60) / most
    body = []
    for n, (name, ratio) in enumerate(bench.ratios.items()):
        y = 10 + n * height
        body.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{name}</text>')
        body.append(f'<rect x="{left}" y="{y + 3}" width="{ratio * scale:.1f}" height="{height - 8}" fill="#4a7ebb"/>')
        body.append(f'<text x="{left + ratio * scale + 5:.1f}" y="{y + 14}">{ratio:.2f}</text>')
    end = 10 + len(bench.ratios) * height
    line = left + scale
    body.append(f'<line x1="{line:.1f}" y1="6" x2="{line:.1f}" y2="{end}" stroke="#b33" stroke-dasharray="3 3"/>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{end + 10}" font-family="sans-serif"'
    return f'{head} font-size="12">\n' + "\n".join(body) + "\n</svg>\n"


def regressions(ratios: dict[str, float], baseline: dict[str, float]) -> list[str]:
    """Return the ratios that are more than 15 % worse than the baseline's; a missing ratio is a regression too."""
    return [
        f"{name}: {ratios.get(name, float('nan')):.2f}, was {before:.2f}"
        for name, before in baseline.items()
        if not ratios.get(name, float("inf")) <= before * RELAPSE
    ]


def main() -> int:
    """Run everything; return 1 on a regression."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bench-python", type=Path, help="a Python with dspy-cli installed")
    parser.add_argument("--new-baseline", action="store_true", help="store this run's ratios as the new baseline")
    given = parser.parse_args()
    with ModelServer() as models:
        bench = Bench(models, given.rounds, given.bench_python)
        for part in (artifacts, cold_start, calls, batches, fan_out_and_answering, users):
            models.behave()
            part(bench)
    stress(bench)
    names = ("dspy", "mangum", "fastapi", "aws-lambda-powertools", "awslambdaric", "uvicorn")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    today = datetime.datetime.now(datetime.UTC).date()
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    head = f"# Results\n\nWritten by `make bench` on {today}: {machine}; {versions}.\n\n"
    head += "Absolute times are of a shared machine: the ratios count.\n\n![ratios](ratios.svg)\n"
    (HERE / "RESULTS.md").write_text(head + "\n" + "\n\n".join(bench.sections) + "\n")
    (HERE / "ratios.svg").write_text(plot(bench))
    if given.new_baseline or not BASELINE.exists():
        BASELINE.write_text(json.dumps({k: round(v, 3) for k, v in bench.ratios.items()}, indent=1) + "\n")
    worse = regressions(bench.ratios, json.loads(BASELINE.read_text()))
    for line in worse:
        print(f"RELAPSE {line}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
