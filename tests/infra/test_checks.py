import pytest
import yaml

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.checks import check
from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template.functions import reserved_total
from tests.conftest import QUICKSTART
from tests.infra.template.matrix import MATRIX
from tests.support import ECHO


@pytest.fixture
def refused(make_project):
    """Return the problems of a project with one program, given its `lambda` section and other config keys."""

    def refuse(settings, module=ECHO, **config):
        with pytest.raises(ConfigError) as error:
            check(load_project(make_project({"echo": module}, **{"lambda": settings}, **config)))
        return str(error.value)

    return refuse


def test_the_quickstart_and_all_matrix_configs_pass_the_checks(make_project):
    check(load_project(QUICKSTART))
    for settings, server in MATRIX.values():
        check(load_project(make_project({"echo": ECHO}, server=server, **{"lambda": settings})))


def test_maximum_concurrency_above_reserved_concurrency_is_refused(refused):
    says = refused({"defaults": {"sqs": {"maximum_concurrency": 11}}})
    assert "programs.Echo: sqs.maximum_concurrency: 11 is above reserved_concurrency 10" in says
    assert "raise reserved_concurrency to 11" in says


def test_a_maximum_concurrency_below_2_is_refused_by_the_config_itself(make_project):
    project = make_project({"echo": ECHO}, **{"lambda": {"defaults": {"sqs": {"maximum_concurrency": 1}}}})
    with pytest.raises(ConfigError, match="maximum_concurrency"):
        load_project(project)


@pytest.mark.parametrize("sqs", [{"batch_size": 11}, {"batch_size": 11, "window_seconds": 1, "fifo": True}])
def test_a_batch_that_lambda_would_refuse_is_refused_by_the_config_itself(make_project, sqs):
    with pytest.raises(ConfigError, match="batch_size"):
        load_project(make_project({"echo": ECHO}, **{"lambda": {"defaults": {"sqs": sqs}}}))


def test_the_batching_window_counts_toward_the_visibility_timeout(refused):
    sqs = {"batch_size": 20, "window_seconds": 300, "visibility_timeout_seconds": 60}
    assert "set 360" in refused({"defaults": {"timeout_seconds": 10, "sqs": sqs}})


def test_a_raised_account_quota_allows_more_reserved_concurrency(make_project):
    settings = {"account_concurrency": 3000, "defaults": {"reserved_concurrency": 2000}}
    check(load_project(make_project({"echo": ECHO}, **{"lambda": settings})))


def test_a_program_that_cannot_be_loaded_is_refused(refused):
    assert "Echo" in refused({}, module="import nothing_of_that_name\n" + ECHO)


def test_a_visibility_timeout_shorter_than_processing_is_refused(refused):
    says = refused({"defaults": {"timeout_seconds": 50, "sqs": {"visibility_timeout_seconds": 299}}})
    assert "299 is below 6 x timeout_seconds" in says
    assert "set 300" in says


def registry(model):
    return {"default": "fast", "registry": {"fast": {"model": model, "env": "FAST_KEY"}}}


def test_a_description_over_cloudformations_limit_is_refused(refused):
    assert "description: has 1,026 bytes" in refused({}, description="ü" * 513)


@pytest.mark.parametrize(
    "environment",
    [
        {"FAST_KEY": "planted"},
        {"HEADER": "sk-planted-planted-planted"},
        {"HEADER": "Authorization: Bearer sk-planted-planted-planted"},
        {"ACCOUNT": '{"key": "gsk_' + 'plantedplantedplanted"}'},
        {"PEM": "-----BEGIN planted"},
    ],
)
def test_a_key_among_the_variables_is_refused_and_not_shown(refused, environment):
    (name,) = environment
    says = refused({"defaults": {"environment": environment}}, models=registry("openai/gpt-4.1-nano"))
    assert f"environment.{name}: looks like a key" in says
    assert f"secrets: [{name}]" in says
    assert "planted" not in says


PLANTED = "sk-planted-planted-planted"


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"description": f"Call it with {PLANTED}."}, "description"),
        ({"server": {"cors_origins": [f"https://a.example/{PLANTED}"]}}, "server.cors_origins"),
        ({"models": {"api_base": f"https://a.example/{PLANTED}/v1"}}, "models.registry.fast.api_base"),
        ({"models": {"api_base": f"https://a.example/v1?key={PLANTED}"}}, "models.registry.fast.api_base"),
        ({"models": {"api_base": "https://a.example/a-key-without-a-shape"}}, "models.registry.fast.api_base"),
        (
            {"lambda": {"defaults": {"schedule": {"expression": "rate(1 hour)", "inputs": {"q": {"a": [PLANTED]}}}}}},
            "lambda.defaults.schedule.inputs.q.a",
        ),
        (
            {"lambda": {"defaults": {"schedule": {"expression": "rate(1 hour)", "inputs": {PLANTED: 1}}}}},
            "lambda.defaults.schedule.inputs....",
        ),
        (
            {"lambda": {"defaults": {"environment": {"URL": "https://a-key-without-a-shape@a.example"}}}},
            "lambda.defaults.environment.URL",
        ),
        ({"lambda": {"secrets": {"FAST_KEY": f"ssm:/{PLANTED}"}}}, "lambda.secrets.FAST_KEY"),
    ],
)
def test_a_key_anywhere_in_the_config_is_refused_and_not_shown(refused, monkeypatch, config, place):
    monkeypatch.setenv("FAST_KEY", "a-key-without-a-shape")
    config, models = dict(config), registry("openai/gpt-4.1-nano")
    models["registry"]["fast"] |= config.pop("models", {})
    settings = config.pop("lambda", {})
    says = refused(settings, **{**config, "models": models})
    assert f"{place}: contains a key" in says
    assert PLANTED not in says
    assert "a-key-without-a-shape" not in says


@pytest.mark.parametrize("value", ["a-key-without-a-shape", PLANTED, f"https://a.example/?key={PLANTED}"])
def test_a_key_in_the_template_extra_file_is_refused_and_not_shown(make_project, monkeypatch, value):
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-without-a-shape")
    project = make_project({"echo": ECHO})
    extra = {"Resources": {"EchoFunction": {"Properties": {"Environment": {"Variables": {"A": value}}}}}}
    (project / "template.extra.yaml").write_text(yaml.safe_dump(extra))
    with pytest.raises(ConfigError) as raised:
        check(load_project(project))
    place = f"{project}/template.extra.yaml: Resources.EchoFunction.Properties.Environment.Variables.A: contains a key"
    assert str(raised.value).startswith(place)
    assert value not in str(raised.value)


@pytest.mark.parametrize(
    "environment", [{"MAX_TOKENS": "5"}, {"FAST_KEY": ""}, {"MODE": "sk-learn"}, {"DB_SECRET": "a/name"}]
)
def test_values_that_only_resemble_keys_are_accepted(make_project, environment):
    check(load_project(make_project({"echo": ECHO}, **{"lambda": {"defaults": {"environment": environment}}})))


def test_the_location_of_a_secret_is_not_taken_for_a_key(make_project, monkeypatch):
    monkeypatch.setenv("DB_SECRET", "my-app/prod/openai")
    settings = {"secrets": {"OPENAI_API_KEY": "secretsmanager:my-app/prod/openai"}}
    check(load_project(make_project({"echo": ECHO}, **{"lambda": settings})))


def test_variables_over_lambdas_size_limit_are_refused(refused, make_project):
    """The template's own variables count: about 500 bytes here."""
    assert "environment: the function's variables take up to 4," in refused(
        {"defaults": {"environment": {"A": "x" * 3900}}}
    )
    check(load_project(make_project({"echo": ECHO}, **{"lambda": {"defaults": {"environment": {"A": "x" * 3000}}}})))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("DSPY_LAMBDA_IDLE_SECONDS", "50s", "must be a whole number, not '50s'"),
        ("DSPY_LAMBDA_FAST", "maybe", "must be true or false"),
        ("DSPY_LAMBDA_EXCEPTION_TEXTS", "all", "must be one of none, log, answer"),
        ("DSPY_LAMBDA_SOURCES", "http,smtp", "unknown source 'smtp'"),
    ],
)
def test_a_setting_that_the_handler_would_refuse_at_init(refused, name, value, says):
    assert f"programs.Echo: environment.{name}: {says}" in refused({"defaults": {"environment": {name: value}}})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"defaults": {"snap_start": True, "ephemeral_storage_mb": 513}}, "ephemeral_storage_mb: 512"),
        ({"defaults": {"snap_start": True}, "runtime": "python3.11"}, "python3.13"),
        ({"defaults": {"snap_start": True}, "package_type": "Image"}, "package_type: Zip"),
        ({"tracing": "otel"}, "lambda.layers"),
        ({"package_type": "Image", "layers": ["arn:aws:lambda:us-east-1:1:layer:x:1"]}, "do not support layers"),
    ],
)
def test_settings_that_lambda_cannot_combine_are_refused(refused, settings, says):
    assert says in refused(settings)


@pytest.mark.parametrize(("base", "is_refused"), [("http://127.0.0.1:8000/v1", False), ("http://localhost/v1", False)])
def test_a_literal_key_is_allowed_for_a_local_model_server(make_project, base, is_refused):
    registry = {"fast": {"model": "openai/a", "api_key": "unused", "api_base": base}}
    check(load_project(make_project({"echo": ECHO}, models={"default": "fast", "registry": registry})))


@pytest.mark.parametrize(
    "base", [None, "https://api.example.com/v1", "http://127.0.0.1.example.com", "http://10.0.0.1"]
)
def test_a_literal_key_for_any_other_server_is_refused_and_not_shown(refused, base):
    registry = {"fast": {"model": "openai/a", "api_key": "sk-planted", "api_base": base}}
    says = refused({}, models={"default": "fast", "registry": registry})
    assert "models.registry.fast.api_key" in says
    assert "FAST_API_KEY" in says
    assert "sk-planted" not in says


def test_reserving_the_accounts_last_100_is_refused(make_project):
    project = load_project(make_project({"echo": ECHO}, **{"lambda": {"defaults": {"reserved_concurrency": 896}}}))
    assert reserved_total(project) == 901
    with pytest.raises(ConfigError, match="reserve 901 in total, and an account with 1000 must keep 100"):
        check(project)
    check(project, concurrency=1001)
    check(project, concurrency=0)  # nothing is reserved


@pytest.mark.parametrize("app_id", ["", "ä", "a b", "x" * 65, "-a", "1a", "aws-app", "SSM"])
def test_an_app_id_that_aws_does_not_allow_is_refused(refused, app_id):
    assert "app_id" in refused({}, app_id=app_id)


def test_a_program_name_that_aws_does_not_allow_is_refused(refused):
    assert "rename the class" in refused({}, module=ECHO.replace("class Echo", "class Übung"))


def test_held_debug_lines_that_lambda_would_drop_are_refused(refused):
    says = refused({"log_level": "WARN", "defaults": {"telemetry": {"buffer_debug_logs": True}}})
    assert "Lambda drops all debug lines at lambda.log_level: WARN" in says
