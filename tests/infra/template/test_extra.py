import pytest

from dspy_lambda_infra.cli import main
from dspy_lambda_infra.deploy.translate import translate
from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template import build, render
from dspy_lambda_infra.template.extra import merge
from dspy_lambda_infra.template.syntax import dump, load, ref
from tests.support import ECHO

EXTRA = """
Resources:
  Table:
    Type: AWS::DynamoDB::Table
    Properties:
      TableName: !Sub "${AWS::StackName}-table"
      Tags: !If [Reserve, [{Key: a, Value: !Ref Stage}], !Ref AWS::NoValue]
  EchoFunction:
    Properties:
      MemorySize: 2048
      Description: null
      Environment:
        Variables:
          TABLE: !Ref Table
  EchoRole:
    Properties:
      Policies:
        - PolicyName: table
          PolicyDocument:
            Version: "2012-10-17"
            Statement: [{Effect: Allow, Action: dynamodb:GetItem, Resource: !GetAtt Table.Arn}]
Outputs:
  TableName:
    Value: !Ref Table
"""


@pytest.fixture
def project(make_project):
    root = make_project({"echo": ECHO})
    (root / "template.extra.yaml").write_text(EXTRA)
    return root


def test_template_extra_is_merged_into_the_template(project):
    template = build(load_project(project), project)
    function = template["Resources"]["EchoFunction"]["Properties"]
    assert function["MemorySize"] == 2048
    assert "Description" not in function
    assert function["Environment"]["Variables"]["TABLE"] == ref("Table")
    assert function["Environment"]["Variables"]["DSPY_LAMBDA_PROGRAM"] == "Echo"
    policies = template["Resources"]["EchoRole"]["Properties"]["Policies"]
    assert [policy["PolicyName"] for policy in policies] == ["function", "table"]
    assert {"TableName", "ApiUrl"} <= set(template["Outputs"])


def test_regenerating_the_template_keeps_the_additions(project):
    assert render(load_project(project), project) == render(load_project(project), project)
    assert "Fn::Sub: ${AWS::StackName}-table" in render(load_project(project), project)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a list", "must be a mapping"),
        ("Ressources: {}", "sections: Parameters"),
        ("Resources: [", "cannot be read"),
        ("Resources:", "Resources: must be a mapping"),
        ("Outputs: 3", "Outputs: must be a mapping"),
        ("Resources: {EchoFunctoin: {Properties: {MemorySize: 1}}}", "did you mean EchoFunction?"),
        ("Resources: {EchoFunction: 3}", "Resources.EchoFunction: must be a mapping"),
        ("Resources: {EchoFunction: {Properties: 3}}", "Properties that are a mapping"),
        ("Resources: {1: []}", "Resources.1: must be a mapping"),
        ("Resources: {'Fn::ForEach::Tables': [Name, [a], {}]}", "Resources.Fn::ForEach::Tables: loops need"),
        ("Outputs: {A: {'Fn::ForEach::B': [Name, [a], {}]}}", "Outputs.A.Fn::ForEach::B: loops need"),
    ],
)
def test_an_invalid_template_extra_file_is_refused(project, capsys, text, says):
    (project / "template.extra.yaml").write_text(text)
    assert main(["template", "--project", str(project), "--output", "-"]) == 2
    assert says in capsys.readouterr().err


def test_an_empty_template_extra_file_adds_nothing(project):
    (project / "template.extra.yaml").write_text("# nothing yet\n")
    assert "Table" not in build(load_project(project), project)["Resources"]


def test_short_form_intrinsics_become_long_form_and_survive_a_round_trip():
    text = 'A: !Ref B\nC: !If\n  - X\n  - !GetAtt D.E.F\n  - !Sub ["${E}", {E: !Ref F}]\nG: !Join ["", [a, b]]\n'
    once = load(text)
    assert load(dump(once)) == once
    assert once == {
        "A": {"Ref": "B"},
        "C": {"Fn::If": ["X", {"Fn::GetAtt": ["D", "E.F"]}, {"Fn::Sub": ["${E}", {"E": {"Ref": "F"}}]}]},
        "G": {"Fn::Join": ["", ["a", "b"]]},
    }


@pytest.mark.parametrize(
    ("base", "over"),
    [
        ({"Ref": "A"}, {"Fn::Sub": "${B}"}),
        ({"Fn::If": ["X", 1, 2]}, {"Fn::If": ["Y", 3, 4]}),
        ({"Fn::Equals": [{"Ref": "A"}, "a"]}, {"Fn::Not": [{"Condition": "B"}]}),
        ({"Ref": "A"}, {"Key": "value"}),
        ([1], {"Ref": "A"}),
    ],
)
def test_merging_replaces_an_intrinsic_as_a_whole(base, over):
    assert merge({"Property": base}, {"Property": over}) == {"Property": over}


def test_merging_adds_a_condition_to_a_resource_without_replacing_it():
    resource = {"Type": "AWS::SQS::Queue", "Properties": {}}
    assert merge(resource, {"Condition": "Prod"}) == {**resource, "Condition": "Prod"}


INCLUDE = {"Fn::Transform": {"Name": "AWS::Include", "Parameters": {"Location": "s3://bucket/more.yaml"}}}


@pytest.mark.parametrize("base", [{"Function": {"Type": "a"}}, {"A": "a"}, {"A": "a", "B": "b"}, {}])
def test_an_include_is_added_beside_what_is_there(base):
    assert merge({"Resources": base}, {"Resources": INCLUDE}) == {"Resources": {**base, **INCLUDE}}


def test_an_include_takes_no_resource_and_no_variable_away(make_project):
    root = make_project({"echo": ECHO})
    before = build(load_project(root), root)["Resources"]
    variables = {"EchoFunction": {"Properties": {"Environment": {"Variables": INCLUDE}}}}
    (root / "template.extra.yaml").write_text(dump({"Resources": {**INCLUDE, **variables}}))
    after = build(load_project(root), root)["Resources"]
    assert set(after) == {*before, *INCLUDE}
    old, new = (found["EchoFunction"]["Properties"]["Environment"]["Variables"] for found in (before, after))
    assert new == {**old, **INCLUDE}


def test_what_an_include_brings_is_left_to_aws(make_project):
    root = make_project({"echo": ECHO})
    (root / "template.extra.yaml").write_text(dump({"Resources": INCLUDE}))
    text = render(load_project(root), root)
    assert load(text)["Resources"]["Fn::Transform"] == INCLUDE["Fn::Transform"]
    assert "EchoFunction" in translate(text, {})["Resources"]
    assert main(["template", "--project", str(root), "--output", str(root / "template.yaml")]) == 0
