"""A project's worst-case cost, so that nobody first sees it on a bill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dspy_lambda.telemetry.units import MODEL_UNITS, UNITS
from dspy_lambda_infra.project import Function, Project
from dspy_lambda_infra.table import table
from dspy_lambda_infra.template.alarms import alarm_resources, alarm_topic
from dspy_lambda_infra.template.deployment import deployment_resources

# USD in us-east-1, first tier. https://aws.amazon.com/lambda/pricing/
_PER_GB_SECOND = {"x86_64": 0.0000166667, "arm64": 0.0000133334}
_PER_REQUEST = 0.20 / 1_000_000
# "Duration snapshot is cached", for both architectures, as long as its version exists.
_PER_CACHED_GB_SECOND = 0.0000015046
# https://aws.amazon.com/cloudwatch/pricing/
_PER_ALARM, _PER_DASHBOARD, _PER_METRIC = 0.10, 3.00, 0.30
_MONTH_SECONDS = 30 * 24 * 3600
# Lambda polls an idle queue with five long polls of 20 s each, and never with fewer if a maximum concurrency is set.
# https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html
_IDLE_POLLS = 5 * _MONTH_SECONDS // 20
# USD per request, by whether the queue is FIFO. https://aws.amazon.com/sqs/pricing/
_PER_POLL = {False: 0.40 / 1_000_000, True: 0.50 / 1_000_000}


@dataclass(frozen=True)
class WorstCase:
    """One function with every environment busy for a whole month, each invocation running to its timeout."""

    function: Function
    concurrency: int
    usd: float


def worst_case(project: Project) -> list[WorstCase]:
    """Return memory x timeout x concurrency for each program's function, without a pause for 30 days."""
    found, account = [], project.config.lambda_.account_concurrency
    for function in project.functions.values():
        settings = function.settings
        concurrency = account if settings.reserved_concurrency is None else settings.reserved_concurrency
        invocations = concurrency * _MONTH_SECONDS / settings.timeout_seconds
        gigabytes = settings.memory_mb / 1024
        rate = _PER_GB_SECOND[settings.architecture or project.config.lambda_.architecture]
        usd = invocations * (gigabytes * settings.timeout_seconds * rate + _PER_REQUEST)
        found.append(WorstCase(function, concurrency, usd))
    return found


def monthly_base(project: Project) -> float:
    """Return what the stack costs per month without a single call, in USD, beyond each account's free tier.

    Counts alarms, the dashboard, queue polling, and SnapStart's cached snapshots: one per function that uses it, since
    a version is deleted once the next one exists.
    """
    functions = project.functions.values()
    resources = [deployment_resources(project)]
    if project.config.lambda_.alarms:
        resources += [alarm_topic(project), *(alarm_resources(project, function) for function in functions)]
    alarms = [r["Properties"] for part in resources for r in part.values() if r["Type"] == "AWS::CloudWatch::Alarm"]
    # An alarm is billed per metric that it reads.
    read = sum(max(1, sum("MetricStat" in query for query in alarm.get("Metrics", []))) for alarm in alarms)
    polling = sum(
        _IDLE_POLLS * _PER_POLL[function.settings.sqs.fifo] for function in functions if function.settings.sqs
    )
    cached_gigabytes = sum(f.settings.memory_mb / 1024 for f in functions if f.settings.snap_start)
    snapshots = cached_gigabytes * _MONTH_SECONDS * _PER_CACHED_GB_SECOND
    return read * _PER_ALARM + _PER_DASHBOARD + polling + snapshots


def monthly_metrics(project: Project) -> float:
    """Return what the custom metrics cost per month at most, in USD; they start with the first calls."""
    return sum(_metrics_of(project, function) for function in project.functions.values()) * _PER_METRIC


def _metrics_of(project: Project, function: Function) -> int:
    if not function.settings.telemetry.model_metrics:
        return len(UNITS)
    return len(UNITS) + len(MODEL_UNITS) * len(project.config.aliases_of(function.name))


def cost_document(project: Project) -> dict[str, Any]:
    """Return the worst case per program, and what the stack costs without a call, in USD per month."""
    return {
        "programs": [
            {
                "program": row.function.name,
                "memory_mb": row.function.settings.memory_mb,
                "timeout_seconds": row.function.settings.timeout_seconds,
                "concurrency": row.concurrency,
                "worst_usd_per_month": row.usd,
            }
            for row in worst_case(project)
        ],
        "idle_usd_per_month": monthly_base(project),
        "metrics_usd_per_month": monthly_metrics(project),
    }


def cost_table(project: Project) -> str:
    """Return the worst case per program as a table with an explanation."""
    rows = worst_case(project)
    cells = [["program", "memory MB", "timeout s", "concurrency", "USD a month at worst"]]
    for row in rows:
        settings = row.function.settings
        figures = (settings.memory_mb, settings.timeout_seconds, row.concurrency)
        cells.append([row.function.name, *map(str, figures), f"{row.usd:,.0f}"])
    lines = table([*cells, ["total", "", "", "", f"{sum(row.usd for row in rows):,.0f}"]])
    lines.append(
        f"This covers Lambda only, with every environment busy for 30 days at us-east-1 prices. The provider's bill "
        f"for model calls is extra (the spend alarms watch it). Without a call, the stack costs up to "
        f"{monthly_base(project):.2f} USD a month for alarms, the dashboard, queue polling and SnapStart's cache; "
        f"once calls come in, custom metrics add up to {monthly_metrics(project):.2f}."
    )
    return "\n".join(lines)
