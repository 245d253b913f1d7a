from dspy_lambda_infra.deploy.translate import translate
from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template import render
from tests.conftest import QUICKSTART, ROOT
from tests.infra.template.matrix import MATRIX
from tests.support import AECHO, ECHO


def test_the_committed_template_matches_the_generator():
    assert render(load_project(QUICKSTART), ROOT) == (ROOT / "template.yaml").read_text(), "run: make template"


def test_changing_the_api_kind_changes_no_resource_type(make_project):
    """CloudFormation would reject the whole update."""
    types = {}
    for name, (settings, server) in MATRIX.items():
        project = load_project(make_project({"echo": ECHO}, server=server, **{"lambda": settings}))
        for logical, resource in translate(render(project, project.root), {})["Resources"].items():
            types.setdefault(logical, {}).setdefault(resource["Type"], name)
    assert {logical: kinds for logical, kinds in types.items() if len(kinds) > 1} == {}


def test_adding_a_program_keeps_existing_logical_ids(make):
    before = make(modules={"echo": ECHO})
    after = make(modules={"echo": ECHO, "aecho": AECHO})
    assert {name for name in before if name not in after} == set()
    assert all(name.startswith("AEcho") for name in after.keys() - before.keys())
