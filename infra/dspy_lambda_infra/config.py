"""The whole `dspy.config.yaml`: what runs (the handler validates this part too), and what describes the cloud.

Some inherited keys are repeated here to keep the order in which messages list the keys.
"""

from __future__ import annotations

# ruff: noqa: RUF012 - pydantic copies defaults
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from dspy_lambda.config import schema
from dspy_lambda.config.file import CONFIG_FILE, load_as
from dspy_lambda.config.names import Variable
from dspy_lambda.config.schema import Section
from dspy_lambda.config.telemetry import Telemetry
from dspy_lambda.settings import PREFIX

__all__ = ["CONFIG_FILE", "Config", "FunctionSettings", "ModelSettings", "Sqs", "load_config"]
# Whitespace separates locations in DSPY_LAMBDA_SECRETS.
_PARAMETER = (
    r"^(ssm:(arn:aws[a-z-]*:ssm:[a-z0-9-]+:[0-9]{12}:parameter)?"
    r"|secretsmanager:(arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:)?)"
    r"[A-Za-z0-9/_+=.@{}-]{1,512}(#[^#\s]+)?$"
)


class Quota(Section):
    """The account's quota at the provider, across all processes; `dspy-lambda limits` checks the project against it."""

    parallel_requests: Annotated[int, Field(ge=1)] | None = None
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None


class ModelSettings(schema.ModelSettings):
    """One entry of `models.registry`."""

    quota: Quota = Quota()


class Models(schema.Models):
    registry: Annotated[dict[str, ModelSettings], Field(min_length=1)]  # type: ignore[assignment]


class Sqs(schema.Sqs):
    """A program's queue and its event source mapping.

    Limits: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-parameters.html
    """

    model_config = ConfigDict(extra="forbid")

    batch_size: Annotated[int, Field(ge=1, le=10_000)] = 10
    window_seconds: Annotated[int, Field(ge=0, le=300)] = 0
    maximum_concurrency: Annotated[int, Field(ge=2, le=1000)] = 5
    # With the backoff below, enough for an outage of 100 minutes, or of an hour plus five receives for other reasons.
    max_receive_count: Annotated[int, Field(ge=1, le=1000)] = 20
    visibility_timeout_seconds: Annotated[int, Field(ge=1, le=43_200)] | None = None  # 6 x timeout_seconds
    fifo: bool = False
    # Seconds until a failed record is delivered again, doubled with each receive; 0 uses the visibility timeout.
    backoff_seconds: schema.BackoffSeconds = 10
    backoff_max_seconds: schema.BackoffMaxSeconds = 900
    # Send invalid records to the dead-letter queue at once, with the reason; otherwise after five runs, as for program
    # errors.
    invalid_to_dead_letter_queue: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.fifo and self.batch_size > 10:
            raise ValueError("a FIFO queue's batch_size is at most 10")
        if self.fifo and self.window_seconds:
            raise ValueError("a FIFO queue does not support window_seconds")
        if self.batch_size > 10 and self.window_seconds == 0:
            raise ValueError("a batch_size above 10 requires window_seconds of at least 1")
        return self


def _json(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("must be JSON: quote dates, and remove .inf and .nan") from None
    return value


class Schedule(Section):
    expression: str
    inputs: Annotated[dict[str, Any], AfterValidator(_json)] = {}


class Deployment(Section):
    """How traffic shifts to a new version; an alarm during the rollout rolls it back.

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


def _key_arn(value: str) -> str:
    if not re.fullmatch(r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+", value):
        raise ValueError(
            "must be a key ARN, arn:aws:kms:REGION:ACCOUNT:key/ID (`aws kms describe-key` shows it): IAM grants "
            "nothing on an alias ARN"
        )
    return value


Architecture = Literal["x86_64", "arm64"]
_KeyArn = Annotated[str, AfterValidator(_key_arn)]
# The template sets these; its alarms and dashboard read the metrics by these names.
_METRIC_NAMES = ("POWERTOOLS_SERVICE_NAME", "POWERTOOLS_METRICS_NAMESPACE")


class FunctionSettings(schema.FunctionSettings):
    """One program's function. Units are in the names; limits are Lambda's own quotas."""

    model_config = ConfigDict(extra="forbid")

    memory_mb: Annotated[int, Field(ge=128, le=10_240)] = 1024
    timeout_seconds: schema.TimeoutSeconds = 60
    architecture: Architecture | None = None  # `lambda.architecture`
    ephemeral_storage_mb: Annotated[int, Field(ge=512, le=10_240)] = 512
    snap_start: bool = False
    reserved_concurrency: Annotated[int, Field(ge=0)] | None = 10
    http: bool = True
    preconnect: bool = False  # open a connection to the provider during init
    environment: dict[Variable, str] = {}
    secrets: list[Variable] = []  # beyond its model's key
    # For asynchronous invocations and schedules; events that still fail go to the on-failure queue.
    retry_attempts: Annotated[int, Field(ge=0, le=2)] = 2
    maximum_event_age_seconds: Annotated[int, Field(ge=60, le=21_600)] = 21_600
    # The threshold of the spend alarm: the estimated cost of a day's model calls.
    daily_cost_usd: Annotated[float, Field(gt=0)] | None = 10.0
    # The same in tokens, for models without a known price: a day's input and output tokens together.
    daily_tokens: Annotated[int, Field(ge=1)] | None = None
    telemetry: Telemetry = Telemetry()
    sqs: Annotated[Literal[False] | Sqs, BeforeValidator(schema.false_or_mapping)] = False
    schedule: Schedule | None = None
    deployment: Deployment | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.environment:
            # https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime
            if name.startswith(("AWS_", "LAMBDA_", "_")):
                raise ValueError(f"environment: {name} is reserved by Lambda; choose another name")
            if name in _METRIC_NAMES:
                raise ValueError(f"environment: {name} names the metrics that the alarms read; remove it")
        for name in self.secrets:
            if name.startswith(("AWS_", "LAMBDA_", "_", PREFIX)):
                raise ValueError(f"secrets: {name} is read before secrets are; set it under environment")
        return self


class Throttle(Section):
    """Requests per second, and the burst above that, for each method (REST) or route (HTTP) separately.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-request-throttling.html
    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-throttling.html
    """

    rate: Annotated[float, Field(gt=0)] = 50
    burst: Annotated[int, Field(ge=1)] = 100


class Api(Section):
    kind: Literal["rest", "http", "url"] = "rest"
    auth: Literal["iam", "api_key", "jwt", "none"] = "iam"
    throttle: Throttle = Throttle()
    requests_per_day: Annotated[int, Field(ge=1)] | None = None  # per API key
    # auth: jwt uses issuer and audience with kind: http, and a Cognito user pool with kind: rest.
    issuer: Annotated[str, Field(pattern=r"^https://")] | None = None
    audience: list[str] = []
    user_pool_arn: Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:cognito-idp:")] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.auth == "api_key" and self.kind != "rest":
            raise ValueError("auth: api_key requires kind: rest; or use auth: iam")
        if self.auth == "jwt":
            if self.kind == "url":
                raise ValueError("a function URL does not support auth: jwt; use kind: http, or auth: iam")
            if self.kind == "http" and not (self.issuer and self.audience):
                raise ValueError("auth: jwt requires issuer (https://...) and audience ([...])")
            if self.kind == "rest" and not self.user_pool_arn:
                raise ValueError("auth: jwt with kind: rest requires user_pool_arn; other issuers require kind: http")
        return self


class Vpc(Section):
    subnet_ids: Annotated[list[str], Field(min_length=1)]
    security_group_ids: Annotated[list[str], Field(min_length=1)]


# https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
LogLevel = Literal["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]


class Lambda(schema.Lambda):
    """How the programs run on AWS."""

    model_config = ConfigDict(extra="forbid")

    runtime: Literal["python3.11", "python3.12", "python3.13", "python3.14"] = "python3.13"
    architecture: Architecture = "x86_64"
    package_type: Literal["Zip", "Image"] = "Zip"
    api: Api = Api()
    # Variable -> ssm:NAME or secretsmanager:NAME (or an ARN), with #KEY for one key of a JSON secret.
    secrets: dict[Variable, Annotated[str, Field(pattern=_PARAMETER)]] = {}
    log_retention_days: Literal[1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 3653] = 30
    log_level: LogLevel | None = None  # Lambda's default, INFO; POWERTOOLS_LOG_LEVEL can only raise it
    tracing: Literal["xray", "otel"] | None = None
    account_concurrency: Annotated[int, Field(ge=10)] = 1000  # the account's Lambda quota, if it was raised
    layers: list[Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:lambda:")]] = []
    kms_key_arn: _KeyArn | None = None
    secrets_kms_key_arns: list[_KeyArn] = []  # for secrets encrypted with customer managed keys
    permissions_boundary_arn: Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:iam::(\d{12}|aws):policy/.+$")] | None = (
        None
    )
    vpc: Vpc | None = None
    alarms: bool = True
    defaults: FunctionSettings = FunctionSettings()
    programs: dict[str, FunctionSettings] = {}  # type: ignore[assignment]

    def function(self, program: str) -> FunctionSettings:
        """Return the settings of one program's function."""
        return self.programs.get(program, self.defaults)


class Config(schema.Config):
    """A whole `dspy.config.yaml`."""

    models: Models
    lambda_: Annotated[Lambda, Field(alias="lambda")] = Lambda()


def load_config(project: Path) -> Config:
    """Read and validate a project's config.

    Raises:
        ConfigError: names the file, the key and what is allowed there.
    """
    return load_as(Config, project)
