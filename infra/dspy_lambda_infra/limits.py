"""`dspy-lambda limits`: compare how many model calls the project can have in flight with each model's quota.

    concurrent calls = sum over programs of reserved_concurrency x calls per environment
    calls per environment = 1 over HTTP; with a queue the lesser of batch_size and max_concurrent_per_program;
                            at most the model's max_parallel_requests
    requests per minute   = sum of reserved_concurrency x the model's requests_per_minute

and how long a provider outage each queue survives: after that, its records are in the dead-letter queue.

The per-process limits (`models.registry.*.max_parallel_requests` and the rest) apply within one execution
environment, because Lambda's environments do not know of each other. Reserved concurrency bounds all of them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dspy_lambda_infra.doctor.models import ModelUse, model_uses
from dspy_lambda_infra.project import Function, Project, announce_imports, load_project
from dspy_lambda_infra.report import report
from dspy_lambda_infra.table import table
from dspy_lambda_infra.template.queues import survived_outage_seconds


@dataclass(frozen=True)
class Use:
    """How many calls a program can have in flight at a model."""

    model: str
    program: str
    environments: int
    calls_each: int

    @property
    def calls_at_once(self) -> int:
        """Calls across all its environments."""
        return self.environments * self.calls_each


@dataclass(frozen=True)
class QuotaCheck:
    """What a model's programs can reach together (None: unlimited), and the provider's quota."""

    model: str
    what: str
    reached: int | None
    quota: int

    @property
    def exceeded(self) -> bool:
        """Whether the quota can be exceeded."""
        return self.reached is None or self.reached > self.quota

    def __str__(self) -> str:
        reached = "without a limit" if self.reached is None else f"up to {self.reached}"
        over = "  WARNING: over the quota" if self.exceeded else ""
        return f"{self.model}: {self.what}: {reached}, quota {self.quota}{over}"


@dataclass(frozen=True)
class Limits:
    """A project's concurrency, its models' quotas, and how many seconds of an outage each queue survives.

    Attributes:
        in_code: the LMs that programs hold, to which no quota applies.
    """

    uses: list[Use]
    quotas: list[QuotaCheck]
    survived_seconds: dict[str, int]
    in_code: list[ModelUse]

    @property
    def exceeded(self) -> bool:
        """Whether any quota can be exceeded."""
        return any(check.exceeded for check in self.quotas)

    @property
    def text(self) -> str:
        """Return the table and the conclusions from it."""
        cells = [["model", "program", "environments", "calls each", "concurrent calls"]]
        for use in self.uses:
            cells.append([use.model, use.program, *map(str, (use.environments, use.calls_each, use.calls_at_once))])
        lines = [*table(cells, words=2), *map(str, self.quotas)]
        for name, seconds in self.survived_seconds.items():
            lines.append(f"{name}: the queue survives an outage of {seconds // 60} minutes")
        for held in self.in_code:
            most = held.max_parallel_requests
            lines.append(
                f"{held.program}: {', '.join(held.names)}: {held.model} in code is not counted above; in one process, "
                + ("it has no limit" if most is None else f"up to {most} parallel requests")
            )
        if not self.quotas:
            lines.append(
                "No model in use has a quota: set models.registry.<alias>.quota to compare these figures with it."
            )
        return "\n".join(lines)

    @property
    def document(self) -> dict[str, Any]:
        """Return the same as a JSON-serializable dict."""
        return {
            "uses": [{**asdict(use), "calls_at_once": use.calls_at_once} for use in self.uses],
            "quotas": [{**asdict(check), "exceeded": check.exceeded} for check in self.quotas],
            "survived_outage_seconds": self.survived_seconds,
            "in_code": [asdict(held) for held in self.in_code],
        }


def run_limits(root: Path, *, as_json: bool = False) -> int:
    """Print the limits of a project's programs; 1 if a quota can be exceeded.

    Raises:
        ConfigError: a program cannot be loaded; the limits of the others are printed first.
    """
    announce_imports(root)
    project = load_project(root)
    limits = find_limits(project)
    report(limits.text, {**limits.document, "failed": project.failed}, as_json=as_json)
    project.require_loaded()
    return 1 if limits.exceeded else 0


def find_limits(project: Project) -> Limits:
    """Compute the limits that follow from the config."""
    uses: list[Use] = []
    quotas: list[QuotaCheck] = []
    for alias, model in project.config.models.registry.items():
        own = [
            Use(alias, name, _environments(project, f), _calls_each(project, f, model.max_parallel_requests))
            for name, f in project.functions.items()
            if alias in project.aliases(f)
        ]
        if not own:
            continue
        uses += own
        environments = sum(use.environments for use in own)
        minute = None if model.requests_per_minute is None else environments * model.requests_per_minute
        tokens = None if model.tokens_per_minute is None else environments * model.tokens_per_minute
        quotas += [
            QuotaCheck(alias, what, reached, quota)
            for what, reached, quota in (
                ("concurrent calls", sum(use.calls_at_once for use in own), model.quota.parallel_requests),
                ("requests a minute", minute, model.quota.requests_per_minute),
                ("tokens a minute", tokens, model.quota.tokens_per_minute),
            )
            if quota is not None
        ]
    queued = {name: f.settings for name, f in project.functions.items() if f.settings.sqs}
    survived = {name: survived_outage_seconds(settings) for name, settings in queued.items()}
    in_code = [use for f in project.functions.values() for use in model_uses(project, f) if use.is_in_code]
    return Limits(uses, quotas, survived, in_code)


def _environments(project: Project, function: Function) -> int:
    reserved = function.settings.reserved_concurrency
    return project.config.lambda_.account_concurrency if reserved is None else reserved


def _calls_each(project: Project, function: Function, most: int | None) -> int:
    sqs = function.settings.sqs
    each = min(sqs.batch_size, project.config.server.max_concurrent_per_program) if sqs else 1
    return each if most is None else min(each, most)
