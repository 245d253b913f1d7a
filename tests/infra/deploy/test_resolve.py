import pytest

from dspy_lambda_infra.deploy.resolve import resolve

EQUAL = {"Fn::Equals": [{"Ref": "Mode"}, "on"]}


def value(value, conditions=None, **parameters):
    """Return the resolved value of a property."""
    template = {
        "Parameters": {"Mode": {"Type": "String", "Default": "on"}},
        "Conditions": {"On": EQUAL, **(conditions or {})},
        "Resources": {"Thing": {"Type": "T", "Properties": {"it": value}}},
    }
    return resolve(template, parameters)["Thing"]["Properties"].get("it")


def test_resolve_replaces_a_parameter_reference_with_its_value():
    assert value({"Ref": "Mode"}) == "on"
    assert value({"Ref": "Mode"}, Mode="x") == "x"
    assert value({"Fn::Sub": "a/${Mode}"}, Mode="x") == "a/x"


@pytest.mark.parametrize("unknown", [{"Ref": "Other"}, {"Fn::Sub": "${AWS::Region}"}])
def test_resolve_keeps_what_only_a_deployment_knows(unknown):
    assert value(unknown) == unknown


def test_resolve_treats_both_forms_of_get_att_alike():
    assert value({"Fn::GetAtt": "Queue.Arn"}) == value({"Fn::GetAtt": ["Queue", "Arn"]})


@pytest.mark.parametrize(
    ("condition", "mode", "expected"),
    [
        (EQUAL, "on", "yes"),
        (EQUAL, "x", "no"),
        ({"Fn::Not": [EQUAL]}, "x", "yes"),
        ({"Fn::And": [{"Condition": "On"}, EQUAL]}, "on", "yes"),
        ({"Fn::And": [{"Condition": "On"}, {"Fn::Not": [EQUAL]}]}, "on", "no"),
        ({"Fn::Or": [{"Fn::Not": [EQUAL]}, {"Condition": "On"}]}, "on", "yes"),
    ],
)
def test_resolve_chooses_the_branch_of_a_condition(condition, mode, expected):
    assert value({"Fn::If": ["It", "yes", "no"]}, {"It": condition}, Mode=mode) == expected


def test_resolve_removes_properties_without_a_value():
    assert value({"Fn::If": ["On", "yes", {"Ref": "AWS::NoValue"}]}, Mode="x") is None
    assert value([1, {"Fn::If": ["On", 2, {"Ref": "AWS::NoValue"}]}], Mode="x") == [1]


def test_resolve_removes_resources_whose_condition_is_false():
    resource = {"Type": "T", "Condition": "On"}
    template = {
        "Parameters": {"Mode": {"Type": "String"}},
        "Conditions": {"On": EQUAL},
        "Resources": {"Thing": resource},
    }
    assert resolve(template, {"Mode": "x"}) == {}
    assert resolve(template, {"Mode": "on"}) == {"Thing": {"Type": "T"}}
