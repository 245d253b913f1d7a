import importlib.metadata
import re
import subprocess
import sys

import pytest

from dspy_lambda_infra.cli import EXTRA_MODULES, main
from tests.conftest import QUICKSTART
from tests.support import AECHO, ECHO

MAIN = "from dspy_lambda_infra.cli import main; sys.exit(main(sys.argv[1:]))"


def run_without(modules, folder, *command):
    """Run a command where these modules cannot be imported."""
    code = f"import sys; sys.modules |= dict.fromkeys({sorted(modules)}); {MAIN}"
    arguments = [sys.executable, "-c", code, *command, "--project", str(QUICKSTART)]
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "command",
    [
        ["template"],
        ["build"],
        ["local"],
        ["serve"],
        ["deploy", "--dry-run"],
        ["limits"],
        ["doctor", "--cold-start"],
        ["invoke", "--event", "event.json"],
    ],
    ids=lambda command: command[0],
)
def test_a_command_without_the_extra_says_in_one_line_how_to_install_it(command, tmp_path):
    # A dependency of another package may bring typer.
    found = run_without(EXTRA_MODULES - ({"typer"} if command != ["limits"] else set()), tmp_path, *command)
    line = 'dspy-lambda: this needs the extra: pip install "dspy-lambda[cli]"'
    assert (found.returncode, found.stdout, found.stderr.splitlines()) == (2, "", [line])


def test_a_missing_module_of_somebody_else_is_not_blamed_on_the_extra(tmp_path):
    found = run_without({"yaml"}, tmp_path, "limits")
    assert "dspy-lambda[cli]" not in found.stderr
    assert "yaml" in found.stderr


def test_every_package_of_the_extra_is_known_by_its_module():
    requirements = importlib.metadata.requires("dspy-lambda") or []
    extra = {re.split(r"[^A-Za-z0-9_.-]", r)[0].lower() for r in requirements if re.search(r"extra == .cli.", r)}
    known = {
        distribution.lower()
        for module, distributions in importlib.metadata.packages_distributions().items()
        for distribution in distributions
        if module in EXTRA_MODULES
    }
    assert extra
    assert extra <= known


BROKEN = "import nothing_of_that_name\n" + AECHO


def test_a_template_is_not_written_without_the_program_that_cannot_be_loaded(make_project, capsys):
    project = make_project({"echo": ECHO, "broken": BROKEN})
    written = project / "template.yaml"
    written.write_text("as it was")
    for output in (str(written), "-"):
        assert main(["template", "--project", str(project), "--output", output]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "AEcho: " in err
        assert "their code runs here" in err
    assert written.read_text() == "as it was"
    assert not (project / "Makefile").exists()


@pytest.mark.parametrize("command", ["template", "limits"])
def test_a_missing_config_is_said_before_any_import(tmp_path, capsys, command):
    assert main([command, "--project", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "dspy.config.yaml: no such file" in line


def test_limits_shows_its_table_and_names_what_cannot_be_loaded(make_project, capsys):
    project = make_project({"echo": ECHO, "broken": BROKEN})
    assert main(["limits", "--project", str(project)]) == 2
    out, err = capsys.readouterr()
    assert "Echo" in out
    assert "programs that cannot be loaded have no function: AEcho: " in err


def test_the_version_names_dspys_too(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert re.fullmatch(r"dspy-lambda [\d.]+ \(DSPy 3\.4\.[\d.]+, Python 3\.1[1-3]\.\d+\)\n", capsys.readouterr().out)
