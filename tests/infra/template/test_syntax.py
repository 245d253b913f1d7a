import pytest
import yaml

from dspy_lambda_infra.template.syntax import Intrinsic, dump, get_att, if_, load, plain, ref, sub
from tests.conftest import ROOT

TEMPLATE = {
    "Ref": ref("Stage"),
    "Attribute": get_att("Queue.Arn"),
    "If": if_("Reserve", 9),
    "Else": if_("Reserve", [1], {"a": "b"}),
    "Mapping": Intrinsic("!Transform", {"Name": "x"}),
    "Text": "two\nlines\n",
    "Sub": sub("arn:${AWS::Partition}:sqs"),
    "Same": [{"a": 1}] * 2,
}


def test_the_dumped_template_is_yaml_without_aliases():
    found = load((ROOT / "template.yaml").read_text())
    mapping = found["Resources"]["AnswerFunction"]["Properties"]["Events"]["Queue"]["Properties"]
    assert mapping["Queue"] == get_att("AnswerQueue.Arn")


def test_a_dumped_template_loads_back_unchanged():
    text = dump(TEMPLATE)
    assert load(text) == TEMPLATE
    assert dump(load(text)) == text
    assert "Attribute: !GetAtt" in text
    assert "Text: |" in text
    assert "&" not in text  # no aliases, which CloudFormation refuses


def test_intrinsics_are_dumped_in_long_form():
    assert plain(TEMPLATE) == {
        "Ref": {"Ref": "Stage"},
        "Attribute": {"Fn::GetAtt": ["Queue", "Arn"]},
        "If": {"Fn::If": ["Reserve", 9, {"Ref": "AWS::NoValue"}]},
        "Else": {"Fn::If": ["Reserve", [1], {"a": "b"}]},
        "Mapping": {"Fn::Transform": {"Name": "x"}},
        "Text": "two\nlines\n",
        "Sub": {"Fn::Sub": "arn:${AWS::Partition}:sqs"},
        "Same": [{"a": 1}] * 2,
    }
    assert plain(Intrinsic("!Condition", "Reserve")) == {"Condition": "Reserve"}


def test_invalid_template_yaml_is_refused():
    with pytest.raises(yaml.YAMLError):
        load("a: [")
