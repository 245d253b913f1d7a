import shutil
import sys

import dspy
import pytest
from dspy.primitives.code_interpreter import CodeInterpreterError

from dspy_lambda.dspy_patches.deno import DENO_ENVIRONMENT, deno_command
from dspy_lambda.dspy_patches.patch import apply_patch

# In Deno's place: writes the names of its variables to a file, and ends.
SHOW = "import os, sys; open(sys.argv[1], 'w').write(repr(sorted(os.environ)))"


@pytest.fixture
def inherited(monkeypatch, tmp_path):
    """Return the names of the variables that an interpreter's process inherits."""
    assert apply_patch(DENO_ENVIRONMENT) is None
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_LAMBDA_RUNTIME_API", "OPENAI_API_KEY", "MY_TOKEN"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("DENO_DIR", "/tmp/deno")

    def names(*options):
        seen = tmp_path / "seen"
        with pytest.raises(CodeInterpreterError):
            dspy.PythonInterpreter(deno_command=[sys.executable, "-c", SHOW, str(seen), *options]).start()
        return seen.read_text()

    return names


def test_deno_inherits_no_credentials(inherited):
    found = inherited()
    assert "'PATH'" in found
    assert "'DENO_DIR'" in found
    assert [name for name in ("AWS_", "OPENAI", "MY_TOKEN") if name in found] == []


def test_deno_inherits_variables_that_the_program_allows(inherited):
    found = inherited("--allow-env=MY_TOKEN,OTHER")
    assert "'MY_TOKEN'" in found
    assert "AWS_" not in found


def test_the_default_deno_is_probed_without_credentials_too(inherited, monkeypatch, tmp_path):
    fake = tmp_path / "deno"
    fake.write_text(
        f"#!{sys.executable}\nimport os\nopen({str(tmp_path / 'seen')!r}, 'w').write(repr(sorted(os.environ)))\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("dspy.primitives.python_interpreter._find_deno_executable", lambda: str(fake))
    with pytest.raises(CodeInterpreterError, match="version"):
        dspy.PythonInterpreter().start()
    seen = (tmp_path / "seen").read_text()
    assert "DENO_NO_PACKAGE_JSON" in seen
    assert "AWS_" not in seen


def test_the_command_is_the_one_on_the_path(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "deno", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert deno_command() == "deno"
    (tmp_path / "deno").touch(mode=0o755)
    assert deno_command() == shutil.which("deno")
