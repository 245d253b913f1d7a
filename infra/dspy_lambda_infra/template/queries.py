"""Saved Logs Insights queries over the project's log groups. Tests compare their fields with real lines."""

from __future__ import annotations

from typing import Any

from dspy_lambda_infra.project import Project, logical_name
from dspy_lambda_infra.template.syntax import ref, sub

# The quota for one query. https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_StartQuery.html
_MOST_LOG_GROUPS = 50
REQUEST_ID = "put the id here"
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
    "UnpricedCallsQuery": (
        "calls of unknown cost",
        f"fields @timestamp, program, model, unpriced_calls, input_tokens, output_tokens, function_request_id\n"
        f"| {_CALLS}\n| filter unpriced_calls > 0\n| sort @timestamp desc\n| limit 200",
    ),
    "RequestQuery": (
        "all lines of one request",
        "fields @timestamp, level, program, message, outcome, duration_ms, exception_name, logger, stream, message_id\n"
        f'| filter function_request_id = "{REQUEST_ID}" or correlation_id = "{REQUEST_ID}"\n'
        "| sort @timestamp\n| limit 1000",
    ),
    "PrintedQuery": (
        "what programs print and log",
        "fields @timestamp, level, program, message, stream, logger, function_request_id, message_id\n"
        "| filter ispresent(stream) or ispresent(logger)\n| sort @timestamp desc\n| limit 200",
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
