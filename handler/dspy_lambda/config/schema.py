"""Models of the config that the handler uses: dspy-cli's keys, and a part of the `lambda` section.

The infra package's models add the keys that only describe the cloud, and refuse unknown keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from dspy_lambda.config.names import Variable
from dspy_lambda.config.telemetry import Telemetry
from dspy_lambda.models.bedrock.doors import Door, misspelled, model_string, route

TimeoutSeconds = Annotated[int, Field(ge=1, le=900)]
BackoffSeconds = Annotated[int, Field(ge=0, le=43_200)]
BackoffMaxSeconds = Annotated[int, Field(ge=1, le=43_200)]


def _text(value: Any) -> Any:
    """Accept a YAML number where AWS has a text of digits."""
    return str(value) if type(value) is int else value


_GUARDRAIL = r"^([a-z0-9]{1,64}|arn:aws[a-z-]*:bedrock:[a-z0-9-]+:[0-9]{12}:guardrail/[a-z0-9]+)$"


class Section(BaseModel):
    """A mapping in the file that allows no other keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PartialSection(Section):
    """A mapping whose other keys describe the cloud; only the infra package reads them."""

    model_config = ConfigDict(extra="ignore")


class Guardrail(Section):
    """A Bedrock guardrail, by its id or ARN and its version: a number, or DRAFT."""

    id: Annotated[str, Field(pattern=_GUARDRAIL)]
    version: Annotated[str, BeforeValidator(_text), Field(pattern=r"^([1-9][0-9]{0,7}|DRAFT)$")]


class Price(Section):
    """A model's prices in USD, for models that DSPy's price map does not list or lists with another price."""

    input_per_million: Annotated[float, Field(ge=0)]
    output_per_million: Annotated[float, Field(ge=0)]


FallbackReason = Literal["rate_limit", "outage", "timeout", "context_window", "content_filter"]
AdapterName = Literal["chat", "json", "xml", "two_step"]


class ModelSettings(Section):
    """One entry of `models.registry`: the options of a `dspy.LM`."""

    model: Annotated[str, Field(min_length=1)]
    env: Variable | None = None
    api_key: SecretStr | None = None
    api_base: str | None = None
    model_type: Literal["chat", "text", "responses"] = "chat"
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    cache: bool = True
    adapter: AdapterName | None = None  # DSPy's ChatAdapter, unless a program names another one
    # For models on Amazon Bedrock.
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")] | None = None  # AWS_REGION
    door: Door | None = None  # chosen by the model's id
    guardrail: Guardrail | None = None
    price: Price | None = None
    # Aliases to try in this order, for which failures, and which share of the remaining time this model may take.
    fallback: list[str] = []
    fallback_on: list[FallbackReason] = ["rate_limit", "outage", "timeout", "context_window", "content_filter"]
    timeout_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    # Limits of one process over all its programs. Not passed to dspy.LM, which would then switch to LiteLLM.
    max_parallel_requests: Annotated[int, Field(ge=1)] | None = None
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    quota: Any = None  # of the account, over all processes; read only by the infra package

    @model_validator(mode="after")
    def _check(self) -> Self:
        found = route(self.model)
        if found is None and (right := misspelled(self.model)):
            raise ValueError(f"model: DSPy knows no {self.model}; write {right}")
        for key in ("region", "door", "guardrail"):
            if found is None and getattr(self, key) is not None:
                raise ValueError(f"{key} is for models on Amazon Bedrock, such as bedrock/amazon.nova-lite-v1:0")
        if found is not None and self.door is not None and not self.model.startswith("bedrock/"):
            raise ValueError("door is for a model written as bedrock/ID; this one names its door already")
        door = self.door or (found.door if found is not None and not self.model.startswith("bedrock/") else None)
        if self.guardrail is not None and door not in (None, "converse"):
            raise ValueError(
                f"guardrail: the {door} door would ignore it; write model: bedrock/ID without door, which uses Converse"
            )
        if self.timeout_share is not None and not self.fallback:
            raise ValueError("timeout_share needs a fallback, which gets the rest of the time")
        return self

    @property
    def served_as(self) -> str:
        """The model string that DSPy gets: for models on Bedrock, it also selects the door."""
        return model_string(self.model, self.door, guarded=self.guardrail is not None)


class Models(Section):
    default: str
    registry: Annotated[dict[str, ModelSettings], Field(min_length=1)]


def _split(value: Any) -> Any:
    """Split origins as dspy-cli does: "*", or a comma-separated list."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Server(Section):
    """Limits within one process.

    `sync_worker_threads` and `max_concurrent_per_program` default to 100 because a DSPy connection pool opens at most
    100 connections. Measured with 100 sync records of 500 ms each: 3.55 s with 16 threads, 2.03 with 32, 1.06 with 64,
    0.56 with 100, 0.56 with 200. Lambda allows 1,024 threads and processes; this package uses at most 700.
    """

    sync_worker_threads: Annotated[int, Field(ge=1, le=500)] = 100
    max_concurrent_per_program: Annotated[int, Field(ge=1)] = 100
    queue_timeout_seconds: Annotated[float, Field(ge=0)] = 5.0
    cors_origins: Annotated[list[str], BeforeValidator(_split)] = []


class Sqs(PartialSection):
    """How the records of a program's queue are processed."""

    batch_size: Annotated[int, Field(ge=1, le=10_000)] = 10
    # The time until a failed record is retried, doubled with each receive; 0 leaves it to the visibility timeout.
    backoff_seconds: BackoffSeconds = 10
    backoff_max_seconds: BackoffMaxSeconds = 900
    # Move invalid records to the dead-letter queue at once, with the reason; otherwise after five runs, like program
    # errors.
    invalid_to_dead_letter_queue: bool = False


def false_or_mapping(value: Any) -> Any:
    """Validate the type of `sqs`."""
    if value is not False and not isinstance(value, dict | Sqs):
        raise ValueError("write false, or a mapping such as {batch_size: 10}")
    return value


# Of the timeout: near enough that the next invocation may exceed it. The template's alarm on durations uses it, too.
SLOW_SHARE = 0.8


class FunctionSettings(PartialSection):
    """One program's function."""

    timeout_seconds: TimeoutSeconds = 60
    telemetry: Telemetry = Telemetry()  # over the top-level section
    sqs: Annotated[Literal[False] | Sqs, BeforeValidator(false_or_mapping)] = False

    @property
    def slow_seconds(self) -> float:
        """From when an invocation counts as slow, so that its trace is kept."""
        return self.telemetry.slow_seconds or SLOW_SHARE * self.timeout_seconds


class Lambda(PartialSection):
    """The `lambda` section: how the programs run on AWS."""

    defaults: FunctionSettings = FunctionSettings()
    programs: dict[str, FunctionSettings] = {}

    def function(self, program: str) -> FunctionSettings:
        """Return the settings of one program's function."""
        return self.programs.get(program, self.defaults)


class Config(Section):
    """A whole `dspy.config.yaml`."""

    app_id: str = "dspy-app"
    description: str = ""
    models: Models
    program_models: dict[str, str] = {}
    predictor_models: dict[str, dict[str, str]] = {}  # by program and the predictor's name in it
    program_adapters: dict[str, AdapterName] = {}
    program_arguments: dict[str, dict[str, Any]] = {}  # what the program's constructor gets
    server: Server = Server()
    telemetry: Telemetry = Telemetry()
    lambda_: Annotated[Lambda, Field(alias="lambda")] = Lambda()

    def model_alias(self, program: str) -> str:
        """Return the alias of a program's model."""
        return self.program_models.get(program, self.models.default)

    def aliases_of(self, program: str, more: Iterable[str] = ()) -> list[str]:
        """Return the aliases of all models that a program may call, in order of first use, without duplicates.

        Includes the models of its predictors and the fallbacks of each. A fallback's own fallbacks are not tried.

        Args:
            more: aliases that it got otherwise, such as those of its constructor's arguments.
        """
        own = dict.fromkeys([self.model_alias(program), *self.predictor_models.get(program, {}).values(), *more])
        return list(own | dict.fromkeys(name for alias in own for name in self.models.registry[alias].fallback))

    def adapter_name(self, program: str) -> AdapterName | None:
        """Return the adapter of a program's calls: its own or its model's; None for DSPy's default."""
        return self.program_adapters.get(program) or self.models.registry[self.model_alias(program)].adapter
