import pytest

from dspy_lambda_infra.deploy.translate import translate
from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template import render
from dspy_lambda_infra.template.syntax import get_att, ref, sub
from tests.infra.template.matrix import MATRIX
from tests.infra.template.support import resources, statements, variables
from tests.support import ECHO


def test_secrets_in_other_accounts_are_granted_by_arn(make):
    secret = "arn:aws:secretsmanager:eu-central-1:999999999999:secret:openai"
    parameter = "arn:aws:ssm:eu-central-1:999999999999:parameter/shared/key"
    places = {"OPENAI_API_KEY": f"secretsmanager:{secret}#key", "DB": f"ssm:{parameter}"}
    found = make({"secrets": places, "defaults": {"secrets": ["DB"]}})
    granted = {str(action): resource for action, resource in statements(found)}
    assert granted["secretsmanager:GetSecretValue"] == [sub(secret), sub(f"{secret}-??????")]
    assert granted["['ssm:GetParameter', 'ssm:GetParameters']"] == sub(parameter)


def test_a_functions_role_allows_only_its_own_resources(make):
    found = make({"defaults": {"sqs": {}, "secrets": []}})
    first = [(action if isinstance(action, str) else action[0], r) for action, r in statements(found)][:4]
    assert first == [
        ("logs:CreateLogStream", get_att("EchoLogGroup.Arn")),
        ("sqs:SendMessage", get_att("OnFailureQueue.Arn")),
        ("sqs:ReceiveMessage", get_att("EchoQueue.Arn")),
        ("sqs:SendMessage", get_att("EchoDeadLetterQueue.Arn")),
    ]
    assert variables(found)["DSPY_LAMBDA_DEAD_LETTER_QUEUE_URL"] == ref("EchoDeadLetterQueue")
    assert statements(found, "CatalogueRole") == [
        (["logs:CreateLogStream", "logs:PutLogEvents"], get_att("CatalogueLogGroup.Arn"))
    ]


@pytest.mark.parametrize("name", MATRIX)
def test_policies_use_star_resources_only_where_aws_requires_them(make_project, name):
    settings, server = MATRIX[name]
    found = resources(make_project({"echo": ECHO}, server=server, **{"lambda": settings}))
    managed = ("ApiLogsRole", "DeploymentRole")  # have AWS's own policies
    roles = [name for name in found if name.endswith("Role") and name not in managed]
    assert "EchoRole" in roles
    for role in roles:
        listed = [
            [actions] if isinstance(actions, str) else actions for actions, to in statements(found, role) if to == "*"
        ]
        wide = {action.partition(":")[0] for actions in listed for action in actions}
        needed = {service for service, key in (("ec2", "vpc"), ("xray", "tracing")) if key in settings}
        assert wide == needed | ({"xray"} if name == "traces" and role == "EchoRole" else set()), role


def test_a_function_that_writes_traces_to_cloudwatch_may_put_them_and_nothing_else_of_xray(make):
    traced = {"defaults": {"telemetry": {"traces": "cloudwatch"}}}
    for settings, actions in (
        (traced, ["xray:PutTraceSegments"]),
        ({**traced, "tracing": "xray"}, [["xray:PutTraceSegments", "xray:PutTelemetryRecords"]]),
        ({"defaults": {"telemetry": {"traces": "https://collector.example"}}}, []),
    ):
        assert [action for action, _ in statements(make(settings)) if "xray" in str(action)] == actions


KEY = "arn:aws:kms:us-east-1:123456789012:key/1111"


OTHER_KEY = "arn:aws:kms:us-east-1:210987654321:key/2222"


def key_statements(found):
    (policy,) = found["EchoRole"]["Properties"]["Policies"]
    return [s for s in policy["PolicyDocument"]["Statement"] if "kms:Decrypt" in s["Action"]]


def test_kms_keys_are_usable_only_through_services(make):
    (statement,) = key_statements(make({"kms_key_arn": KEY}))
    via = [service["Fn::Sub"] for service in statement["Condition"]["StringEquals"]["kms:ViaService"]]
    assert via == [
        f"{name}.${{AWS::Region}}.${{AWS::URLSuffix}}" for name in ("lambda", "secretsmanager", "sqs", "ssm")
    ]
    assert statement["Resource"] == [KEY]


def test_roles_can_decrypt_secrets_under_customer_managed_keys(make):
    registry = {"fast": {"model": "openai/a", "env": "FAST_KEY"}}
    settings = {"secrets_kms_key_arns": [OTHER_KEY]}
    (statement,) = key_statements(make(settings, models={"default": "fast", "registry": registry}))
    assert (statement["Action"], statement["Resource"]) == (["kms:Decrypt"], [OTHER_KEY])
    (service,) = statement["Condition"]["StringEquals"]["kms:ViaService"]
    assert service == sub("ssm.${AWS::Region}.${AWS::URLSuffix}")
    assert key_statements(make(settings, models={"default": "fast", "registry": {"fast": {"model": "openai/a"}}})) == []


@pytest.mark.parametrize("name", MATRIX)
def test_every_role_stays_within_the_permissions_boundary(make_project, name):
    settings, server = MATRIX[name]
    boundary = "arn:aws:iam::123456789012:policy/boundary"
    settings = {**settings, "permissions_boundary_arn": boundary}
    project = load_project(make_project({"echo": ECHO}, server=server, **{"lambda": settings}))
    found = translate(render(project, project.root), {})["Resources"]
    roles = {name: r["Properties"] for name, r in found.items() if r["Type"] == "AWS::IAM::Role"}
    assert {name for name, role in roles.items() if role.get("PermissionsBoundary") != boundary} == set()


def test_api_gateways_log_role_is_restricted_to_this_account(make):
    (statement,) = make()["ApiLogsRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Condition"] == {"StringEqualsIfExists": {"aws:SourceAccount": ref("AWS::AccountId")}}
