"""The metrics that a function writes, each with its CloudWatch unit. A metric must be listed here to be written."""

# CloudWatch has no unit for CostUSD, which is in US dollars. The reference in docs/ is generated from this table.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html
UNITS = {
    "Calls": "Count",
    "Errors": "Count",
    "RateLimited": "Count",
    "Duration": "Milliseconds",
    "InputTokens": "Count",
    "OutputTokens": "Count",
    "CostUSD": "None",
    "LMCalls": "Count",
    "Fallbacks": "Count",
    "Retries": "Count",
    "ColdStart": "Count",
    "RecordsFailed": "Count",
    "LoopBlocked": "Count",
    "Stuck": "Count",
    "LateAnswers": "Count",
    "UnpricedCalls": "Count",
    "RecordAge": "Milliseconds",
    "DroppedSpans": "Count",
}
# With the dimension `model` besides `service` and `program`; only with `telemetry.model_metrics`.
MODEL_UNITS = {
    "ModelCalls": "Count",
    "ModelErrors": "Count",
    "ModelLatency": "Milliseconds",
    "TimeToFirstToken": "Milliseconds",
    "ModelInputTokens": "Count",
    "ModelOutputTokens": "Count",
    "ModelCostUSD": "None",
    "ModelRetries": "Count",
    "ModelFallbacks": "Count",
    "ModelCacheHits": "Count",
}
