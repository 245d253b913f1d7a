import pytest

from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template.syntax import sub
from dspy_lambda_infra.template.variables import environment_bytes
from tests.infra.template.support import resources, statements, variables
from tests.support import AECHO, ECHO


def test_the_template_has_only_secret_names_and_each_function_may_read_its_own(make_project):
    registry = {
        "fast": {"model": "openai/a", "env": "FAST_KEY"},
        "strong": {"model": "openai/b", "env": "STRONG_KEY"},
    }
    settings = {"secrets": {"STRONG_KEY": "secretsmanager:app/{stage}#key"}, "defaults": {"secrets": ["DB"]}}
    project = make_project(
        {"echo": ECHO, "aecho": AECHO},
        app_id="app",
        models={"default": "fast", "registry": registry},
        program_models={"AEcho": "strong"},
        **{"lambda": settings},
    )
    found = resources(project)
    assert variables(found)["DSPY_LAMBDA_SECRETS"] == sub("FAST_KEY=ssm:/app/${Stage}/FAST_KEY DB=ssm:/app/${Stage}/DB")
    strong = sub("STRONG_KEY=secretsmanager:app/${Stage}#key DB=ssm:/app/${Stage}/DB")
    assert variables(found, "AEchoFunction")["DSPY_LAMBDA_SECRETS"] == strong
    assert {variables(found)["FAST_KEY"], variables(found)["DB"]} == {""}
    assert "STRONG_KEY" not in variables(found)
    arn = "arn:${AWS::Partition}:ssm:${AWS::Region}:${AWS::AccountId}:parameter/app/${Stage}/"
    granted = [s for s in statements(found) if "ssm" in str(s) or "secretsmanager" in str(s)]
    actions = ["ssm:GetParameter", "ssm:GetParameters"]
    assert granted == [(actions, sub(arn + "FAST_KEY")), (actions, sub(arn + "DB"))]
    secret = "arn:${AWS::Partition}:secretsmanager:${AWS::Region}:${AWS::AccountId}:secret:app/${Stage}-??????"
    assert ("secretsmanager:GetSecretValue", sub(secret)) in statements(found, "AEchoRole")


def test_configured_variables_cannot_override_the_functions_program(make):
    own = {"LEVEL": "high", "DSPY_LAMBDA_PROGRAM": "Other"}
    found = variables(make({"defaults": {"environment": own}}))
    assert (found["LEVEL"], found["DSPY_LAMBDA_PROGRAM"]) == ("high", "Echo")


LAYER = "arn:aws:lambda:us-east-1:177933569100:layer:AWS-Parameters-and-Secrets-Lambda-Extension:11"


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        ({"defaults": {"preconnect": True}}, "DSPY_LAMBDA_PRECONNECT", "true"),
        ({"layers": [LAYER], "defaults": {"secrets": ["DB"]}}, "PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", "2773"),
        ({"tracing": "otel", "layers": [LAYER]}, "AWS_LAMBDA_EXEC_WRAPPER", "/opt/otel-instrument"),
    ],
)
def test_handler_settings_become_variables_only_if_configured(make, settings, name, value):
    assert variables(make(settings))[name] == value
    assert name not in variables(make())


def test_variable_sizes_assume_the_longest_stack_and_stage_names(make_project):
    def counted(**settings):
        project = load_project(make_project({"echo": ECHO}, app_id="app", **{"lambda": settings}))
        return environment_bytes(project, project.functions["Echo"])

    plain = counted()
    assert counted(defaults={"environment": {"LEVEL": "high"}}) == plain + len(',"LEVEL":"high"')
    secret = counted(defaults={"secrets": ["DB"]}) - plain
    assert secret > len(" DB=ssm:/app/") + 32 + len("/DB")
    queue = counted(defaults={"sqs": {}}) - plain
    assert queue > len("https://sqs.us-east-1.amazonaws.com/123456789012/") + 80
