import json
import os
import stat

import boto3
import pytest
from moto import mock_aws

from dspy_lambda_infra.cli import main
from tests.support import ECHO


@pytest.fixture
def project(make_project):
    return make_project({"echo": ECHO}, app_id="app", **{"lambda": {"defaults": {"sqs": {}}}})


@pytest.fixture
def deploy(project, tmp_path):
    def run(*arguments):
        return main(["deploy", "--project", str(project), "--template", str(project / "template.yaml"), *arguments])

    return run


@pytest.fixture
def limits(monkeypatch):
    """Lambda's quotas, which moto does not support."""
    found = {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 1000}
    monkeypatch.setattr("dspy_lambda_infra.deploy.account.account_limits", lambda session: found)
    return found


@pytest.fixture
def account(credentials, monkeypatch, limits):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield


@pytest.fixture
def key(account):
    boto3.client("ssm").put_parameter(Name="/app/prod/OPENAI_API_KEY", Type="SecureString", Value="sk-planted")


@pytest.fixture
def sam(monkeypatch, tmp_path):
    """A fake `sam` that records its arguments; returns its calls."""
    log = tmp_path / "sam.log"
    program = tmp_path / "bin" / "sam"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$PWD $*" >> {log}\n[ ! -e {tmp_path}/fail-$1 ]\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return lambda: log.read_text().splitlines() if log.exists() else []


def create_stack(name, **parameters):
    """Create a stack with one queue, deployed with these parameters."""
    stack = {
        "Parameters": {key: {"Type": "String"} for key in parameters},
        "Resources": {"OldQueue": {"Type": "AWS::SQS::Queue", "Properties": {}}},
    }
    boto3.client("cloudformation").create_stack(
        StackName=name,
        TemplateBody=json.dumps(stack),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
    )


def test_a_dry_run_without_credentials_shows_the_page_and_succeeds(deploy, project, capsys, monkeypatch):
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(project))
    assert deploy("--dry-run", "--region", "us-east-1") == 0
    page = capsys.readouterr().out
    assert "account not read: no AWS credentials" in page
    (keys,) = [line for line in page.splitlines() if line.startswith("keys ")]
    assert keys == "keys        NOT checked: the account could not be read"
    assert "concurrency 15 reserved (1 x 10 + 5 for /programs and /docs)" in page.splitlines()
    assert "rest; auth: iam" in page
    assert "USD a month at worst" in page
    assert "concurrent calls" in page
    assert "AWS::Lambda::Function" in page
    assert deploy("--region", "us-east-1") == 1
    assert not (project / "template.yaml").exists()


def test_the_page_names_the_accounts_switch_if_traces_go_to_cloudwatch(make_project, capsys, monkeypatch):
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    project = make_project({"echo": ECHO}, telemetry={"traces": "cloudwatch"})
    monkeypatch.setenv("HOME", str(project))
    arguments = ["--project", str(project), "--template", str(project / "template.yaml"), "--dry-run"]
    assert main(["deploy", *arguments, "--region", "us-east-1"]) == 0
    said = capsys.readouterr().out
    assert "traces      cloudwatch; Transaction Search NOT checked: no AWS credentials" in said


def test_a_dry_run_changes_nothing_and_names_the_missing_secret(deploy, project, capsys, account, sam):
    before = sorted(project.rglob("*"))
    assert deploy("--dry-run") == 1
    page = capsys.readouterr().out
    assert "account 123456789012, us-east-1" in page
    assert "NOT checked" not in page
    assert "no value yet for ssm:/app/prod/OPENAI_API_KEY" in page
    assert "aws ssm put-parameter --type SecureString --overwrite --name /app/prod/OPENAI_API_KEY" in page
    assert sorted(project.rglob("*")) == before
    assert boto3.client("cloudformation").list_stacks()["StackSummaries"] == []
    assert sam() == []


def test_a_dry_run_says_what_it_could_not_ask_about_models_and_succeeds(make_project, capsys, account, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", "http://127.0.0.1:1")  # nothing listens there
    models = {"default": "m", "registry": {"m": {"model": "bedrock/amazon.nova-lite-v1:0", "region": "eu-west-1"}}}
    project = make_project({"echo": ECHO}, app_id="app", models=models)
    arguments = ["deploy", "--project", str(project), "--template", str(project / "template.yaml"), "--dry-run"]
    assert main(arguments) == 0
    page = capsys.readouterr().out
    assert "models on Bedrock\n  models.registry.m: amazon.nova-lite-v1:0 in eu-west-1: could not be asked: " in page
    assert main([*arguments, "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert (model["place"], model["state"], model["region"]) == ("models.registry.m", "unknown", "eu-west-1")


def test_deploy_does_not_read_existing_keys(deploy, capsys, key):
    assert deploy("--dry-run") == 0
    captured = capsys.readouterr()
    assert "no value yet" not in captured.out
    assert "sk-planted" not in captured.out + captured.err


def test_sam_is_called_with_the_right_arguments(deploy, project, key, sam):
    assert deploy("--yes", "--alarm-email", "me@example.com", "--stack-name", "other") == 0
    built, deployed = sam()
    assert built == f"{project} build --template {project / 'template.yaml'}"
    for argument in (
        "deploy --stack-name other --region us-east-1",
        "--no-confirm-changeset",
        "ParameterKey=AlarmEmail,ParameterValue=me@example.com",
        "ParameterKey=ReserveConcurrency,ParameterValue=true",
        "ParameterKey=ApiAccessLog,ParameterValue=none",
    ):
        assert argument in deployed
    assert (project / "template.yaml").exists()


def test_a_failed_build_is_not_deployed(deploy, project, key, sam, tmp_path):
    (tmp_path / "fail-build").touch()
    assert deploy("--yes") == 1
    assert len(sam()) == 1


def test_deploy_stops_if_a_key_is_missing(deploy, capsys, account, sam):
    assert deploy("--yes") == 1
    assert "not deployed: functions without their keys" in capsys.readouterr().err
    assert sam() == []


def test_an_account_too_small_to_reserve_from_reserves_nothing(deploy, capsys, key, limits, sam):
    limits |= {"ConcurrentExecutions": 10, "UnreservedConcurrentExecutions": 10}
    assert deploy("--yes") == 0
    assert "nothing reserved (--reserve-concurrency true" in capsys.readouterr().out
    assert "ParameterKey=ReserveConcurrency,ParameterValue=false" in sam()[1]


def test_reserving_into_the_accounts_last_100_exits_with_2(deploy, capsys, key, limits, sam):
    limits["UnreservedConcurrentExecutions"] = 110
    assert deploy("--yes") == 2
    assert "must keep 100 unreserved" in capsys.readouterr().err
    assert sam() == []


def test_deploy_options_persist_until_they_are_changed(deploy, project, key, sam):
    kept = {
        "Stage": "prod",
        "AlarmEmail": "me@example.com",
        "ApiAccessLog": "new-role",
        "ReserveConcurrency": "false",
    }
    (project / "template.extra.yaml").write_text("Parameters: {Mine: {Type: String}}")
    create_stack("app-prod", **kept)
    assert deploy("--yes", "--reserve-concurrency", "true", "--parameter", "Mine=yes") == 0
    for name, value in {**kept, "ReserveConcurrency": "true", "Mine": "yes"}.items():
        assert f"ParameterKey={name},ParameterValue={value}" in sam()[1]


def test_deploy_runs_all_checks_even_if_nothing_is_reserved(make_project, capsys, key, limits, sam):
    limits |= {"ConcurrentExecutions": 10, "UnreservedConcurrentExecutions": 10}
    sqs = {"visibility_timeout_seconds": 1}
    project = make_project({"echo": ECHO}, app_id="app", **{"lambda": {"defaults": {"sqs": sqs}}})
    assert main(["deploy", "--project", str(project), "--template", str(project / "template.yaml")]) == 2
    assert "visibility_timeout_seconds" in capsys.readouterr().err
    assert not (project / "template.yaml").exists()


@pytest.mark.parametrize(
    "arguments", [["--secrets-version", "a b"], ["--parameter", "Mine=a,b"], ["--stage", "a/b"], ["--stage", "a" * 33]]
)
def test_option_values_that_sam_cannot_parse_are_usage_errors(deploy, arguments):
    with pytest.raises(SystemExit) as error:
        deploy("--dry-run", *arguments)
    assert error.value.code == 2


def test_deploy_shows_the_changes_to_an_existing_stack(deploy, project, capsys, key):
    create_stack("app-prod")
    assert deploy("--dry-run") == 0
    page = capsys.readouterr().out
    assert "- OldQueue (AWS::SQS::Queue): DELETED" in page
    assert "+ EchoFunction (AWS::Lambda::Function)" in page


def test_each_stage_has_its_own_default_stack(deploy, project, key, sam):
    assert deploy("--yes") == 0
    assert "deploy --stack-name app-prod " in sam()[1]
    assert 'stack_name = "app-prod"' in (project / "samconfig.toml").read_text()


@pytest.mark.parametrize(("stage", "stack"), [("test", "app-test"), ("pr-12", "app-pr-12"), ("pr_12", "app-pr-12")])
def test_another_stage_deploys_to_another_stack_with_its_own_keys(deploy, key, sam, capsys, stage, stack):
    create_stack("app-prod", Stage="prod")
    assert deploy("--yes", "--stage", stage) == 1
    assert f"no value yet for ssm:/app/{stage}/OPENAI_API_KEY" in capsys.readouterr().out
    boto3.client("ssm").put_parameter(Name=f"/app/{stage}/OPENAI_API_KEY", Type="SecureString", Value="sk-planted")
    assert deploy("--yes", "--stage", stage) == 0
    assert f"deploy --stack-name {stack} " in sam()[1]
    assert f"ParameterKey=Stage,ParameterValue={stage}" in sam()[1]


@pytest.mark.parametrize("dry_run", [["--dry-run"], ["--yes"]])
def test_the_stage_of_a_deployed_stack_cannot_change(deploy, key, sam, capsys, dry_run):
    create_stack("app-prod", Stage="prod")
    assert deploy("--stage", "test", "--stack-name", "app-prod", *dry_run) == 2
    assert "the stack belongs to stage prod" in capsys.readouterr().err
    assert sam() == []


def test_two_stages_that_would_share_a_stack_name_do_not_share_the_stack(deploy, key, sam, capsys):
    create_stack("app-pr-1", Stage="pr_1")
    assert deploy("--yes", "--stage", "pr-1") == 2
    assert "the stack belongs to stage pr_1" in capsys.readouterr().err
    assert sam() == []


def test_a_dry_run_lists_changed_parameters(deploy, key, capsys):
    create_stack("app-prod", Stage="prod", AlarmEmail="old@example.com", SecretsVersion="1")
    assert deploy("--dry-run", "--alarm-email", "new@example.com") == 0
    page = capsys.readouterr().out
    assert "parameters\n  ~ AlarmEmail: old@example.com -> new@example.com\n" in page
    assert "~ Stage" not in page


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("Mien=1", "has no parameter Mien; it has: AlarmEmail"),
        ("Mine=3", "must be one of: 1, 2"),
        ("Stage=test", "use --stage"),
    ],
)
def test_a_parameter_that_cloudformation_rejects_exits_with_2(deploy, project, key, sam, capsys, parameter, message):
    (project / "template.extra.yaml").write_text("Parameters: {Mine: {Type: String, AllowedValues: [1, 2]}}")
    assert deploy("--yes", "--parameter", parameter) == 2
    assert message in capsys.readouterr().err
    assert sam() == []


@pytest.mark.parametrize("no_echo", ["true", "'true'"])
def test_the_value_of_a_no_echo_parameter_is_given_to_sam_and_not_shown(deploy, project, key, sam, capsys, no_echo):
    extra = f"Parameters: {{Token: {{Type: String, NoEcho: {no_echo}}}, Mine: {{Type: String}}}}"
    (project / "template.extra.yaml").write_text(extra)
    create_stack("app-prod", Token="planted-old")  # before it was declared so
    assert deploy("--yes", "--parameter", "Token=planted-new", "--parameter", "Mine=shown") == 0
    assert "ParameterKey=Token,ParameterValue=planted-new" in sam()[1]
    captured = capsys.readouterr()
    assert "ParameterKey=Token,ParameterValue=****" in captured.out
    assert "~ Token: **** -> ****" in captured.out
    assert "ParameterKey=Mine,ParameterValue=shown" in captured.out
    assert "planted" not in captured.out + captured.err


@pytest.mark.parametrize("rule", ["AllowedPattern: '[0-9]+'", "AllowedValues: [1, 2]"])
def test_the_value_of_a_no_echo_parameter_that_is_refused_is_not_shown(deploy, project, key, sam, capsys, rule):
    (project / "template.extra.yaml").write_text(f"Parameters: {{Token: {{Type: String, NoEcho: true, {rule}}}}}")
    assert deploy("--yes", "--parameter", "Token=planted") == 2
    captured = capsys.readouterr()
    assert "--parameter Token: " in captured.err
    assert "planted" not in captured.out + captured.err


def test_a_template_path_in_a_missing_folder_exits_with_2(project, key, sam, capsys):
    missing = project / "missing" / "template.yaml"
    assert main(["deploy", "--project", str(project), "--template", str(missing), "--yes"]) == 2
    assert f"folder {missing.parent}" in capsys.readouterr().err
    assert sam() == []


@pytest.fixture
def logs_role(account):
    """Set API Gateway's log role, which exists unless `deleted`, and return its ARN."""

    def set_role(*, deleted=False):
        iam = boto3.client("iam")
        arn = iam.create_role(RoleName="platform", Path="/team/", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        boto3.client("apigateway").update_account(
            patchOperations=[{"op": "replace", "path": "/cloudwatchRoleArn", "value": arn}]
        )
        if deleted:
            iam.delete_role(RoleName="platform")
        return arn

    return set_role


def test_deploy_uses_the_accounts_log_role_and_creates_one_only_on_request(deploy, key, sam, logs_role, capsys):
    arn = logs_role()
    assert deploy("--yes") == 0
    assert "ParameterKey=ApiAccessLog,ParameterValue=account-role" in sam()[1]
    assert f"access log  with the account's role {arn}" in capsys.readouterr().out
    assert boto3.client("apigateway").get_account()["cloudwatchRoleArn"] == arn


def test_a_dry_run_as_json_is_one_document(deploy, capsys, account):
    assert deploy("--dry-run", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["stack"], found["stage"], found["account"], found["region"]) == (
        *("app-prod", "prod"),
        *("123456789012", "us-east-1"),
    )
    assert found["programs"] == ["Echo"]
    assert found["api"] == {"kind": "rest", "auth": "iam"}
    assert found["concurrency"] == {"reserved": 15, "account": 1000, "unreserved": 1000}
    assert found["missing_keys"] == ["ssm:/app/prod/OPENAI_API_KEY"]
    assert [line for line in found["changes"]["resources"] if line.endswith("AWS::SQS::Queue")]
    assert found["limits"]["uses"][0]["calls_at_once"] > 0
    assert found["cost"]["programs"][0]["worst_usd_per_month"] > found["cost"]["idle_usd_per_month"] > 0


def test_deploy_json_keeps_sam_output_off_standard_output(deploy, project, capfd, key, sam, tmp_path):
    program = tmp_path / "bin" / "sam"
    program.write_text(program.read_text() + "echo words of sam\n")
    assert deploy("--yes", "--json") == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["changes"]["parameters"] == []
    assert err.count("words of sam") == len(sam()) == 2
