import os

from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template import build
from tests.support import ECHO


def test_the_code_is_found_from_wherever_the_template_lies(make_project, tmp_path):
    project = make_project({"echo": ECHO})
    found = build(load_project(project), tmp_path / "infra" / "sam")["Resources"]
    assert found["EchoFunction"]["Properties"]["CodeUri"] == os.path.join("..", "..", project.name)
    assert found["EchoFunction"]["Metadata"] == {"BuildMethod": "makefile", "ContextPath": "."}


def test_an_image_has_its_context_where_build_puts_it(make):
    function = make({"package_type": "Image"})["EchoFunction"]
    assert function["Metadata"]["DockerContext"] == "dist/EchoFunction"
    assert function["Properties"]["ImageConfig"] == {"Command": ["dspy_lambda.main.lambda_handler"]}
    assert not {"Runtime", "Handler", "CodeUri"} & set(function["Properties"])
