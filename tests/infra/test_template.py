import json

import pytest
import yaml

from infra.cli import main
from infra.project import load_project
from infra.template import build, render
from tests.conftest import QUICKSTART, ROOT
from tests.support import AECHO, ECHO

SQS = {"batch_size": 20, "window_seconds": 3, "maximum_concurrency": 7, "max_receive_count": 9}


def resources(project):
    return build(load_project(project))["Resources"]


def test_the_committed_template_is_what_the_generator_writes():
    assert render(load_project(QUICKSTART)) == (ROOT / "template.yaml").read_text(), "run: make template"


def test_each_program_has_its_function_with_route_queue_and_limits(make_project):
    settings = {"defaults": {"timeout_seconds": 20, "memory_mb": 300, "reserved_concurrency": 4, "sqs": SQS}}
    found = resources(make_project({"echo": ECHO, "aecho": AECHO}, **{"lambda": settings}))
    assert {name for name in found if name.endswith("Function")} == {"EchoFunction", "AEchoFunction"}
    function = found["EchoFunction"]["Properties"]
    assert (function["Timeout"], function["MemorySize"]) == (20, 300)
    assert function["ReservedConcurrentExecutions"]["Fn::If"][1] == 4
    variables = function["Environment"]["Variables"]
    assert variables["DSPY_LAMBDA_PROGRAM"] == "Echo"
    assert variables["DSPY_LAMBDA_MODULE"].endswith(".modules.echo")
    assert function["Events"]["Route"]["Properties"]["Path"] == "/Echo"
    mapping = function["Events"]["Queue"]["Properties"]
    assert mapping["ScalingConfig"] == {"MaximumConcurrency": 7}
    assert (mapping["BatchSize"], mapping["MaximumBatchingWindowInSeconds"]) == (20, 3)
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    queue = found["EchoQueue"]["Properties"]
    assert queue["VisibilityTimeout"] == 120
    assert queue["RedrivePolicy"]["maxReceiveCount"] == 9
    assert found["EchoDeadLetterQueue"]["Properties"]["MessageRetentionPeriod"] == 1_209_600


def test_a_program_without_a_queue_has_none_of_its_parts(make_project):
    found = resources(make_project({"echo": ECHO}))
    assert set(found) == {"Api", "EchoFunction"}
    assert set(found["EchoFunction"]["Properties"]["Events"]) == {"Route"}


def test_a_fifo_queue_and_a_schedule(make_project):
    settings = {"sqs": {"fifo": True}, "schedule": {"expression": "rate(1 hour)", "inputs": {"question": "q"}}}
    found = resources(make_project({"echo": ECHO}, **{"lambda": {"defaults": settings}}))
    assert found["EchoQueue"]["Properties"]["FifoQueue"] is True
    assert found["EchoDeadLetterQueue"]["Properties"]["FifoQueue"] is True
    schedule = found["EchoFunction"]["Properties"]["Events"]["Schedule"]["Properties"]
    assert json.loads(schedule["Input"]) == {"program": "Echo", "inputs": {"question": "q"}}


def test_no_key_is_in_the_template_and_only_the_needed_one_reaches_a_function(make_project):
    registry = {
        "fast": {"model": "openai/a", "env": "FAST_KEY"},
        "strong": {"model": "openai/b", "env": "STRONG_KEY"},
    }
    project = make_project(
        {"echo": ECHO, "aecho": AECHO},
        models={"default": "fast", "registry": registry},
        program_models={"AEcho": "strong"},
    )
    template = build(load_project(project))
    assert template["Parameters"]["FastKey"]["NoEcho"] is True
    variables = {
        name: set(function["Properties"]["Environment"]["Variables"]) & {"FAST_KEY", "STRONG_KEY"}
        for name, function in template["Resources"].items()
        if name.endswith("Function")
    }
    assert variables == {"EchoFunction": {"FAST_KEY"}, "AEchoFunction": {"STRONG_KEY"}}


@pytest.mark.parametrize(
    ("api", "auth"),
    [
        ({}, {"DefaultAuthorizer": "AWS_IAM"}),
        ({"kind": "rest", "auth": "none"}, None),
        ({"kind": "rest", "auth": "api_key"}, {"ApiKeyRequired": True, "UsagePlan": {"CreateUsagePlan": "PER_API"}}),
        ({"kind": "http"}, {"EnableIamAuthorizer": True, "DefaultAuthorizer": "AWS_IAM"}),
    ],
)
def test_an_api_is_open_only_where_the_config_says_so(make_project, api, auth):
    found = resources(make_project({"echo": ECHO}, **{"lambda": {"api": api}}))
    assert found["Api"]["Properties"].get("Auth") == auth


def test_a_function_url_is_closed_unless_the_config_opens_it(make_project):
    for auth, type_ in (("iam", "AWS_IAM"), ("none", "NONE")):
        found = resources(make_project({f"echo_{auth}": ECHO}, **{"lambda": {"api": {"kind": "url", "auth": auth}}}))
        assert found["EchoFunction"]["Properties"]["FunctionUrlConfig"] == {"AuthType": type_}
        assert "Api" not in found


def test_a_throttle_behind_rest_is_mapped_to_429_with_retry_after(make_project):
    responses = resources(make_project({"echo": ECHO}))["Api"]["Properties"]["GatewayResponses"]
    assert responses["THROTTLED"]["StatusCode"] == responses["INTEGRATION_FAILURE"]["StatusCode"] == 429
    assert responses["THROTTLED"]["ResponseParameters"]["Headers"]["Retry-After"] == "'1'"
    assert responses["MISSING_AUTHENTICATION_TOKEN"]["StatusCode"] == 404


@pytest.mark.parametrize(
    ("config", "modules", "says"),
    [
        ({"lambda": {"api": {"kind": "http", "auth": "jwt"}}}, {"echo": ECHO}, "kind http with auth jwt"),
        ({"lambda": {"programs": {"Nope": {}}}}, {"echo": ECHO}, "lambda.programs.Nope: no such program"),
        ({"program_models": {"Nope": "fast"}}, {"echo": ECHO}, "program_models.Nope: no such program"),
        ({}, {"a": ECHO, "b": ECHO.replace("Echo", "Ec_ho")}, "share the logical id EchoFunction"),
        ({}, {"echo": ECHO, "broken": "import nothing_of_that_name\n" + AECHO}, "AEcho"),
    ],
)
def test_a_project_that_has_no_template_is_exit_2_and_writes_nothing(make_project, capsys, config, modules, says):
    project = make_project(modules, **config)
    output = project / "template.yaml"
    assert main(["template", "--project", str(project), "--output", str(output)]) == 2
    assert says in capsys.readouterr().err
    assert not output.exists()


def test_the_template_can_go_to_stdout(capsys):
    assert main(["template", "--project", str(QUICKSTART), "--output", "-"]) == 0
    assert capsys.readouterr().out == (ROOT / "template.yaml").read_text()


def test_the_text_is_yaml_with_short_intrinsics():
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, suffix, node: {suffix: loader.construct_scalar(node)})
    template = yaml.load((ROOT / "template.yaml").read_text(), Loader=Loader)
    mapping = template["Resources"]["AnswerFunction"]["Properties"]["Events"]["Queue"]["Properties"]
    assert mapping["Queue"] == {"GetAtt": "AnswerQueue.Arn"}


def test_a_function_may_touch_its_own_two_queues_and_no_more(make_project):
    settings = {"sqs": {"invalid_to_dead_letter_queue": True}}
    found = resources(make_project({"echo": ECHO}, **{"lambda": {"defaults": settings}}))
    properties = found["EchoFunction"]["Properties"]
    (policy,) = properties["Policies"]
    assert [(s["Action"], s["Resource"]) for s in policy["Statement"]] == [
        ("sqs:ChangeMessageVisibility", "EchoQueue.Arn"),
        ("sqs:SendMessage", "EchoDeadLetterQueue.Arn"),
    ]
    variables = properties["Environment"]["Variables"]
    assert variables["DSPY_LAMBDA_DEAD_LETTER_QUEUE_URL"] == "EchoDeadLetterQueue"
    plain = resources(make_project({"other": ECHO}, **{"lambda": {"defaults": {"sqs": {"backoff_seconds": 0}}}}))
    assert "Policies" not in plain["EchoFunction"]["Properties"]
