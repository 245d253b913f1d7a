import json
import os

import pytest

from dspy_lambda_infra.deploy.translate import translate
from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template import build, render
from dspy_lambda_infra.template.syntax import get_att, if_, ref
from tests.infra.template.support import statements, variables
from tests.support import AECHO, ECHO

SQS = {"batch_size": 20, "window_seconds": 3, "maximum_concurrency": 7, "max_receive_count": 9}


def test_each_program_has_a_function_with_its_route_queue_and_limits(make):
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
    assert (queue["VisibilityTimeout"], queue["SqsManagedSseEnabled"]) == (123, True)  # includes the window
    assert queue["RedrivePolicy"]["maxReceiveCount"] == 9
    assert queue["MessageRetentionPeriod"] == 4 * 24 * 3600
    assert found["EchoDeadLetterQueue"]["Properties"]["MessageRetentionPeriod"] == 1_209_600
    assert found["EchoLogGroup"]["Properties"]["RetentionInDays"] == 7
    assert function["LoggingConfig"] == {"LogFormat": "JSON", "LogGroup": ref("EchoLogGroup")}


@pytest.mark.parametrize(
    ("level", "holds", "expected"),
    [(None, True, "DEBUG"), ("INFO", True, "DEBUG"), ("TRACE", True, "TRACE"), ("WARN", False, "WARN")],
)
def test_lambda_keeps_lines_from_the_configured_level_on_and_held_debug_lines(make, level, holds, expected):
    programs = {"Echo": {"telemetry": {"buffer_debug_logs": holds}}}
    found = make({"log_level": level, "programs": programs}, {"echo": ECHO, "aecho": AECHO})
    assert found["EchoFunction"]["Properties"]["LoggingConfig"]["ApplicationLogLevel"] == expected
    for name in ("AEchoFunction", "CatalogueFunction"):
        assert found[name]["Properties"]["LoggingConfig"].get("ApplicationLogLevel") == level


def test_a_function_can_have_a_fifo_queue_and_a_schedule(make):
    settings = {"sqs": {"fifo": True}, "schedule": {"expression": "rate(1 hour)", "inputs": {"question": "q"}}}
    found = make({"defaults": settings})
    assert found["EchoQueue"]["Properties"]["FifoQueue"] is True
    assert found["EchoDeadLetterQueue"]["Properties"]["FifoQueue"] is True
    schedule = found["EchoFunction"]["Properties"]["Events"]["Schedule"]["Properties"]
    assert json.loads(schedule["Input"]) == {"program": "Echo", "inputs": {"question": "q"}}
    assert schedule["DeadLetterConfig"] == {"Arn": get_att("OnFailureQueue.Arn")}


def test_schedules_have_no_fixed_name_so_that_two_stacks_do_not_collide(make_project):
    settings = {"defaults": {"schedule": {"expression": "rate(1 hour)"}}}
    project = load_project(make_project({"echo": ECHO}, **{"lambda": settings}))
    found = translate(render(project, project.root), {})["Resources"]
    (schedule,) = (r["Properties"] for r in found.values() if r["Type"] == "AWS::Scheduler::Schedule")
    assert "Name" not in schedule


def test_failed_asynchronous_invocations_go_to_the_on_failure_queue(make):
    found = make({"defaults": {"retry_attempts": 1, "maximum_event_age_seconds": 600}})
    config = found["EchoLatestInvokeConfig"]["Properties"]
    assert (config["MaximumRetryAttempts"], config["MaximumEventAgeInSeconds"]) == (1, 600)
    assert config["DestinationConfig"]["OnFailure"]["Destination"] == get_att("OnFailureQueue.Arn")
    assert ("sqs:SendMessage", get_att("OnFailureQueue.Arn")) in statements(found)


def test_the_catalogue_function_serves_the_shared_routes(make):
    events = make()["CatalogueFunction"]["Properties"]["Events"]
    routes = {(e["Properties"]["Method"], e["Properties"]["Path"]) for e in events.values()}
    shared = ("/programs", "/health/live", "/health/ready", "/openapi.json", "/docs")
    assert routes == {("GET", path) for path in shared}


def test_snap_start_publishes_a_version_with_one_setting(make):
    function = make({"defaults": {"snap_start": True}})["EchoFunction"]["Properties"]
    assert function["SnapStart"] == {"ApplyOn": "PublishedVersions"}
    assert function["AutoPublishAlias"] == "live"
    assert "SnapStart" not in make()["EchoFunction"]["Properties"]


def test_code_uri_is_relative_to_the_templates_folder(make_project, tmp_path):
    project = make_project({"echo": ECHO})
    found = build(load_project(project), tmp_path / "infra" / "sam")["Resources"]
    assert found["EchoFunction"]["Properties"]["CodeUri"] == os.path.join("..", "..", project.name)
    assert found["EchoFunction"]["Metadata"] == {"BuildMethod": "makefile", "ContextPath": "."}


def test_an_images_context_is_the_folder_that_build_writes(make):
    function = make({"package_type": "Image"})["EchoFunction"]
    assert function["Metadata"]["DockerContext"] == "dist/EchoFunction"
    assert function["Properties"]["ImageConfig"] == {"Command": ["dspy_lambda.main.lambda_handler"]}
    assert not {"Runtime", "Handler", "CodeUri"} & set(function["Properties"])
