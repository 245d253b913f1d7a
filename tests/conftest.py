"""Shared fixtures: a model server, generated projects, environments of the real handler."""

from __future__ import annotations

import functools
import io
import itertools
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before anything imports DSPy: no test may use the network or the developer's cache.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"

import botocore.session
import hypothesis
import pytest
import yaml

from dspy_lambda.environment import Environment
from dspy_lambda_infra.artifact.uv import UvError, uv
from dspy_lambda_infra.model_server import ModelServer
from tests.support import Records, Serve

# Each boto3 session parses its service descriptions again, which took half the time of tests with moto.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)

# No deadline per example: the machine may be busy.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")

ROOT = Path(__file__).resolve().parent.parent
QUICKSTART = ROOT / "examples" / "quickstart"
EVENTS = ROOT / "events"
FAST = os.environ.get("DSPY_LAMBDA_FAST")
_packages = itertools.count()

_HANDLES = """
import json, sys
from dspy_lambda.main import lambda_handler
from tests.support import Context

for event in json.load(sys.stdin):
    try:
        lambda_handler(event, Context(aws_request_id="request"))
    except Exception:
        pass
"""

MakeProject = Callable[..., Path]
MakeServe = Callable[..., Serve]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run load and process tests first: a long file at the end would keep one worker busy and the others idle."""
    items.sort(key=lambda item: item.path.relative_to(ROOT / "tests").parts[0] not in ("stress", "infra"))


@pytest.fixture(autouse=True)
def _trace_function_comes_back() -> Iterator[None]:
    """Restore the trace function for branch coverage: Python removes it at the recursion limit, for all later tests."""
    usual = sys.gettrace()
    yield
    if sys.gettrace() is not usual:
        sys.settrace(usual)


@pytest.fixture(scope="session")
def _model_server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def models(_model_server: ModelServer) -> ModelServer:
    """The model server, answering immediately and without faults, with its counts at zero."""
    _model_server.behave()
    return _model_server


@pytest.fixture(scope="session")
def pypi(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip, with the reason, if PyPI cannot be reached."""
    wanted = tmp_path_factory.mktemp("pypi") / "wanted.in"
    wanted.write_text("docopt==0.6.2\n")
    try:
        uv("pip", "compile", "-q", "--refresh", str(wanted))
    except UvError as error:
        pytest.skip(f"PyPI cannot be reached: {error}")


@pytest.fixture
def make_project(tmp_path: Path) -> MakeProject:
    """Write a DSPy project from modules by file name (imports of dspy are optional) and config keys."""

    def make(modules: dict[str, str], **config: Any) -> Path:
        package = f"project_{next(_packages)}"  # sys.modules outlives a test
        root = tmp_path / package
        folder = root / "src" / package / "modules"
        folder.mkdir(parents=True)
        for name, text in modules.items():
            (folder / f"{name}.py").write_text("import dspy\n" + textwrap.dedent(text))
        registry = {"fast": {"model": "openai/gpt-4.1-nano", "env": "OPENAI_API_KEY", "cache": False}}
        defaults = {"app_id": package, "models": {"default": "fast", "registry": registry}}
        (root / "dspy.config.yaml").write_text(yaml.safe_dump({**defaults, **config}))
        return root

    return make


@pytest.fixture
def output() -> io.StringIO:
    """The stream for the handler's log lines and metrics."""
    return io.StringIO()


@pytest.fixture
def make_serve(models: ModelServer, output: io.StringIO) -> Iterator[MakeServe]:
    """Create environments of the real handler for a project and send them events; `records` returns their log."""

    made: list[Serve] = []

    def make(project: Path, **variables: str) -> Serve:
        settings = {
            "DSPY_LAMBDA_PROJECT": str(project),
            "DSPY_LAMBDA_API_BASE": models.url,
            "OPENAI_API_KEY": "test-key",
            # `make test-dspy` also runs everything without the patches that only save time.
            **({"DSPY_LAMBDA_FAST": FAST} if FAST else {}),
            "POWERTOOLS_SERVICE_NAME": f"service-{next(_packages)}",  # loggers are per service and outlive a test
            **variables,
        }
        made.append(Serve(Environment(settings, output)))
        return made[-1]

    yield make
    for serve in made:
        serve.close()


@pytest.fixture
def serve(make_serve: MakeServe) -> Serve:
    """The quickstart."""
    return make_serve(QUICKSTART)


@pytest.fixture
def records(output: io.StringIO) -> Callable[[], Records]:
    """Return what was logged since the last call, line by line."""

    def read() -> Records:
        lines = output.getvalue().splitlines()
        output.seek(0)
        output.truncate()
        return Records([json.loads(line) for line in lines])

    return read


@pytest.fixture
def event() -> Callable[[str], Any]:
    """A sample event by file name."""
    return lambda name: json.loads((EVENTS / f"{name}.json").read_text())


@pytest.fixture
def run_events(make_project: MakeProject, models: ModelServer) -> Callable[..., Records]:
    """Send events to a process as Lambda does, and return what it wrote to its standard output."""

    def run(source: str, *events: Any, config: dict[str, Any] | None = None, **variables: str) -> Records:
        project = make_project({"program": source}, **(config or {}))
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("POWERTOOLS_", "AWS_LAMBDA_"))},
            "DSPY_LAMBDA_PROJECT": str(project),
            "DSPY_LAMBDA_API_BASE": models.url,
            "OPENAI_API_KEY": "k",
            "POWERTOOLS_SERVICE_NAME": "the-app",
            **variables,
        }
        command = [sys.executable, "-c", _HANDLES]
        text = json.dumps(events)
        done = subprocess.run(
            command, input=text, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return Records([json.loads(line) for line in done.stdout.splitlines()])

    return run
