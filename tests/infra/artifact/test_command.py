import json
import os
import pty
import subprocess

import pytest

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.artifact.command import find_function
from dspy_lambda_infra.cli import main
from dspy_lambda_infra.project import CATALOGUE, load_project
from tests.infra.artifact.conftest import HERE, command, contents
from tests.support import AECHO, ECHO, read_terminal


def run_build(project, *options):
    """Run the command and return its exit status."""
    target = ["--python", HERE.python, "--architecture", HERE.architecture]
    return main(["build", "--project", str(project), *target, *map(str, options)])


def test_build_writes_all_functions_into_sibling_folders(make_project, stand_ins, capsys):
    project = make_project({"echo": ECHO, "aecho": AECHO})
    assert run_build(project, "--output", project / "out") == 0
    found = {path.name for path in (project / "out").iterdir()}
    assert found == {"EchoFunction", "AEchoFunction", "CatalogueFunction"}
    printed = capsys.readouterr().out
    assert f"EchoFunction (Python {HERE.python}, {HERE.architecture}): {project}/out/EchoFunction" in printed
    assert printed.count("unzipped") == 3
    assert not (project / "out" / "EchoFunction" / "out").exists()


def test_build_ignores_the_accounts_concurrency(make_project, stand_ins):
    """`deploy` reads the account's quota, which may exceed the config's; `sam build` must not refuse it."""
    project = make_project({"echo": ECHO}, **{"lambda": {"defaults": {"reserved_concurrency": 5000}}})
    assert run_build(project, "--function", "Echo", "--output", project / "out") == 0


def test_build_accepts_a_program_name_or_a_logical_id(make_project):
    modules = {"echo": ECHO.replace("Echo", "My_Echo"), "aecho": AECHO}
    project = load_project(make_project(modules, **{"lambda": {"programs": {"AEcho": {"http": False}}}}))
    assert find_function(project, "My_Echo") == find_function(project, "MyEchoFunction") == "My_Echo"
    assert find_function(project, "CatalogueFunction") == CATALOGUE


def test_a_project_without_an_api_has_no_catalogue_artifact(make_project):
    project = load_project(make_project({"echo": ECHO}, **{"lambda": {"defaults": {"http": False}}}))
    with pytest.raises(ConfigError, match="choose from: EchoFunction"):
        find_function(project, "CatalogueFunction")


@pytest.mark.parametrize(
    ("modules", "options", "says"),
    [
        ({"echo": ECHO}, ["--function", "Nope"], "--function: no function 'Nope'; choose from: EchoFunction"),
        ({}, [], "no programs found; put dspy.Module classes in src/"),
        ({"echo": "import nothing_of_that_name\n" + ECHO}, [], "No module named 'nothing_of_that_name'"),
    ],
    ids=["unknown function", "no programs", "failed program"],
)
def test_a_failed_build_exits_with_2_and_writes_nothing(make_project, stand_ins, capsys, modules, options, says):
    project = make_project(modules)
    before = contents(project)
    assert run_build(project, "--output", project / "out", *options) == 2
    assert says in capsys.readouterr().err
    assert {path for path in contents(project) if "__pycache__" not in path} == set(before)


BROKEN = "import nothing_of_that_name\n" + AECHO


def test_one_broken_program_does_not_stop_the_build_of_the_others(make_project, stand_ins, capsys):
    project = make_project({"echo": ECHO, "broken": BROKEN})
    assert run_build(project, "--output", project / "out") == 2
    assert "AEcho: " in capsys.readouterr().err
    assert {path.name for path in (project / "out").iterdir()} == {"EchoFunction", "CatalogueFunction"}
    assert run_build(project, "--function", "EchoFunction", "--output", project / "one") == 0
    assert "AEcho" not in capsys.readouterr().err
    assert run_build(project, "--function", "AEcho", "--output", project / "two") == 2
    assert "AEcho cannot be loaded: " in capsys.readouterr().err


def test_one_function_that_cannot_be_built_does_not_stop_the_others(make_project, stand_ins, capsys):
    project = make_project({"echo": ECHO, "aecho": AECHO})
    (project / "out" / "AEchoFunction").mkdir(parents=True)
    (project / "out" / "AEchoFunction" / "mine.txt").touch()
    assert run_build(project, "--output", project / "out") == 2
    assert "not built: AEchoFunction: " in capsys.readouterr().err
    assert (project / "out" / "EchoFunction" / "dspy_lambda").is_dir()


def test_a_warning_shared_by_several_functions_is_printed_once(make_project, stand_ins, capsys):
    project = make_project({"echo": ECHO, "aecho": AECHO})
    (project / "notes.txt").write_text("AKIA" + "ABCD1234EFGH5678")
    assert run_build(project, "--output", project / "out") == 0
    assert capsys.readouterr().err.count("notes.txt:1 contains what looks like") == 1


@pytest.mark.parametrize("dotenv", [True, False])
def test_commands_announce_that_they_run_the_programs_code(make_project, stand_ins, capsys, dotenv):
    project = make_project({"echo": ECHO})
    if dotenv:
        (project / ".env").write_text("A=1\n")
    run_build(project, "--output", project / "out")
    said = capsys.readouterr().err
    assert f"importing the programs in {project}/src: their code runs here" in said
    assert ("with the variables of its .env" in said) is dotenv


def test_unsatisfiable_requirements_exit_with_2(make_project, stand_ins, capsys):
    project = make_project({"echo": ECHO})
    (project / "requirements.txt").write_text("dspy<3\n")
    assert run_build(project, "--function", "Echo", "--output", project / "out") == 2
    assert "dspy<3" in capsys.readouterr().err
    assert run_build(project, "--output", project / "out") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "not built" in line]
    assert "not built: EchoFunction, CatalogueFunction: " in line
    assert not list((project / "out").iterdir())


def test_a_build_as_json_reports_artifacts_warnings_and_failures(make_project, stand_ins, capsys):
    project = make_project({"echo": ECHO, "aecho": AECHO})
    (project / "notes.txt").write_text("AKIA" + "ABCD1234EFGH5678")
    (project / "out" / "AEchoFunction").mkdir(parents=True)
    (project / "out" / "AEchoFunction" / "mine.txt").touch()
    assert run_build(project, "--output", project / "out", "--json") == 2
    found = json.loads(capsys.readouterr().out)
    echo, catalogue = found["functions"]
    assert (echo["function"], catalogue["function"]) == ("EchoFunction", "CatalogueFunction")
    assert (echo["python"], echo["architecture"]) == (HERE.python, HERE.architecture)
    assert echo["artifact"] == str(project / "out" / "EchoFunction")
    assert 0 < echo["zipped_bytes"] < echo["unzipped_bytes"] < echo["limit_bytes"]
    assert sum(echo["parts_bytes"].values()) == echo["unzipped_bytes"]
    assert [warning for warning in found["warnings"] if "notes.txt:1" in warning]
    assert list(found["failed"]) == ["AEchoFunction"]


def test_build_shows_the_current_function_on_a_terminal(make_project, stand_ins):
    project = make_project({"echo": ECHO})
    screen, end = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    words = command(project, "Echo", project / "out")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=end, env=environment) as process:
        os.close(end)
        shown = read_terminal(screen)
        out = process.stdout.read()
    assert process.returncode == 0
    assert b"[1/1] EchoFunction" in shown
    assert b"\x1b[" in shown
    assert out.startswith(b"EchoFunction (Python ")
    assert b"\x1b" not in out
