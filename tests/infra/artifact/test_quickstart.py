"""Artifacts of the quickstart with its real distributions from PyPI."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dspy_lambda_infra.artifact.build import build
from dspy_lambda_infra.artifact.lock import LOCK_FILE
from dspy_lambda_infra.artifact.size import measure
from dspy_lambda_infra.artifact.target import Target
from dspy_lambda_infra.artifact.uv import THIS_PYTHON, uv
from dspy_lambda_infra.local.events import Request, rest_event
from dspy_lambda_infra.project import load_project
from tests.conftest import QUICKSTART
from tests.infra.artifact.conftest import HERE, contents, copy_quickstart, top
from tests.support import sqs

UNZIPPED, ZIPPED = 75_000_000, 22_000_000  # size budget of the quickstart; measured: 42.4 and 15.2 MB
SCRIPT = """
import importlib, json, sys
class Context:
    aws_request_id = "request"
    def get_remaining_time_in_millis(self):
        return 30_000
asked = json.load(sys.stdin)
handle = importlib.import_module(asked["module"]).lambda_handler
answers = [handle(event, Context()) for event in asked["events"]]
files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
print(json.dumps({"answers": answers, "files": {name: file for name, file in files.items() if file}}))
"""


def ask(artifact, events, module="dspy_lambda.main", **variables):
    """Run an artifact as on Lambda: only the standard library and the artifact itself can be imported."""
    environment = {"PYTHONPATH": str(artifact), "LAMBDA_TASK_ROOT": str(artifact), **variables}
    done = subprocess.run(
        [sys.executable, "-S", "-c", SCRIPT],
        input=json.dumps({"module": module, "events": events}),
        env=environment,
        cwd=artifact,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert not [file for file in result["files"].values() if "site-packages" in file]
    return result


def test_the_quickstarts_artifact_stays_within_its_size_budget(quickstart):
    size = measure(quickstart.program)
    assert size.unzipped == sum(path.stat().st_size for path in quickstart.program.rglob("*") if path.is_file())
    assert size.unzipped < UNZIPPED
    assert size.zipped < ZIPPED
    assert [path for path in contents(quickstart.program) if path.endswith(".pyc")]
    assert not {"litellm", "openai", "boto3"} & top(quickstart.program)


def test_builds_in_different_folders_are_identical(quickstart, tmp_path):
    other = copy_quickstart(tmp_path / "of another name")
    (other / "dspy-lambda.lock").write_bytes((quickstart.root / "dspy-lambda.lock").read_bytes())
    folder = build(load_project(other), "Answer", HERE, tmp_path / "other", print).folder
    found = contents(folder)
    assert found.keys() == contents(quickstart.program).keys()
    assert [path for path, data in found.items() if data != (quickstart.program / path).read_bytes()] == []
    kinds = [
        {path.relative_to(tree): (path.stat().st_mode, path.stat().st_mtime) for path in tree.rglob("*")}
        for tree in (folder, quickstart.program)
    ]
    assert kinds[0] == kinds[1]
    assert not [path for path, data in found.items() if str(tmp_path).encode() in data]


@pytest.mark.skipif(sys.platform != "linux", reason="an artifact runs on Linux only")
@pytest.mark.parametrize("architecture", ["x86_64", "arm64"])
@pytest.mark.parametrize("python", ["3.11", "3.14"])
def test_everything_locked_has_a_wheel_for_the_oldest_and_newest_runtime(pypi, tmp_path, python, architecture):
    """Works without that Python on this machine: requirements are resolved, not installed."""
    target = Target(python, architecture)
    which = ("--python-version", target.python, "--python-platform", target.platform, "--only-binary", ":all:")
    what = ("--target", str(tmp_path), "--dry-run", "--no-deps", "--require-hashes", "-r", str(QUICKSTART / LOCK_FILE))
    uv("pip", "install", "-q", *THIS_PYTHON, *what, *which)


def test_an_artifact_runs_with_only_the_standard_library(quickstart, models):
    before = contents(quickstart.program)
    body = json.dumps({"question": "why?"}).encode()
    request = Request("POST", "/Answer", headers=[("Content-Type", "application/json")], body=body)
    found = ask(
        quickstart.program,
        [{"inputs": {"question": "why?"}}, rest_event(request)],
        DSPY_LAMBDA_PROGRAM="Answer",
        DSPY_LAMBDA_MODULE="quickstart.modules.answer",
        DSPY_LAMBDA_API_BASE=models.url,
        OPENAI_API_KEY="k",
    )
    direct, http = found["answers"]
    assert direct == {"program": "Answer", "outputs": {"answer": "gpt-4.1-nano: why?"}}
    assert (http["statusCode"], json.loads(http["body"])) == (200, direct["outputs"])
    for name in ("dspy", "pydantic", "pydantic_core", "fastapi", "quickstart.modules.answer"):
        assert Path(found["files"][name]).is_relative_to(quickstart.program)
    assert contents(quickstart.program) == before, "bytecode was compiled again"


@pytest.mark.skipif(sys.platform != "linux", reason="an artifact runs on Linux only")
def test_an_sqs_only_function_has_no_http_code(quickstart, models):
    assert not {"fastapi", "starlette", "mangum"} & top(quickstart.without_http)
    found = ask(
        quickstart.without_http,
        [sqs({"text": "long"})],
        DSPY_LAMBDA_PROGRAM="Summarise",
        DSPY_LAMBDA_API_BASE=models.url,
        OPENAI_API_KEY="k",
    )
    assert found["answers"] == [{"batchItemFailures": []}]


@pytest.mark.skipif(sys.platform != "linux", reason="an artifact runs on Linux only")
def test_the_catalogue_artifact_contains_neither_dspy_nor_the_project(quickstart):
    assert not {"dspy", "src", "dspy.config.yaml", "aws_lambda_powertools", "yaml"} & top(quickstart.catalogue)
    assert measure(quickstart.catalogue).unzipped < UNZIPPED / 3
    found = ask(quickstart.catalogue, [rest_event(Request("GET", "/programs"))], "dspy_lambda.catalogue")
    (answer,) = found["answers"]
    programs = json.loads(answer["body"])["programs"]
    assert [program["name"] for program in programs] == ["Answer", "Perspectives", "Summarise", "Triage"]
    assert not {"dspy", "boto3"} & found["files"].keys()
