"""Import budgets: what init may load, as multiples of what `import dspy` or `import fastapi` itself loads.

Counted in modules, which no busy machine changes; the times are in the benchmark, as ratios within one run.
"""

import functools
import json
import os
import subprocess
import sys

import pytest

from tests.conftest import QUICKSTART, ROOT

PROGRAM = {"DSPY_LAMBDA_PROGRAM": "Answer", "DSPY_LAMBDA_MODULE": "quickstart.modules.answer"}


@functools.cache
def modules(code, **variables):
    """What is loaded after that code."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("DSPY_", "AWS_"))},
        "DSPY_LAMBDA_PROJECT": str(QUICKSTART),
        "OPENAI_API_KEY": "k",
        **variables,
    }
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)), file=sys.__stdout__)"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("sources", "budget", "never"),
    [
        ("", 1.17, {"fastapi", "starlette", "mangum", "boto3", "litellm", "openai", "numpy", "asyncio.subprocess"}),
        ("http", 1.35, {"boto3", "litellm", "openai", "numpy"}),
    ],
)
def test_a_program_loads_little_more_than_dspy(sources, budget, never):
    floor = modules("import dspy")
    loaded = modules("import dspy_lambda.main", DSPY_LAMBDA_SOURCES=sources, **PROGRAM)
    assert len(loaded) <= budget * len(floor)
    assert not loaded & (never - floor)


def test_the_catalogue_loads_little_more_than_fastapi(tmp_path):
    manifest = {"title": "x", "description": "", "cors_origins": [], "programs": [], "openapi": {}}
    (tmp_path / "catalogue.json").write_text(json.dumps(manifest))
    floor = modules("import asyncio, fastapi")  # newer ones leave the loop to who runs it
    loaded = modules("import dspy_lambda.catalogue", LAMBDA_TASK_ROOT=str(tmp_path))
    assert len(loaded) <= 1.1 * len(floor)
    assert not loaded & {"dspy", "boto3", "aws_lambda_powertools", "yaml"}
