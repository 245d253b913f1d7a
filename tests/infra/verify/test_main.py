"""`make verify-aws` itself, in moto: what it deploys, checks and deletes, and in which order."""

import json

import pytest

from dspy_lambda_infra.verify import __main__ as verify
from dspy_lambda_infra.verify.__main__ import Result
from dspy_lambda_infra.verify.scenarios import SCENARIOS, Scenario, why_no_docker

QUEUE = {"Type": "AWS::SQS::Queue", "DeletionPolicy": "Retain", "Properties": {}}
STACK = {
    "Resources": {"AnswerDeadLetterQueue": QUEUE},
    "Outputs": {"AnswerDeadLetterQueueUrl": {"Value": {"Ref": "AnswerDeadLetterQueue"}}},
}


@pytest.fixture
def deployment(account, monkeypatch):
    """Replaces `dspy-lambda deploy`: creates a stack with a retained queue; returns the arguments of each call."""
    calls = []

    def deploy(arguments):
        calls.append(arguments)
        name = arguments[arguments.index("--stack-name") + 1]
        account("cloudformation").create_stack(StackName=name, TemplateBody=json.dumps(STACK))
        return 0

    monkeypatch.setattr(verify, "dspy_lambda", deploy)
    return calls


@pytest.fixture
def scenario(monkeypatch):
    """Replace all scenarios with one that has these checks."""

    def only(**more):
        made = Scenario("rest-iam", lambda _: {}, **more)
        monkeypatch.setattr(verify, "SCENARIOS", (made,))

    return only


def nothing_is_left(account):
    assert account("cloudformation").describe_stacks()["Stacks"] == []
    assert account("sqs").list_queues().get("QueueUrls", []) == []
    assert account("ssm").describe_parameters()["Parameters"] == []


def queue_is_there(stack):
    """The queue is there."""
    stacks = [s["StackName"] for s in stack.client("cloudformation").describe_stacks()["Stacks"]]
    return stack.count(stack.dead_letter_queue()) == 0, f"stacks: {stacks}"


def breaks(stack):
    """This one breaks."""
    raise OSError("no route")


def cannot(stack):
    """This one cannot be checked."""
    return None, "no Docker"


def test_checks_run_on_the_stack_and_after_its_deletion(deployment, account, scenario, capsys):
    scenario(checks=(queue_is_there,), afterwards=(queue_is_there,))
    assert verify.main([]) == 0
    said = capsys.readouterr().out
    assert "holds rest-iam: the stack deploys" in said.replace("  ", " ")
    assert said.count("The queue is there.") == 2
    assert "stacks: ['dspy-lambda-verify-" in said  # before
    assert "stacks: []" in said  # after the stack was deleted, before the queue was
    assert "3 holds, 0 fails, 0 not checked" in said
    nothing_is_left(account)


def test_a_check_that_raises_fails_and_the_others_run(deployment, account, scenario, capsys):
    scenario(checks=(breaks, queue_is_there))
    assert verify.main([]) == 1
    said = capsys.readouterr().out
    assert "FAILS This one breaks.\n        OSError: no route" in said
    assert "2 holds, 1 fails, 0 not checked" in said
    nothing_is_left(account)


def test_claims_that_cannot_be_checked_are_counted_separately(deployment, account, scenario, capsys):
    scenario(checks=(cannot,))
    assert verify.main([]) == 0
    said = capsys.readouterr().out
    assert "not checked This one cannot be checked.\n        no Docker" in said
    assert "1 holds, 0 fails, 1 not checked" in said


def test_a_scenario_that_cannot_be_deployed_here_is_not_deployed(deployment, account, scenario, capsys):
    scenario(checks=(breaks,), obstacle=lambda: "needs Docker")
    assert verify.main([]) == 0
    assert deployment == []
    assert "0 holds, 0 fails, 1 not checked" in capsys.readouterr().out


def test_a_failed_deployment_is_a_failed_verification(account, scenario, monkeypatch, capsys):
    scenario(checks=(breaks,))
    monkeypatch.setattr(verify, "dspy_lambda", lambda arguments: 1)
    assert verify.main([]) == 1
    assert "0 holds, 1 fails" in capsys.readouterr().out
    nothing_is_left(account)


def test_everything_is_deleted_after_an_interruption(deployment, account, scenario):
    def interrupted(stack):
        raise KeyboardInterrupt

    scenario(checks=(interrupted,), afterwards=(queue_is_there,))
    with pytest.raises(KeyboardInterrupt):
        verify.main([])
    nothing_is_left(account)


def test_the_accounts_log_role_is_changed_only_on_request_and_restored(deployment, account, scenario):
    def take_over(stack):
        """Do what a stack with its own log role does."""
        patch = {"op": "replace", "path": "/cloudwatchRoleArn", "value": "arn:aws:iam::123456789012:role/new"}
        stack.client("apigateway").update_account(patchOperations=[patch])
        return True, ""

    scenario(checks=(take_over,))
    assert verify.main([]) == 0
    assert "--api-access-log" not in deployment[0]
    assert verify.main(["--new-logs-role"]) == 0
    assert deployment[1][-2:] == ["--api-access-log", "new-role"]
    assert not account("apigateway").get_account().get("cloudwatchRoleArn")


def test_a_second_deployment_updates_the_same_stack(deployment, account, scenario, monkeypatch):
    def redeploy(stack):
        monkeypatch.setattr(verify, "dspy_lambda", lambda arguments: deployment.append(arguments) or 0)
        return stack.deploy(["--secrets-version", "2"]) == 0, ""

    scenario(checks=(redeploy,))
    assert verify.main([]) == 0
    assert deployment[1] == [*deployment[0], "--secrets-version", "2"]


def test_a_verification_dry_run_checks_every_config_and_creates_nothing(account, capsys):
    assert verify.main(["--dry-run"]) == 0
    said = capsys.readouterr().out
    for scenario in SCENARIOS:
        assert f"=== {scenario.name}" in said
    assert "api         url; auth: iam" in said
    assert "would check:\n  An authorized call is answered" in said
    assert said.count("AWS::Lambda::Function") >= len(SCENARIOS)
    nothing_is_left(account)


def test_a_refused_config_fails_the_verification_dry_run(account, monkeypatch, capsys):
    monkeypatch.setattr(verify, "SCENARIOS", (Scenario("rest-iam", lambda _: {"nonsense": 1}, checks=()),))
    assert verify.main(["--dry-run"]) == 2
    assert "nonsense" in capsys.readouterr().err


@pytest.mark.parametrize(("script", "why"), [("exit 0", None), ("exit 1", "is not running"), (None, "not installed")])
def test_scenarios_with_images_require_a_running_docker(monkeypatch, tmp_path, script, why):
    if script:
        (tmp_path / "docker").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = why_no_docker()
    assert found is None if why is None else why in found


def test_only_failed_claims_affect_the_exit_status():
    assert verify.report([Result("a", True, ""), Result("b", None, "")]) == 0
    assert verify.report([Result("a", True, ""), Result("b", False, "")]) == 1
