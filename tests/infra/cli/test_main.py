import importlib.metadata
import os
import re
import subprocess
import sys

import pytest
import typer

from dspy_lambda_infra.cli import EXTRA_MODULES, app, main
from tests.conftest import QUICKSTART
from tests.support import AECHO, ECHO

MAIN = "from dspy_lambda_infra.cli import main; sys.exit(main(sys.argv[1:]))"


def run_without(modules, folder, *command):
    """Run a command in a process that cannot import these modules."""
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
def test_a_command_without_the_cli_extra_prints_one_line_with_the_install_command(command, tmp_path):
    # Another package may depend on typer.
    found = run_without(EXTRA_MODULES - ({"typer"} if command != ["limits"] else set()), tmp_path, *command)
    line = 'dspy-lambda: this command requires the cli extra: pip install "dspy-lambda[cli]"'
    assert (found.returncode, found.stdout, found.stderr.splitlines()) == (2, "", [line])


def test_another_missing_module_is_not_blamed_on_the_cli_extra(tmp_path):
    found = run_without({"yaml"}, tmp_path, "limits")
    assert "dspy-lambda[cli]" not in found.stderr
    assert "yaml" in found.stderr


def test_every_package_in_the_cli_extra_is_mapped_to_its_module():
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


def test_template_writes_nothing_if_a_program_cannot_be_loaded(make_project, capsys):
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
def test_a_missing_config_is_reported_before_any_import(tmp_path, capsys, command):
    assert main([command, "--project", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "dspy.config.yaml: no such file" in line


def test_limits_prints_its_table_and_names_programs_that_cannot_be_loaded(make_project, capsys):
    project = make_project({"echo": ECHO, "broken": BROKEN})
    assert main(["limits", "--project", str(project)]) == 2
    out, err = capsys.readouterr()
    assert "Echo" in out
    assert "some programs cannot be loaded: AEcho: " in err


def test_version_output_includes_the_dspy_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert re.fullmatch(r"dspy-lambda [\d.]+ \(DSPy 3\.4\.[\d.]+, Python 3\.1[1-3]\.\d+\)\n", capsys.readouterr().out)


COMMANDS = ["local", "invoke", "serve", "template", "build", "deploy", "logs", "trace", "limits", "doctor"]


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_every_command(option, capsys):
    assert main([option]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.partition("Commands:\n")[2].splitlines()] == COMMANDS
    assert err == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_for_each_of_its_options(command, capsys):
    assert main([command, "-h"]) == 0
    assert f"dspy-lambda {command}" in capsys.readouterr().out
    group = typer.main.get_command(app)
    assert group.commands[command].help
    assert [option.name for option in group.commands[command].params if not option.help and option.name != "help"] == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["buidl"], "dspy-lambda: No such command 'buidl'. Did you mean 'build'? (help: dspy-lambda -h)"),
        ([], "dspy-lambda: Missing command. (help: dspy-lambda -h)"),
        (["build", "--outptu", "x"], "dspy-lambda build: No such option: --outptu (Possible options: --output)"),
        (
            ["build", "--python", "2.7"],
            "Invalid value for '--python': '2.7' is not one of '3.11', '3.12', '3.13', '3.14'.",
        ),
        (["local", "--port", "65536"], "dspy-lambda local: Invalid value for '--port': "),
        (["local", "--visibility-timeout", "0"], "Invalid value for '--visibility-timeout': "),
        (["doctor", "--rounds", "0"], "Invalid value for '--rounds': "),
        (["limits", "surplus"], "Got unexpected extra argument(s) (surplus)"),
        (["invoke", "Answer"], "Invalid value for 'INPUTS' / '--inputs' / '--event': give exactly one of them"),
        (["invoke", "Answer", "{}", "--event", "e.json"], "'--event': give exactly one of them"),
        (
            ["logs", "--since", "yesterday"],
            "Invalid value for --since: 'yesterday' is not a time; write one such as 15m",
        ),
        (["logs", "f.log", "--stack", "qa"], "Invalid value for 'FILE' / '--stack': give only one of them"),
        (["logs", "--slow", "-1"], "dspy-lambda logs: Invalid value for '--slow': "),
        (["trace"], "Invalid value for 'ID' / '--last' / '--follow': give exactly one of them"),
        (["trace", "x", "--last"], "Invalid value for 'ID' / '--last' / '--follow': give exactly one of them"),
        (["trace", "--follow", "--file", "-"], "standard input cannot be followed"),
    ],
    ids=[
        "misspelled command",
        "no command",
        "misspelled option",
        "unknown choice",
        "large port",
        "no seconds",
        "missing required option",
        "surplus argument",
        "no inputs",
        "inputs and an event",
        "unreadable time",
        "file and stack",
        "negative seconds",
        "no trace",
        "two traces",
        "followed stdin",
    ],
)
def test_a_usage_error_is_one_line_that_points_to_the_help(words, says, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert (end.value.code, out) == (2, "")
    assert says in line
    assert line.endswith(" -h)")


@pytest.mark.parametrize("words", [["--help"], ["build", "-h"], ["--version"]], ids=" ".join)
def test_help_and_version_import_no_slow_modules(words):
    script = f"import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); {MAIN}"
    found = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0
    tops = {name.partition(".")[0] for name in found.stderr.split()}
    assert "dspy_lambda_infra" in tops
    assert not tops & (EXTRA_MODULES | {"dspy", "pydantic", "yaml", "asyncio"}) - {"typer"}
    assert ("typer" in tops) is (words != ["--version"])


def test_help_in_a_pipe_has_no_escape_codes_even_with_color_variables(monkeypatch):
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS"):
        monkeypatch.setenv(name, "1")
    found = subprocess.run(
        [sys.executable, "-m", "dspy_lambda_infra.cli", "build", "-h"], capture_output=True, timeout=60
    )
    assert b"--architecture" in found.stdout
    assert b"\x1b" not in found.stdout


def test_a_closed_output_pipe_causes_no_traceback(make_project):
    command = [sys.executable, "-m", "dspy_lambda_infra.cli", "limits", "--project", str(make_project({"echo": ECHO}))]
    read, write = os.pipe()
    os.close(read)
    try:
        found = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(write)
    assert found.returncode == 1
    (line,) = found.stderr.splitlines()
    assert "their code runs here" in line


def test_ctrl_c_exits_with_130_without_a_traceback(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("dspy_lambda_infra.limits.run_limits", interrupted)
    assert main(["limits"]) == 130
    assert capsys.readouterr().err == ""
