"""`dspy-lambda doctor --cold-start`."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from pathlib import Path

from dspy_lambda_infra.artifact.build import build
from dspy_lambda_infra.artifact.command import find_function, target_of
from dspy_lambda_infra.artifact.distributions import CACHE_FOLDER
from dspy_lambda_infra.artifact.target import Target
from dspy_lambda_infra.doctor.cold_start import Runtime, Start, side_by_side
from dspy_lambda_infra.progress import progress
from dspy_lambda_infra.project import (
    CATALOGUE,
    CATALOGUE_HANDLER,
    HANDLER,
    Project,
    load_project,
    logical_id,
    say_what_runs,
)

_LARGEST = 10


def run_doctor(options: argparse.Namespace) -> int:
    """Build what is asked for into a temporary folder, start it some times, and print figures."""
    say_what_runs(options.project)
    project = load_project(options.project)
    names = [find_function(project, options.function)] if options.function else project.function_names
    # Of this machine's architecture: what is built for another cannot be started here, and imports the same.
    machine = "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"
    target = target_of(project, names[0], architecture=machine)
    with tempfile.TemporaryDirectory() as folder:
        starts = {name: start_of(project, name, target, Path(folder)) for name in names}
        runtime = Runtime(target, project.root / CACHE_FOLDER)
        bare = next((Start(s.artifact, None) for name, s in starts.items() if name != CATALOGUE), None)
        both = {**({"": bare} if bare else {}), **starts}
        seconds = side_by_side(runtime, both, options.rounds)
        floor = seconds.pop("", None)
        print(f"Python {target.python}, medians of {options.rounds}; import dspy: {floor or 0:.3f} s")
        for name, value in seconds.items():
            ratio = f"  {value / floor:.2f} x import dspy" if floor else ""
            print(f"\n{logical_id(name)}: ready after {value:.3f} s{ratio}")
            for package, milliseconds in runtime.imports(starts[name]).most_common(_LARGEST):
                print(f"  {package:<28}{milliseconds:>6} ms")
    return 0


def start_of(project: Project, name: str, target: Target, folder: Path) -> Start:
    """Build a function; how it is started, with a key that is none."""
    progress(f"building {logical_id(name)} ...")
    built = build(project, name, target, folder / logical_id(name), lambda line: print(line, file=sys.stderr))
    is_image = project.config.lambda_.package_type == "Image"
    artifact = built.folder / "task" if is_image else built.folder
    if name == CATALOGUE:
        return Start(artifact, CATALOGUE_HANDLER)
    function = project.functions[name]
    keys = dict.fromkeys(project.secrets(function), "none")
    return Start(artifact, HANDLER, {**function.environment, **keys})
