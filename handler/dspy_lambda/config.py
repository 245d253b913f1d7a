"""`dspy.config.yaml` as validated models: dspy-cli's keys, and this project's `lambda` section."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from dspy_lambda.errors import ConfigError

CONFIG_FILE = "dspy.config.yaml"
# A blank ends a place in DSPY_LAMBDA_SECRETS.
_PARAMETER = (
    r"^(ssm:(arn:aws[a-z-]*:ssm:[a-z0-9-]+:[0-9]{12}:parameter)?"
    r"|secretsmanager:(arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:)?)"
    r"[A-Za-z0-9/_+=.@{}-]{1,512}(#[^#\s]+)?$"
)
_LONG_NAME = 20  # characters, as many as the shortest key: only such names are looked at


def _no_key(name: str) -> str:
    if _is_key(name):
        raise ValueError("looks like a key; write the name of the variable that holds it, such as OPENAI_API_KEY")
    return name


def _is_key(name: str) -> bool:
    if len(name) < _LONG_NAME:
        return False
    from dspy_lambda.key_shapes import is_key_for_name

    return is_key_for_name(name)


def _shown(name: str) -> str:
    """A name from the config as messages may have it."""
    return "..." if _is_key(name) else name


# A name and no key pasted into the wrong place, which would end up in messages, variables and ARNs.
_Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"), AfterValidator(_no_key)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Quota(_Section):
    """What the provider grants the account, over all processes; `dspy-lambda limits` holds the project against it."""

    parallel_requests: Annotated[int, Field(ge=1)] | None = None
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None


class ModelSettings(_Section):
    """One entry of `models.registry`: what `dspy.LM` is built from."""

    model: Annotated[str, Field(min_length=1)]
    env: _Variable | None = None
    api_key: SecretStr | None = None
    api_base: str | None = None
    model_type: Literal["chat", "text", "responses"] = "chat"
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    cache: bool = True
    # Of one process, over all of its programs; never handed to dspy.LM, which they would switch to LiteLLM.
    max_parallel_requests: Annotated[int, Field(ge=1)] | None = None
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    quota: Quota = Quota()


class Models(_Section):
    default: str
    registry: Annotated[dict[str, ModelSettings], Field(min_length=1)]


def _split(value: Any) -> Any:
    """A text of origins as dspy-cli takes it: "*", or several with commas between them."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Server(_Section):
    """Limits within one process.

    `sync_worker_threads` and `max_concurrent_per_program` default to 100 because one DSPy connection pool opens at
    most 100 connections. Measured, 100 sync records at 500 ms: 3.55 s with 16 threads, 2.03 with 32, 1.06 with 64,
    0.56 with 100, 0.56 with 200. Lambda allows 1,024 threads and processes, of which 700 are in use at most.
    """

    sync_worker_threads: Annotated[int, Field(ge=1, le=500)] = 100
    max_concurrent_per_program: Annotated[int, Field(ge=1)] = 100
    queue_timeout_seconds: Annotated[float, Field(ge=0)] = 5.0
    cors_origins: Annotated[list[str], BeforeValidator(_split)] = []


class Sqs(_Section):
    """A program's queue and event source mapping.

    Limits: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-parameters.html
    """

    batch_size: Annotated[int, Field(ge=1, le=10_000)] = 10
    window_seconds: Annotated[int, Field(ge=0, le=300)] = 0
    maximum_concurrency: Annotated[int, Field(ge=2, le=1000)] = 5
    # With the backoff below: survives an outage of 100 minutes, or of an hour and five receives for other reasons.
    max_receive_count: Annotated[int, Field(ge=1, le=1000)] = 20
    visibility_timeout_seconds: Annotated[int, Field(ge=1, le=43_200)] | None = None  # 6 x timeout_seconds
    fifo: bool = False
    # When a failed record comes back: doubled with each receive; 0 leaves it to the visibility timeout.
    backoff_seconds: Annotated[int, Field(ge=0, le=43_200)] = 10
    backoff_max_seconds: Annotated[int, Field(ge=1, le=43_200)] = 900
    # Invalid records go to the dead-letter queue at once, with the reason; else after five runs, as program errors do.
    invalid_to_dead_letter_queue: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.fifo and self.batch_size > 10:
            raise ValueError("a FIFO queue's batch_size is at most 10")
        if self.fifo and self.window_seconds:
            raise ValueError("a FIFO queue has no window_seconds")
        if self.batch_size > 10 and self.window_seconds == 0:
            raise ValueError("a batch_size above 10 needs window_seconds of at least 1")
        return self


def _json(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("must be JSON: put quotes around dates, and leave out .inf and .nan") from None
    return value


class Schedule(_Section):
    expression: str
    inputs: Annotated[dict[str, Any], AfterValidator(_json)] = {}


class Deployment(_Section):
    """How calls move to a new version; an alarm of the rollout moves them all back.

    https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/automating-updates-to-serverless-apps.html
    """

    type: Literal[
        "Canary10Percent5Minutes",
        "Canary10Percent10Minutes",
        "Canary10Percent15Minutes",
        "Canary10Percent30Minutes",
        "Linear10PercentEvery1Minute",
        "Linear10PercentEvery2Minutes",
        "Linear10PercentEvery3Minutes",
        "Linear10PercentEvery10Minutes",
        "AllAtOnce",
    ] = "Canary10Percent5Minutes"


def _false_or_mapping(value: Any) -> Any:
    if value is not False and not isinstance(value, dict | Sqs):
        raise ValueError("write false, or a mapping such as {batch_size: 10}")
    return value


def _key_arn(value: str) -> str:
    if not re.fullmatch(r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+", value):
        raise ValueError(
            "must be a key's own ARN, arn:aws:kms:REGION:ACCOUNT:key/ID (`aws kms describe-key` shows it): IAM grants "
            "nothing on the ARN of an alias"
        )
    return value


Architecture = Literal["x86_64", "arm64"]
_KeyArn = Annotated[str, AfterValidator(_key_arn)]
# The template sets them, and its alarms and dashboard read the metrics under these names.
_METRIC_NAMES = ("POWERTOOLS_SERVICE_NAME", "POWERTOOLS_METRICS_NAMESPACE")


class FunctionSettings(_Section):
    """One program's function. Units are in the names; limits are Lambda's own quotas."""

    memory_mb: Annotated[int, Field(ge=128, le=10_240)] = 1024
    timeout_seconds: Annotated[int, Field(ge=1, le=900)] = 60
    architecture: Architecture | None = None  # `lambda.architecture`
    ephemeral_storage_mb: Annotated[int, Field(ge=512, le=10_240)] = 512
    snap_start: bool = False
    reserved_concurrency: Annotated[int, Field(ge=0)] | None = 10
    http: bool = True
    preconnect: bool = False  # open a connection to the provider during init
    environment: dict[_Variable, str] = {}
    secrets: list[_Variable] = []  # beyond its model's key
    # Of asynchronous invocations and schedules; what fails after that goes to the on-failure queue.
    retry_attempts: Annotated[int, Field(ge=0, le=2)] = 2
    maximum_event_age_seconds: Annotated[int, Field(ge=60, le=21_600)] = 21_600
    # The spend alarm: the estimated cost of a day's model calls.
    daily_cost_usd: Annotated[float, Field(gt=0)] | None = 10.0
    # The same on tokens, for models without a known price: input and output tokens of a day together.
    daily_tokens: Annotated[int, Field(ge=1)] | None = None
    sqs: Annotated[Literal[False] | Sqs, BeforeValidator(_false_or_mapping)] = False
    schedule: Schedule | None = None
    deployment: Deployment | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.environment:
            # https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime
            if name.startswith(("AWS_", "LAMBDA_", "_")):
                raise ValueError(f"environment: {name} is Lambda's own; take another name")
            if name in _METRIC_NAMES:
                raise ValueError(f"environment: {name} names the metrics that the alarms read; leave it out")
        return self


class Throttle(_Section):
    """Requests a second, and bursts above it, of each method (REST) or route (HTTP) by itself.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-request-throttling.html
    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-throttling.html
    """

    rate: Annotated[float, Field(gt=0)] = 50
    burst: Annotated[int, Field(ge=1)] = 100


class Api(_Section):
    kind: Literal["rest", "http", "url"] = "rest"
    auth: Literal["iam", "api_key", "jwt", "none"] = "iam"
    throttle: Throttle = Throttle()
    requests_per_day: Annotated[int, Field(ge=1)] | None = None  # of each API key
    # auth: jwt on kind http takes issuer and audience; on kind rest it is a Cognito user pool.
    issuer: Annotated[str, Field(pattern=r"^https://")] | None = None
    audience: list[str] = []
    user_pool_arn: Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:cognito-idp:")] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.auth == "api_key" and self.kind != "rest":
            raise ValueError("auth: api_key is of REST APIs only; take kind: rest, or auth: iam")
        if self.auth == "jwt":
            if self.kind == "url":
                raise ValueError("a function URL has no auth: jwt; take kind: http, or auth: iam")
            if self.kind == "http" and not (self.issuer and self.audience):
                raise ValueError("auth: jwt needs issuer (https://...) and audience ([...])")
            if self.kind == "rest" and not self.user_pool_arn:
                raise ValueError("auth: jwt on kind: rest needs user_pool_arn; other issuers need kind: http")
        return self


class Vpc(_Section):
    subnet_ids: Annotated[list[str], Field(min_length=1)]
    security_group_ids: Annotated[list[str], Field(min_length=1)]


class Lambda(_Section):
    """What becomes of the programs on AWS."""

    runtime: Literal["python3.11", "python3.12", "python3.13", "python3.14"] = "python3.13"
    architecture: Architecture = "x86_64"
    package_type: Literal["Zip", "Image"] = "Zip"
    api: Api = Api()
    # Variable -> ssm:NAME or secretsmanager:NAME (or an ARN), with #KEY for one key of a JSON secret.
    secrets: dict[_Variable, Annotated[str, Field(pattern=_PARAMETER)]] = {}
    log_retention_days: Literal[1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 3653] = 30
    tracing: Literal["xray", "otel"] | None = None
    account_concurrency: Annotated[int, Field(ge=10)] = 1000  # Lambda's quota in the account, if it was raised
    layers: list[Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:lambda:")]] = []
    kms_key_arn: _KeyArn | None = None
    secrets_kms_key_arns: list[_KeyArn] = []  # of secrets that are encrypted with keys of their own
    permissions_boundary_arn: Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:iam::(\d{12}|aws):policy/.+$")] | None = (
        None
    )
    vpc: Vpc | None = None
    alarms: bool = True
    defaults: FunctionSettings = FunctionSettings()
    programs: dict[str, FunctionSettings] = {}

    def function(self, program: str) -> FunctionSettings:
        """The settings of one program's function."""
        return self.programs.get(program, self.defaults)


class Config(_Section):
    """A whole `dspy.config.yaml`."""

    app_id: str = "dspy-app"
    description: str = ""
    models: Models
    program_models: dict[str, str] = {}
    server: Server = Server()
    lambda_: Annotated[Lambda, Field(alias="lambda")] = Lambda()

    def model_alias(self, program: str) -> str:
        """The alias of the model that a program is called with."""
        return self.program_models.get(program, self.models.default)


class _DuplicateKey(yaml.constructor.ConstructorError):
    """A mapping has a key twice."""


class _Loader(yaml.SafeLoader):
    """YAML's own loader lets the last of two equal keys win, silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise _DuplicateKey(None, None, f"the key {_shown(key.value)!r} stands there twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def load_config(project: Path) -> Config:
    """Read and check a project's config.

    Raises:
        ConfigError: naming the file, the key and what is allowed there.
    """
    path = project / CONFIG_FILE
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file. Set DSPY_LAMBDA_PROJECT (or --project) to the folder that holds {CONFIG_FILE}."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        # Scanner and parser say what they expected; the later stages quote the value, which may be a key.
        is_syntax = isinstance(error, yaml.scanner.ScannerError | yaml.parser.ParserError | _DuplicateKey)
        reason = getattr(error, "problem", None) if is_syntax else "an alias, tag or value that is not allowed here"
        raise ConfigError(f"{path}{line}: not YAML: {reason}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read: {type(error).__name__} in one of its values") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: must be a mapping with the key `models`, not {type(raw).__name__}.")
    try:
        config = Config.model_validate(_merge_program_settings(raw))
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {line}" for line in _explain(error))) from None
    _check_aliases(config, path)
    return config


def _merge_program_settings(raw: dict[Any, Any]) -> dict[Any, Any]:
    """Each of `lambda.programs` over `lambda.defaults`: mappings merge deeply, lists replace."""
    section = raw.get("lambda")
    if not isinstance(section, dict) or not isinstance(section.get("programs"), dict):
        return raw
    defaults = section.get("defaults") or {}
    programs = {name: _merge(defaults, settings) for name, settings in section["programs"].items()}
    return {**raw, "lambda": {**section, "programs": programs}}


def _merge(base: Any, over: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return {**base, **{key: _merge(base.get(key), value) for key, value in over.items()}}


def _check_aliases(config: Config, path: Path) -> None:
    known = ", ".join(map(_shown, config.models.registry))
    uses = {"models.default": config.models.default}
    uses |= {f"program_models.{program}": alias for program, alias in config.program_models.items()}
    for key, alias in uses.items():
        if alias not in config.models.registry:
            raise ConfigError(f"{path}: {key}: unknown model alias {_shown(alias)!r}; models.registry has: {known}.")


def _explain(error: ValidationError) -> list[str]:
    """One line for each misfit: key, what is wrong, what is allowed. Never the value: it may be a key."""
    lines = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        if "literal[False]" in item["loc"]:  # a mapping is not False, either: its own lines say what is wrong with it
            continue
        # Union members show up in the location as class names or literal[...]; they are no keys of the file.
        keys = [str(part) for part in item["loc"] if not _is_union_tag(part)]
        places = ".".join(map(_shown, keys))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown key; allowed here: {', '.join(_allowed(keys[:-1]))}"
        lines.append(f"{places or '(top level)'}: {message}")
    return lines


def _is_union_tag(part: str | int) -> bool:
    return isinstance(part, str) and (part == "Sqs" or part.startswith(("literal[", "function-")))


def _allowed(keys: list[str]) -> list[str]:
    """The keys that the section at this path takes."""
    section: Any = Config
    named: dict[str, type[_Section]] = {
        "schedule": Schedule,
        "deployment": Deployment,
        "sqs": Sqs,
        "quota": Quota,
        "vpc": Vpc,
    }
    mappings: dict[str, type[_Section]] = {"registry": ModelSettings, "programs": FunctionSettings}
    keys = list(keys)
    while keys:
        key = keys.pop(0)
        if key in mappings:
            section = mappings[key]
            keys = keys[1:]
        elif key in named:
            section = named[key]
        else:
            field = next((f for n, f in section.model_fields.items() if (f.alias or n) == key), None)
            section = field.annotation if field else section
    return [field.alias or name for name, field in section.model_fields.items()]
