"""One CloudWatch dashboard for the project, and saved Logs Insights queries over its log groups."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from dspy_lambda.settings import METRICS_NAMESPACE
from dspy_lambda_infra.project import Function, Project, logical_name
from dspy_lambda_infra.template.syntax import ref, sub

DASHBOARD = "${AWS::StackName}-${AWS::Region}"  # dashboards belong to an account, not to a Region
_WIDTH, _HEIGHT = 8, 6
Series = Callable[[Function], list[Any]]


def dashboard(project: Project) -> dict[str, Any]:
    """Return the dashboard: calls, errors, durations, tokens, cost, throttles, concurrency, queues per program."""
    functions = list(project.functions.values())
    queued = [function for function in functions if function.settings.sqs]
    reserved = [(f.name, f.settings.reserved_concurrency) for f in functions if f.settings.reserved_concurrency]
    widgets = [
        _widget("Calls", functions, _own("Calls", "Sum")),
        _widget("Errors", functions, _own("Errors", "Sum")),
        _widget("Rate limited by the provider", functions, _own("RateLimited", "Sum")),
        _widget("Duration p50 (ms)", functions, _own("Duration", "p50")),
        _widget("Duration p95 (ms)", functions, _own("Duration", "p95")),
        _widget("Duration p99 (ms)", functions, _own("Duration", "p99")),
        _widget("Input tokens", functions, _own("InputTokens", "Sum")),
        _widget("Output tokens", functions, _own("OutputTokens", "Sum")),
        _widget("Cost of model calls (USD)", functions, _own("CostUSD", "Sum")),
        _widget("Failed invocations", functions, _lambda("Errors", "Sum")),
        _widget("Throttles", functions, _lambda("Throttles", "Sum")),
        _widget("Concurrency, used and reserved", functions, _lambda("ConcurrentExecutions", "Maximum"), reserved),
    ]
    if queued:
        widgets += [
            _widget("Queue: records waiting", queued, _queue("Queue", "ApproximateNumberOfMessagesVisible")),
            _widget("Queue: oldest record (s)", queued, _queue("Queue", "ApproximateAgeOfOldestMessage")),
            _widget("Dead-letter queue", queued, _queue("DeadLetterQueue", "ApproximateNumberOfMessagesVisible")),
        ]
    for position, widget in enumerate(widgets):
        widget |= {"x": position % 3 * _WIDTH, "y": position // 3 * _HEIGHT, "width": _WIDTH, "height": _HEIGHT}
    body = json.dumps({"widgets": widgets}, separators=(",", ":"))  # compact: a template is limited to 1 MB
    properties = {"DashboardName": sub(DASHBOARD), "DashboardBody": sub(body)}
    return {"Dashboard": {"Type": "AWS::CloudWatch::Dashboard", "Properties": properties}}


def _widget(
    title: str, functions: list[Function], series: Series, lines: list[tuple[str, int]] | None = None
) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "title": title,
        "region": "${AWS::Region}",
        "period": 300,
        "metrics": [series(function) for function in functions],
        "yAxis": {"left": {"min": 0}},
    }
    if lines:
        properties["annotations"] = {"horizontal": [{"label": name, "value": value} for name, value in lines]}
    return {"type": "metric", "properties": properties}


def _own(metric: str, statistic: str) -> Series:
    return lambda f: [METRICS_NAMESPACE, metric, "service", "${AWS::StackName}", "program", f.name, {"stat": statistic}]


def _lambda(metric: str, statistic: str) -> Series:
    def series(f: Function) -> list[Any]:
        function = f"${{{logical_name(f.name)}Function}}"
        return ["AWS/Lambda", metric, "FunctionName", function, {"label": f.name, "stat": statistic}]

    return series


def _queue(suffix: str, metric: str) -> Series:
    def series(f: Function) -> list[Any]:
        queue = f"${{{logical_name(f.name)}{suffix}.QueueName}}"
        return ["AWS/SQS", metric, "QueueName", queue, {"label": f.name, "stat": "Maximum"}]

    return series


# The quota for one query. https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_StartQuery.html
_MOST_LOG_GROUPS = 50
_CALLS = 'filter message = "program call"'
_QUERIES = {
    "FailedCallsQuery": (
        "failed calls",
        f"fields @timestamp, program, source, outcome, exception_name, function_request_id, message_id\n| {_CALLS}\n"
        '| filter outcome != "success"\n| sort @timestamp desc\n| limit 200',
    ),
    "SlowCallsQuery": (
        "slowest calls",
        f"fields @timestamp, program, duration_ms, lm_calls, cold_start, function_request_id\n| {_CALLS}\n"
        "| sort duration_ms desc\n| limit 100",
    ),
    "CostQuery": (
        "tokens and cost by program and model",
        f"{_CALLS}\n| stats count(*) as calls, sum(lm_calls) as model_calls, sum(input_tokens) as input_tokens_sum,\n"
        "  sum(output_tokens) as output_tokens_sum, sum(cost_usd) as usd, sum(cache_hits) as hits by program, model",
    ),
    "ColdStartsQuery": (
        "cold starts",
        # https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html#ReportMetrics
        'filter type = "platform.report"\n'
        "| fields coalesce(record.metrics.initDurationMs, record.metrics.restoreDurationMs) as start_ms\n"
        "| filter ispresent(start_ms)\n| stats count(*), avg(start_ms), pct(start_ms, 95) by bin(1h)",
    ),
}


def queries(project: Project) -> dict[str, Any]:
    """Return saved Logs Insights queries over all programs' log groups."""
    groups = [ref(f"{logical_name(name)}LogGroup") for name in project.functions]
    parts = [groups[begin : begin + _MOST_LOG_GROUPS] for begin in range(0, len(groups), _MOST_LOG_GROUPS)]
    found = {}
    for number, part in enumerate(parts, 1):
        for logical_id, (title, text) in _QUERIES.items():
            name = f"{title} {number}" if number > 1 else title
            properties = {"Name": sub(f"${{AWS::StackName}}/{name}"), "LogGroupNames": part, "QueryString": text}
            query = {"Type": "AWS::Logs::QueryDefinition", "Properties": properties}
            found[f"{logical_id}{number}" if number > 1 else logical_id] = query
    return found
