"""What the handler validates in a config at a cold start: the parts that run, not those that describe the cloud."""

import textwrap

import pytest

from dspy_lambda.config import Config, load_config
from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.config import load_config as load_all

VALID = """
models:
  default: fast
  registry:
    fast: {model: openai/gpt-4.1-nano, env: OPENAI_API_KEY, quota: {parallel_requests: 5}}
"""
CLOUD = """
lambda:
  runtime: python3.12
  api: {kind: http, auth: none}
  vpc: {subnet_ids: [subnet-1], security_group_ids: [sg-1]}
  log_retention_days: 7
  alarms: false
  defaults: {memory_mb: 512, schedule: {expression: rate(1 hour)}, timeout_seconds: 30, sqs: {fifo: true}}
  programs:
    A: {deployment: {type: AllAtOnce}, timeout_seconds: 90, sqs: {backoff_seconds: 3}}
    B: {sqs: false}
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        (tmp_path / "dspy.config.yaml").write_text(textwrap.dedent(text))
        return tmp_path

    return write


def test_handler_and_infra_package_read_the_same_values(write):
    project = write(VALID + CLOUD)
    runs, whole = load_config(project), load_all(project)
    assert (runs.models.default, runs.server) == (whole.models.default, whole.server)
    for name in ("A", "B", "C"):
        ours, theirs = runs.lambda_.function(name), whole.lambda_.function(name)
        assert ours.timeout_seconds == theirs.timeout_seconds
        assert bool(ours.sqs) == bool(theirs.sqs)
        if ours.sqs:
            assert ours.sqs.model_dump().items() <= theirs.sqs.model_dump().items()
    assert runs.lambda_.function("A").sqs.backoff_seconds == 3
    assert runs.lambda_.function("C").timeout_seconds == 30


@pytest.mark.parametrize(
    "cloud",
    [
        "lambda: {runtime: python9.9}",
        "lambda: {api: {kind: carrier-pigeon}}",
        "lambda: {a_key_of_a_newer_release: 1}",
        "lambda: {defaults: {memory_mb: lots, a_newer_key: 1}}",
        "lambda: {programs: {A: {sqs: {maximum_concurrency: many}}}}",
    ],
)
def test_the_handler_ignores_keys_that_only_describe_the_cloud(write, cloud):
    project = write(VALID + cloud)
    assert load_config(project).models.default == "fast"
    with pytest.raises(ConfigError, match=r"dspy.config.yaml: lambda\."):
        load_all(project)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "server: {sync_worker_thread: 1}",
            "server.sync_worker_thread: unknown key; allowed here: sync_worker_threads",
        ),
        ("server: {sync_worker_threads: 0}", "server.sync_worker_threads: Input should be greater than or equal to 1"),
        ("lambda: {defaults: {timeout_seconds: 0}}", "lambda.defaults.timeout_seconds: Input should be"),
        ("lambda: {programs: {A: {sqs: true}}}", "lambda.programs.A.sqs: write false, or a mapping"),
        ("lambda: {programs: {A: {sqs: {backoff_seconds: -1}}}}", "lambda.programs.A.sqs.backoff_seconds: Input"),
        ("program_models: {A: slow}", "program_models.A: unknown model alias 'slow'; models.registry has: fast"),
    ],
)
def test_handler_and_infra_package_refuse_a_config_with_the_same_message(write, text, says):
    project = write(VALID + text)
    with pytest.raises(ConfigError) as ours:
        load_config(project)
    with pytest.raises(ConfigError) as theirs:
        load_all(project)
    assert says in str(ours.value)
    assert str(ours.value) == str(theirs.value)


def test_a_programs_aliases_are_its_own_its_predictors_and_their_fallbacks_once_each():
    registry = {
        "a": {"model": "openai/a", "fallback": ["c", "d"]},
        "b": {"model": "openai/b", "fallback": ["d"]},
        "c": {"model": "openai/c", "fallback": ["e"]},
        **{alias: {"model": f"openai/{alias}"} for alias in "deu"},
    }
    config = Config.model_validate(
        {
            "models": {"default": "a", "registry": registry},
            "program_models": {"Other": "u"},
            "predictor_models": {"Echo": {"first": "b", "second": "a"}},
        }
    )
    assert config.aliases_of("Echo") == ["a", "b", "c", "d", "e"]
    assert config.aliases_of("Other") == ["u"]
