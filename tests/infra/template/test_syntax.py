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


@pytest.mark.parametrize(
    "text", ["012345678901", "123456789012", "1e3", "1E5", "0o17", "09", "+1", "-1a", ".5", "1.2.3", "2012-10-17", "y"]
)
def test_a_text_that_some_yaml_reads_as_a_number_date_or_switch_is_quoted(text):
    assert dump({"a": text}) == f"a: '{text}'\n"
    assert load(dump({"a": text})) == {"a": text}


@pytest.mark.parametrize("text", [".", "arn:aws:sqs", "python3.13", "-", "rate(1 hour)"])
def test_a_text_that_is_only_a_text_is_read_back_as_one(text):
    assert load(dump({"a": text})) == {"a": text}


def test_numbers_and_lines_keep_their_form():
    assert dump({"a": 10, "b": 1.5, "c": "1\n2\n"}) == "a: 10\nb: 1.5\nc: |\n  1\n  2\n"


def test_an_unquoted_date_is_read_as_text():
    assert load("Version: 2012-10-17\nList: [2024-01-02]") == {"Version": "2012-10-17", "List": ["2024-01-02"]}
