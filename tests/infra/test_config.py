import re
import textwrap
from pathlib import Path

import pytest

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.config import load_config
from tests.conftest import QUICKSTART

VALID = """
models:
  default: fast
  registry:
    fast: {model: openai/gpt-4.1-nano, env: OPENAI_API_KEY}
"""


def load(tmp_path: Path, text: str):
    (tmp_path / "dspy.config.yaml").write_text(textwrap.dedent(text))
    return load_config(tmp_path)


def test_the_quickstart_config_is_valid():
    config = load_config(QUICKSTART)
    assert config.model_alias("Triage") == "strong"
    assert config.model_alias("Answer") == "fast"
    assert config.lambda_.function("Perspectives").timeout_seconds == 120


def test_program_settings_merge_deeply_over_the_defaults(tmp_path):
    config = load(
        tmp_path,
        VALID
        + """
lambda:
  defaults: {memory_mb: 512, sqs: {batch_size: 5, maximum_concurrency: 7}}
  programs:
    A: {sqs: {batch_size: 9}}
    B: {sqs: false}
""",
    )
    a = config.lambda_.function("A")
    assert (a.memory_mb, a.sqs.batch_size, a.sqs.maximum_concurrency) == (512, 9, 7)
    assert config.lambda_.function("B").sqs is False
    assert config.lambda_.function("C").sqs.batch_size == 5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1, 2]", ["must be a mapping"]),
        ("", ["must be a mapping"]),
        ("models: {default: [", [":1: not YAML"]),
        ("models:\n  default: a\n\tregistry: b", [":3: not YAML"]),
        ("models: {default: fast, registry: {}}", ["models.registry"]),
        ("models: {registry: {fast: {model: m}}}", ["models.default", "Field required"]),
        ("models: {default: slow, registry: {fast: {model: m}}}", ["models.default", "'slow'", "has: fast"]),
        (VALID + "program_models: {A: slow}", ["program_models.A", "unknown model alias 'slow'", "has: fast"]),
        (VALID + "modles: {}", ["modles: unknown key", "models", "program_models", "lambda"]),
        (VALID + "server: {threads: 3}", ["server.threads: unknown key", "sync_worker_threads"]),
        (VALID + "server: {sync_worker_threads: 0}", ["server.sync_worker_threads", "greater than or equal to 1"]),
        (VALID + "lambda: {architecture: mips}", ["lambda.architecture", "'x86_64' or 'arm64'"]),
        (VALID + "lambda: {defaults: {memory: 1}}", ["lambda.defaults.memory: unknown key", "memory_mb"]),
        (VALID + "lambda: {programs: {A: {timeout_seconds: 901}}}", ["lambda.programs.A.timeout_seconds", "900"]),
        (
            VALID + "lambda: {programs: {A: {sqs: {batch: 1}}}}",
            ["lambda.programs.A.sqs.batch: unknown key", "batch_size"],
        ),
        (VALID + "lambda: {defaults: {sqs: true}}", ["lambda.defaults.sqs", "write false, or a mapping"]),
        (VALID + "lambda: {defaults: {schedule: {rate: 1}}}", ["lambda.defaults.schedule.rate: unknown", "expression"]),
        (VALID + "lambda: {api: {kind: soap}}", ["lambda.api.kind", "'rest', 'http' or 'url'"]),
    ],
)
def test_an_invalid_config_error_names_file_key_and_allowed_values(tmp_path, text, says):
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    for part in ["dspy.config.yaml", *says]:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("sqs", "says"),
    [
        ("", "lambda.defaults.sqs: write false, or a mapping such as {batch_size: 10}"),
        ("5", "lambda.defaults.sqs: write false, or a mapping such as {batch_size: 10}"),
        ("{batch: 1}", "lambda.defaults.sqs.batch: unknown key; allowed here: batch_size, window_seconds, "),
        ("{batch_size: 0}", "lambda.defaults.sqs.batch_size: Input should be greater than or equal to 1"),
        ("{fifo: true, batch_size: 11}", "lambda.defaults.sqs: a FIFO queue's batch_size is at most 10"),
    ],
)
def test_an_invalid_queue_setting_is_reported_in_one_line(tmp_path, sqs, says):
    with pytest.raises(ConfigError) as error:
        load(tmp_path, f"{VALID}lambda:\n  defaults:\n    sqs: {sqs}\n")
    (line,) = str(error.value).splitlines()
    assert f"dspy.config.yaml: {says}" in line


def test_a_missing_config_says_how_to_name_the_folder(tmp_path):
    with pytest.raises(ConfigError, match="DSPY_LAMBDA_PROJECT"):
        load_config(tmp_path)


def test_a_binary_config_file_is_a_config_error(tmp_path):
    (tmp_path / "dspy.config.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"cannot be read|not YAML"):
        load_config(tmp_path)


def test_a_literal_key_is_never_repeated(tmp_path):
    text = "models: {default: fast, registry: {fast: {model: m, api_key: sk-secret, api_base: [sk-secret]}}}"
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    assert "sk-secret" not in str(error.value)
    config = load(tmp_path, "models: {default: fast, registry: {fast: {model: m, api_key: sk-secret}}}")
    assert "sk-secret" not in repr(config)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (VALID + "server: {}\nserver: {}\n", ["duplicate key 'server'", ":7"]),
        ("models: {default: fast, registry: {fast: {model: m, api_key: *sk-secret}}}", ["not YAML"]),
        ("models: {default: fast, registry: {fast: {model: m, env: sk-secret}}}", ["models.registry.fast.env"]),
        ("models: {default: fast, registry: {fast: {model: m, max_tokens: 2024-13-45}}}", ["cannot be read"]),
        (VALID + "lambda: {defaults: {sqs: {fifo: true, batch_size: 11}}}", ["at most 10"]),
        (VALID + "lambda: {defaults: {sqs: {batch_size: 11}}}", ["requires window_seconds"]),
        (VALID + "description: " + "[" * 5000, ["dspy.config.yaml"]),
    ],
)
def test_mistakes_that_yaml_would_accept_are_refused(tmp_path, text, says):
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    for part in says:
        assert part in str(error.value)
    assert "sk-secret" not in str(error.value)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('"*"', ["*"]),
        ("https://a.example, https://b.example", ["https://a.example", "https://b.example"]),
        ('["*"]', ["*"]),
    ],
)
def test_cors_origins_can_be_a_string_as_in_dspy_cli(tmp_path, written, read):
    assert load(tmp_path, f"{VALID}server:\n  cors_origins: {written}\n").server.cors_origins == read


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1e999"])
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("lambda: {api: {throttle: {rate: HERE}}}", "lambda.api.throttle.rate"),
        ("lambda: {defaults: {daily_cost_usd: HERE}}", "lambda.defaults.daily_cost_usd"),
        ("server: {queue_timeout_seconds: HERE}", "server.queue_timeout_seconds"),
        ("lambda: {defaults: {memory_mb: HERE}}", "lambda.defaults.memory_mb"),
    ],
)
def test_a_number_that_is_not_finite_is_refused(tmp_path, text, place, value):
    with pytest.raises(ConfigError, match=re.escape(place)):
        load(tmp_path, VALID + text.replace("HERE", value))


@pytest.mark.parametrize("value", [".inf", "{a: [.nan]}", "2026-01-01"])
def test_a_schedules_inputs_must_be_json(tmp_path, value):
    with pytest.raises(ConfigError, match=r"lambda\.defaults\.schedule\.inputs: must be JSON"):
        load(
            tmp_path, VALID + f"lambda: {{defaults: {{schedule: {{expression: rate(1 day), inputs: {{a: {value}}}}}}}}}"
        )


ARN = "arn:aws:secretsmanager:eu-central-1:999999999999:secret:team/openai-AbCdEf"


@pytest.mark.parametrize(
    "place",
    [
        "ssm:/a/{stage}/KEY",
        "secretsmanager:app/x@y#api_key",
        f"secretsmanager:{ARN}",
        f"secretsmanager:{ARN}#api-key",
        "ssm:arn:aws-us-gov:ssm:us-gov-west-1:999999999999:parameter/a/b",
    ],
)
def test_supported_secret_locations_are_accepted(tmp_path, place):
    config = load(tmp_path, VALID + f"lambda: {{secrets: {{KEY: '{place}'}}}}")
    assert config.lambda_.secrets == {"KEY": place}


@pytest.mark.parametrize(
    "place",
    ["secretsmanager:x#api key", "secretsmanager:x#\u00a0", f"ssm:{ARN}", "ssm:a b", "ssm:a:b", "vault:x", "ssm:"],
)
def test_invalid_secret_locations_are_refused(tmp_path, place):
    with pytest.raises(ConfigError, match=r"lambda\.secrets\.KEY"):
        load(tmp_path, VALID + f'lambda: {{secrets: {{KEY: "{place}"}}}}')


# Concatenated, so that scanners do not report this file.
PASTED = ["gsk_" + "aB3d" * 13, "hf_" + "aB" * 17, "AKIA" + "ABCD1234EFGH5678", "a1b2c3d4" * 5, "sk_live_" + "a1B2" * 6]


@pytest.mark.parametrize("key", PASTED)
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("models: {default: fast, registry: {fast: {model: m, env: HERE}}}", "models.registry.fast.env"),
        (VALID + "lambda: {secrets: {HERE: 'ssm:/a'}}", "lambda.secrets"),
        (VALID + "lambda: {secrets: {HERE: 'vault:/a'}}", "lambda.secrets"),
        (VALID + "lambda: {defaults: {secrets: [HERE]}}", "lambda.defaults.secrets.0"),
        (VALID + "lambda: {programs: {A: {environment: {HERE: x}}}}", "lambda.programs.A.environment"),
        (VALID + "server: {HERE: 1}", "server"),
        (VALID + "program_models: {A: HERE}", "program_models.A"),
        (VALID + "app_id: a\nHERE: 1\nHERE: 2", "duplicate key"),
    ],
)
def test_a_key_in_place_of_a_name_is_refused_and_not_repeated(tmp_path, key, text, place):
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text.replace("HERE", key))
    assert place in str(error.value)
    assert key not in str(error.value)


@pytest.mark.parametrize("name", ["MY_COMPANY_OPENAI_API_KEY_2", "hf_inference_endpoint_token", "A" * 64, "GSK_TOKEN"])
def test_long_variable_names_are_accepted(tmp_path, name):
    config = load(tmp_path, f"models: {{default: fast, registry: {{fast: {{model: m, env: {name}}}}}}}")
    assert config.models.registry["fast"].env == name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("models: {default: a, registry: {function-call: {model: m, nope: 1}}}", "registry.function-call.nope"),
        ("models: {default: a, registry: {'literal[a]': {model: m, cache: x}}}", "registry.literal[a].cache"),
        (VALID + "lambda: {programs: {Sqs: {nope: 1}}}", "lambda.programs.Sqs.nope"),
        (VALID + "lambda: {defaults: {sqs: {nope: 1}}}", "lambda.defaults.sqs.nope"),
    ],
)  # fmt: skip
def test_a_name_that_looks_like_a_type_is_in_its_errors_place(tmp_path, text, says):
    (tmp_path / "dspy.config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(says)):
        load_config(tmp_path)


@pytest.mark.parametrize("name", ["DSPY_LAMBDA_API_BASE", "AWS_SECRET_ACCESS_KEY"])
def test_a_variable_that_is_read_before_secrets_cannot_be_one(tmp_path, name):
    (tmp_path / "dspy.config.yaml").write_text(VALID + f"lambda: {{defaults: {{secrets: [{name}]}}}}")
    with pytest.raises(ConfigError, match=f"secrets: {name} is read before secrets are"):
        load_config(tmp_path)


def test_an_anchor_that_holds_itself_is_a_config_error(tmp_path):
    text = "lambda: {defaults: &d {environment: *d}, programs: {Echo: *d}}"
    (tmp_path / "dspy.config.yaml").write_text(VALID + text)
    with pytest.raises(ConfigError, match="an anchor holds an alias of itself"):
        load_config(tmp_path)
