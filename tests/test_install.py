"""A release in an empty environment, as a user installs it. Takes minutes, so `make isolation` runs it."""

import json
import subprocess
import urllib.request
from pathlib import Path

import pytest

from dspy_lambda_infra.artifact.uv import uv
from tests.conftest import ROOT
from tests.support import ECHO
from tests.test_package import make_release

pytestmark = pytest.mark.usefixtures("pypi")
OWN = "import dspy\nfrom utils.words import LOUD\n" + ECHO.replace(
    "return self.predict(question=question)",
    "return dspy.Prediction(answer=self.predict(question=question).answer + LOUD)",
)
# Common folder names in AWS projects: Lambda's tutorials use handler/, CDK's and SAM's use infra/.
FILES = {
    "handler/__init__.py": "",
    "handler/app.py": "def handler(event, context): ...\n",
    "infra/__init__.py": "",
    "infra/stack.py": "STACK = 1\n",
    "src/support/modules/echo.py": OWN,
    "src/utils/__init__.py": "",
    "src/utils/words.py": "LOUD = '!'\n",
    "src/handler/__init__.py": "",
}
# As on Lambda: only the standard library and the artifact itself can be imported.
CALL = """
class Context:
    aws_request_id = "request"
    def get_remaining_time_in_millis(self):
        return 30_000
from dspy_lambda.main import lambda_handler
answer = lambda_handler({"inputs": {"question": "Why?"}}, Context())
import sys
print(answer["outputs"]["answer"], file=sys.stderr)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    (path,) = make_release(tmp_path_factory.mktemp("release")).glob("dspy_lambda-*.whl")
    return path


@pytest.fixture
def install(wheel, tmp_path):
    """Create an environment with only the wheel and these extras; return its folder of commands."""

    def make(extras: str = "") -> Path:
        folder = tmp_path / "environment"
        uv("venv", "-q", str(folder))
        versions = ("--constraints", str(ROOT / "requirements" / "dev.txt"))
        uv(
            "pip",
            "install",
            "-q",
            "--python",
            str(folder / "bin" / "python"),
            *versions,
            f"dspy-lambda{extras} @ {wheel}",
        )
        return folder / "bin"

    return make


def run(*words, **options):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **options)


def test_an_install_without_the_cli_extra_prints_its_version_and_what_is_missing(install, tmp_path):
    commands = install()
    assert run(commands / "dspy-lambda", "--version").stdout.startswith("dspy-lambda ")
    assert run(commands / "python", "-c", "import dspy_lambda.environment", cwd=tmp_path).returncode == 0
    refused = run(commands / "dspy-lambda", "limits", "--project", ROOT / "examples" / "quickstart")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.splitlines()[-1].endswith('requires the cli extra: pip install "dspy-lambda[cli]"')


def test_a_project_with_folders_called_handler_and_infra_builds_runs_locally_and_answers(
    install, tmp_path, make_project, models
):
    commands = install("[cli]")
    project = make_project({})
    for path, text in FILES.items():
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(text)
    artifact = tmp_path / "artifact"
    here = run(commands / "python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").stdout.strip()
    words = ("--project", project, "--function", "Echo", "--python", here, "--output", artifact)
    built = run(commands / "dspy-lambda", "build", *words, timeout=600)
    assert built.returncode == 0, built.stderr
    assert all((artifact / path).is_file() for path in FILES)
    variables = {"OPENAI_API_KEY": "k", "DSPY_LAMBDA_API_BASE": models.url}

    lambda_ = {**variables, "PYTHONPATH": str(artifact), "LAMBDA_TASK_ROOT": str(artifact), "HOME": str(tmp_path)}
    called = run(commands / "python", "-S", "-c", CALL, env=lambda_, cwd=artifact)
    assert called.returncode == 0, called.stdout + called.stderr
    assert "Why?!" in called.stderr + called.stdout

    assert answer_of_local(commands, project, variables | {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}).endswith(
        "Why?!"
    )


def answer_of_local(commands, project, variables):
    """Return the answer of `dspy-lambda local` over HTTP."""
    words = [str(word) for word in (commands / "dspy-lambda", "local", "--project", project, "--port", "0")]
    with subprocess.Popen(words, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as local:
        try:
            said = []
            for line in local.stdout:
                said.append(line)
                if line.startswith("ready "):
                    break
            else:
                pytest.fail("".join(said))
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"{line.split()[1]}/Echo", b'{"question": "Why?"}', headers)
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.loads(response.read())["answer"]
        finally:
            local.terminate()
