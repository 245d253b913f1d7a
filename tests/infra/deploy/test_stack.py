"""The template, deployed through AWS's own translator into moto's CloudFormation and inspected with boto3."""

import ast
import io
import json
import zipfile

import boto3
import pytest
from moto import mock_aws

from dspy_lambda_infra.deploy.translate import translate
from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template import render
from tests.conftest import QUICKSTART, ROOT
from tests.infra.template.matrix import MATRIX
from tests.support import ECHO

# moto's CloudFormation creates an API without the methods in its body, and then refuses to deploy it; it does not
# support HTTP APIs, function URLs, or aliases (for SnapStart), and does not generate names for FIFO queues.
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")
LEFT_OUT = ("AWS::ApiGateway::Deployment", "AWS::ApiGateway::Stage", "AWS::ApiGateway::UsagePlan")
DEPLOYABLE = [name for name in MATRIX if not name.startswith(("http-", "url-", "everything", "gradual"))]
STACK = "quickstart"


@pytest.fixture
def aws(credentials, monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("dspy_lambda/main.py", "")
        boto3.client("s3").create_bucket(Bucket="artifacts")
        boto3.client("s3").put_object(Bucket="artifacts", Key="not-uploaded", Body=archive.getvalue())
        yield boto3.client


def deploy(aws, text, **parameters):
    """Create the stack and return its resources by logical id."""
    template = translate(text, parameters)
    kept = {name: r for name, r in template["Resources"].items() if r["Type"] not in LEFT_OUT}
    kept = {name: r for name, r in kept.items() if not r["Type"].startswith("AWS::ApiGateway::ApiKey")}
    kept = {name: r for name, r in kept.items() if "Stage" not in name or r["Type"] != "AWS::Lambda::Permission"}
    outputs = {name: o for name, o in template["Outputs"].items() if "Dashboard" not in name}
    aws("cloudformation").create_stack(
        StackName=STACK,
        TemplateBody=json.dumps(template | {"Resources": kept, "Outputs": outputs}),
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
    )
    stacks = aws("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    assert stacks[0]["StackStatus"] == "CREATE_COMPLETE"
    found = aws("cloudformation").describe_stack_resources(StackName=STACK)["StackResources"]
    return {r["LogicalResourceId"]: r["PhysicalResourceId"] for r in found if "PhysicalResourceId" in r}, template


@pytest.fixture
def stack(aws):
    return deploy(aws, (ROOT / "template.yaml").read_text())


def test_functions_have_their_limits_environment_and_logs(aws, stack):
    ids, _ = stack
    found = aws("lambda").get_function(FunctionName=ids["PerspectivesFunction"])
    function = found["Configuration"]
    assert (function["Timeout"], function["MemorySize"], function["Runtime"]) == (120, 1024, "python3.13")
    variables = function["Environment"]["Variables"]
    assert variables["DSPY_LAMBDA_PROGRAM"] == "Perspectives"
    assert variables["DSPY_LAMBDA_SECRETS"] == "OPENAI_API_KEY=ssm:/quickstart/prod/OPENAI_API_KEY"
    assert variables["POWERTOOLS_SERVICE_NAME"] == STACK
    assert found["Concurrency"]["ReservedConcurrentExecutions"] == 10
    groups = {g["logGroupName"]: g for g in aws("logs").describe_log_groups()["logGroups"]}
    assert groups[ids["PerspectivesLogGroup"]]["retentionInDays"] == 30


def test_a_new_account_deploys_without_reserving(aws):
    ids, _ = deploy(aws, (ROOT / "template.yaml").read_text(), ReserveConcurrency="false")
    assert "Concurrency" not in aws("lambda").get_function(FunctionName=ids["AnswerFunction"])


def test_queues_redrive_into_their_dead_letter_queues_encrypted(aws, stack):
    ids, _ = stack
    sqs = aws("sqs")
    queue = sqs.get_queue_attributes(QueueUrl=ids["AnswerQueue"], AttributeNames=["All"])["Attributes"]
    dead = sqs.get_queue_attributes(QueueUrl=ids["AnswerDeadLetterQueue"], AttributeNames=["All"])["Attributes"]
    redrive = json.loads(queue["RedrivePolicy"])
    assert (redrive["deadLetterTargetArn"], int(redrive["maxReceiveCount"])) == (dead["QueueArn"], 20)
    assert (queue["VisibilityTimeout"], dead["MessageRetentionPeriod"]) == ("360", "1209600")
    assert queue["SqsManagedSseEnabled"] == dead["SqsManagedSseEnabled"] == "true"


def test_each_queue_is_mapped_to_its_function_with_partial_responses_and_a_maximum_concurrency(aws, stack):
    ids, _ = stack
    mappings = aws("lambda").list_event_source_mappings()["EventSourceMappings"]
    assert len(mappings) == 3
    for mapping in mappings:
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert mapping["ScalingConfig"] == {"MaximumConcurrency": 5}
        name = mapping["EventSourceArn"].rpartition(":")[2].split("-")[1].removesuffix("Queue")
        assert mapping["FunctionArn"].endswith(ids[f"{name}Function"])


def test_a_role_allows_only_its_own_queue_and_secret(aws, stack):
    ids, _ = stack
    policy = aws("iam").get_role_policy(RoleName=ids["AnswerRole"], PolicyName="function")["PolicyDocument"]
    policy = ast.literal_eval(policy)  # moto returns the text of a Python dict
    reached = {statement["Resource"] for statement in policy["Statement"]}
    assert "arn:aws:ssm:us-east-1:123456789012:parameter/quickstart/prod/OPENAI_API_KEY" in reached
    assert not any("Triage" in resource or "Summarise" in resource or resource == "*" for resource in reached)
    assert aws("iam").list_attached_role_policies(RoleName=ids["AnswerRole"])["AttachedPolicies"] == []


def test_cloudwatch_accepts_the_alarms(aws, stack):
    """Create the alarms in moto's CloudWatch, with references resolved from the stack; its CloudFormation has none."""
    ids, template = stack
    alarms = {n: r for n, r in template["Resources"].items() if r["Type"] == "AWS::CloudWatch::Alarm"}
    for name, alarm in alarms.items():
        aws("cloudwatch").put_metric_alarm(AlarmName=name, **resolved(alarm["Properties"], ids))
    found = {alarm["AlarmName"]: alarm for alarm in aws("cloudwatch").describe_alarms()["MetricAlarms"]}
    assert len(found) == len(alarms) == 31
    assert found["AnswerDurationAlarm"]["Dimensions"] == [{"Name": "FunctionName", "Value": ids["AnswerFunction"]}]
    assert found["AnswerDurationAlarm"]["Threshold"] == 48_000
    spend = {d["Name"]: d["Value"] for d in found["TriageSpendAlarm"]["Dimensions"]}
    assert spend == {"service": STACK, "program": "Triage"}


def resolved(value, ids):
    """Return a translated template's value with its intrinsics resolved."""
    if isinstance(value, list):
        return [resolved(item, ids) for item in value]
    if not isinstance(value, dict):
        return value
    if "Ref" in value:
        return ids.get(value["Ref"], value["Ref"])
    if "Fn::GetAtt" in value:
        name, attribute = (
            value["Fn::GetAtt"] if isinstance(value["Fn::GetAtt"], list) else value["Fn::GetAtt"].split(".")
        )
        assert attribute == "QueueName"
        return ids[name].rpartition("/")[2]
    if "Fn::Sub" in value:
        return value["Fn::Sub"].replace("${AWS::StackName}", STACK)
    return {key: resolved(item, ids) for key, item in value.items()}


def test_the_api_has_every_route_and_requires_signatures(aws, stack):
    _, template = stack
    body = template["Resources"]["Api"]["Properties"]["Body"]
    routes = {(path, method) for path, methods in body["paths"].items() for method in methods}
    programs = {(f"/{name}", "x-amazon-apigateway-any-method") for name in load_project(QUICKSTART).functions}
    shared = {(path, "get") for path in ("/programs", "/health/live", "/health/ready", "/openapi.json", "/docs")}
    assert routes == programs | shared
    assert all(body["paths"][path][method]["security"] == [{"AWS_IAM": []}] for path, method in routes)


@pytest.mark.parametrize("name", DEPLOYABLE)
def test_the_matrix_deploys(aws, make_project, name):
    settings, server = MATRIX[name]
    project = load_project(make_project({"echo": ECHO}, server=server, **{"lambda": settings}))
    ids, _ = deploy(aws, render(project, project.root))
    assert aws("lambda").get_function(FunctionName=ids["EchoFunction"])
