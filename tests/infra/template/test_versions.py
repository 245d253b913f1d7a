import pytest
import yaml

from dspy_lambda_infra.deploy.translate import translate
from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template import render
from dspy_lambda_infra.template.extra import EXTRA_FILE
from tests.support import ECHO

KEY = "arn:aws:kms:us-east-1:123456789012:key/1111"
LAYER = "arn:aws:lambda:us-east-1:123456789012:layer:a:1"
NO_KEY = {"models": {"default": "fast", "registry": {"fast": {"model": "openai/a"}}}}


@pytest.fixture
def version(make_project):
    """Return the logical id and description of the version of a function with an alias.

    SAM publishes one when the logical id changes; CloudFormation replaces one whose description changes, and so
    publishes another.
    """

    def find(extra=None, config=None, defaults=None, **settings):
        settings["defaults"] = {"snap_start": True, **(defaults or {})}
        root = make_project({"echo": ECHO}, app_id="app", **{"lambda": settings}, **(config or {}))
        (root / EXTRA_FILE).write_text(yaml.safe_dump(extra))
        text = render(load_project(root), root).replace(root.name, "project")  # the test's folder and module
        found = translate(text, {})["Resources"]
        ((name, properties),) = (
            (name, r["Properties"]) for name, r in found.items() if r["Type"] == "AWS::Lambda::Version"
        )
        return name, properties["Description"]

    return find


@pytest.mark.parametrize("defaults", [{"deployment": {}}, {"snap_start": True}])
def test_rotating_secrets_publishes_a_version_of_functions_with_secrets(version, defaults):
    """A parameter's value is not part of the function's text, which SAM compares."""
    assert "${SecretsVersion}" in version(defaults=defaults)[1]["Fn::Sub"]
    assert "Secrets" not in str(version(defaults=defaults, config=NO_KEY)[1])


@pytest.mark.parametrize(
    "change",
    [
        {"defaults": {"reserved_concurrency": 3}},
        {"extra": {"Globals": {"Function": {"Tags": {"team": "a"}}}}},
        {"extra": {"Resources": {"EchoFunction": {"Properties": {"Tags": {"team": "a"}}}}}},
        {"log_retention_days": 7},
        {"defaults": {"architecture": "x86_64"}},
        {"defaults": {"sqs": {"batch_size": 5, "maximum_concurrency": 2}, "retry_attempts": 0}},
    ],
    ids=str,
)
def test_settings_outside_versions_publish_no_version(version, change):
    before = {"defaults": {"sqs": {}}} if "sqs" in change.get("defaults", {}) else {}
    assert version(**change) == version(**before)


@pytest.mark.parametrize(
    "change",
    [
        {"defaults": {"timeout_seconds": 50}},
        {"defaults": {"memory_mb": 512}},
        {"defaults": {"environment": {"LEVEL": "high"}}},
        {"defaults": {"architecture": "arm64"}},
        {"architecture": "arm64"},
        {"runtime": "python3.12"},
        {"layers": [LAYER]},
        {"tracing": "xray"},
        {"kms_key_arn": KEY},
        {"vpc": {"subnet_ids": ["subnet-1"], "security_group_ids": ["sg-1"]}},
        {"extra": {"Globals": {"Function": {"Layers": [LAYER]}}}},
        {"extra": {"Resources": {"EchoFunction": {"Properties": {"Timeout": 50}}}}},
    ],
    ids=str,
)
def test_settings_within_versions_publish_a_version(version, change):
    assert version(**change) != version()
