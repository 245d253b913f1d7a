import pytest

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.artifact.command import find_function
from dspy_lambda_infra.cli import main
from dspy_lambda_infra.project import CATALOGUE, load_project
from tests.infra.artifact.conftest import HERE, contents
from tests.support import AECHO, ECHO


def run_build(project, *options):
    """The command's exit status."""
    target = ["--python", HERE.python, "--architecture", HERE.architecture]
    return main(["build", "--project", str(project), *target, *map(str, options)])


def test_all_functions_go_side_by_side(make_project, stand_ins, capsys):
    project = make_project({"echo": ECHO, "aecho": AECHO})
    assert run_build(project, "--output", project / "out") == 0
    found = {path.name for path in (project / "out").iterdir()}
    assert found == {"EchoFunction", "AEchoFunction", "CatalogueFunction"}
    printed = capsys.readouterr().out
    assert f"EchoFunction (Python {HERE.python}, {HERE.architecture}): {project}/out/EchoFunction" in printed
    assert printed.count("unzipped") == 3
    assert not (project / "out" / "EchoFunction" / "out").exists()


def test_an_accounts_concurrency_is_no_matter_of_the_build(make_project, stand_ins):
    """`deploy` asks the account, which may have more than the config says; `sam build` must not refuse it then."""
    project = make_project({"echo": ECHO}, **{"lambda": {"defaults": {"reserved_concurrency": 5000}}})
    assert run_build(project, "--function", "Echo", "--output", project / "out") == 0


def test_a_function_is_named_by_its_program_or_by_its_logical_id(make_project):
    modules = {"echo": ECHO.replace("Echo", "My_Echo"), "aecho": AECHO}
    project = load_project(make_project(modules, **{"lambda": {"programs": {"AEcho": {"http": False}}}}))
    assert find_function(project, "My_Echo") == find_function(project, "MyEchoFunction") == "My_Echo"
    assert find_function(project, "CatalogueFunction") == CATALOGUE


def test_without_an_api_there_is_no_catalogue(make_project):
    project = load_project(make_project({"echo": ECHO}, **{"lambda": {"defaults": {"http": False}}}))
    with pytest.raises(ConfigError, match="there are: EchoFunction"):
        find_function(project, "CatalogueFunction")


@pytest.mark.parametrize(
    ("modules", "options", "says"),
    [
        ({"echo": ECHO}, ["--function", "Nope"], "--function: no function 'Nope'; there are: EchoFunction"),
        ({}, [], "no programs; put dspy.Module classes into src/"),
        ({"echo": "import nothing_of_that_name\n" + ECHO}, [], "No module named 'nothing_of_that_name'"),
    ],
    ids=["unknown function", "no programs", "failed program"],
)
def test_what_cannot_be_built_is_exit_2_and_writes_nothing(make_project, stand_ins, capsys, modules, options, says):
    project = make_project(modules)
    before = contents(project)
    assert run_build(project, "--output", project / "out", *options) == 2
    assert says in capsys.readouterr().err
    assert {path for path in contents(project) if "__pycache__" not in path} == set(before)


def test_requirements_that_cannot_be_met_are_exit_2(make_project, stand_ins, capsys):
    project = make_project({"echo": ECHO})
    (project / "requirements.txt").write_text("dspy<3\n")
    assert run_build(project, "--function", "Echo", "--output", project / "out") == 2
    assert "dspy<3" in capsys.readouterr().err
    assert not (project / "out").exists()
