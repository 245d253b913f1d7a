import pytest

from dspy_lambda_infra.cli import main
from dspy_lambda_infra.config_warnings import config_warnings
from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.telemetry import is_private, telemetry_problems
from tests.infra.template.support import resources, variables
from tests.support import ECHO

LAYER = "arn:aws:lambda:us-east-1:123456789012:layer:aws-otel-python:1"
VPC = {"subnet_ids": ["subnet-1234abcd"], "security_group_ids": ["sg-1234abcd"]}
MASK = "print('masking')\nsize = 3\n\ndef hide(name, value):\n    return '...'\n"


@pytest.fixture
def load(make_project):
    """Return a project with one program, given its telemetry section, its other settings, and lambda's other keys."""

    def make(telemetry, settings=None, modules=None, **more):
        section = {**more, "defaults": {**(settings or {}), "telemetry": telemetry}}
        return load_project(make_project({"echo": ECHO, **(modules or {})}, **{"lambda": section}))

    return make


@pytest.fixture
def problems(load):
    return lambda *given, **more: telemetry_problems(project := load(*given, **more), project.functions["Echo"])


@pytest.fixture
def warnings(load):
    return lambda *given, **more: config_warnings(load(*given, **more))


def test_two_tracers_in_one_function_are_refused_with_what_to_remove(problems):
    (problem,) = problems({"traces": "cloudwatch"}, tracing="otel", layers=[LAYER])
    assert "remove lambda.tracing and its layer" in problem
    assert problems({}, tracing="otel", layers=[LAYER]) == []
    assert problems({"traces": "cloudwatch"}, tracing="xray") == []


@pytest.mark.parametrize(
    ("hook", "why"),
    [
        ("absent:hide", "cannot be imported (ModuleNotFoundError)"),
        ("PACKAGE.modules.masking:nothing", "cannot be imported (AttributeError)"),
        ("PACKAGE.modules.masking:size", "cannot be called"),
        ("PACKAGE.modules.masking:hide", None),
    ],
)
def test_a_masking_function_must_be_in_the_project(make_project, capsys, hook, why):
    root = make_project({"echo": ECHO, "masking": MASK})
    config = (root / "dspy.config.yaml").read_text()
    hook = hook.replace("PACKAGE", root.name)
    (root / "dspy.config.yaml").write_text(f"{config}\ntelemetry: {{payloads: masked, mask_with: '{hook}'}}\n")
    status = main(["template", "--project", str(root), "--output", "-"])
    out, err = capsys.readouterr()
    assert "masking\n" not in out
    assert status == (2 if why else 0), err
    assert not why or f"programs.Echo: telemetry.mask_with: {hook} {why}" in err


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://127.0.0.1:4318", True),
        ("http://[::1]:4318", True),
        ("http://10.1.2.3", True),
        ("http://collector:4318", True),
        ("http://ip-10-0-0-1.eu-central-1.compute.internal:4318", True),
        ("http://8.8.8.8", False),
        ("http://collector.example", False),
    ],
)
def test_addresses_in_private_networks_are_recognized(address, expected):
    assert is_private(address) is expected


def test_clear_text_across_the_internet_is_named_with_what_would_cross(warnings):
    collector = "http://collector.example:4318"
    (warning,) = warnings({"traces": collector, "headers_env": "HEADERS", "payloads": "masked", "mask": ["email"]})
    assert "the headers with their keys and inputs, prompts and answers cross the internet as clear text" in warning
    (warning,) = warnings({"traces": collector})
    assert "the traces cross the internet as clear text; use https://" in warning
    assert warnings({"traces": "https://collector.example:4318"}) == []
    assert warnings({"traces": "http://10.0.0.5:4318", "headers_env": "HEADERS"}) == []


@pytest.mark.parametrize(
    ("traces", "way"),
    [
        ("cloudwatch", "the interface endpoint com.amazonaws.REGION.xray"),
        ("http://10.0.0.5:4318", "a route to 10.0.0.5"),
        ("none", None),
    ],
)
def test_a_function_in_a_vpc_needs_a_way_to_its_collector(warnings, traces, way):
    found = warnings({"traces": traces}, vpc=VPC)
    assert [warning for warning in found if "lambda.vpc" not in warning] == []
    assert len(found) == (way is not None)
    assert way is None or f"which needs {way}" in found[0]


def test_full_payloads_are_announced_with_where_they_will_be(warnings):
    (warning,) = warnings({"payloads": "full", "traces": "cloudwatch"}, log_retention_days=7)
    assert "10,000 bytes each, will be in the program's log group for 7 days and its traces" in warning
    (warning,) = warnings({"payloads": "full"})
    assert "for 30 days; masked" in warning


def test_masking_rules_that_nothing_uses_are_named(warnings):
    (warning,) = warnings({"payloads": "sizes", "mask": ["email"]})
    assert "telemetry.mask: has no effect with payloads: sizes" in warning
    assert warnings({"payloads": "masked", "mask": ["email"]}) == []


COLLECTOR = {"traces": "https://collector.example", "headers_env": "OTLP_HEADERS"}


def test_headers_are_a_secret_unless_the_environment_has_them(load, make_project):
    project = load(COLLECTOR, secrets={"OTLP_HEADERS": "secretsmanager:otlp#headers"})
    assert project.secrets(project.functions["Echo"])["OTLP_HEADERS"] == "secretsmanager:otlp#headers"
    settings = {"environment": {"OTLP_HEADERS": "x-mlflow-experiment-id=7"}, "telemetry": COLLECTOR}
    root = make_project({"echo": ECHO}, **{"lambda": {"defaults": settings}})
    found = variables(resources(root))
    assert found["OTLP_HEADERS"] == "x-mlflow-experiment-id=7"
    assert "OTLP_HEADERS" not in str(found["DSPY_LAMBDA_SECRETS"])
    (warning,) = config_warnings(load_project(root))
    assert "everyone with access to the function can read the collector's headers" in warning


@pytest.mark.parametrize(("reserved", "warned"), [(5, 1), (6, 0)])
def test_environments_that_still_send_traces_need_room(warnings, reserved, warned):
    own = {"sqs": {"maximum_concurrency": 5}, "reserved_concurrency": reserved, "http": False}
    found = warnings({"traces": "cloudwatch"}, own)
    assert sum("equals sqs.maximum_concurrency" in line for line in found) == warned
