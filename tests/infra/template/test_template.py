import json
import os
import re

import pytest

from dspy_lambda_infra.cli import main
from dspy_lambda_infra.deploy.translate import translate
from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template import build, render
from dspy_lambda_infra.template.syntax import Intrinsic, get_att, if_, load, ref, sub
from tests.conftest import QUICKSTART, ROOT
from tests.infra.template.matrix import MATRIX
from tests.support import AECHO, ECHO

SQS = {"batch_size": 20, "window_seconds": 3, "maximum_concurrency": 7, "max_receive_count": 9}


def template(project):
    return build(load_project(project), project)


def resources(project):
    return template(project)["Resources"]


def variables(found, name="EchoFunction"):
    return found[name]["Properties"]["Environment"]["Variables"]


def statements(found, role="EchoRole"):
    (policy,) = found[role]["Properties"]["Policies"]
    return [(s["Action"], s["Resource"]) for s in policy["PolicyDocument"]["Statement"]]


@pytest.fixture
def make(make_project):
    """The resources of a project with one program, by its `lambda` section."""

    def build_from(settings=None, modules=None, **config):
        return resources(make_project(modules or {"echo": ECHO}, **{"lambda": settings or {}}, **config))

    return build_from


def test_the_committed_template_is_what_the_generator_writes():
    assert render(load_project(QUICKSTART), ROOT) == (ROOT / "template.yaml").read_text(), "run: make template"


def test_each_program_has_its_function_with_route_queue_and_limits(make):
    defaults = {
        "timeout_seconds": 20,
        "memory_mb": 300,
        "reserved_concurrency": 9,
        "architecture": "arm64",
        "ephemeral_storage_mb": 1024,
        "sqs": SQS,
    }
    found = make({"defaults": defaults, "log_retention_days": 7}, {"echo": ECHO, "aecho": AECHO})
    functions = {name for name, resource in found.items() if resource["Type"] == "AWS::Serverless::Function"}
    assert functions == {"EchoFunction", "AEchoFunction", "CatalogueFunction"}
    function = found["EchoFunction"]["Properties"]
    assert (function["Timeout"], function["MemorySize"], function["Architectures"]) == (20, 300, ["arm64"])
    assert function["EphemeralStorage"] == {"Size": 1024}
    assert function["ReservedConcurrentExecutions"] == if_("Reserve", 9)
    assert variables(found)["DSPY_LAMBDA_PROGRAM"] == "Echo"
    assert variables(found)["DSPY_LAMBDA_MODULE"].endswith(".modules.echo")
    assert function["Events"]["Route"]["Properties"]["Path"] == "/Echo"
    mapping = function["Events"]["Queue"]["Properties"]
    assert mapping["ScalingConfig"] == {"MaximumConcurrency": 7}
    assert (mapping["BatchSize"], mapping["MaximumBatchingWindowInSeconds"]) == (20, 3)
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    queue = found["EchoQueue"]["Properties"]
    assert (queue["VisibilityTimeout"], queue["SqsManagedSseEnabled"]) == (123, True)  # the window counts
    assert queue["RedrivePolicy"]["maxReceiveCount"] == 9
    assert queue["MessageRetentionPeriod"] == 4 * 24 * 3600
    assert found["EchoDeadLetterQueue"]["Properties"]["MessageRetentionPeriod"] == 1_209_600
    assert found["EchoLogGroup"]["Properties"]["RetentionInDays"] == 7
    assert function["LoggingConfig"]["LogGroup"] == ref("EchoLogGroup")


def test_queues_outlive_the_stack(make):
    found = make({"defaults": {"sqs": {}}})
    queues = [resource for resource in found.values() if resource["Type"] == "AWS::SQS::Queue"]
    assert len(queues) == 3
    assert all((q["DeletionPolicy"], q["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain") for q in queues)


def test_one_policy_lets_every_queue_be_reached_over_tls_only(make):
    found = make({"defaults": {"sqs": {}}}, {"echo": ECHO, "aecho": AECHO})
    (policy,) = (r["Properties"] for r in found.values() if r["Type"] == "AWS::SQS::QueuePolicy")
    queues = {name for name, resource in found.items() if resource["Type"] == "AWS::SQS::Queue"}
    assert {queue.value for queue in policy["Queues"]} == queues
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "sqs:*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_no_queue_redrives_into_the_on_failure_queue(make):
    assert make()["OnFailureQueue"]["Properties"]["RedriveAllowPolicy"] == {"redrivePermission": "denyAll"}


def test_a_program_without_a_queue_has_none_of_its_parts(make):
    found = make({"alarms": False})
    echo = {"EchoFunction", "EchoLatestInvokeConfig", "EchoRole", "EchoLogGroup"}
    assert {name for name in found if name.startswith("Echo")} == echo
    assert set(found["EchoFunction"]["Properties"]["Events"]) == {"Route"}
    assert not any(isinstance(r, Intrinsic) and "Queue" in r.value for _, r in statements(found)[2:])


def test_a_program_without_http_has_no_route_and_a_project_of_such_no_api(make):
    found = make({"defaults": {"http": False, "sqs": {}}})
    assert "Api" not in found
    assert "CatalogueFunction" not in found
    assert "Route" not in found["EchoFunction"]["Properties"]["Events"]
    assert "DSPY_LAMBDA_SOURCES" not in variables(found)


def test_a_fifo_queue_and_a_schedule(make):
    settings = {"sqs": {"fifo": True}, "schedule": {"expression": "rate(1 hour)", "inputs": {"question": "q"}}}
    found = make({"defaults": settings})
    assert found["EchoQueue"]["Properties"]["FifoQueue"] is True
    assert found["EchoDeadLetterQueue"]["Properties"]["FifoQueue"] is True
    schedule = found["EchoFunction"]["Properties"]["Events"]["Schedule"]["Properties"]
    assert json.loads(schedule["Input"]) == {"program": "Echo", "inputs": {"question": "q"}}
    assert schedule["DeadLetterConfig"] == {"Arn": get_att("OnFailureQueue.Arn")}


def test_a_schedules_name_is_left_to_the_stack_so_that_two_stacks_can_have_it(make_project):
    settings = {"defaults": {"schedule": {"expression": "rate(1 hour)"}}}
    project = load_project(make_project({"echo": ECHO}, **{"lambda": settings}))
    found = translate(render(project, project.root), {})["Resources"]
    (schedule,) = (r["Properties"] for r in found.values() if r["Type"] == "AWS::Scheduler::Schedule")
    assert "Name" not in schedule


def test_what_fails_asynchronously_goes_to_the_on_failure_queue(make):
    found = make({"defaults": {"retry_attempts": 1, "maximum_event_age_seconds": 600}})
    config = found["EchoLatestInvokeConfig"]["Properties"]
    assert (config["MaximumRetryAttempts"], config["MaximumEventAgeInSeconds"]) == (1, 600)
    assert config["DestinationConfig"]["OnFailure"]["Destination"] == get_att("OnFailureQueue.Arn")
    assert ("sqs:SendMessage", get_att("OnFailureQueue.Arn")) in statements(found)


def test_secrets_of_other_accounts_are_granted_by_their_arns(make):
    secret = "arn:aws:secretsmanager:eu-central-1:999999999999:secret:openai"
    parameter = "arn:aws:ssm:eu-central-1:999999999999:parameter/shared/key"
    places = {"OPENAI_API_KEY": f"secretsmanager:{secret}#key", "DB": f"ssm:{parameter}"}
    found = make({"secrets": places, "defaults": {"secrets": ["DB"]}})
    granted = {str(action): resource for action, resource in statements(found)}
    assert granted["secretsmanager:GetSecretValue"] == [sub(secret), sub(f"{secret}-??????")]
    assert granted["['ssm:GetParameter', 'ssm:GetParameters']"] == sub(parameter)


def test_only_names_of_secrets_are_in_the_template_and_each_function_may_read_its_own(make_project):
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


def test_a_function_may_touch_its_own_things_and_no_more(make):
    found = make({"defaults": {"sqs": {}, "secrets": []}})
    assert [(action if isinstance(action, str) else action[0], r.value) for action, r in statements(found)][:4] == [
        ("logs:CreateLogStream", "EchoLogGroup.Arn"),
        ("sqs:SendMessage", "OnFailureQueue.Arn"),
        ("sqs:ReceiveMessage", "EchoQueue.Arn"),
        ("sqs:SendMessage", "EchoDeadLetterQueue.Arn"),
    ]
    assert variables(found)["DSPY_LAMBDA_DEAD_LETTER_QUEUE_URL"] == ref("EchoDeadLetterQueue")
    assert statements(found, "CatalogueRole") == [
        (["logs:CreateLogStream", "logs:PutLogEvents"], get_att("CatalogueLogGroup.Arn"))
    ]


@pytest.mark.parametrize("name", MATRIX)
def test_no_resource_is_named_by_a_star_but_where_aws_knows_no_other(make_project, name):
    settings, server = MATRIX[name]
    found = resources(make_project({"echo": ECHO}, server=server, **{"lambda": settings}))
    managed = ("ApiLogsRole", "DeploymentRole")  # have AWS's own policies
    for role in (r for r in found if r.endswith("Role") and r not in managed):
        wide = [action for action, resource in statements(found, role) if resource == "*"]
        assert all(all(a.startswith(("ec2:", "xray:")) for a in actions) for actions in wide)


POOL = "arn:aws:cognito-idp:us-east-1:1:userpool/x"
JWT = {
    "JwtConfiguration": {"issuer": "https://i", "audience": ["a"]},
    "IdentitySource": "$request.header.Authorization",
}
PLAN = {
    "CreateUsagePlan": "PER_API",
    "Throttle": {"RateLimit": 7, "BurstLimit": 9},
    "Quota": {"Limit": 5, "Period": "DAY"},
}


@pytest.mark.parametrize(
    ("api", "auth"),
    [
        ({}, {"DefaultAuthorizer": "AWS_IAM", "InvokeRole": "NONE"}),
        ({"kind": "rest", "auth": "none"}, None),
        (
            {"auth": "api_key", "throttle": {"rate": 7, "burst": 9}, "requests_per_day": 5},
            {"ApiKeyRequired": True, "UsagePlan": PLAN},
        ),
        (
            {"auth": "jwt", "user_pool_arn": POOL},
            {"Authorizers": {"Jwt": {"UserPoolArn": POOL}}, "DefaultAuthorizer": "Jwt"},
        ),
        ({"kind": "http"}, {"EnableIamAuthorizer": True, "DefaultAuthorizer": "AWS_IAM"}),
        (
            {"kind": "http", "auth": "jwt", "issuer": "https://i", "audience": ["a"]},
            {"Authorizers": {"Jwt": JWT}, "DefaultAuthorizer": "Jwt"},
        ),
        ({"kind": "http", "auth": "none"}, None),
    ],
)
def test_an_api_is_open_only_where_the_config_says_so(make, api, auth):
    found = make({"api": api})["HttpApi" if api.get("kind") == "http" else "Api"]
    assert found["Properties"].get("Auth") == auth


def test_no_resource_changes_its_type_with_the_kind_of_api(make_project):
    """CloudFormation refuses that, and the whole update."""
    types = {}
    for name, (settings, server) in MATRIX.items():
        project = load_project(make_project({"echo": ECHO}, server=server, **{"lambda": settings}))
        for logical, resource in translate(render(project, project.root), {})["Resources"].items():
            types.setdefault(logical, {}).setdefault(resource["Type"], name)
    assert {logical: kinds for logical, kinds in types.items() if len(kinds) > 1} == {}


@pytest.mark.parametrize(("kind", "address"), [("rest", "https://${Api}."), ("http", "https://${HttpApi}.")])
def test_the_address_is_that_of_the_api(make_project, kind, address):
    project = make_project({"echo": ECHO}, **{"lambda": {"api": {"kind": kind}}})
    assert template(project)["Outputs"]["ApiUrl"]["Value"].value.startswith(address)


def test_a_function_url_is_closed_unless_the_config_opens_it(make):
    for auth, type_ in (("iam", "AWS_IAM"), ("none", "NONE")):
        found = make({"api": {"kind": "url", "auth": auth}})
        for function in ("EchoFunction", "CatalogueFunction"):
            assert found[function]["Properties"]["FunctionUrlConfig"] == {"AuthType": type_}
        assert "Api" not in found


def test_an_api_throttles_and_writes_access_logs(make):
    throttle = {"throttle": {"rate": 7, "burst": 9}}
    rest = make({"api": throttle})["Api"]["Properties"]
    assert (rest["MethodSettings"][0]["ThrottlingRateLimit"], rest["MethodSettings"][0]["ThrottlingBurstLimit"]) == (
        7,
        9,
    )
    http = make({"api": {"kind": "http", **throttle}})["HttpApi"]["Properties"]
    assert http["DefaultRouteSettings"]["ThrottlingBurstLimit"] == 9
    condition, rest_log, _ = rest["AccessLogSetting"].value
    assert condition == "HasAccessLog"
    for log in (rest_log, http["AccessLogSettings"]):
        assert log["DestinationArn"] == get_att("ApiLogGroup.Arn")
        assert json.loads(log["Format"])["requestId"] == "$context.requestId"
        assert json.loads(log["Format"])["integrationStatus"] == "$context.integration.status"


def test_an_http_apis_access_log_takes_no_place_in_the_accounts_policy(make):
    """Which API Gateway extends by each log group that has not this prefix, up to 5,120 characters."""
    group = make({"api": {"kind": "http"}})["ApiLogGroup"]["Properties"]
    assert group["LogGroupName"] == sub("/aws/vendedlogs/${AWS::StackName}/api")
    assert "LogGroupName" not in make()["ApiLogGroup"]["Properties"]


def test_a_gateways_throttle_is_429_a_function_that_cannot_be_invoked_503_an_unknown_path_404(make):
    responses = make()["Api"]["Properties"]["GatewayResponses"]
    # API Gateway does not tell a function's throttle from an outage: 429 would hide the outage.
    statuses = {"THROTTLED": 429, "INTEGRATION_FAILURE": 503}
    for kind, status in statuses.items():
        assert responses[kind]["StatusCode"] == status
        assert responses[kind]["ResponseParameters"]["Headers"]["Retry-After"] == "'1'"
    assert responses["MISSING_AUTHENTICATION_TOKEN"]["StatusCode"] == 404
    refused = {"INVALID_SIGNATURE": 403, "EXPIRED_TOKEN": 403, "INVALID_API_KEY": 403, "REQUEST_TOO_LARGE": 413}
    assert refused.items() <= {kind: response["StatusCode"] for kind, response in responses.items()}.items()
    assert all(json.loads(r["ResponseTemplates"]["application/json"])["request_id"] for r in responses.values())


def test_the_catalogue_function_serves_the_shared_routes(make):
    events = make()["CatalogueFunction"]["Properties"]["Events"]
    routes = {(e["Properties"]["Method"], e["Properties"]["Path"]) for e in events.values()}
    shared = ("/programs", "/health/live", "/health/ready", "/openapi.json", "/docs")
    assert routes == {("GET", path) for path in shared}


def test_a_browsers_preflight_needs_no_credentials(make):
    origins = {"cors_origins": ["https://a", "https://b"]}
    catalogue = make(server=origins)["CatalogueFunction"]["Properties"]
    preflights = [e["Properties"] for e in catalogue["Events"].values() if e["Properties"]["Method"] == "OPTIONS"]
    assert len({route["Path"] for route in preflights} | {"/Echo"}) == len(preflights) == 6
    assert all(route["Auth"]["Authorizer"] == "NONE" for route in preflights)
    http = make({"api": {"kind": "http"}}, server=origins)
    assert http["HttpApi"]["Properties"]["CorsConfiguration"]["AllowOrigins"] == ["https://a", "https://b"]
    assert "ToEchoPreflight" in http["CatalogueFunction"]["Properties"]["Events"]
    is_open = make({"api": {"kind": "http", "auth": "none"}}, server=origins)
    assert "ToEchoPreflight" not in is_open["CatalogueFunction"]["Properties"]["Events"]
    url = make({"api": {"kind": "url"}}, server=origins)["EchoFunction"]["Properties"]["FunctionUrlConfig"]
    assert url["Cors"]["AllowOrigins"] == ["https://a", "https://b"]
    # `*` covers any header but this one.
    assert "Authorization" in url["Cors"]["AllowHeaders"]
    assert "Authorization" in http["HttpApi"]["Properties"]["CorsConfiguration"]["AllowHeaders"]


def test_a_functions_own_variables_do_not_replace_what_narrows_it(make):
    own = {"LEVEL": "high", "DSPY_LAMBDA_PROGRAM": "Other"}
    found = variables(make({"defaults": {"environment": own}}))
    assert (found["LEVEL"], found["DSPY_LAMBDA_PROGRAM"]) == ("high", "Echo")


KEY = "arn:aws:kms:us-east-1:123456789012:key/1111"
OTHER_KEY = "arn:aws:kms:us-east-1:210987654321:key/2222"


def key_statements(found):
    (policy,) = found["EchoRole"]["Properties"]["Policies"]
    return [s for s in policy["PolicyDocument"]["Statement"] if "kms:Decrypt" in s["Action"]]


def test_a_key_is_used_through_services_only(make):
    (statement,) = key_statements(make({"kms_key_arn": KEY}))
    via = [service.value for service in statement["Condition"]["StringEquals"]["kms:ViaService"]]
    assert via == [
        f"{name}.${{AWS::Region}}.${{AWS::URLSuffix}}" for name in ("lambda", "secretsmanager", "sqs", "ssm")
    ]
    assert statement["Resource"] == [KEY]


def test_secrets_under_keys_of_their_own_can_be_read_by_whom_they_are_for(make):
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


def test_api_gateways_log_role_is_for_this_account(make):
    (statement,) = make()["ApiLogsRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Condition"] == {"StringEqualsIfExists": {"aws:SourceAccount": ref("AWS::AccountId")}}


def test_snap_start_is_one_setting(make):
    function = make({"defaults": {"snap_start": True}})["EchoFunction"]["Properties"]
    assert function["SnapStart"] == {"ApplyOn": "PublishedVersions"}
    assert function["AutoPublishAlias"] == "live"
    assert "SnapStart" not in make()["EchoFunction"]["Properties"]


def test_alarms_watch_what_facts_ask_for_and_can_be_switched_off(make):
    settings = {"defaults": {"sqs": {}, "timeout_seconds": 100, "daily_cost_usd": 2.5}}
    found = make(settings)
    alarms = {n.removeprefix("Echo").removesuffix("Alarm"): r["Properties"] for n, r in found.items() if "Alarm" in n}
    alarms.pop("AlarmTopic", None)
    assert {name: alarm["Threshold"] for name, alarm in alarms.items() if "Threshold" in alarm} == {
        "Errors": 1,
        "Failures": 1,
        "Throttles": 0,
        "Duration": 80_000.0,
        "Concurrency": 8.0,
        "DeadLetter": 0,
        "Age": 600,
        "Spend": 2.5,
        "OnFailure": 0,
    }
    assert all(a["AlarmActions"] == [ref("AlarmTopic")] for a in alarms.values() if "Threshold" in a)
    assert not any("Alarm" in name for name in make({**settings, "alarms": False}))


def test_tokens_have_an_alarm_where_the_config_names_a_number(make):
    alarm = make({"defaults": {"daily_tokens": 5000}})["EchoTokensAlarm"]["Properties"]
    assert alarm["Threshold"] == 5000
    read = {q["MetricStat"]["Metric"]["MetricName"]: q["MetricStat"] for q in alarm["Metrics"] if "MetricStat" in q}
    assert set(read) == {"InputTokens", "OutputTokens"}
    assert {stat["Period"] for stat in read.values()} == {86_400}
    assert "EchoTokensAlarm" not in make()


def test_the_dashboard_is_json_that_shows_every_program(make):
    found = make({"defaults": {"sqs": {}}}, {"echo": ECHO, "aecho": AECHO})
    body = json.loads(found["Dashboard"]["Properties"]["DashboardBody"].value)
    titles = {widget["properties"]["title"] for widget in body["widgets"]}
    assert {"Calls", "Throttles", "Dead-letter queue", "Duration p99 (ms)"} <= titles
    for widget in body["widgets"]:
        assert len(widget["properties"]["metrics"]) == 2
    places = [(w["x"], w["y"]) for w in body["widgets"]]
    assert len(set(places)) == len(places)


def test_the_dashboards_link_is_given_where_the_console_has_that_address(make_project):
    """China's and the government's consoles are elsewhere."""
    found = template(make_project({"echo": ECHO}))
    condition = found["Conditions"][found["Outputs"]["DashboardUrl"]["Condition"]]
    assert condition == {"Fn::Equals": [ref("AWS::Partition"), "aws"]}


def test_saved_queries_name_fields_that_records_have(make):
    texts = {name: r["Properties"]["QueryString"] for name, r in make().items() if name.endswith("Query")}
    assert "exception_name" in texts["FailedCallsQuery"]
    assert not re.search(r"\berror\b", texts["FailedCallsQuery"])


def test_a_saved_query_has_no_more_log_groups_than_can_be_queried_at_once(make):
    found = make(modules={"echo": "\n".join(ECHO.replace("class Echo", f"class Echo{n}") for n in range(51))})
    queries = [r["Properties"] for name, r in found.items() if name.startswith("CostQuery")]
    assert [len(query["LogGroupNames"]) for query in queries] == [50, 1]
    assert len({query["Name"].value for query in queries}) == 2


def test_the_cold_start_query_sees_inits_and_snapstarts_restores(make):
    text = make()["ColdStartsQuery"]["Properties"]["QueryString"]
    assert 'type = "platform.report"' in text
    assert "coalesce(record.metrics.initDurationMs, record.metrics.restoreDurationMs)" in text


def test_logical_ids_stay_when_a_program_is_added(make):
    before = make(modules={"echo": ECHO})
    after = make(modules={"echo": ECHO, "aecho": AECHO})
    assert {name for name in before if name not in after} == set()
    assert all(name.startswith("AEcho") for name in after.keys() - before.keys())


def test_the_code_is_found_from_wherever_the_template_lies(make_project, tmp_path):
    project = make_project({"echo": ECHO})
    found = build(load_project(project), tmp_path / "infra" / "sam")["Resources"]
    assert found["EchoFunction"]["Properties"]["CodeUri"] == os.path.join("..", "..", project.name)
    assert found["EchoFunction"]["Metadata"] == {"BuildMethod": "makefile", "ContextPath": "."}


def test_an_image_has_its_context_where_build_puts_it(make):
    function = make({"package_type": "Image"})["EchoFunction"]
    assert function["Metadata"]["DockerContext"] == "dist/EchoFunction"
    assert function["Properties"]["ImageConfig"] == {"Command": ["dspy_lambda.main.lambda_handler"]}
    assert not {"Runtime", "Handler", "CodeUri"} & set(function["Properties"])


@pytest.mark.parametrize(
    ("config", "modules", "says"),
    [
        ({"lambda": {"api": {"kind": "http", "auth": "jwt"}}}, {"echo": ECHO}, "needs issuer"),
        ({"lambda": {"api": {"auth": "jwt"}}}, {"echo": ECHO}, "needs user_pool_arn"),
        ({"lambda": {"api": {"kind": "http", "auth": "api_key"}}}, {"echo": ECHO}, "REST APIs only"),
        ({"lambda": {"programs": {"Nope": {}}}}, {"echo": ECHO}, "lambda.programs.Nope: no such program"),
        ({"lambda": {"defaults": {"environment": {"AWS_REGION": "x"}}}}, {"echo": ECHO}, "AWS_REGION is Lambda's own"),
        (
            {"lambda": {"defaults": {"environment": {"POWERTOOLS_SERVICE_NAME": "x"}}}},
            {"echo": ECHO},
            "POWERTOOLS_SERVICE_NAME names the metrics that the alarms read",
        ),
        (
            {"lambda": {"kms_key_arn": "arn:aws:kms:us-east-1:123456789012:alias/mine"}},
            {"echo": ECHO},
            "lambda.kms_key_arn: must be a key's own ARN",
        ),
        ({"program_models": {"Nope": "fast"}}, {"echo": ECHO}, "program_models.Nope: no such program"),
        ({}, {"a": ECHO, "b": ECHO.replace("Echo", "Ec_ho")}, "share the logical id EchoFunction"),
        ({}, {"a": ECHO.replace("Echo", "Catalogue")}, "CatalogueFunction"),
        ({"lambda": {"defaults": {"sqs": {}}}}, {"a": ECHO.replace("Echo", "OnFailure")}, "OnFailureQueue"),
        ({}, {"broken": "import nothing_of_that_name\n" + AECHO}, "AEcho"),
        ({"lambda": {"defaults": {"sqs": {"maximum_concurrency": 20}}}}, {"echo": ECHO}, "raise reserved_concurrency"),
    ],
)
def test_a_project_that_has_no_template_is_exit_2_and_writes_nothing(make_project, capsys, config, modules, says):
    project = make_project(modules, **config)
    assert main(["template", "--project", str(project), "--output", str(project / "template.yaml")]) == 2
    assert says in capsys.readouterr().err
    assert not {"template.yaml", "Makefile", "samconfig.toml"} & {path.name for path in project.iterdir()}


def test_the_template_can_go_to_stdout_and_the_worst_case_to_stderr(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["template", "--project", str(QUICKSTART), "--output", "-"]) == 0
    captured = capsys.readouterr()
    assert captured.out == (ROOT / "template.yaml").read_text()
    assert "deploy --dry-run says what calls may cost" in captured.err


def test_the_text_is_yaml_with_short_intrinsics():
    found = load((ROOT / "template.yaml").read_text())
    mapping = found["Resources"]["AnswerFunction"]["Properties"]["Events"]["Queue"]["Properties"]
    assert mapping["Queue"] == get_att("AnswerQueue.Arn")


def test_what_sam_build_needs_is_written_beside_and_nothing_of_the_users_is_overwritten(make_project, capsys):
    project = make_project({"echo": ECHO})
    command = ["template", "--project", str(project), "--output", str(project / "template.yaml")]
    assert main(command) == 0
    said = capsys.readouterr().err
    assert f"wrote {project / 'Makefile'}" in said
    assert f"wrote {project / 'samconfig.toml'}" in said
    assert "build-%:" in (project / "Makefile").read_text()
    assert "build_in_source = true" in (project / "samconfig.toml").read_text()
    (project / "Makefile").write_text("all:\n")
    (project / "samconfig.toml").write_text("version = 0.1\n")
    assert main(command) == 0
    assert (project / "Makefile").read_text() == "all:\n"
    told = capsys.readouterr().err
    assert "has no rule 'build-%:'" in told
    assert "set build_in_source = true" in told


def test_a_template_of_somebodys_own_is_left_alone(make_project, capsys):
    project = make_project({"echo": ECHO})
    path = project / "template.yaml"
    path.write_text("Resources: {}\n")
    command = ["template", "--project", str(project), "--output", str(path)]
    assert main(command) == 2
    assert f"{path}: was not written by dspy-lambda" in capsys.readouterr().err
    assert path.read_text() == "Resources: {}\n"
    assert not (project / "Makefile").exists()
    path.write_text(render(load_project(project), project))
    assert main(command) == 0


def test_a_template_as_json_reports_what_was_written(make_project, capsys):
    project = make_project({"echo": ECHO})
    command = ["template", "--project", str(project), "--json", "--output"]
    assert main([*command, str(project / "template.yaml")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["template"] == str(project / "template.yaml")
    assert found["functions"] == ["EchoFunction", "CatalogueFunction"]
    assert found["idle_usd_per_month"] > 0
    assert main([*command, "-"]) == 2
    out, err = capsys.readouterr()
    assert (out, "--json and --output - both write to standard output" in err) == ("", True)
