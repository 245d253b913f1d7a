"""One CloudWatch dashboard for the project.

The figures that people look at first have a series for each program, so that a program without calls is seen as well.
All others are found by a search, whose series appear with their first value: most have none as long as all is well, and
only CloudWatch knows which models were called.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/search-expression-syntax.html
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from dspy_lambda.settings import METRICS_NAMESPACE
from dspy_lambda_infra.project import Function, Project, logical_name
from dspy_lambda_infra.template.syntax import sub

DASHBOARD = "${AWS::StackName}-${AWS::Region}"  # dashboards belong to an account, not to a Region
_WIDTH, _HEIGHT = 8, 6
_PERIOD_SECONDS = 300
Series = Callable[[Function], list[Any]]
# By title: metrics with their statistic.
_Metrics = dict[str, list[tuple[str, str]]]
_SEARCHED: _Metrics = {
    "Model calls": [("LMCalls", "Sum")],
    "Cold starts": [("ColdStart", "Sum")],
    "Retries, and fallbacks to other models": [("Retries", "Sum"), ("Fallbacks", "Sum")],
    "Late answers": [("LateAnswers", "Sum")],
    "Answers of unknown cost": [("UnpricedCalls", "Sum")],
    "Blocked event loops, and stuck calls": [("LoopBlocked", "Sum"), ("Stuck", "Sum")],
}
_OF_QUEUES: _Metrics = {
    "Records reported as failed": [("RecordsFailed", "Sum")],
    "Age of records when their calls start (ms)": [("RecordAge", "p95")],
}
_OF_TRACES: _Metrics = {"Spans that were not exported": [("DroppedSpans", "Sum")]}
_OF_MODELS: _Metrics = {
    "Models: latency (ms)": [("ModelLatency", "p50"), ("ModelLatency", "p95")],
    "Models: time to first token (ms)": [("TimeToFirstToken", "p95")],
    "Models: calls and errors": [("ModelCalls", "Sum"), ("ModelErrors", "Sum")],
    "Models: tokens": [("ModelInputTokens", "Sum"), ("ModelOutputTokens", "Sum")],
    "Models: cost (USD)": [("ModelCostUSD", "Sum")],
    "Models: retries, fallbacks, cache hits": [
        (f"Model{name}", "Sum") for name in ("Retries", "Fallbacks", "CacheHits")
    ],
}


def dashboard(project: Project) -> dict[str, Any]:
    """Return the dashboard: the handler's metrics, and those of Lambda and SQS that explain them, by program."""
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
    searched = _SEARCHED | (_OF_QUEUES if queued else {})
    if any(function.settings.telemetry.traces != "none" for function in functions):
        searched |= _OF_TRACES
    widgets += [_search(title, metrics, "program") for title, metrics in searched.items()]
    if any(function.settings.telemetry.model_metrics for function in functions):
        widgets += [_search(title, metrics, "program", "model") for title, metrics in _OF_MODELS.items()]
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
        "period": _PERIOD_SECONDS,
        "metrics": [series(function) for function in functions],
        "yAxis": {"left": {"min": 0}},
    }
    if lines:
        properties["annotations"] = {"horizontal": [{"label": name, "value": value} for name, value in lines]}
    return {"type": "metric", "properties": properties}


def _search(title: str, metrics: list[tuple[str, str]], *dimensions: str) -> dict[str, Any]:
    """Return a widget with all series of some metrics, whatever programs and models have them."""
    schema = ",".join([METRICS_NAMESPACE, "service", *dimensions])
    # `!` keeps CloudFormation from replacing what CloudWatch replaces.
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/graph-dynamic-labels.html
    names = " ".join(f"${{!PROP('Dim.{dimension}')}}" for dimension in dimensions)
    rows = []
    for number, (metric, statistic) in enumerate(metrics, 1):
        found = f'{{{schema}}} MetricName="{metric}" service="${{AWS::StackName}}"'
        expression = f"SEARCH('{found}', '{statistic}', {_PERIOD_SECONDS})"
        label = f"{names} {metric if statistic == 'Sum' else statistic}"
        rows.append([{"expression": expression, "id": f"e{number}", "label": label}])
    properties = {"title": title, "region": "${AWS::Region}", "period": _PERIOD_SECONDS, "metrics": rows}
    return {"type": "metric", "properties": properties | {"yAxis": {"left": {"min": 0}}}}


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
