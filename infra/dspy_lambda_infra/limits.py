"""`dspy-lambda limits`: how many model calls the project can have under way, against each model's quota.

    calls at once = sum over programs of reserved_concurrency x calls per environment
    calls per environment = 1 over HTTP; with a queue the lesser of batch_size and max_concurrent_per_program;
                            at most the model's max_parallel_requests
    requests a minute     = sum of reserved_concurrency x the model's requests_per_minute

and how long an outage of a provider each queue survives: after that its records are in the dead-letter queue.

The limits of one process (`models.registry.*.max_parallel_requests` and the rest) hold within one environment each:
Lambda's environments know nothing of each other. What holds all of them is reserved concurrency.
"""

from __future__ import annotations

from dspy_lambda_infra.project import Function, Project
from dspy_lambda_infra.table import table
from dspy_lambda_infra.template.queues import survived_outage_seconds


def report(project: Project) -> tuple[str, bool]:
    """The table with what follows from it, and whether any quota would be exceeded."""
    cells = [["model", "program", "environments", "calls each", "calls at once"]]
    lines: list[str] = []
    exceeded = False
    for alias, model in project.config.models.registry.items():
        users = [f for name, f in project.functions.items() if project.config.model_alias(name) == alias]
        if not users:
            continue
        total = environments = 0
        for function in users:
            count, each = _environments(project, function), _calls_each(project, function, model.max_parallel_requests)
            cells.append([alias, function.name, str(count), str(each), str(count * each)])
            total += count * each
            environments += count
        minute = None if model.requests_per_minute is None else environments * model.requests_per_minute
        tokens = None if model.tokens_per_minute is None else environments * model.tokens_per_minute
        for what, most, quota in (
            ("calls at once", total, model.quota.parallel_requests),
            ("requests a minute", minute, model.quota.requests_per_minute),
            ("tokens a minute", tokens, model.quota.tokens_per_minute),
        ):
            if quota is None:
                continue
            over = most is None or most > quota
            exceeded |= over
            reached = "without a limit" if most is None else f"up to {most}"
            lines.append(f"{alias}: {what}: {reached}, quota {quota}{'  WARNING: over the quota' if over else ''}")
    for function in project.functions.values():
        if function.settings.sqs:
            minutes = survived_outage_seconds(function.settings) // 60
            lines.append(f"{function.name}: the queue survives an outage of {minutes} minutes")
    if not any(model.quota.model_fields_set for model in project.config.models.registry.values()):
        lines.append("No model has a quota: write models.registry.<alias>.quota to hold these figures against it.")
    return "\n".join([*table(cells, words=2), *lines]), exceeded


def _environments(project: Project, function: Function) -> int:
    reserved = function.settings.reserved_concurrency
    return project.config.lambda_.account_concurrency if reserved is None else reserved


def _calls_each(project: Project, function: Function, most: int | None) -> int:
    sqs = function.settings.sqs
    each = min(sqs.batch_size, project.config.server.max_concurrent_per_program) if sqs else 1
    return each if most is None else min(each, most)
