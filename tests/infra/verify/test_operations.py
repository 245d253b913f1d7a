import json
from datetime import UTC, datetime

import pytest

from dspy_lambda_infra.deploy.translate import translate
from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template import render
from dspy_lambda_infra.verify import checks
from dspy_lambda_infra.verify.checks import operations, settings
from dspy_lambda_infra.verify.project import write_project
from dspy_lambda_infra.verify.scenarios import SCENARIOS
from dspy_lambda_infra.verify.shared import PLACEHOLDERS
from tests.infra.verify.fake import Client, FakeStack, answer


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    for module in (checks, operations):
        monkeypatch.setattr(module, "until", lambda *_: iter([None, None]))


def test_the_dashboard_check_names_missing_metrics(account, tmp_path):
    """The generated dashboard in moto's CloudWatch, before and after metrics arrive."""
    scenario = SCENARIOS[0]
    project = load_project(write_project(tmp_path / "project", "dashboard", scenario.config(PLACEHOLDERS), {}))
    template = translate(render(project, project.root), {})
    body = template["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    cloudwatch = account("cloudwatch")
    text = body.replace("${AWS::StackName}", "stack").replace("${AWS::Region}", "us-east-1")
    cloudwatch.put_dashboard(DashboardName="stack-us-east-1", DashboardBody=text)
    stack = FakeStack.make(cloudwatch=cloudwatch)
    holds, seen = operations.the_dashboard_shows_metrics_that_exist(stack)
    assert holds is False
    assert "Calls, Duration, InputTokens, OutputTokens" in seen
    dimensions = [{"Name": "service", "Value": "stack"}, {"Name": "program", "Value": "Answer"}]
    for metric in ("Calls", "Duration", "InputTokens", "OutputTokens"):
        data = {"MetricName": metric, "Dimensions": dimensions, "Value": 1.0, "Timestamp": datetime.now(UTC)}
        cloudwatch.put_metric_data(Namespace="DSPy", MetricData=[data])
    assert operations.the_dashboard_shows_metrics_that_exist(stack)[0] is True


@pytest.mark.parametrize(
    ("status", "rows", "holds"), [("Complete", [["a"]], True), ("Complete", [], False), ("Failed", [["a"]], False)]
)
def test_the_query_check_fails_if_a_query_fails_or_finds_nothing(status, rows, holds):
    query = {"name": "stack/tokens and cost by program", "logGroupNames": ["g"], "queryString": "stats count(*)"}
    logs = Client(
        describe_query_definitions=lambda **_: {"queryDefinitions": [query]},
        start_query=lambda **_: {"queryId": "q"},
        get_query_results=lambda **_: {"status": status, "results": rows},
    )
    assert operations.the_saved_queries_run(FakeStack.make(logs=logs))[0] is holds


@pytest.mark.parametrize(
    ("mode", "events", "holds"), [("none", [], None), ("new-role", [{}], True), ("new-role", [], False)]
)
def test_the_access_log_check_is_skipped_if_the_log_is_off(mode, events, holds):
    stacks = [{"Parameters": [{"ParameterKey": "ApiAccessLog", "ParameterValue": mode}]}]
    clients = {
        "cloudformation": Client(describe_stacks=lambda **_: {"Stacks": stacks}),
        "logs": Client(filter_log_events=lambda **_: {"events": events}),
    }
    assert operations.the_access_log_is_written(FakeStack.make(**clients))[0] is holds


@pytest.mark.parametrize(
    ("call", "holds"), [({"outcome": "success", "source": "direct"}, True), ({"outcome": "x"}, False)]
)
def test_the_schedule_check_requires_a_successful_call(call, holds):
    assert operations.a_schedule_calls_its_program(FakeStack.make(calls=[call]))[0] is holds


def test_the_rotation_check_replaces_the_key(account):
    name = "/stack/prod/MOCK_KEY"
    ssm = account("ssm")
    ssm.put_parameter(Name=name, Type="SecureString", Value="old")
    statuses = iter([502, 200])
    stack = FakeStack.make(lambda *_: answer(next(statuses)), ssm=ssm)
    assert operations.a_rotated_key_is_read_again(stack)[0] is True
    assert ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"] != "old"
    assert operations.a_rotated_key_is_read_again(FakeStack.make(lambda *_: answer(502), ssm=ssm))[0] is False


def update(*, status=200, deployed=0, url="queue", waiting=0):
    """Run the check of an update in place; return the deployment's arguments and whether the claim holds."""
    options = []
    counts = {"ApproximateNumberOfMessages": "0", "ApproximateNumberOfMessagesNotVisible": str(waiting)}
    sent = [{"Id": str(n), "MessageId": f"m{n}"} for n in range(10)]
    sqs = Client(
        send_message_batch=lambda **_: {"Successful": sent}, get_queue_attributes=lambda **_: {"Attributes": counts}
    )
    outputs = [{"Outputs": [{"OutputKey": "AnswerQueueUrl", "OutputValue": url}]}]
    stack = FakeStack.make(
        lambda *_: answer(status),
        deploy=lambda more: options.append(more) or deployed,
        sqs=sqs,
        cloudformation=Client(describe_stacks=lambda **_: {"Stacks": outputs}),
    )
    return options, operations.an_update_in_place_answers_throughout(stack)[0]


def test_the_update_check_requires_uninterrupted_answers_and_no_lost_record():
    assert update() == ([["--secrets-version", "2"]], True)
    assert update(status=502)[1] is False
    assert update(deployed=1)[1] is False
    assert update(url="another")[1] is False
    assert update(waiting=1)[1] is False


@pytest.mark.parametrize(
    ("check", "configuration", "holds"),
    [
        (settings.the_function_is_arm64, {"Architectures": ["arm64"]}, True),
        (settings.the_function_is_arm64, {"Architectures": ["x86_64"]}, False),
        (settings.the_function_is_an_image, {"PackageType": "Image"}, True),
        (settings.the_function_is_an_image, {"PackageType": "Zip"}, False),
        (settings.snap_start_is_on, {"SnapStart": {"OptimizationStatus": "On"}}, True),
        (settings.snap_start_is_on, {"SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"}}, False),
        (settings.the_function_is_in_the_vpc, {"VpcConfig": {"SubnetIds": ["subnet-1"]}}, True),
        (settings.the_function_is_in_the_vpc, {"VpcConfig": {"SubnetIds": []}}, False),
    ],
)
def test_settings_checks_require_the_configured_values(check, configuration, holds):
    def answers(method, path, body, headers, authorized):
        return answer(200, {"answer": "none asked" if json.loads(body)["question"] == "no model" else "yes"})

    stack = FakeStack.make(answers, **{"lambda": Client(get_function_configuration=lambda **_: configuration)})
    stack.shared["Subnet"] = "subnet-1"
    assert check(stack)[0] is holds


@pytest.mark.parametrize("queue_key", ["key", "alias/aws/sqs"])
def test_the_encryption_check_requires_the_key_everywhere(queue_key):
    counts = {"ApproximateNumberOfMessages": "0", "ApproximateNumberOfMessagesNotVisible": "0"}
    clients = {
        "lambda": Client(get_function_configuration=lambda **_: {"KMSKeyArn": "key"}),
        "sqs": Client(
            get_queue_attributes=lambda **_: {"Attributes": {**counts, "KmsMasterKeyId": queue_key}},
            send_message_batch=lambda **_: {"Successful": [{"Id": "0", "MessageId": "m"}]},
        ),
        "logs": Client(describe_log_groups=lambda **_: {"logGroups": [{"kmsKeyId": "key"}]}),
    }
    stack = FakeStack.make(**clients)
    stack.shared["KeyArn"] = "key"
    assert settings.everything_is_encrypted_with_the_key(stack)[0] is (queue_key == "key")
