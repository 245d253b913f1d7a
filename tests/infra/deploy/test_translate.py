import pytest

from dspy_lambda_infra.deploy.translate import translate
from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template import render
from tests.infra.template.matrix import MATRIX
from tests.support import ECHO


@pytest.mark.parametrize("name", MATRIX)
def test_the_matrix_is_translated_with_every_program_behind_its_auth(make_project, name):
    settings, server = MATRIX[name]
    project = load_project(make_project({"echo": ECHO}, server=server, **{"lambda": settings}))
    template = translate(render(project, project.root), {})
    auth = project.config.lambda_.api.auth
    entrances = []
    for resource in template["Resources"].values():
        if resource["Type"] in ("AWS::ApiGateway::RestApi", "AWS::ApiGatewayV2::Api"):
            for path, methods in resource["Properties"]["Body"]["paths"].items():
                for method, operation in methods.items():
                    entrances.append(path)
                    is_closed = bool(operation.get("security")) and operation["security"] != [{"NONE": []}]
                    assert is_closed == (auth != "none" and method != "options"), (path, method, operation)
        if resource["Type"] == "AWS::Lambda::Url":
            entrances.append("url")
            assert resource["Properties"]["AuthType"] == ("NONE" if auth == "none" else "AWS_IAM")
        if resource["Type"] == "AWS::Lambda::Permission" and auth != "none":
            assert resource["Properties"]["Principal"] != "*"
    assert bool(entrances) == project.has_api
