import pytest
import yaml

from dspy_lambda_infra.template.syntax import dump, get_att, if_, is_intrinsic, load, ref, sub
from tests.conftest import ROOT

TEMPLATE = {
    "Ref": ref("Stage"),
    "Attribute": get_att("Queue.Arn"),
    "If": if_("Reserve", 9),
    "Else": if_("Reserve", [1], {"a": "b"}),
    "Text": "two\nlines\n",
    "Sub": sub("arn:${AWS::Partition}:sqs"),
    "Same": [{"a": 1}] * 2,
}


def test_the_committed_template_loads_with_its_intrinsics():
    found = load((ROOT / "template.yaml").read_text())
    mapping = found["Resources"]["AnswerFunction"]["Properties"]["Events"]["Queue"]["Properties"]
    assert mapping["Queue"] == get_att("AnswerQueue.Arn")


def test_a_dumped_template_loads_back_unchanged():
    text = dump(TEMPLATE)
    assert load(text) == TEMPLATE
    assert dump(load(text)) == text
    assert "Text: |" in text
    assert "&" not in text  # no aliases, which CloudFormation rejects


def test_short_and_long_form_intrinsics_load_alike():
    short = "a: !Ref Stage\nb: !GetAtt Queue.Arn\nc: !If [Reserve, 9, !Ref AWS::NoValue]\n"
    assert load(short) == {"a": ref("Stage"), "b": get_att("Queue.Arn"), "c": if_("Reserve", 9)}


@pytest.mark.parametrize("value", [{"Condition": "Reserve"}, {"Ref": "a", "b": 1}, {}, [], "Ref"])
def test_an_ordinary_mapping_is_not_an_intrinsic(value):
    assert not is_intrinsic(value)


def test_invalid_template_yaml_is_refused():
    with pytest.raises(yaml.YAMLError):
        load("a: [")
