"""Shared fixtures for SAM and Docker, created once: engine, image, built projects, our local Lambda."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from dspy_lambda_infra.model_server import ModelServer
from tests.conftest import QUICKSTART
from tests.sam import base_image, docker
from tests.sam.local import Local, local_lambda
from tests.sam.sam import HOST, SAM, dspy_lambda, sam

# In the project's .env, and nowhere in an artifact.
SECRET = "a-key-that-stays-on-this-machine"
# Declared so that `sam local --env-vars` can set it: that only replaces the values of variables in the template.
EXTRA = {"Globals": {"Function": {"Environment": {"Variables": {"DSPY_LAMBDA_API_BASE": ""}}}}}

MakeCopy = Callable[..., Path]


@pytest.fixture(scope="session")
def _model_server() -> Iterator[ModelServer]:
    """The server behind `models`, reachable from containers."""
    with ModelServer(host="0.0.0.0") as server:
        yield server


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """The name of a Lambda base image in a running Docker engine."""
    with ExitStack() as stack:
        try:
            stack.enter_context(docker.engine())
            name = base_image.build("3.13")
        except docker.NoDocker as reason:
            pytest.skip(f"needs Docker: {reason}")
        yield name


@pytest.fixture(scope="session")
def make_copy(tmp_path_factory: pytest.TempPathFactory, _model_server: ModelServer) -> MakeCopy:
    """Copy the quickstart with a modified config and additions to its template, and write the template."""

    def make(*replaced: tuple[str, str], extra: dict[str, object] = EXTRA) -> Path:
        root = tmp_path_factory.mktemp("project") / "quickstart"
        shutil.copytree(QUICKSTART, root, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        config = root / "dspy.config.yaml"
        for old, new in replaced:
            assert config.read_text().count(old) == 1
            config.write_text(config.read_text().replace(old, new))
        (root / ".env").write_text(f"SECRET={SECRET}\n")
        (root / "template.extra.yaml").write_text(yaml.safe_dump(extra))
        port = _model_server.address.rpartition(":")[2]
        models = {"DSPY_LAMBDA_API_BASE": f"http://{HOST}:{port}/v1", "OPENAI_API_KEY": "k"}
        (root / "env.json").write_text(json.dumps({"Parameters": models}))
        dspy_lambda(root, "template")
        return root

    return make


@pytest.fixture(scope="session")
def built(make_copy: MakeCopy) -> Callable[..., Path]:
    """A copy of the quickstart after `sam build`, one for each set of replacements."""
    known: dict[tuple[tuple[str, str], ...], Path] = {}

    def build(*replaced: tuple[str, str]) -> Path:
        if not SAM.exists():
            pytest.skip("needs the SAM CLI: make tools")
        if replaced not in known:
            root = make_copy(*replaced)
            sam(root, "build")
            known[replaced] = root
        return known[replaced]

    return build


@pytest.fixture(scope="session")
def quickstart(built: Callable[..., Path]) -> Path:
    """The quickstart after `sam build`."""
    return built()


@pytest.fixture(scope="session")
def local(quickstart: Path, _model_server: ModelServer) -> Iterator[Local]:
    """The same project on our own local Lambda, with the same models."""
    variables = {"OPENAI_API_KEY": "k", "DSPY_LAMBDA_API_BASE": _model_server.url}
    with local_lambda(quickstart, variables) as running:
        yield running


def artifact(root: Path, function: str) -> Path:
    """Return a function's artifact from `sam build`."""
    return root / ".aws-sam" / "build" / function


def functions_of(root: Path) -> list[str]:
    """Return the logical ids of the functions in a project's template."""
    return re.findall(r"^  (\w+):\n    Type: AWS::Serverless::Function", (root / "template.yaml").read_text(), re.M)
