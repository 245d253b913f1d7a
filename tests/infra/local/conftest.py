import contextlib
import subprocess
import sys

import pytest

from dspy_lambda_infra.local import cgroups
from dspy_lambda_infra.local.local import LocalLambda
from dspy_lambda_infra.local.queues import QueueServer
from dspy_lambda_infra.project import load_project
from tests.infra.local.support import RUN, Lines, processes


@pytest.fixture
def server():
    server = QueueServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def lines():
    return Lines()


@pytest.fixture
def make_local(models, lines):
    """Run a project's local Lambda; its model calls go to the model server, its log to `lines`."""

    def make(project, **options):
        variables = {"OPENAI_API_KEY": "k", "DSPY_LAMBDA_API_BASE": models.url}
        return LocalLambda(load_project(project), variables, lines, **options)

    return make


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run `dspy-lambda` in a separate process, which is killed at the end; its files are in `tmp_path`."""
    folder = tmp_path / "tmp-of-the-command"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))

    @contextlib.contextmanager
    def command(*arguments):
        words = [sys.executable, "-m", "dspy_lambda_infra.cli", *arguments]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    return command


@pytest.fixture(autouse=True)
def _no_process_is_left(monkeypatch):
    monkeypatch.setenv("TEST_RUN_OF_LOCAL", RUN)
    yield
    assert not processes()
    cgroups.find().sweep()  # a test may have killed a local Lambda
