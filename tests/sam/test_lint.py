"""Linters from AWS and others on the template of every config in the matrix."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template import render
from tests.conftest import ROOT
from tests.infra.template.matrix import BEDROCK, MATRIX
from tests.sam.sam import SAM, variables
from tests.support import ECHO

TOOLS = SAM.parent
pytestmark = pytest.mark.skipif(not SAM.exists(), reason="needs the SAM CLI, cfn-lint and checkov: make tools")
OPENAI = {"default": "fast", "registry": {"fast": {"model": "openai/gpt-4.1-nano", "env": "OPENAI_API_KEY"}}}


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    """Write the templates and return their files."""
    written = []
    for name, (settings, server) in {**MATRIX, "bedrock": MATRIX["everything"]}.items():
        root = tmp_path_factory.mktemp(name)
        project = make(root, name, settings, server, BEDROCK if name == "bedrock" else OPENAI)
        (root / "template.yaml").write_text(render(load_project(project), root))
        written.append(root / "template.yaml")
    return [*written, ROOT / "template.yaml"]


def make(root, name, settings, server, models):
    modules = root / "src" / f"matrix_{name.replace('-', '_')}" / "modules"
    modules.mkdir(parents=True)
    (modules / "echo.py").write_text("import dspy\n" + ECHO)
    config = {"app_id": name, "models": models, "server": server, "lambda": settings}
    (root / "dspy.config.yaml").write_text(yaml.safe_dump(config))
    return root


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, env=variables())
    assert done.returncode == 0, done.stdout + done.stderr


def test_cfn_lint_accepts_every_template(templates):
    run(TOOLS / "cfn-lint", "--regions", "us-east-1", "--", *templates)


def test_checkov_accepts_every_template(templates):
    files = [argument for template in templates for argument in ("-f", template)]
    run(TOOLS / "checkov", *files, "--config-file", ROOT / "infra" / "dspy_lambda_infra" / "checkov.yaml")


def test_sam_validate_accepts_every_template(templates):
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda template: run(TOOLS / "sam", "validate", "--lint", "--template", template), templates))
