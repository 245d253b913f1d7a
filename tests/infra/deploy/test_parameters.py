"""The template's parameters: as given, otherwise as deployed, otherwise as the account requires."""

import pytest

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.deploy.parameters import check_parameters, choose_parameters, choose_stage, reserved_by
from dspy_lambda_infra.project import load_project
from tests.infra.deploy.support import ARN, account, options
from tests.support import ECHO


@pytest.fixture
def load(make_project):
    return lambda **settings: load_project(make_project({"echo": ECHO}, app_id="app", **{"lambda": settings}))


@pytest.fixture
def project(load):
    return load()


def test_a_first_deployment_to_an_unreadable_account_reserves_but_has_no_access_log(project):
    found = choose_parameters(options(), project, None)
    assert found == {"Stage": "prod", "ReserveConcurrency": "true", "ApiAccessLog": "none"}


def test_deployed_parameters_persist_until_they_are_changed(project):
    before = {"Stage": "test", "ReserveConcurrency": "false", "AlarmEmail": "a@example.com", "SecretsVersion": "1"}
    there = account(**before, ApiAccessLog="new-role")
    named = options(stack_name="mine")
    assert choose_parameters(named, project, there) == {**before, "ApiAccessLog": "new-role"}
    asked = options(
        stack_name="mine", reserve_concurrency="true", alarm_email="b@example.com", secrets_version="2",
        api_access_log="none", parameters={"Mine": "yes"},
    )  # fmt: skip
    assert choose_parameters(asked, project, there) == {
        "Stage": "test",
        "ReserveConcurrency": "true",
        "AlarmEmail": "b@example.com",
        "SecretsVersion": "2",
        "ApiAccessLog": "none",
        "Mine": "yes",
    }


@pytest.mark.parametrize(("concurrency", "reserves"), [(10, "false"), (100, "false"), (101, "true"), (1000, "true")])
def test_an_account_too_small_to_reserve_from_reserves_nothing(project, concurrency, reserves):
    found = choose_parameters(options(), project, account(concurrency=concurrency))
    assert found["ReserveConcurrency"] == reserves


def test_only_parameters_in_the_template_are_chosen(load):
    project = load(alarms=False, api={"kind": "http"})
    found = choose_parameters(options(), project, account("ready", AlarmEmail="a@example.com"))
    assert not {"AlarmEmail", "ApiAccessLog"} & set(found)


def test_a_parameter_that_has_its_own_option_is_refused(project):
    with pytest.raises(ConfigError, match=r"--parameter Stage: has its own option; use --stage\."):
        choose_parameters(options(parameters={"Stage": "test"}), project, None)


@pytest.mark.parametrize(
    ("role", "asked", "before", "chosen"),
    [
        ("ready", None, None, "account-role"),
        ("unset", None, None, "none"),
        ("deleted", None, None, "none"),
        ("unknown", None, None, "none"),
        ("unset", "new-role", None, "new-role"),
        ("ready", None, "new-role", "new-role"),
        ("ready", "new-role", "new-role", "new-role"),
        ("ready", "none", "new-role", "none"),
    ],
)
def test_the_access_log_uses_an_existing_role_and_creates_one_only_on_request(project, role, asked, before, chosen):
    there = account(role, **({"ApiAccessLog": before} if before else {}))
    assert choose_parameters(options(api_access_log=asked), project, there)["ApiAccessLog"] == chosen


def test_new_role_is_refused_if_a_working_log_role_exists(project):
    with pytest.raises(ConfigError, match=f"{ARN} in this account and Region"):
        choose_parameters(options(api_access_log="new-role"), project, account("ready"))


@pytest.mark.parametrize(
    ("asked", "named", "deployed", "stage"),
    [
        (None, None, None, "prod"),
        (None, None, "test", "prod"),
        (None, "mine", "test", "test"),
        ("pr-1", "mine", "pr-1", "pr-1"),
    ],
)
def test_the_stage_is_the_given_one_or_the_named_stacks_or_prod(asked, named, deployed, stage):
    assert choose_stage(options(stage=asked, stack_name=named), deployed) == stage


def test_the_stage_of_a_deployed_stack_cannot_change(project):
    with pytest.raises(ConfigError, match="the stack belongs to stage prod, which cannot change"):
        choose_parameters(options(stage="test", stack_name="mine"), project, account(Stage="prod"))


TEMPLATE = {"Parameters": {"Stage": {"AllowedPattern": "[a-z]+"}, "Mine": {"AllowedValues": [1, 2]}}}


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"Mien": "1"}, "--parameter Mien: the template has no parameter Mien; it has: Mine, Stage."),
        ({"Mine": "3"}, "--parameter Mine: must be one of: 1, 2."),
        ({"Stage": "TEST"}, r"--stage: 'TEST' does not match \[a-z\]\+\."),
        ({"Stage": "test\n"}, "--stage: 'test"),
    ],
)
def test_parameters_that_cloudformation_would_reject_are_refused_with_their_option(parameters, says):
    with pytest.raises(ConfigError, match=says):
        check_parameters(parameters, TEMPLATE)


def test_parameters_that_cloudformation_allows_are_accepted():
    check_parameters({"Stage": "test", "Mine": "2"}, TEMPLATE)


def function(reserved):
    return {"Properties": {"ReservedConcurrentExecutions": reserved}}


def test_the_stacks_reserved_concurrency_is_read_from_its_template():
    condition = {"Fn::If": ["Reserve", 10, {"Ref": "AWS::NoValue"}]}
    deployed = {"Resources": {"A": function(condition), "B": function(5), "C": {"Type": "AWS::SQS::Queue"}}}
    assert reserved_by(account(deployed=deployed, ReserveConcurrency="true")) == 15
    assert reserved_by(account(deployed=deployed, ReserveConcurrency="false")) == 0
    assert reserved_by(account(ReserveConcurrency="true")) == 0
