"""CloudWatch Logs, emulated by moto: nothing here has seen an account."""

import itertools
import json
import time

import boto3
import pytest

from dspy_lambda_infra.cloudwatch import CloudWatch, CloudWatchUnavailable
from tests.infra.conftest import GROUPS

NOW = int(time.time() * 1000)


def put(client, group, *messages, at=NOW):
    events = [{"timestamp": at + number, "message": message} for number, message in enumerate(messages)]
    client.put_log_events(logGroupName=group, logStreamName="s", logEvents=events)


def messages(events):
    return [event["message"] for event in events]


def test_events_of_several_groups_come_in_the_order_of_their_time(log_groups):
    put(log_groups, GROUPS[0], "a1", "a2", at=NOW)
    put(log_groups, GROUPS[1], "b0", at=NOW - 5)
    put(log_groups, GROUPS[1], "b3", at=NOW + 5)
    cloudwatch = CloudWatch("us-east-1")
    assert messages(cloudwatch.events(GROUPS, None, NOW / 1000 - 60)) == ["b0", "a1", "a2", "b3"]
    assert messages(cloudwatch.events(GROUPS, None, NOW / 1000, (NOW + 4) / 1000)) == ["a1", "a2"]
    assert messages(cloudwatch.events(GROUPS, '"b"', 0)) == ["b0", "b3"]


def test_all_pages_are_read(log_groups):
    for start in range(0, 12_000, 6_000):
        put(log_groups, GROUPS[0], *map(str, range(start, start + 6_000)), at=NOW)
    assert len(messages(CloudWatch("us-east-1").events(GROUPS[:1], None, 0))) == 12_000


def test_following_yields_each_event_once_and_late_ones_too(log_groups):
    put(log_groups, GROUPS[0], "first")
    later = iter(
        [
            lambda: put(log_groups, GROUPS[0], "late", at=NOW - 10_000),
            lambda: put(log_groups, GROUPS[0], "new", at=NOW + 1),
        ]
    )
    events = CloudWatch("us-east-1").follow(GROUPS, None, NOW / 1000 - 60, pause=lambda _: next(later)())
    assert messages(itertools.islice(events, 3)) == ["first", "late", "new"]


def test_functions_of_a_stack_have_the_log_groups_that_cloudformation_named(log_groups):
    role = {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {}}}
    code = {"ZipFile": "def handler(event, context): pass"}

    def function(name):
        properties = {"Code": code, "Handler": "i.h", "Runtime": "python3.13", "FunctionName": name}
        properties["Role"] = {"Fn::GetAtt": ["Role", "Arn"]}
        return {"Type": "AWS::Lambda::Function", "Properties": properties}

    group = {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "named-by-cloudformation"}}
    resources = {"Role": role, "QaFunction": function("qa-1"), "QaLogGroup": group}
    resources |= {"CatalogueFunction": function("catalogue-1"), "OldFunction": function("old-1")}
    client = boto3.client("cloudformation", region_name="us-east-1")
    client.create_stack(StackName="qa-prod", TemplateBody=json.dumps({"Resources": resources}))
    found = CloudWatch("us-east-1").functions("qa-prod")
    assert found == {"qa-1": "named-by-cloudformation", "old-1": "/aws/lambda/old-1"}


def test_what_cannot_be_read_is_named_with_what_to_do(log_groups):
    cloudwatch = CloudWatch("us-east-1")
    with pytest.raises(CloudWatchUnavailable, match=r"^the log group /none: no such log group in this account and Re"):
        list(cloudwatch.events(["/none"], None, 0))
    with pytest.raises(CloudWatchUnavailable, match=r"^the stack none: no such stack in this account and Region"):
        cloudwatch.functions("none")


def test_a_missing_region_is_named(monkeypatch):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with pytest.raises(CloudWatchUnavailable, match="use --region"):
        CloudWatch(None)
