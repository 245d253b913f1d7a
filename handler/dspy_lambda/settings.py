"""The handler's settings, read once from environment variables.

`TABLE` is the reference: field, variable, default, unit and meaning. An empty variable counts as not set. An invalid
word or number is an error; an unknown `DSPY_LAMBDA_*` variable is only a warning.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, Self

from dspy_lambda.errors import ConfigError
from dspy_lambda.quotas import INTEGRATION_SECONDS, MB_PER_CORE
from dspy_lambda.variables import choice, flag, whole_number

PREFIX = "DSPY_LAMBDA_"
# Variables that other modules set: the template, the local Lambda, the process that replaces itself.
DEAD_LETTER_QUEUE = "DSPY_LAMBDA_DEAD_LETTER_QUEUE_URL"
EXTENSION_PORT = "PARAMETERS_SECRETS_EXTENSION_HTTP_PORT"
API_BASE = "DSPY_LAMBDA_API_BASE"
EXTENSION_ID = "DSPY_LAMBDA_EXTENSION_ID"
PRECONNECT = "DSPY_LAMBDA_PRECONNECT"
RESTARTED = "DSPY_LAMBDA_RESTARTED_MS"
RESTARTS = "DSPY_LAMBDA_RESTARTS"
SECRETS = "DSPY_LAMBDA_SECRETS"
SECRETS_VERSION = "DSPY_LAMBDA_SECRETS_VERSION"
SOURCES = "DSPY_LAMBDA_SOURCES"
TEXTS = "DSPY_LAMBDA_EXCEPTION_TEXTS"
TRACES = "DSPY_LAMBDA_TRACES"

SOURCE_NAMES = ("http", "sqs", "direct")
TEXT_WORDS = ("none", "log", "answer")
METRICS_NAMESPACE = "DSPy"


def _text(variables: Mapping[str, str], name: str, default: str | None) -> str | None:
    return variables.get(name) or default


def _texts(variables: Mapping[str, str], name: str, default: str) -> str:
    return choice(variables, name, default, TEXT_WORDS)


def _sources(variables: Mapping[str, str], name: str, _: tuple[str, ...]) -> tuple[str, ...]:
    named = tuple(filter(None, (part.strip() for part in variables.get(name, "").split(","))))
    for source in named:
        if source not in SOURCE_NAMES:
            raise ConfigError(f"{name}: unknown source {source!r}; must be among {', '.join(SOURCE_NAMES)}.")
    return named


_Read = Callable[[Mapping[str, str], str, Any], Any]


def _setting(variable: str, read: _Read, default: Any, doc: str, *, shown: str | None = None, unit: str = "") -> Any:
    """Define a field: the variable that it is read from, and how.

    Args:
        doc: one line for the reference.
        shown: the default in the reference, if it differs from the value.
        unit: the unit of a number.
    """
    about = {"variable": variable, "read": read, "doc": doc, "default": shown or _shown(default), "unit": unit}
    return field(default=default, metadata=about)


def _shown(default: Any) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


@dataclass(frozen=True)
class Settings:
    """The settings. See `TABLE` for each field's variable, default, unit and meaning.

    Attributes:
        variables: all environment variables, for names that a config chooses (keys) and those of the AWS SDK.
        unknown: each unknown `DSPY_LAMBDA_*` variable with the closest setting's name, or None.
    """

    project: str | None = _setting(
        "DSPY_LAMBDA_PROJECT",
        _text,
        None,
        "The DSPy project's folder.",
        shown="the task root, or the working directory",
    )
    program: str | None = _setting(
        "DSPY_LAMBDA_PROGRAM", _text, None, "The one program that this function serves.", shown="all"
    )
    module: str | None = _setting(
        "DSPY_LAMBDA_MODULE",
        _text,
        None,
        "The Python module that defines the program; avoids a search of the files.",
        shown="the file that defines the class",
    )
    sources: tuple[str, ...] = _setting(
        SOURCES,
        _sources,
        (),
        "Event sources whose code is loaded at init instead of with their first event: http, sqs, direct.",
        shown="none",
    )
    deadline_reserve_ms: int = _setting(
        "DSPY_LAMBDA_DEADLINE_RESERVE_MS",
        whole_number,
        500,
        "Time reserved for answering before Lambda's timeout. In addition, 0.18 ms for each record of a batch and 2 ms "
        "for each running one are reserved, divided by the share of a core that the memory buys.",
        shown="500, at most a fifth of the time left",
        unit="milliseconds",
    )
    integration_seconds: int | None = _setting(
        "DSPY_LAMBDA_INTEGRATION_SECONDS",
        whole_number,
        None,
        "API Gateway's integration timeout, if it was raised; deadlines respect it.",
        shown="29 (REST), 30 (HTTP API)",
        unit="seconds",
    )
    loop_blocked_ms: int = _setting(
        "DSPY_LAMBDA_LOOP_BLOCKED_MS",
        whole_number,
        1000,
        "How long a program may block the event loop before a log line names the file and line.",
        unit="milliseconds",
    )
    idle_seconds: int = _setting(
        "DSPY_LAMBDA_IDLE_SECONDS",
        whole_number,
        50,
        "Connections idle for longer are not reused; a frozen environment does not notice that they were closed.",
        unit="seconds",
    )
    restarts: int = _setting(
        RESTARTS, whole_number, 0, "How often the process has replaced itself; set by the handler.", shown="none"
    )
    restarted_ms: int | None = _setting(
        RESTARTED,
        whole_number,
        None,
        "When the process last replaced itself, since the machine's boot; set by the handler.",
        shown="none",
        unit="milliseconds",
    )
    dead_letter_queue_url: str | None = _setting(
        DEAD_LETTER_QUEUE,
        _text,
        None,
        "The queue to which the handler sends records that must not run again; the template sets it.",
        shown="none",
    )
    api_base: str | None = _setting(
        API_BASE,
        _text,
        None,
        "The URL of a gateway or a mock that receives the calls of all models, including those of LMs that programs "
        "create, and of hosted `dspy.Embedder` models on OpenAI or Bedrock.",
        shown="each model's own",
    )
    fast: bool = _setting(
        "DSPY_LAMBDA_FAST",
        flag,
        True,
        "`false` leaves out the patches that only save time: async calls then hop through DSPy's thread pool four "
        "times and search its price map.",
    )
    secrets: str = _setting(
        SECRETS,
        _text,
        "",
        "VARIABLE=ssm:NAME or VARIABLE=secretsmanager:NAME#KEY, separated by spaces; read at init if the variable is "
        "empty, and again after a provider rejects a key.",
        shown="none",
    )
    secrets_version: str = _setting(SECRETS_VERSION, _text, "1", "Not read; changing it restarts every environment.")
    preconnect: bool = _setting(
        PRECONNECT,
        flag,
        False,
        "Opens a connection to the provider during init by requesting its list of models.",
    )
    extension_port: str | None = _setting(
        EXTENSION_PORT,
        _text,
        None,
        "The port of the AWS parameters-and-secrets extension; set if its layer is present.",
        shown="none",
    )
    exception_texts: str = _setting(
        TEXTS,
        _texts,
        "none",
        "`log` writes the texts of exceptions, and the reasons why inputs are invalid, to the log; `answer` also adds "
        "them, with the last frames, to answers, which callers see: for development only. They may quote inputs; keys "
        "are redacted. Overrides `telemetry.payloads` for these texts. `local` and `invoke` set `answer`.",
        shown="as `telemetry.payloads`",
    )
    log_private: bool = _setting(
        "DSPY_LAMBDA_LOG_PRIVATE",
        flag,
        False,
        "Keeps the texts of DSPy's own warnings, which may quote inputs and answers.",
    )
    traces: str | None = _setting(
        TRACES,
        _text,
        None,
        "The OTLP collector's address that receives every trace, instead of the config's `telemetry.traces` and "
        "`sample`; `none` for no traces. `local` sets it to its own.",
        shown="the config's",
    )
    extension_id: str | None = _setting(
        EXTENSION_ID,
        _text,
        None,
        "What Lambda knows the handler's own extension by; set by the handler when it replaces its process.",
        shown="none",
    )
    service_name: str | None = _setting(
        "POWERTOOLS_SERVICE_NAME", _text, None, "The service in log lines and metrics.", shown="app_id"
    )
    metrics_namespace: str = _setting(
        "POWERTOOLS_METRICS_NAMESPACE", _text, METRICS_NAMESPACE, "The namespace of the metrics."
    )
    task_root: str | None = _setting(
        "LAMBDA_TASK_ROOT", _text, None, "The folder of the function's code; Lambda sets it.", shown="none"
    )
    function_name: str | None = _setting(
        "AWS_LAMBDA_FUNCTION_NAME", _text, None, "The function's name; Lambda sets it.", shown="none"
    )
    memory_mb: int | None = _setting(
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        whole_number,
        None,
        "The function's memory; Lambda sets it.",
        shown="none",
        unit="MB",
    )
    initialization_type: str = _setting(
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        _text,
        "on-demand",
        "`snap-start` for a function with SnapStart; Lambda sets it.",
    )
    is_sam_local: bool = _setting(
        "AWS_SAM_LOCAL", flag, False, "Whether the function runs in `sam local`, which sets it."
    )
    temporary_folder: str = _setting(
        "TMPDIR",
        _text,
        "/tmp",  # noqa: S108 - Lambda's one writable folder
        "The writable folder.",
    )
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    unknown: tuple[tuple[str, str | None], ...] = ()

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> Self:
        """Read all settings.

        Raises:
            ConfigError: A word or number is invalid. The message names the variable and what is allowed.
        """
        read = {f.name: f.metadata["read"](variables, f.metadata["variable"], f.default) for f in _SETTINGS}
        return cls(**read, variables=variables, unknown=tuple(_unknown(variables)))

    @property
    def project_folder(self) -> Path:
        """The DSPy project's folder: the setting, or Lambda's task root, or the working directory."""
        return Path(self.project or self.task_root or os.getcwd()).resolve()

    @property
    def is_snap_start(self) -> bool:
        return self.initialization_type == "snap-start"

    @property
    def integration_limits(self) -> dict[str, float]:
        """The gateway's integration timeout in seconds, by source."""
        raised = self.integration_seconds
        return INTEGRATION_SECONDS if raised is None else dict.fromkeys(INTEGRATION_SECONDS, float(raised))

    @property
    def core_share(self) -> float:
        """The function's share of a core, at most 1."""
        return 1.0 if not self.memory_mb else min(1.0, self.memory_mb / MB_PER_CORE)


class Row(NamedTuple):
    """One setting, for the reference."""

    field: str
    variable: str
    default: str
    unit: str
    doc: str


_SETTINGS = tuple(f for f in fields(Settings) if f.metadata)
TABLE = tuple(Row(f.name, *(f.metadata[key] for key in ("variable", "default", "unit", "doc"))) for f in _SETTINGS)


def _unknown(variables: Mapping[str, str]) -> list[tuple[str, str | None]]:
    known = {row.variable for row in TABLE}
    names = [name for name in variables if name.startswith(PREFIX) and name not in known]
    if not names:
        return []
    from difflib import get_close_matches

    own = [name.removeprefix(PREFIX) for name in known if name.startswith(PREFIX)]
    nearest = {name: get_close_matches(name.removeprefix(PREFIX), own, n=1) for name in sorted(names)}
    return [(name, PREFIX + found[0] if found else None) for name, found in nearest.items()]
