"""The variables that the local Lambda sets for its functions, compared with the template's."""

import asyncio
import sys

from dspy_lambda_infra.local.local import LocalLambda
from dspy_lambda_infra.project import CATALOGUE, load_project
from dspy_lambda_infra.template.variables import stack_variables, variables
from tests.support import AECHO, ECHO


def test_local_reports_a_python_version_that_differs_from_the_runtime(make_project):
    here = "{}.{}".format(*sys.version_info)
    other = "3.14" if here != "3.14" else "3.13"
    found = {}
    for version in (here, other):
        project = load_project(make_project({"echo": ECHO}, **{"lambda": {"runtime": f"python{version}"}}))
        found[version] = LocalLambda(project, limit_resources=False).other_python
    assert found == {here: None, other: f"Python {here}; on Lambda they run on {other}"}


def test_a_local_function_has_the_same_variables_as_in_the_template(make_project):
    settings = {"programs": {"AEcho": {"http": False, "preconnect": True}}}
    project = load_project(make_project({"echo": ECHO, "aecho": AECHO}, **{"lambda": settings}))
    local = LocalLambda(project, limit_resources=False)
    for name, function in project.functions.items():
        found = local.function(name).settings.variables
        # The template has only the locations of secrets; here their values come from this machine.
        on_aws = {key for key in {**stack_variables(), **variables(project, function)} if "SECRET" not in key}
        assert on_aws - project.secrets(function).keys() <= found.keys()
        assert {key: found[key] for key in function.environment} == function.environment
    assert "DSPY_LAMBDA_SOURCES" not in local.function("AEcho").settings.variables
    assert local.function(CATALOGUE).settings.variables["DSPY_LAMBDA_SOURCES"] == "http"


def traces_of(local):
    return local.function(CATALOGUE).settings.variables["DSPY_LAMBDA_TRACES"]


def test_local_functions_send_their_traces_to_the_observer_or_nowhere(make_project):
    project = load_project(make_project({"echo": ECHO}))

    async def run():
        async with LocalLambda(project, limit_resources=False) as local:
            address = await local.observe()
            return address, traces_of(local)

    address, traces = asyncio.run(run())
    assert traces == address
    assert traces_of(LocalLambda(project, limit_resources=False)) == "none"


def test_the_users_own_collector_gets_the_traces(make_project, monkeypatch):
    monkeypatch.setenv("DSPY_LAMBDA_TRACES", "http://collector.example:4318")
    local = LocalLambda(load_project(make_project({"echo": ECHO})), limit_resources=False)
    assert traces_of(local) == "http://collector.example:4318"
