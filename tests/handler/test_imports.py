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
from tests.support import ECHO

PROGRAM = {"DSPY_LAMBDA_PROGRAM": "Answer", "DSPY_LAMBDA_MODULE": "quickstart.modules.answer"}


@functools.cache
def modules(code, **variables):
    """Return the modules loaded after running this code."""
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
        ("", 1.19, {"fastapi", "starlette", "mangum", "boto3", "litellm", "openai", "numpy", "asyncio.subprocess"}),
        ("http", 1.37, {"boto3", "litellm", "openai", "numpy"}),
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
    floor = modules("import asyncio, fastapi")  # newer ones do not set the loop
    loaded = modules("import dspy_lambda.catalogue", LAMBDA_TASK_ROOT=str(tmp_path))
    assert len(loaded) <= 1.1 * len(floor)
    assert not loaded & {"dspy", "boto3", "aws_lambda_powertools", "yaml"}


def own(loaded):
    return {name.removeprefix("dspy_lambda.") for name in loaded if name.startswith("dspy_lambda.")}


@pytest.mark.parametrize(
    ("sources", "named", "others"),
    [
        ("", set(), {"http", "sqs", "direct"}),
        ("http", {"http"}, {"sqs", "direct"}),
        ("sqs", {"sqs"}, {"http", "direct"}),
    ],
)
def test_a_source_that_a_function_does_not_name_is_loaded_with_its_first_event(sources, named, others):
    loaded = own(modules("import dspy_lambda.main", DSPY_LAMBDA_SOURCES=sources, **PROGRAM))
    assert {f"sources.{name}" for name in named} <= loaded
    assert not [name for name in loaded if name.startswith(tuple(f"sources.{other}" for other in others))]


def of_tracing(loaded):
    packages = ("telemetry.traces.", "telemetry.export", "telemetry.payloads")
    return {name for name in own(loaded) if name.startswith(packages) or name == "dspy_patches.spans"}


def test_a_function_without_traces_and_payloads_loads_only_what_notes_the_current_span():
    loaded = modules("import dspy_lambda.main", DSPY_LAMBDA_SOURCES="http", **PROGRAM)
    assert of_tracing(loaded) == {"telemetry.traces.spans"}
    assert not own(loaded) & {"key_shapes", "telemetry.model_metrics", "telemetry.debug_lines"}


def test_metrics_of_models_load_spans_but_no_export(make_project):
    project = make_project({"echo": ECHO}, telemetry={"model_metrics": True})
    loaded = of_tracing(modules("import dspy_lambda.main", DSPY_LAMBDA_PROJECT=str(project)))
    assert "telemetry.traces.tracer" in loaded
    assert not [name for name in loaded if name.startswith(("telemetry.export", "telemetry.payloads"))]


def test_a_batch_loads_no_http_code():
    code = """
import json
from dspy_lambda.main import lambda_handler
class Context:
    aws_request_id = "r"
    get_remaining_time_in_millis = staticmethod(lambda: 5000)
lambda_handler(json.load(open("events/sqs-one-bad.json")), Context())
"""
    loaded = modules(code, DSPY_LAMBDA_API_BASE="http://127.0.0.1:9", **PROGRAM)
    assert "sources.sqs.batch" in own(loaded)
    assert not loaded & {"dspy_lambda.sources.http", "fastapi", "mangum"}
