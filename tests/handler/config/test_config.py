"""What the handler validates in a config at a cold start: the parts that run, not those that describe the cloud."""

import textwrap

import pytest
import yaml

from dspy_lambda.config import load_config
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


BEDROCK = """
models:
  default: a
  registry:
    a: {{model: "{model}", {keys}}}
    b: {{model: openai/b, api_key: k}}
"""


@pytest.mark.parametrize(
    ("model", "keys", "says"),
    [
        ("openai/x", "region: eu-west-1", "region is for models on Amazon Bedrock"),
        ("openai/x", "guardrail: {id: a1, version: 1}", "guardrail is for models on Amazon Bedrock"),
        ("bedrock-chat:x", "door: converse", "this one names its door already"),
        ("bedrock-chat:x", "guardrail: {id: a1, version: 1}", "the chat door would ignore it"),
        ("bedrock/x", "door: mantle-chat, guardrail: {id: a1, version: DRAFT}", "the mantle-chat door would ignore it"),
        ("bedrock/x", "guardrail: {id: A!, version: 1}", r"guardrail\.id: String should match"),
        ("bedrock/x", "guardrail: {id: a1, version: 0}", r"guardrail\.version: String should match"),
        ("bedrock/x", "region: Frankfurt", "region: String should match"),
        ("bedrock-chat/x", "cache: true", "write bedrock-chat:x"),
        ("bedrock_mantle_chat/x", "cache: true", "write bedrock_mantle_chat:x"),
        ("bedrock:x", "cache: true", "write bedrock/x"),
        ("bedrock/", "cache: true", "write bedrock/ID"),
        ("openai/x", "fallback: [c]", r"fallback\.0: unknown model alias 'c'"),
        ("openai/x", "fallback: [b, a]", r"a\.fallback: falls back to itself: a -> a"),
        ("openai/x", "timeout_share: 0.5", "timeout_share needs a fallback"),
        ("openai/x", "fallback: [b], fallback_on: [rain]", "'rate_limit', 'outage'"),
        ("openai/x", "price: {input_per_million: -1, output_per_million: 1}", "greater than or equal to 0"),
    ],
)
def test_mistakes_about_a_model_are_errors_at_load(write, model, keys, says):
    with pytest.raises(ConfigError, match=says):
        load_config(write(BEDROCK.format(model=model, keys=keys)))


def test_a_cycle_of_fallbacks_is_named_with_its_way(write):
    registry = ", ".join(f"{a}: {{model: openai/{a}, fallback: [{b}]}}" for a, b in ("ab", "bc", "ca"))
    with pytest.raises(ConfigError, match=r"a\.fallback: falls back to itself: a -> b -> c -> a"):
        load_config(write(f"models: {{default: a, registry: {{{registry}}}}}"))


@pytest.mark.parametrize(
    ("model", "keys", "served_as"),
    [
        ("bedrock/amazon.nova-lite-v1:0", "cache: true", "bedrock/converse/amazon.nova-lite-v1:0"),
        ("bedrock/openai.gpt-oss-20b-1:0", "cache: true", "bedrock-chat:openai.gpt-oss-20b-1:0"),
        (
            "bedrock/openai.gpt-oss-20b-1:0",
            "guardrail: {id: a1, version: 2}",
            "bedrock/converse/openai.gpt-oss-20b-1:0",
        ),
        ("bedrock/openai.gpt-oss-20b", "door: mantle-chat", "bedrock-mantle-chat:openai.gpt-oss-20b"),
        ("bedrock/anthropic.claude-opus-4-7", "door: anthropic", "bedrock-anthropic:anthropic.claude-opus-4-7"),
        ("bedrock-chat:x", "cache: true", "bedrock-chat:x"),
        ("openai/x", "cache: true", "openai/x"),
    ],
)
def test_a_bedrock_model_chooses_its_door_by_id_unless_told_otherwise(write, model, keys, served_as):
    config = load_config(write(BEDROCK.format(model=model, keys=keys)))
    assert config.models.registry["a"].served_as == served_as


def test_a_programs_aliases_are_its_models_its_predictors_and_their_fallbacks(tmp_path):
    registry = {
        "a": {"model": "openai/a", "fallback": ["b"]},
        "b": {"model": "openai/b", "fallback": ["c"]},
        "c": {"model": "openai/c"},
        "d": {"model": "openai/d", "fallback": ["c"]},
        "e": {"model": "openai/e"},
    }
    settings = {"models": {"default": "a", "registry": registry}, "program_models": {"Other": "e"}}
    (tmp_path / "dspy.config.yaml").write_text(
        yaml.safe_dump({**settings, "predictor_models": {"Other": {"predict": "d"}}})
    )
    config = load_config(tmp_path)
    assert config.aliases_of("Team") == ["a", "b"]
    assert config.aliases_of("Other") == ["e", "d", "c"]
    assert config.aliases_of("Other", ["b", "e"]) == ["e", "d", "b", "c"]


TIERS = """
models:
  default: cheap
  registry:
    cheap: {model: openai/a, env: A, fallback: [mid, pro]}
    mid: {model: openai/b, env: B, adapter: json, fallback: [other]}
    pro: {model: openai/c, env: C}
    other: {model: openai/d, env: D}
program_models: {Two: mid}
predictor_models: {One: {search: cheap, write: pro}, Three: {write: pro, search: mid}}
program_adapters: {Three: xml}
"""


@pytest.mark.parametrize(
    ("program", "aliases", "adapter"),
    [
        ("Any", ["cheap", "mid", "pro"], None),
        ("One", ["cheap", "pro", "mid"], None),
        ("Two", ["mid", "other"], "json"),
        ("Three", ["cheap", "pro", "mid", "other"], "xml"),
    ],
)
def test_a_programs_aliases_and_adapter_come_from_the_config(write, program, aliases, adapter):
    config = load_config(write(TIERS))
    assert (config.aliases_of(program), config.adapter_name(program)) == (aliases, adapter)


@pytest.mark.parametrize(
    ("keys", "is_refused"),
    [
        ("", True),
        ("fallback_on: [rate_limit, content_filter]", True),
        ("fallback_on: [rate_limit]", False),
    ],
)
def test_what_a_guardrail_stops_is_not_answered_by_a_fallback_without_one(write, keys, is_refused):
    guarded = "{model: bedrock/a, guardrail: {id: a1, version: 1}, fallback: [b], " + keys + "}"
    config = f"models: {{default: a, registry: {{a: {guarded}, b: {{model: bedrock/b}}}}}}"
    if is_refused:
        with pytest.raises(ConfigError, match=r"a\.fallback: what the guardrail stops would be answered by 'b'"):
            load_config(write(config))
    else:
        assert load_config(write(config)).models.registry["a"].fallback == ["b"]
