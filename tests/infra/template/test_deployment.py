import pytest

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.deploy.translate import translate
from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template import render
from tests.support import AECHO, ECHO


@pytest.fixture
def translated(make_project):
    """A project of two programs, translated by AWS's own translator; Echo has `deployment`."""

    def make(**settings):
        programs = {"Echo": {"deployment": {}, "sqs": {}, "schedule": {"expression": "rate(1 hour)"}}}
        project = load_project(
            make_project({"echo": ECHO, "aecho": AECHO}, **{"lambda": {"programs": programs, **settings}})
        )
        return translate(render(project, project.root), {})

    return make


def test_traffic_shifts_gradually_and_rolls_back_on_a_rollout_alarm(translated):
    found = translated()["Resources"]
    (group,) = (r["Properties"] for r in found.values() if r["Type"] == "AWS::CodeDeploy::DeploymentGroup")
    alarms = [alarm["Name"]["Ref"] for alarm in group["AlarmConfiguration"]["Alarms"]]
    assert alarms == ["EchoRolloutErrorsAlarm", "EchoRolloutFailuresAlarm"]
    assert "Canary10Percent5Minutes" in str(group["DeploymentConfigName"])
    assert group["ServiceRoleArn"] == {"Fn::GetAtt": ["DeploymentRole", "Arn"]}
    assert "CodeDeployLambdaAliasUpdate" in found["EchoFunctionAliaslive"]["UpdatePolicy"]


@pytest.mark.parametrize("alarms", [True, False])
def test_rollout_alarms_have_60_second_periods_even_if_other_alarms_are_disabled(translated, alarms):
    found = translated(alarms=alarms)["Resources"]
    for name in ("EchoRolloutErrorsAlarm", "EchoRolloutFailuresAlarm"):
        queries = [query["MetricStat"] for query in found[name]["Properties"]["Metrics"] if "MetricStat" in query]
        assert {query["Period"] for query in queries} == {60}
    dimensions = {d["Name"]: d["Value"] for d in _metrics(found["EchoRolloutErrorsAlarm"])[0]["Dimensions"]}
    assert dimensions == {"FunctionName": {"Ref": "EchoFunction"}, "Resource": {"Fn::Sub": "${EchoFunction}:live"}}


def test_an_all_at_once_deployment_is_not_stopped_by_alarms(make_project):
    settings = {"defaults": {"deployment": {"type": "AllAtOnce"}}}
    project = load_project(make_project({"echo": ECHO}, **{"lambda": settings}))
    found = translate(render(project, project.root), {})["Resources"]
    assert "UpdatePolicy" not in found["EchoFunctionAliaslive"]
    assert not any("Rollout" in name or r["Type"].startswith("AWS::CodeDeploy::") for name, r in found.items())


def _metrics(alarm):
    return [q["MetricStat"]["Metric"] for q in alarm["Properties"]["Metrics"] if "MetricStat" in q]


def test_all_event_sources_use_the_alias_which_has_the_on_failure_queue(translated):
    template = translated()
    found, alias = template["Resources"], {"Ref": "EchoFunctionAliaslive"}
    mapping, config = found["EchoFunctionQueue"]["Properties"], found["EchoFunctionEventInvokeConfig"]["Properties"]
    assert mapping["FunctionName"] == alias
    assert config["Qualifier"] == "live"
    assert config["DestinationConfig"]["OnFailure"]["Destination"] == {"Fn::GetAtt": ["OnFailureQueue", "Arn"]}
    assert found["EchoFunctionSchedule"]["Properties"]["Target"]["Arn"] == alias
    assert template["Outputs"]["EchoFunctionName"]["Value"] == alias
    assert template["Outputs"]["AEchoFunctionName"]["Value"] == {"Ref": "AEchoFunction"}


@pytest.mark.parametrize("settings", [{"deployment": {}}, {"snap_start": True}])
def test_the_latest_version_has_the_same_retries_and_on_failure_queue(make_project, settings):
    settings = {**settings, "retry_attempts": 1}
    project = load_project(make_project({"echo": ECHO}, **{"lambda": {"defaults": settings}}))
    found = translate(render(project, project.root), {})["Resources"].values()
    configs = [r["Properties"] for r in found if r["Type"] == "AWS::Lambda::EventInvokeConfig"]
    assert {config.pop("Qualifier") for config in configs} == {"live", "$LATEST"}
    assert configs[0] == configs[1]


@pytest.mark.parametrize("settings", [{"deployment": {}}, {"snap_start": True}])
def test_adding_or_removing_an_alias_keeps_each_invoke_configs_resource(make_project, settings):
    """Otherwise the update fails: CloudFormation creates a resource before it deletes the one with the same name."""
    owners = {}
    for defaults in ({}, settings):
        project = load_project(make_project({"echo": ECHO}, **{"lambda": {"defaults": defaults}}))
        for name, resource in translate(render(project, project.root), {})["Resources"].items():
            if resource["Type"] == "AWS::Lambda::EventInvokeConfig":
                config = resource["Properties"]
                owners.setdefault((config["FunctionName"]["Ref"], config["Qualifier"]), set()).add(name)
    assert owners == {
        ("EchoFunction", "$LATEST"): {"EchoLatestInvokeConfig"},
        ("EchoFunction", "live"): {"EchoFunctionEventInvokeConfig"},
    }


def test_a_program_without_gradual_deployment_has_no_alias(translated):
    found = translated()["Resources"]
    assert not any(name.startswith("AEcho") and "Alias" in name for name in found)


def test_an_unknown_deployment_type_is_refused_with_the_known_ones(make_project):
    root = make_project({"echo": ECHO}, **{"lambda": {"defaults": {"deployment": {"type": "Canary"}}}})
    with pytest.raises(ConfigError, match=r"lambda\.defaults\.deployment\.type: .*Canary10Percent5Minutes"):
        load_project(root)
