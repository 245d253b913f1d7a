"""`dspy-lambda doctor`."""

from __future__ import annotations

import platform
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dspy_lambda_infra.artifact.build import build
from dspy_lambda_infra.artifact.command import find_function, target_of
from dspy_lambda_infra.artifact.distributions import CACHE_FOLDER
from dspy_lambda_infra.artifact.target import Target
from dspy_lambda_infra.deploy.trace_destination import fetch_trace_destination, uses_cloudwatch
from dspy_lambda_infra.doctor.cold_start import Runtime, Start, median_seconds
from dspy_lambda_infra.doctor.collectors import trials_text, try_collectors
from dspy_lambda_infra.doctor.models import model_uses, models_text
from dspy_lambda_infra.doctor.traces import trace_use, traces_text
from dspy_lambda_infra.progress import step, steps
from dspy_lambda_infra.project import (
    CATALOGUE,
    CATALOGUE_HANDLER,
    HANDLER,
    Project,
    announce_imports,
    load_project,
    logical_id,
)
from dspy_lambda_infra.report import report

_LARGEST = 10


def run_doctor(
    root: Path,
    function: str | None,
    rounds: int,
    *,
    cold_start: bool = False,
    traces: bool = False,
    as_json: bool = False,
) -> int:
    """Print the functions' models and where their traces go, or how long the functions take to start.

    Args:
        function: a program's name, or its function's logical id; None for all.
        rounds: how often to start each function; the figures are medians.
        cold_start: whether to build the functions into a temporary folder and to start them.
        traces: whether to try the collectors with an empty export; the result is 1 if one does not accept it.

    Raises:
        ConfigError: A program cannot be loaded; the models of the others are printed first.
    """
    announce_imports(root)
    project = load_project(root)
    names = [find_function(project, function)] if function else project.function_names
    if cold_start:
        return _measure(project, names, rounds, as_json=as_json)
    functions = [project.functions[name] for name in names if name != CATALOGUE]
    uses = [use for function in functions for use in model_uses(project, function)]
    traced = [trace_use(function) for function in functions]
    trials = try_collectors(project, traced) if traces else []
    switch = fetch_trace_destination(None) if traces and uses_cloudwatch(project) else None
    document = {
        "models": [asdict(use) for use in uses],
        "traces": [asdict(use) for use in traced],
        "trials": [trial.document() for trial in trials],
        "trace_destination": switch,
        "failed": project.failed,
    }
    parts = [models_text(uses), traces_text(traced), trials_text(trials), switch or ""]
    report("\n\n".join(filter(None, parts)), document, as_json=as_json)
    project.require_loaded()
    return 0 if all(trial.accepted for trial in trials) else 1


def _measure(project: Project, names: list[str], rounds: int, *, as_json: bool) -> int:
    # For this machine's architecture: other artifacts cannot be started here, and import the same modules.
    machine = "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"
    target = target_of(project, names[0], architecture=machine)
    with tempfile.TemporaryDirectory() as folder, steps(len(names) + rounds):
        starts = {name: start_of(project, name, target, Path(folder)) for name in names}
        runtime = Runtime(target, project.root / CACHE_FOLDER)
        bare = next((Start(s.artifact, None) for name, s in starts.items() if name != CATALOGUE), None)
        both = {**({"": bare} if bare else {}), **starts}
        seconds = median_seconds(runtime, both, rounds)
        imports = {name: dict(runtime.imports(start).most_common(_LARGEST)) for name, start in starts.items()}
    floor = seconds.pop("", None)
    functions = [
        {
            "function": logical_id(name),
            "ready_seconds": value,
            "ratio": value / floor if floor else None,
            "imports_ms": imports[name],
        }
        for name, value in seconds.items()
    ]
    document = {"python": target.python, "rounds": rounds, "import_dspy_seconds": floor, "functions": functions}
    report(_text(document), document, as_json=as_json)
    return 0


def _text(document: dict[str, Any]) -> str:
    floor = document["import_dspy_seconds"]
    lines = [f"Python {document['python']}, medians of {document['rounds']}; import dspy: {floor or 0:.3f} s"]
    for found in document["functions"]:
        ratio = f"  {found['ratio']:.2f} x import dspy" if floor else ""
        lines += ["", f"{found['function']}: ready after {found['ready_seconds']:.3f} s{ratio}"]
        lines += [f"  {package:<28}{milliseconds:>6} ms" for package, milliseconds in found["imports_ms"].items()]
    return "\n".join(lines)


def start_of(project: Project, name: str, target: Target, folder: Path) -> Start:
    """Build a function and return how to start it, with a fake key."""
    step(f"building {logical_id(name)} ...")
    built = build(project, name, target, folder / logical_id(name), lambda line: print(line, file=sys.stderr))
    is_image = project.config.lambda_.package_type == "Image"
    artifact = built.folder / "task" if is_image else built.folder
    if name == CATALOGUE:
        return Start(artifact, CATALOGUE_HANDLER)
    function = project.functions[name]
    keys = dict.fromkeys(project.secrets(function), "none")
    return Start(artifact, HANDLER, {**function.environment, **keys})
