import pytest

from dspy_lambda_infra.deploy.changes import changes
from dspy_lambda_infra.deploy.translate import translate
from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template import render
from tests.support import AECHO, ECHO


def translated(make_project, modules=None, **settings):
    root = make_project(modules or {"echo": ECHO}, app_id="app", **{"lambda": settings})
    return translate(render(load_project(root), root).replace(root.name, "project"), {})


def test_a_new_stack_is_counted_by_kind(make_project):
    lines = changes(None, translated(make_project))
    assert "+   2 AWS::Lambda::Function" in lines


def test_deploying_the_same_template_again_changes_nothing(make_project):
    assert changes(translated(make_project), translated(make_project)) == []


def test_a_changed_setting_is_shown_with_resource_and_property(make_project):
    lines = changes(translated(make_project), translated(make_project, defaults={"memory_mb": 512}))
    assert lines == ["~ EchoFunction: MemorySize (restarts its environments)"]


def test_added_and_removed_programs_are_shown_in_the_change_set(make_project):
    one, two = translated(make_project), translated(make_project, {"echo": ECHO, "aecho": AECHO}, defaults={"sqs": {}})
    assert "+ AEchoFunction (AWS::Lambda::Function)" in changes(one, two)
    gone = changes(two, one)
    assert "- AEchoFunction (AWS::Lambda::Function): DELETED" in gone
    assert "- AEchoQueue (AWS::SQS::Queue): kept, outside the stack" in gone
    # Removing a program does not change the others; the dashboard and the queries cover all of them.
    assert {line.split()[1].rstrip(":") for line in gone if line.startswith("~ Echo")} <= {"EchoRole", "EchoFunction"}


def test_a_queue_that_becomes_fifo_is_replaced_and_the_old_one_is_kept(make_project):
    one = translated(make_project, defaults={"sqs": {}})
    lines = changes(one, translated(make_project, defaults={"sqs": {"fifo": True}}))
    queue = next(line for line in lines if line.startswith("~ EchoQueue"))
    assert queue.endswith("(REPLACED; the old one: kept, outside the stack)")


KEY, OTHER_KEY = (f"arn:aws:kms:us-east-1:123456789012:key/{n}" for n in (1, 2))


@pytest.mark.parametrize(
    ("before", "after", "warns"), [(KEY, OTHER_KEY, True), (KEY, None, True), (None, KEY, False), (KEY, KEY, False)]
)
def test_changing_a_queues_key_warns_about_messages_under_the_former_key(make_project, before, after, warns):
    old, new = (translated(make_project, defaults={"sqs": {}}, kms_key_arn=key) for key in (before, after))
    warned = {line.split(":")[0] for line in changes(old, new) if "encrypted with the former key" in line}
    assert warned == ({"~ EchoQueue", "~ EchoDeadLetterQueue", "~ OnFailureQueue"} if warns else set())


def test_a_function_that_becomes_an_image_is_replaced(make_project):
    lines = changes(translated(make_project), translated(make_project, package_type="Image"))
    assert any(line.startswith("~ EchoFunction:") and "(REPLACED; the old one: DELETED)" in line for line in lines)


def test_changing_the_api_kind_creates_a_new_api(make_project):
    lines = changes(translated(make_project), translated(make_project, api={"kind": "http"}))
    assert "+ HttpApi (AWS::ApiGatewayV2::Api)" in lines
    assert "- Api (AWS::ApiGateway::RestApi): DELETED" in lines
    assert not any("REFUSED" in line for line in lines)


def test_changing_a_resource_type_is_shown_as_rejected_by_cloudformation(make_project):
    old = translated(make_project)
    old["Resources"]["EchoRole"] = {"Type": "AWS::SNS::Topic"}
    (line,) = (line for line in changes(old, translated(make_project)) if line.startswith("~ EchoRole"))
    assert "REJECTED by CloudFormation" in line
    assert "REPLACED" not in line


def test_changing_reserved_concurrency_restarts_nothing(make_project):
    lines = changes(translated(make_project), translated(make_project, defaults={"reserved_concurrency": 20}))
    assert "~ EchoFunction: ReservedConcurrentExecutions" in lines


@pytest.mark.parametrize(
    ("parameter", "before", "after", "line"),
    [
        ("SecretsVersion", "1", "2", "~ EchoFunction: Environment (restarts its environments)"),
        ("ReserveConcurrency", "true", "false", "~ EchoFunction: ReservedConcurrentExecutions"),
        ("ApiAccessLog", "none", "account-role", "~ ApiStage: AccessLogSetting"),
        ("Stage", "prod", "test", "~ ApiStage: StageName (REPLACED; the old one: DELETED)"),
    ],
)
def test_a_changed_parameter_changes_the_resources_that_use_it(make_project, parameter, before, after, line):
    template = translated(make_project)
    lines = changes(template, template, {parameter: before}, {parameter: after})
    assert any(found.startswith(line) for found in lines), lines


def test_a_parameter_that_switches_resources_adds_them(make_project):
    template = translated(make_project)
    lines = changes(template, template, {"ApiAccessLog": "none"}, {"ApiAccessLog": "new-role"})
    assert "+ ApiLogsRole (AWS::IAM::Role)" in lines
